"""The reason why a loss is not finite: the first parameter, or site and quantity, that is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from probgen.basics.randomness import set_random_state
from probgen.inference.objectives.base import Objective
from probgen.inference.objectives.function import FunctionObjective
from probgen.inference.objectives.values import value_and_metrics
from probgen.inference.traces import Site, innermost, log_prob, trace_pair
from probgen.inference.training.module import TrainingModule
from probgen.inference.training.players import Learner, RandomState

RESTORED = "The pair has its last finite weights again."
ADVICE = (
    " Lower the learning rate, standardize the data, or give the likelihood a fixed scale. "
    + RESTORED
)


def explain(
    module: TrainingModule,
    learner: Learner,
    batch: Sequence[Mapping[str, Tensor]],
    state: RandomState,
    device: torch.device,
    *,
    objective: Objective,
    epoch: int,
    batch_index: int,
) -> str:
    """Repeat the step with the same noise and say which quantity is the first not to be finite.

    Args:
        module: the module with the weights that it had in the step.
        learner: the learner whose loss is not finite.
        batch: values, masks of partly observed variables, and further inputs of the objective.
        state: the random state before the step.
        device: the device of the step.
        objective: the objective that declared the player.
        epoch: counted from one.
        batch_index: counted from one.
    """
    values, masks, further = batch
    head = f"fit: the loss is not finite in epoch {epoch}, batch {batch_index}: "
    broken = broken_parameter(module)
    if broken:
        return f"{head}{broken} since the previous step, whose gradient was not finite.{ADVICE}"
    sites_finite = False
    if learner.player.value is objective:
        set_random_state(state, device)
        site = _broken_site(module.pair, values, masks, getattr(objective, "num_particles", 1))
        if site:
            return f"{head}{site}.{ADVICE}"
        sites_finite = site is not None
    finite = "every site of the pair is finite" if sites_finite else "all parameters are finite"
    of_library = type(objective).__module__.startswith(LIBRARY)
    if sites_finite and of_library and not isinstance(objective, FunctionObjective):
        return f"{head}{finite}, so a sum overflowed.{ADVICE}"
    set_random_state(state, device)
    with torch.no_grad():
        value, _ = value_and_metrics(
            learner.player, module.pair, values, masks, further, learner.owner
        )
    count, num_data = int((~value.isfinite()).sum()), value.numel()
    returned = f"{_kind(value)} for {count} of {num_data} data" if value.dim() else _kind(value)
    name = learner.owner.removeprefix("fit: ").removesuffix(",")
    return f"{head}{finite}, but {name} returned {returned}. Correct the objective. {RESTORED}"


LIBRARY = "probgen.inference.objectives."
"""The package of the library's own objectives, which the user need not correct."""


def _broken_site(
    pair: Any, values: Mapping[str, Tensor], masks: Mapping[str, Tensor], particles: int
) -> str | None:
    """The first quantity that is not finite, or ""; `None` if the pair cannot be traced."""
    try:
        with torch.no_grad():
            trace = trace_pair(pair, values, num_particles=particles, observed=masks)
    except (ValueError, TypeError, AttributeError):
        return None
    for owner, sites in (("guide", trace.guide), ("model", trace.model)):
        for name, site in sites.items():
            for quantity, tensor in _quantities(site):
                if not bool(tensor.isfinite().all()):
                    rows = (~tensor.isfinite()).sum()
                    return (
                        f"{owner} site {name}, its {quantity} is {_kind(tensor)} in "
                        f"{int(rows)} of {tensor.numel()} elements"
                    )
    return ""


def broken_parameter(module: TrainingModule) -> str:
    """`the parameter NAME is NaN` for the first parameter that is not finite, or ""."""
    parameters = dict(module.named_parameters())
    finite = [parameter.isfinite().all() for parameter in parameters.values()]
    if not finite or bool(torch.stack(finite).all()):  # waits for the device only once
        return ""
    name = next(n for n, is_finite in zip(parameters, finite, strict=True) if not bool(is_finite))
    return f"the parameter {module.label(name)} is {_kind(parameters[name])}"


def _quantities(site: Site) -> list[tuple[str, Tensor]]:
    fn = innermost(site["fn"])
    quantities = [(name, getattr(fn, name, None)) for name in getattr(fn, "arg_constraints", {})]
    quantities += [("value", site["value"]), ("log-probability", log_prob(site))]
    return [(name, value) for name, value in quantities if isinstance(value, Tensor)]


def _kind(tensor: Tensor) -> str:
    return "NaN" if bool(tensor.isnan().any()) else "infinite"
