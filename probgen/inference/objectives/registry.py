"""Objectives by name, and the conversion of other arguments of `fit` into objectives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import pyro.infer

from probgen.inference.objectives import OBJECTIVES
from probgen.inference.objectives.base import Objective
from probgen.inference.objectives.function import FunctionObjective
from probgen.inference.objectives.pyro_objective import PyroObjective

F = TypeVar("F", bound=Callable[..., Objective])


@overload
def register_objective(name: str) -> Callable[[F], F]: ...
@overload
def register_objective(name: str, factory: F) -> F: ...
def register_objective(name: str, factory: Any = None) -> Any:
    """Register an objective under a name: `pg.fit(..., objective="name")`.

    Args:
        name: letters, digits, `-`, `+` and `_`, with a letter first.
        factory: a subclass of `pg.Objective`, or a function that returns an objective; it is called
            without arguments. Without a factory, the call returns a decorator.

    Returns:
        The factory.

    Raises:
        ValueError: an objective of this name exists.
        TypeError: the factory is not callable.

    Example:
        >>> import probgen as pg
        >>> @pg.register_objective("three-particles")
        ... def three_particles():
        ...     return pg.ELBO(num_particles=3)
    """
    if factory is None:
        return lambda given: register_objective(name, given)
    if not callable(factory):
        raise TypeError(
            f"register_objective: the objective {name!r} must be a class or a function that returns "
            f"an objective, got {factory!r}."
        )
    OBJECTIVES.register(name, factory)
    return factory


def resolved(objective: Any, pair: Any) -> Any:
    """Replace `"auto"` by the class attribute `objective` of the model, by default `"elbo"`."""
    if isinstance(objective, str) and objective == "auto":
        return getattr(type(pair), "objective", "elbo")
    return objective


def as_objective(objective: Any) -> Objective:
    """Convert a name, an `Objective`, one of Pyro's ELBO objects or a callable into an objective.

    Raises:
        ValueError: the name is unknown.
        TypeError: the argument is none of these.
    """
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            names = ", ".join(f'"{name}"' for name in OBJECTIVES.names())
            raise ValueError(
                f"objective={objective!r} is unknown; use {names}, an objective such as pg.ELBO(...), "
                "or one of Pyro's ELBO objects."
            )
        return as_objective(OBJECTIVES.get(objective)())
    if isinstance(objective, pyro.infer.ELBO):
        if not hasattr(objective, "differentiable_loss"):
            raise TypeError(
                f"objective: {type(objective).__name__} has no differentiable_loss; use Trace_ELBO, "
                "TraceMeanField_ELBO, TraceEnum_ELBO or pg.ELBO(...)."
            )
        return PyroObjective(objective)
    if isinstance(objective, type) or not callable(objective):
        raise TypeError(
            'objective must be a name such as "elbo", a pg.Objective such as pg.ELBO(...), one of '
            f"Pyro's ELBO objects or a callable that returns one value per datum, got {objective!r}."
        )
    return FunctionObjective(objective)


def name_of(objective: Any) -> str:
    """The name of an objective in messages."""
    return str(getattr(objective, "__qualname__", type(objective).__qualname__))
