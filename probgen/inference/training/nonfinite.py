"""Why a loss is not finite: the parameter, site and quantity that went wrong."""

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

KEPT = "The pair has its last finite weights back."
TAIL = (
    " Lower the learning rate, standardize the data, or give the likelihood a fixed scale. " + KEPT
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
    """Repeat the step with its noise and say which quantity is not finite first.

    Args:
        module: as it was in the step.
        learner: whose loss it is.
        batch: values, masks of partly observed variables, and what else the objective took.
        state: the random state before the step.
        device: where the step ran.
        objective: what declared the player.
        epoch: counted from one.
        batch_index: counted from one.
    """
    values, masks, further = batch
    head = f"fit: the loss is not finite in epoch {epoch}, batch {batch_index}: "
    broken = broken_parameter(module)
    if broken:
        return f"{head}{broken} since the step before; the gradient there was not finite.{TAIL}"
    own = learner.player.value is objective
    sites_finite = False
    if own:
        set_random_state(state, device)
        site = _broken_site(module.pair, values, masks, getattr(objective, "num_particles", 1))
        if site:
            return f"{head}{site}.{TAIL}"
        sites_finite = site is not None
    every = "every site of the pair is finite" if sites_finite else "all parameters are finite"
    of_library = type(objective).__module__.startswith(LIBRARY)
    if sites_finite and of_library and not isinstance(objective, FunctionObjective):
        return f"{head}{every}, so a sum overflowed.{TAIL}"
    set_random_state(state, device)
    with torch.no_grad():
        found, _ = value_and_metrics(
            learner.player, module.pair, values, masks, further, learner.owner
        )
    broken_values, of = int((~found.isfinite()).sum()), found.numel()
    returned = f"{_kind(found)} for {broken_values} of {of} data" if found.dim() else _kind(found)
    who = learner.owner.removeprefix("fit: ").removesuffix(",")
    return f"{head}{every}, and {who} returned {returned}. Mend the objective. {KEPT}"


LIBRARY = "probgen.inference.objectives."
"""Where objectives are that are not to be mended by the user."""


def _broken_site(
    pair: Any, values: Mapping[str, Tensor], masks: Mapping[str, Tensor], particles: int
) -> str | None:
    """What is not finite first, nothing where all is; `None` where the pair cannot be traced."""
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
    """`the parameter NAME is NaN` for the first one that is not finite, or nothing."""
    parameters = dict(module.named_parameters())
    finite = [parameter.isfinite().all() for parameter in parameters.values()]
    if not finite or bool(torch.stack(finite).all()):  # one wait for the device
        return ""
    name = next(n for n, right in zip(parameters, finite, strict=True) if not bool(right))
    return f"the parameter {module.label(name)} is {_kind(parameters[name])}"


def _quantities(site: Site) -> list[tuple[str, Tensor]]:
    fn = innermost(site["fn"])
    found = [(name, getattr(fn, name, None)) for name in getattr(fn, "arg_constraints", {})]
    found += [("value", site["value"]), ("log-probability", log_prob(site))]
    return [(name, value) for name, value in found if isinstance(value, Tensor)]


def _kind(tensor: Tensor) -> str:
    return "NaN" if bool(tensor.isnan().any()) else "infinite"
