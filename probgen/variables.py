"""The families of the library and of the user, and variables written as text."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from probgen.families import FAMILIES
from probgen.families.base import Variable, as_int
from probgen.families.bernoulli import Bernoulli
from probgen.families.categorical import Categorical, as_class
from probgen.families.normal import SCALE_FLOOR, SCALES, Normal, positive_scale, raw_from_scale
from probgen.families.poisson import Poisson

__all__ = [
    "SCALES",
    "SCALE_FLOOR",
    "Bernoulli",
    "Categorical",
    "Normal",
    "Poisson",
    "Variable",
    "as_class",
    "as_int",
    "family_for",
    "is_library_variable",
    "plain_copy",
    "positive_scale",
    "raw_from_scale",
    "read_variable",
    "register_family",
    "variable_text",
]

Family = TypeVar("Family", bound=type[Variable])


def register_family(family: Family) -> Family:
    """Register a family of your own by name, for this process; can be used as a decorator.

    Its variables can then be written as text, so that `probgen train --var x=laplace:8` and run
    directories know them. A process that loads such a run must register the family first: no code
    is imported because a folder names it.

    Args:
        family: a subclass of `pg.Variable`. Its name is that of the class in lower case, or
            its `registered_name = "..."`.

    Returns:
        The class, unchanged.

    Raises:
        TypeError: it is not a subclass of `pg.Variable`, or has no `distribution` of its own.
        ValueError: the name is taken.

    Example:
        >>> import pyro.distributions as dist, torch, probgen as pg
        >>> @pg.register_family
        ... class Laplace(pg.Variable):
        ...     '''Independent Laplace elements of scale 1; networks return the location.'''
        ...     def distribution(self, loc):
        ...         return dist.Laplace(loc, torch.ones_like(loc))
        >>> from probgen.variables import read_variable
        >>> read_variable("laplace:8")
        Laplace(8)
    """
    if not isinstance(family, type) or not issubclass(family, Variable):
        raise TypeError(f"register_family: expected a subclass of pg.Variable, got {family!r}.")
    if family.distribution is Variable.distribution:
        raise TypeError(
            f"register_family: {family.__name__} must define distribution(self, *outputs), which "
            "returns the distribution that the outputs of a network parametrize."
        )
    name = vars(family).get("registered_name", family.__name__.lower())
    FAMILIES.register(name, family)
    return family


def variable_text(variable: Variable) -> str | None:
    """A variable as text: `normal:8`, `normal:1x28x28:shared`, `categorical:10`.

    Returns:
        The text, or `None` if its family is not registered.
    """
    name = FAMILIES.name_of(type(variable))
    return None if name is None else ":".join([name, *variable.text_parts()])


def read_variable(text: str, values: Tensor | None = None) -> Variable:
    """The variable that a text describes.

    Args:
        text: `normal:8`, `normal:1x28x28:shared`, `normal:8:0.1`, `bernoulli:784`,
            `bernoulli:scalar`, `categorical:10`, `poisson:20`. If values are given, the shape
            or number of classes may be left out or empty: `normal`, `normal::shared`.
        values: data of the variable, `(data, *event_shape)`.

    Raises:
        ValueError: the family is unknown, or what follows its name cannot be read.

    Example:
        >>> read_variable("normal:1x28x28:shared")
        Normal((1, 28, 28), scale='shared')
    """
    if not isinstance(text, str):
        raise ValueError(f"A variable is text such as normal:8, got {text!r}.")
    name, *parts = text.strip().split(":")
    name = name if name in FAMILIES else name.lower()
    if name not in FAMILIES:
        raise ValueError(
            f"{text!r} is not a variable: unknown family {name!r}, known are "
            f"{', '.join(FAMILIES.names())}. Write family:shape, such as normal:8, bernoulli:1x28x28 "
            "or categorical:10; a family of your own is known after pg.register_family."
        )
    try:
        variable: Variable = FAMILIES.get(name).from_text_parts(parts, values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text!r} is not a variable: {str(error).removesuffix('.')}.") from error
    return variable


def family_for(values: Tensor) -> type[Variable]:
    """The family for data if the user names none: of all families, the one that fits best.

    Args:
        values: shape `(data, *event_shape)`.

    Example:
        >>> import torch
        >>> family_for(torch.tensor([[0.0, 1.0]])).__name__
        'Bernoulli'
    """
    return max((FAMILIES.get(name) for name in FAMILIES.names()), key=lambda f: f.fits_data(values))


def is_library_variable(variable: object) -> bool:
    """Whether a variable is of one of the library's families, not of a subclass.

    Such a variable is written as `pg.Normal(8)` into the source of a declared pair.
    """
    return isinstance(variable, Variable) and FAMILIES.library_name_of(type(variable)) is not None


def plain_copy(variable: Variable) -> Variable:
    """A new variable of the library with the same arguments, without attributes set later."""
    # The method of the class, since one that was set on the variable could return anything.
    return type(variable)(**type(variable).arguments(variable))
