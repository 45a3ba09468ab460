"""LoRA: ``base + scale * up(down(source))``, for one linear layer or several fused ones.

It is a bottleneck without norm, activation and biases, so it runs on the same kernels
(``speechadapt_kernels.bottleneck``). ``naive`` is the definition.
"""
