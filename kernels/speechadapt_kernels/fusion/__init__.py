"""AdapterFusion (Pfeiffer et al. 2021): several adapters read the same states, mixed by attention.

``naive`` is the definition, with every adapter's output in memory. ``reassociated`` is the same sum
in another order, for training: nothing as wide as the model exists for each adapter. ``folded``
multiplies the fusion's matrices into the adapters': exact, because what an adapter gives is affine
in its bottleneck. ``operator`` runs the folded form, on a GPU as two kernels, and has a gradient.
"""
