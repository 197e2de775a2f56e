"""probgen: declare, train and score latent-variable models."""

from typing import Any

import lazy_loader

from probgen.basics.version import __version__ as __version__

# The names are listed in __init__.pyi; each is imported when it is first used, so that
# `probgen --help` does not wait for PyTorch.
_listed, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A public name, or a family that a file in `probgen/families` adds."""
    if name not in __all__ and name[:1].isupper():
        from probgen import families

        if name in families.FAMILIES.attributes():
            return getattr(families, name)
    return _listed(name)
