"""Why a loss is not finite: the parameter, site and quantity that went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from probgen.inference.traces import Site, log_prob, trace_pair
from probgen.pair import LatentVariableModel


def explain(
    pair: LatentVariableModel,
    values: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    random_state: Tensor,
    *,
    epoch: int,
    batch: int,
) -> str:
    """Repeat the step with its noise and say which quantity is not finite first.

    Args:
        pair: as it was in the step.
        values: the batch.
        masks: of partly observed variables.
        random_state: torch's CPU random state before the step.
        epoch: counted from one.
        batch: counted from one.
    """
    head = f"fit: the loss is not finite in epoch {epoch}, batch {batch}: "
    tail = (
        " Lower the learning rate, standardize the data, or give the likelihood a fixed scale. "
        "The pair has its last finite weights back."
    )
    for name, parameter in pair.named_parameters():
        if not bool(parameter.isfinite().all()):
            return (
                f"{head}the parameter {name} is {_kind(parameter)} since the step before; "
                f"the gradient there was not finite.{tail}"
            )
    torch.set_rng_state(random_state)
    with torch.no_grad():
        trace = trace_pair(pair, values, observed=masks)
    for owner, sites in (("guide", trace.guide), ("model", trace.model)):
        for name, site in sites.items():
            for quantity, tensor in _quantities(site):
                if not bool(tensor.isfinite().all()):
                    rows = (~tensor.isfinite()).sum()
                    return (
                        f"{head}{owner} site {name}, its {quantity} is {_kind(tensor)} in "
                        f"{int(rows)} of {tensor.numel()} elements.{tail}"
                    )
    return f"{head}every site is finite by itself, so a sum overflowed.{tail}"


def _quantities(site: Site) -> list[tuple[str, Tensor]]:
    fn: Any = site["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    found = [(name, getattr(fn, name, None)) for name in getattr(fn, "arg_constraints", {})]
    found += [("value", site["value"]), ("log-probability", log_prob(site))]
    return [(name, value) for name, value in found if isinstance(value, Tensor)]


def _kind(tensor: Tensor) -> str:
    return "NaN" if bool(tensor.isnan().any()) else "infinite"
