"""probgen: declare, train and score latent-variable models."""

import lazy_loader

# The names stand in __init__.pyi; each is imported when it is first used, so that
# `probgen --help` does not wait for PyTorch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
