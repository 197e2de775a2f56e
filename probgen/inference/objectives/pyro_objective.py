"""Pyro's ELBO objects as objectives of `fit`, with checks for pairs that they compute wrongly."""

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
    """One of Pyro's ELBO objects as an objective: `pg.fit(..., objective=Trace_ELBO())`.

    Pyro returns the sum over the batch, so the value of every datum is the average of the batch.
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
            ValueError: Pyro's object would compute a wrong value or gradient for the pair or the data.
        """
        if observed:
            raise ValueError(
                f"{type(self.loss).__name__} does not support partly observed variables, here "
                f'{", ".join(observed)}; use objective="elbo", which sums them out where they are missing.'
            )
        if kl_weight is not None:
            raise ValueError(
                "Pyro's objectives have no KL warm-up; use pg.ELBO(warmup_epochs=...) instead."
            )
        model, guide = poutine.trace(pair.model), poutine.trace(pair.guide)
        if isinstance(self.loss, pyro.infer.TraceEnum_ELBO):
            functions = (pyro.infer.config_enumerate(f) for f in (model, guide))
        else:
            functions = (f for f in (model, guide))
            in_guide = pair.factors("q")
            summed = [n for n in pair.summed_names if n not in data and n not in in_guide]
            if summed:
                raise ValueError(
                    f"{type(self.loss).__name__} would draw {', '.join(summed)} from the prior, so the "
                    'value would not be a bound; use objective="elbo", which sums it out.'
                )
        num_data = pair.batch_size(**data)
        loss = self.loss.differentiable_loss(*functions, **data)
        self._check(pair, sample_sites(guide.trace), sample_sites(model.trace))
        return (-loss / num_data).expand(num_data)

    def _check(
        self, pair: LatentVariableModel, guide: Mapping[str, Site], model: Mapping[str, Site]
    ) -> None:
        """Check what Pyro checks only if its validation is on, because a fit switches it off."""
        kind = type(self.loss).__name__
        points = [name for name, site in guide.items() if is_point_mass(site["fn"])]
        if points:
            raise ValueError(
                f"{kind}: the guide of {pair.name} puts a point mass on {', '.join(points)}, so the ELBO "
                'is not defined; use objective="reconstruction".'
            )
        auxiliary = [name for name in guide if name not in model]
        if auxiliary:
            raise ValueError(
                f"{kind} would add -log q of {', '.join(auxiliary)}, which {pair.name} has in the guide "
                'only, so the sum would not be a bound; use objective="elbo", which omits this term.'
            )
        if not isinstance(self.loss, pyro.infer.TraceMeanField_ELBO):
            return
        drawn = [name for name, site in guide.items() if not site["fn"].has_rsample]
        if drawn:
            raise ValueError(
                f"{kind} has no score-function gradient, and {', '.join(drawn)} of {pair.name} cannot be "
                'reparameterized; use objective="analytic-kl", which has this gradient.'
            )
        shared = [name for name in model if name in guide]
        if shared != list(guide):
            raise ValueError(
                f"{kind} needs latents in the same order in guide and model, but {pair.name} draws "
                f"{', '.join(guide)} in the guide and {', '.join(shared)} in the model, so its closed-form "
                'KL terms would be wrong; use objective="analytic-kl", which uses only correct ones.'
            )
