"""Pictures of data, training and latents. Every function takes `ax=` and returns the axes it drew on."""

import importlib
from typing import Any

import lazy_loader

_getattr, _dir, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*__all__, "report"]


def __getattr__(name: str) -> Any:
    if name == "report":  # defined in probgen.reports, a layer above this one
        return importlib.import_module("probgen.reports.run").report
    return _getattr(name)


def __dir__() -> list[str]:
    return __all__
