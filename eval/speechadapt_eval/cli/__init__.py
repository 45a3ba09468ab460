"""The ``speechadapt-eval`` command: ``main`` finds the command, each has a module."""
