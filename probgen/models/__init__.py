"""Models: one explicit pair, or one implicit model, per file."""

from probgen.models.adgm import ADGM
from probgen.models.autoencoder import Autoencoder
from probgen.models.cvae import CVAE
from probgen.models.factor_analysis import FactorAnalysis
from probgen.models.gan import GAN
from probgen.models.m1m2 import M1M2
from probgen.models.m2 import M2
from probgen.models.ppca import PPCA
from probgen.models.vae import VAE

__all__ = [
    "ADGM", "CVAE", "GAN", "M1M2", "M2", "PPCA", "VAE", "Autoencoder", "FactorAnalysis",
]  # fmt: skip
