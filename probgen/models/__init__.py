"""Models: one explicit pair a file."""

from probgen.models.adgm import ADGM
from probgen.models.cvae import CVAE
from probgen.models.factor_analysis import FactorAnalysis
from probgen.models.m1m2 import M1M2
from probgen.models.m2 import M2
from probgen.models.ppca import PPCA
from probgen.models.vae import VAE

__all__ = ["ADGM", "CVAE", "M1M2", "M2", "PPCA", "VAE", "FactorAnalysis"]
