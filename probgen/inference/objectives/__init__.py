"""The objectives of `fit`, one per file; importing this package does not import PyTorch."""

from probgen.basics.registry import Registry

OBJECTIVES = Registry("objective", "probgen.inference.objectives")
"""Objectives by file name; each module assigns `OBJECTIVE`, which is called without arguments."""
