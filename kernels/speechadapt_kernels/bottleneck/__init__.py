"""Bottleneck adapters: ``base + scale * up(act(down(norm(source))))``.

``stacked`` is the plain torch form on batches laid out by adapter, which the library trains and
serves with on a CPU. ``operator`` is one fused operator for a batch as it lies, each utterance with
the adapter of its slot: a Triton kernel on a GPU (``kernels``), and its algebra in torch elsewhere
(``folded``). ``naive`` is the definition all of them are tested against.
"""

from speechadapt_kernels.bottleneck.stacked import BottleneckWeights, bottleneck

__all__ = ["BottleneckWeights", "bottleneck"]
