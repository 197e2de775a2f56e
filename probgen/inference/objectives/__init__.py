"""What `fit` may maximize, one file each; importing this package imports no PyTorch."""

from probgen.basics.registry import Registry

OBJECTIVES = Registry("objective", "probgen.inference.objectives")
"""One file each: a module that assigns `OBJECTIVE`, which makes the objective without arguments."""
