# The models of the library with their types; a model that a further file adds is Any.
from typing import Any, TypeVar

from probgen.basics.registry import Registry

from .adgm import ADGM as ADGM
from .autoencoder import Autoencoder as Autoencoder
from .cvae import CVAE as CVAE
from .factor_analysis import FactorAnalysis as FactorAnalysis
from .gan import GAN as GAN
from .m1m2 import M1M2 as M1M2
from .m2 import M2 as M2
from .ppca import PPCA as PPCA
from .vae import VAE as VAE

MODELS: Registry
Model = TypeVar("Model", bound=type)

def register_model(model: Model) -> Model: ...
def __getattr__(name: str) -> Any: ...
