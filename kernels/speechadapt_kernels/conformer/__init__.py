"""Conformer adapters (Cappellazzo et al. 2024, section 3) whose convolution sees no later frame.

``base + scale * up(silu(norm(conv(glu(down(norm(source)))))))``, in chunks of any length: the state
holds the last frames that the convolution will see again, so a stream gives what the whole gives.
``naive`` is the definition; ``folded`` its algebra in torch, and that of its backward; ``kernels``
two Triton kernels for the way there.
"""
