"""Models without a density: x = G(z) with z ~ p(z), which can be sampled but not scored."""

from __future__ import annotations

from typing import Any

import pyro
from torch import Tensor

from probgen.conditionals import Conditional
from probgen.generative import GenerativeModel, num_parameters
from probgen.pair import LatentVariableModel
from probgen.point_mass import point_masses


class ImplicitModel(GenerativeModel):
    r"""A sampler without a density, $x = G(z)$ with $z \sim p(z)$.

    A subclass sets a prior `p_z = Conditional(z)` for each latent, and
    `p_x = Conditional(PointMass(x), {"z": z}, network)` for each generated variable; the network is
    G. A parent that has no conditional, such as a class `y`, is an input and must always be given.
    There is no guide and no p(x): an implicit model has no ELBO, no score and no encoder. It is
    trained by comparing samples with data, as with the objective "adversarial".

    Example:
        >>> import torch, probgen as pg
        >>> class Ring(pg.ImplicitModel):
        ...     def __init__(self):
        ...         super().__init__()
        ...         z, x = pg.Normal(1), pg.Normal(2)
        ...         self.p_z = pg.Conditional(z)
        ...         self.p_x = pg.Conditional(pg.PointMass(x), {"z": z}, hidden=(8,))
        >>> _ = torch.manual_seed(0)
        >>> ring = Ring()
        >>> ring.sample(3, seed=0)["x"].shape, ring.generate(z=torch.zeros(5, 1))["x"].shape
        (torch.Size([3, 2]), torch.Size([5, 2]))
    """

    objective = "adversarial"

    _instead_of_a_posterior = "Give those too: an implicit model has no posterior."

    @property
    def latents(self) -> dict[str, Conditional]:
        """The priors of the latents, by name."""
        factors = self.factors("p")
        return {n: f for n, f in factors.items() if n not in point_masses(factors)}

    @property
    def generators(self) -> dict[str, Conditional]:
        """The conditionals that generate data, by name, in an order in which parents come first."""
        remaining = {n: f for n, f in self.factors("p").items() if n not in self.latents}
        available = {name for name in self.variables if name not in remaining}
        ordered: dict[str, Conditional] = {}
        while remaining:
            ready = [n for n, f in remaining.items() if available.issuperset(f.parents)]
            if not ready:
                raise ValueError(
                    f"{self.name}: {', '.join(remaining)} depend on each other in a cycle; each "
                    "generated variable may depend on latents and on variables before it only."
                )
            ordered |= {name: remaining.pop(name) for name in ready}
            available.update(ready)
        return ordered

    @property
    def data_names(self) -> list[str]:
        """Variables that must be given to train the model: all but the latents."""
        return [name for name in self.variables if name not in self.latents]

    def draw_latents(self, n: int) -> dict[str, Tensor]:
        """Draw each latent from its prior.

        Args:
            n: how many draws.

        Returns:
            A tensor `(n, *event_shape)` for each latent.
        """
        return {name: prior().expand((n,)).sample() for name, prior in self.latents.items()}

    def generate(self, **parents: Tensor) -> dict[str, Tensor]:
        """G(z): the generated variables for given latents and inputs, with a gradient.

        Args:
            **parents: every latent and every input by name, `(..., *event_shape)`.

        Returns:
            A tensor `(..., *event_shape)` for each generated variable.

        Raises:
            TypeError: a latent or an input is missing, or a name is unknown.
        """
        needed = [name for name in self.variables if name not in self.generators]
        if set(parents) != set(needed):
            raise TypeError(
                f"{self.name}.generate: expected {', '.join(needed)}, got "
                f"{', '.join(parents) or 'nothing'}. Give each of them by name, as in "
                f"generate({needed[0] if needed else 'z'}=...)."
            )
        values = dict(parents)
        for name, factor in self.generators.items():
            values[name] = factor(**{parent: values[parent] for parent in factor.parents}).mean
        return {name: values[name] for name in self.generators}

    def model(self, **named: Tensor | None) -> None:
        """z ~ p(z), x = G(z)."""
        given = {name: value for name, value in named.items() if value is not None}
        generated = [name for name in given if name in self.generators]
        if generated:
            raise ValueError(
                f"{self.name}: {', '.join(generated)} is generated and has no density, so it cannot "
                "be conditioned on. Give latents and inputs only."
            )
        values: dict[str, Any] = dict(given)
        with pyro.plate("data", self.batch_size(**given), dim=-1):
            for name, factor in {**self.latents, **self.generators}.items():
                parents = {parent: values[parent] for parent in factor.parents}
                values[name] = pyro.sample(name, factor(**parents), obs=given.get(name))

    def _formulas(self) -> list[str]:
        priors = " ".join(f"p({name})" for name in self.latents)
        equations = [
            f"{name} = G({', '.join(factor.parents)})" for name, factor in self.generators.items()
        ]
        return [f"  model  {', '.join([priors, *equations] if priors else equations)}"]

    def _table(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("variable", "family", "parameters", "role")]
        for name, variable in self.variables.items():
            role = "generated: compared with the data"
            if name in self.latents:
                role = "latent: drawn from its prior"
            elif name not in self.generators:
                role = "must be given: an input"
            rows.append((name, repr(variable), num_parameters(self.factors("p").get(name)), role))
        return rows


def check_pair(model: Any, owner: str) -> None:
    """Refuse what is not a pair of model and guide; the message says what to do instead.

    Args:
        model: what a user gave.
        owner: the function that messages name.

    Raises:
        TypeError: an implicit model, which has no density, or no model at all.
    """
    if isinstance(model, ImplicitModel):
        raise TypeError(
            f"{owner}: {model.name} is an implicit model, which has no density and so no ELBO, no "
            f"score and no encoder; train it with pg.fit(model, data) and look at model.sample(n), "
            "or use a pair such as pg.models.VAE."
        )
    if not isinstance(model, LatentVariableModel):
        raise TypeError(f"{owner}: expected a pair (pg.LatentVariableModel), got {model!r}.")
