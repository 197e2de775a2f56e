"""A point mass: a variable that is a deterministic function of its parents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

from probgen.variables import Categorical, Normal, Variable


class PointMass(Variable):
    r"""A variable that takes one value given its parents, with probability one.

    The value is the mean of the family of `variable`: $f(a)$ for `Normal`, with $f$ the
    network, and $\sigma(f(a))$ for `Bernoulli`, which lies between 0 and 1. As the variable of a
    guide's conditional it gives a deterministic encoder, $z = f(x)$; as that of an
    `ImplicitModel` a generator, $x = G(z)$.

    A point mass has no density: a pair with one in its guide has no ELBO and no importance
    weights. It can be encoded, reconstructed and trained with `objective="reconstruction"`.

    Args:
        variable: determines the shape and the range of the values.

    Raises:
        TypeError: the argument is not a variable, or has classes, which have no mean.

    Example:
        >>> import torch, probgen as pg
        >>> q_z = pg.Conditional(pg.PointMass(pg.Normal(2)), {"x": pg.Normal(4)}, hidden=())
        >>> z = q_z(x=torch.zeros(3, 4))
        >>> z.sample().shape, bool((z.sample() == z.sample()).all())
        (torch.Size([3, 2]), True)
    """

    def __init__(self, variable: Variable) -> None:
        if not isinstance(variable, Variable) or isinstance(variable, (Categorical, PointMass)):
            raise TypeError(
                "PointMass: expected a variable with a mean, such as pg.Normal(8) or "
                f"pg.Bernoulli(784), got {variable!r}."
            )
        super().__init__(tuple(variable.event_shape))
        # The mean does not depend on a scale, so the network does not return one.
        self.variable = (
            Normal(tuple(variable.event_shape), 1.0) if isinstance(variable, Normal) else variable
        )
        self.num_outputs = self.variable.num_outputs

    def parametrized(self, outputs: Tensor) -> TorchDistributionMixin:
        """The point mass on the family's mean, for network outputs `(..., *output_shape)`."""
        return dist.Delta(self.variable.parametrized(outputs).mean)

    @property
    def support(self) -> Any:
        """The constraint on data of this variable: that of the family, and 0 to 1 for binary ones."""
        support = self.variable.support
        return constraints.unit_interval if support is constraints.boolean else support

    def support_in_words(self, name: str) -> tuple[str, str] | None:
        """What values are possible, and what to do with others."""
        if self.support is constraints.unit_interval:
            return "numbers from 0 to 1", f"Divide {name} by its largest value."
        return self.variable.support_in_words(name)

    def arguments(self) -> dict[str, Any]:
        """The plain arguments that make this variable again."""
        return {"variable": self.variable}

    def __repr__(self) -> str:
        shown = self.variable
        if isinstance(shown, Normal):
            shown = Normal(tuple(self.event_shape))
        return f"PointMass({shown!r})"

    def __hash__(self) -> int:
        return hash(repr(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PointMass) and self.variable == other.variable


def point_masses(factors: Mapping[str, Any]) -> set[str]:
    """Names of the variables whose conditional is a point mass: a function of its parents."""
    return {name for name, factor in factors.items() if isinstance(factor.variable, PointMass)}


def is_point_mass(distribution: torch.distributions.Distribution) -> bool:
    """Whether a distribution is a `Delta`, under any `Independent` or other wrapper."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, dist.Delta)
