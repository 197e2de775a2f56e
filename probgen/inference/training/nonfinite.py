"""Why a loss is not finite: the parameter, site and quantity that went wrong."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from probgen.basics.randomness import set_random_state
from probgen.inference.objectives.elbo import ELBO, Objective, name_of, values_of
from probgen.inference.objectives.pyro_objective import PyroObjective
from probgen.inference.traces import Site, innermost, log_prob, trace_pair
from probgen.pair import LatentVariableModel

KEPT = "The pair has its last finite weights back."
TAIL = (
    " Lower the learning rate, standardize the data, or give the likelihood a fixed scale. " + KEPT
)


def explain(
    pair: LatentVariableModel,
    values: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    state: tuple[Tensor, Tensor | None],
    device: torch.device,
    *,
    objective: Objective,
    further: Mapping[str, Tensor],
    epoch: int,
    batch: int,
) -> str:
    """Repeat the step with its noise and say which quantity is not finite first.

    Args:
        pair: as it was in the step.
        values: the batch.
        masks: of partly observed variables.
        state: the random state before the step.
        device: where the step ran.
        objective: what was maximized.
        further: what else it took.
        epoch: counted from one.
        batch: counted from one.
    """
    head = f"fit: the loss is not finite in epoch {epoch}, batch {batch}: "
    broken = broken_parameter(pair)
    if broken:
        return f"{head}{broken} since the step before; the gradient there was not finite.{TAIL}"
    set_random_state(state, device)
    particles = getattr(objective, "num_particles", 1)
    with torch.no_grad():
        trace = trace_pair(pair, values, num_particles=particles, observed=masks)
    for owner, sites in (("guide", trace.guide), ("model", trace.model)):
        for name, site in sites.items():
            for quantity, tensor in _quantities(site):
                if not bool(tensor.isfinite().all()):
                    rows = (~tensor.isfinite()).sum()
                    return (
                        f"{head}{owner} site {name}, its {quantity} is {_kind(tensor)} in "
                        f"{int(rows)} of {tensor.numel()} elements.{TAIL}"
                    )
    if isinstance(objective, (ELBO, PyroObjective)):
        return f"{head}every site of the pair is finite, so a sum overflowed.{TAIL}"
    set_random_state(state, device)
    with torch.no_grad():
        found = values_of(objective, pair, values, masks, further)
    broken_rows = int((~found.isfinite()).sum())
    return (
        f"{head}every site of the pair is finite, and the objective {name_of(objective)} returned "
        f"{_kind(found)} for {broken_rows} of {len(found)} data. Mend the objective. {KEPT}"
    )


def broken_parameter(pair: LatentVariableModel) -> str:
    """`the parameter NAME is NaN` for the first one that is not finite, or nothing."""
    parameters = dict(pair.named_parameters())
    finite = [parameter.isfinite().all() for parameter in parameters.values()]
    if not finite or bool(torch.stack(finite).all()):  # one wait for the device
        return ""
    name = next(n for n, right in zip(parameters, finite, strict=True) if not bool(right))
    return f"the parameter {name} is {_kind(parameters[name])}"


def _quantities(site: Site) -> list[tuple[str, Tensor]]:
    fn = innermost(site["fn"])
    found = [(name, getattr(fn, name, None)) for name in getattr(fn, "arg_constraints", {})]
    found += [("value", site["value"]), ("log-probability", log_prob(site))]
    return [(name, value) for name, value in found if isinstance(value, Tensor)]


def _kind(tensor: Tensor) -> str:
    return "NaN" if bool(tensor.isnan().any()) else "infinite"
