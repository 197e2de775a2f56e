"""The prior of the classes of a model, p(y)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal, cast

import torch
from torch import Tensor

from probgen.conditionals import Conditional
from probgen.variables import Categorical, Variable, as_class

ClassPrior = Literal["uniform", "learned"] | Sequence[float]

GAIN = 10.0
"""Logits per unit of the parameters of a learned p(y). Adam moves a parameter by about its learning rate in
each step, so that logits a few nats apart would otherwise take thousands of steps."""


class LearnedClasses(Conditional):
    """p(y) with learned logits, at first uniform, which change `GAIN` times as fast as weights."""

    def __init__(self, variable: Variable) -> None:
        super().__init__(variable, learned=True)

    def _outputs(self, parents: Mapping[str, Tensor | None]) -> Tensor:
        return GAIN * super()._outputs(parents)


def prior_of_classes(y: Variable, prior: Any, owner: str) -> Conditional:
    """The conditional for a class prior that a user gave.

    Args:
        y: the class, a scalar `pg.Categorical`.
        prior: `"uniform"`, `"learned"`, or the probability of each class.
        owner: the model, for messages.

    Raises:
        TypeError: y is not a scalar `pg.Categorical`.
        ValueError: another word, or numbers that are not probabilities.
    """
    as_class(y, owner)
    prior = as_class_prior(prior, owner, cast(Categorical, y).num_classes)
    if prior == "learned":
        return LearnedClasses(y)
    conditional = Conditional(y)
    if prior != "uniform":
        log_shares = torch.tensor(prior, dtype=torch.float64).log()
        cast(Tensor, conditional.outputs).copy_(log_shares)
    return conditional


def as_class_prior(prior: Any, owner: str, num_classes: int | None = None) -> ClassPrior:
    """A word, or probabilities that sum to one.

    Args:
        prior: what a user gave.
        owner: for messages.
        num_classes: how many classes there are, if that is known.

    Raises:
        ValueError: neither `"learned"`, `"uniform"` nor a probability above 0 of each class.
    """
    options = '"learned", "uniform", or the probability of each class, such as (0.9, 0.1)'
    if isinstance(prior, str):
        if prior not in ("learned", "uniform"):
            raise ValueError(f"{owner}: class_prior must be {options}; got {prior!r}.")
        return cast(ClassPrior, prior)
    try:
        given: list[Any] = list(prior.tolist() if hasattr(prior, "tolist") else prior)
    except TypeError:
        given = []
    real = [isinstance(p, Real) and not isinstance(p, bool) for p in given]
    if len(given) < 2 or not all(real):
        raise ValueError(f"{owner}: class_prior must be {options}; got {prior!r}.")
    shares = [float(p) for p in given]
    if num_classes is not None and len(shares) != num_classes:
        raise ValueError(
            f"{owner}: class_prior has {len(shares)} probabilities, but there are {num_classes} classes. "
            "Give one for each, in the order of the classes."
        )
    total = sum(shares)
    if not all(0 < p < math.inf for p in shares) or abs(total - 1) > 1e-4:
        raise ValueError(
            f"{owner}: class_prior must be probabilities above 0 that sum to one, got {shares!r} (sum "
            f"{total:g}). A class that never occurs is left out of the classes."
        )
    return tuple(p / total for p in shares)
