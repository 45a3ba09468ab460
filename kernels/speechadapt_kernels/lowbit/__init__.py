"""Bottleneck adapters whose matrices have 8 bits or 1 bit a weight.

``codes`` makes the codes, as they are stored and trained for. ``operator`` applies adapters without
widening them: a Triton kernel on a GPU (``kernels``), the plain bottleneck elsewhere (``folded``).
``naive`` is the definition both are tested against.
"""
