"""Pictures of data, training and latents. Every function takes `ax=` and returns the axes it drew on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
