"""Models: one explicit pair a file."""

from probgen.models.vae import VAE

__all__ = ["VAE"]
