"""Why a loss is not finite: the parameter, site and quantity that went wrong."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from probgen.contexts import set_random_state
from probgen.inference.traces import Site, innermost, log_prob, trace_pair
from probgen.pair import LatentVariableModel

TAIL = (
    " Lower the learning rate, standardize the data, or give the likelihood a fixed scale. "
    "The pair has its last finite weights back."
)


def explain(
    pair: LatentVariableModel,
    values: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    state: tuple[Tensor, Tensor | None],
    device: torch.device,
    *,
    num_particles: int,
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
        num_particles: of the objective.
        epoch: counted from one.
        batch: counted from one.
    """
    head = f"fit: the loss is not finite in epoch {epoch}, batch {batch}: "
    broken = broken_parameter(pair)
    if broken:
        return f"{head}{broken} since the step before; the gradient there was not finite.{TAIL}"
    set_random_state(state, device)
    with torch.no_grad():
        trace = trace_pair(pair, values, num_particles=num_particles, observed=masks)
    for owner, sites in (("guide", trace.guide), ("model", trace.model)):
        for name, site in sites.items():
            for quantity, tensor in _quantities(site):
                if not bool(tensor.isfinite().all()):
                    rows = (~tensor.isfinite()).sum()
                    return (
                        f"{head}{owner} site {name}, its {quantity} is {_kind(tensor)} in "
                        f"{int(rows)} of {tensor.numel()} elements.{TAIL}"
                    )
    return (
        f"{head}every site of the pair is finite, so a sum overflowed, or an objective of your own "
        f"returned it.{TAIL}"
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
