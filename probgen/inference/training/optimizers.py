"""The optimizer and the learning-rate scheduler of a fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import nn

from probgen.basics.settings import same_environment


def check_learnable(pair: Any) -> None:
    """There must be something to learn, and gradients to learn it by.

    Raises:
        ValueError: no parameters, frozen ones only, or torch's inference mode, now or when the pair
            was made.
    """
    parameters = list(pair.parameters())
    if not parameters:
        raise ValueError(f"fit: {pair.name} has no learnable parameters; score it as it is.")
    if not any(parameter.requires_grad for parameter in parameters):
        raise ValueError(
            f"fit: all {len(parameters)} parameters of {pair.name} are frozen (requires_grad is False), "
            "so nothing would be learned. Free them with pair.requires_grad_(True), or score the pair as "
            "it is."
        )
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "fit: it was called inside torch.inference_mode(), where there are no gradients, so nothing "
            "would be learned. Call it outside."
        )
    if any(tensor.is_inference() for tensor in (*parameters, *pair.buffers())):
        raise ValueError(
            f"fit: {pair.name} was made inside torch.inference_mode(), so there are no gradients of its "
            "parameters. Make it outside; load_state_dict takes its weights over."
        )


@same_environment()  # torch notes there where inductor keeps its cache
def make_optimizer(
    parameters: Sequence[nn.Parameter], optimizer: Any, learning_rate: float, device: torch.device,
    name: str,
) -> torch.optim.Optimizer:  # fmt: skip
    """One fused Adam, or what the user asks for.

    Args:
        parameters: what it optimizes.
        optimizer: `None`, an optimizer class, a callable that makes an optimizer of parameters, or
            an optimizer over the parameters.
        learning_rate: of the default and of a class.
        device: where the parameters are.
        name: whose parameters they are.

    Raises:
        ValueError: a learning rate out of range, or an optimizer over other parameters.
        TypeError: no optimizer, or one that needs a closure.
    """
    if isinstance(learning_rate, bool) or not isinstance(learning_rate, Real):
        raise ValueError(f"fit: learning_rate must be a number above 0, got {learning_rate!r}.")
    rate = float(learning_rate)
    if not 0 < rate < float("inf"):
        raise ValueError(f"fit: learning_rate must be above 0, got {learning_rate!r}.")
    made: Any = optimizer
    if optimizer is None:
        made = torch.optim.Adam(parameters, lr=rate, fused=device.type in ("cpu", "cuda"))
    elif isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer):
        made = optimizer(parameters, lr=rate)
    elif callable(optimizer) and not isinstance(optimizer, torch.optim.Optimizer):
        made = optimizer(parameters)
    if not isinstance(made, torch.optim.Optimizer) or isinstance(made, torch.optim.LBFGS):
        raise TypeError(
            "fit: optimizer must be a torch optimizer that steps without a closure, or a callable "
            "that makes one of parameters, such as torch.optim.SGD or "
            f"functools.partial(torch.optim.SGD, lr=0.1); got {optimizer!r}."
        )
    moved = {id(p) for group in made.param_groups for p in group["params"]}
    if not any(id(p) in moved for p in parameters):
        raise ValueError(
            f"fit: the optimizer holds none of {name}'s parameters, so nothing would be "
            "learned. Make it of pair.parameters()."
        )
    return made


def make_scheduler(
    scheduler: Callable[[torch.optim.Optimizer], Any] | None, optimizer: torch.optim.Optimizer
) -> Any:
    """The scheduler that a callable makes of the optimizer, or `None`.

    Raises:
        TypeError: no callable, or what it makes cannot step.
    """
    if scheduler is None:
        return None
    made = scheduler(optimizer) if callable(scheduler) else None
    if not hasattr(made, "step"):
        raise TypeError(
            "fit: scheduler must be a callable that makes a torch scheduler of the optimizer, such as "
            "functools.partial(torch.optim.lr_scheduler.StepLR, step_size=10); got "
            f"{scheduler!r}."
        )
    return made
