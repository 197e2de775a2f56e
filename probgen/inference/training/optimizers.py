"""The optimizer and the learning-rate scheduler of a fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import nn

from probgen.basics.settings import same_environment


def check_learnable(pair: Any) -> None:
    """Check that a pair has learnable parameters and that gradients can be computed.

    Raises:
        ValueError: the pair has no parameters, or all are frozen; or torch's inference mode is on, or
            was on when the pair was made.
    """
    parameters = list(pair.parameters())
    if not parameters:
        raise ValueError(
            f"fit: {pair.name} has no learnable parameters; score it without training."
        )
    if not any(parameter.requires_grad for parameter in parameters):
        raise ValueError(
            f"fit: all {len(parameters)} parameters of {pair.name} are frozen (requires_grad is False), "
            "so nothing would be learned. Unfreeze them with pair.requires_grad_(True), or score the pair "
            "without training."
        )
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "fit: it was called inside torch.inference_mode(), which computes no gradients, so nothing "
            "would be learned. Call it outside that context."
        )
    if any(tensor.is_inference() for tensor in (*parameters, *pair.buffers())):
        raise ValueError(
            f"fit: {pair.name} was made inside torch.inference_mode(), so its parameters cannot have "
            "gradients. Make it outside that context; load_state_dict can copy its weights."
        )


@same_environment()  # torch sets a variable with the folder of inductor's cache
def make_optimizer(
    parameters: Sequence[nn.Parameter], optimizer: Any, learning_rate: float, device: torch.device,
    name: str,
) -> torch.optim.Optimizer:  # fmt: skip
    """Make a fused Adam, or the optimizer that the user asks for.

    Args:
        parameters: the parameters to optimize.
        optimizer: `None`, an optimizer class, a callable that returns an optimizer of the parameters,
            or an optimizer of the parameters.
        learning_rate: the learning rate of the default optimizer or of an optimizer class.
        device: the device of the parameters.
        name: the owner of the parameters, for messages.

    Raises:
        ValueError: the learning rate is out of range, or the optimizer has other parameters.
        TypeError: it is not an optimizer, or it needs a closure.
    """
    if isinstance(learning_rate, bool) or not isinstance(learning_rate, Real):
        raise ValueError(f"fit: learning_rate must be a number above 0, got {learning_rate!r}.")
    rate = float(learning_rate)
    if not 0 < rate < float("inf"):
        raise ValueError(f"fit: learning_rate must be above 0, got {learning_rate!r}.")
    result: Any = optimizer
    if optimizer is None:
        result = torch.optim.Adam(parameters, lr=rate, fused=device.type in ("cpu", "cuda"))
    elif isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer):
        result = optimizer(parameters, lr=rate)
    elif callable(optimizer) and not isinstance(optimizer, torch.optim.Optimizer):
        result = optimizer(parameters)
    if not isinstance(result, torch.optim.Optimizer) or isinstance(result, torch.optim.LBFGS):
        raise TypeError(
            "fit: optimizer must be a torch optimizer that steps without a closure, or a callable "
            "that returns one for given parameters, such as torch.optim.SGD or "
            f"functools.partial(torch.optim.SGD, lr=0.1); got {optimizer!r}."
        )
    optimized = {id(p) for group in result.param_groups for p in group["params"]}
    if not any(id(p) in optimized for p in parameters):
        raise ValueError(
            f"fit: the optimizer has none of the parameters of {name}, so nothing would be "
            "learned. Construct it with pair.parameters()."
        )
    return result


def make_scheduler(
    scheduler: Callable[[torch.optim.Optimizer], Any] | None, optimizer: torch.optim.Optimizer
) -> Any:
    """The scheduler that a callable returns for the optimizer, or `None`.

    Raises:
        TypeError: the argument is not callable, or the result has no method `step`.
    """
    if scheduler is None:
        return None
    result = scheduler(optimizer) if callable(scheduler) else None
    if not hasattr(result, "step"):
        raise TypeError(
            "fit: scheduler must be a callable that returns a torch scheduler for a given optimizer, such "
            "as functools.partial(torch.optim.lr_scheduler.StepLR, step_size=10); got "
            f"{scheduler!r}."
        )
    return result
