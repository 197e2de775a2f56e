"""Families of distributions, one file each: to add a family, add its file.

`pg.Normal`, `pg.Poisson` and the like are looked up here. Importing this package imports no family
and no PyTorch.
"""

from __future__ import annotations

from typing import Any

from probgen.basics.registry import Registry

FAMILIES = Registry("family", "probgen.families", bases=["Variable"])
"""The families by the names that texts such as `normal:8` use."""


def __getattr__(name: str) -> Any:
    if name in (names := FAMILIES.attributes()):
        return FAMILIES.get(names[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *FAMILIES.attributes()})
