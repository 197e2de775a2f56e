"""Pyro's own ELBO objects as objectives of `fit`, and what of a pair they would get wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.infer
from pyro import poutine
from torch import Tensor

from probgen.inference.objectives.base import Objective
from probgen.inference.traces import Site
from probgen.pair import LatentVariableModel
from probgen.point_mass import is_point_mass
from probgen.structure import sample_sites


class PyroObjective(Objective):
    """One of Pyro's own ELBO objects as an objective: `pg.fit(..., objective=Trace_ELBO())`.

    Pyro returns the sum over the batch, so every datum is given the batch's average.
    """

    quantity = "ELBO"
    is_bound = True

    def __init__(self, loss: Any) -> None:
        self.loss = loss

    def __repr__(self) -> str:
        return f"PyroObjective({type(self.loss).__name__})"

    def __call__(
        self,
        pair: LatentVariableModel,
        data: Mapping[str, Tensor],
        *,
        observed: Mapping[str, Tensor] | None = None,
        kl_weight: Tensor | None = None,
    ) -> Tensor:
        """The bound of the batch divided by its size, shape `(batch,)`.

        Raises:
            ValueError: a pair or data for which Pyro's object has a wrong value or gradient.
        """
        if observed:
            raise ValueError(
                f"{type(self.loss).__name__} has no notion of a partly observed {', '.join(observed)}; "
                'use objective="elbo", which sums it out where it is missing.'
            )
        if kl_weight is not None:
            raise ValueError("KL warm-up is a setting of pg.ELBO, not of Pyro's objectives.")
        model, guide = poutine.trace(pair.model), poutine.trace(pair.guide)
        if isinstance(self.loss, pyro.infer.TraceEnum_ELBO):
            given = (pyro.infer.config_enumerate(f) for f in (model, guide))
        else:
            given = (f for f in (model, guide))
            guided = pair.factors("q")
            summed = [n for n in pair.summed_names if n not in data and n not in guided]
            if summed:
                raise ValueError(
                    f"{type(self.loss).__name__} would draw {', '.join(summed)} from the prior, which "
                    f'gives no bound; use objective="elbo", which sums it out.'
                )
        num_data = pair.batch_size(**data)
        loss = self.loss.differentiable_loss(*given, **data)
        self._check(pair, sample_sites(guide.trace), sample_sites(model.trace))
        return (-loss / num_data).expand(num_data)

    def _check(
        self, pair: LatentVariableModel, guide: Mapping[str, Site], model: Mapping[str, Site]
    ) -> None:
        """What Pyro itself checks only where its validation is on, which it is not in a fit."""
        kind = type(self.loss).__name__
        points = [name for name, site in guide.items() if is_point_mass(site["fn"])]
        if points:
            raise ValueError(
                f"{kind}: the guide of {pair.name} puts a point mass on {', '.join(points)}, so there is "
                'no ELBO; use objective="reconstruction".'
            )
        auxiliary = [name for name in guide if name not in model]
        if auxiliary:
            raise ValueError(
                f"{kind} would add -log q of {', '.join(auxiliary)}, which {pair.name} has in the guide "
                'only, so that the sum is no bound; use objective="elbo", which leaves it out.'
            )
        if not isinstance(self.loss, pyro.infer.TraceMeanField_ELBO):
            return
        drawn = [name for name, site in guide.items() if not site["fn"].has_rsample]
        if drawn:
            raise ValueError(
                f"{kind} has no score-function gradient, and {', '.join(drawn)} of {pair.name} cannot be "
                'reparameterized; use objective="analytic-kl", which has one.'
            )
        shared = [name for name in model if name in guide]
        if shared != list(guide):
            raise ValueError(
                f"{kind} needs latents in the same order in guide and model, and {pair.name} draws "
                f"{', '.join(guide)} in the guide and {', '.join(shared)} in the model, so that closed-form "
                'KL terms would be off; use objective="analytic-kl", which takes them only where they hold.'
            )
