"""Models: one explicit pair a file."""

from probgen.models.factor_analysis import FactorAnalysis
from probgen.models.ppca import PPCA
from probgen.models.vae import VAE

__all__ = ["PPCA", "VAE", "FactorAnalysis"]
