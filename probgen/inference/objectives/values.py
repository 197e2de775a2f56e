"""Checks of the values and metrics that a player's function returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from probgen.inference.objectives.base import Player


def checked_value(result: Any, size: int, owner: str, unit: str = "datum") -> Tensor:
    """Check the type, shape and gradient of a result, and return the values without the metrics.

    Args:
        result: the result of the call.
        size: number of data in the batch.
        owner: the name of the objective in messages.
        unit: the unit of the player.

    Raises:
        TypeError: the values are not a floating-point tensor, or the metrics not scalar tensors.
        ValueError: the values have a wrong shape, or no gradient although gradients are computed.
    """
    if isinstance(result, tuple):
        result = _without_metrics(result, owner)
    if not isinstance(result, Tensor) or not result.is_floating_point():
        got = f"a tensor of {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
        raise TypeError(
            f"{owner} must return a tensor of floating-point numbers, one per datum, got {got}."
        )
    if unit == "batch" and result.shape != ():
        raise ValueError(
            f'{owner} has unit="batch" and must return a scalar, got shape {tuple(result.shape)}. Use '
            'unit="datum" for one value per datum.'
        )
    if unit == "datum" and result.shape != (size,):
        raise ValueError(
            f"{owner} must return one value per datum, shape ({size},) for a batch of {size}, got shape "
            f"{tuple(result.shape)}. Do not average over the batch; fit does that."
        )
    if torch.is_grad_enabled() and not result.requires_grad:
        raise ValueError(
            f"{owner} returned values without a gradient, so nothing can be learned from them. Compute "
            "them in torch from parameters that require a gradient, without detach(), item(), numpy() "
            "or torch.no_grad()."
        )
    return result


def metrics_of(result: Any) -> dict[str, Tensor]:
    """The metrics of a result; empty if it has only values."""
    return dict(result[1]) if isinstance(result, tuple) else {}


def value_and_metrics(
    player: Player, pair: Any, values: Mapping[str, Tensor], masks: Mapping[str, Tensor],
    further: Mapping[str, Tensor], owner: str,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """The checked values of a player for a batch, and its metrics."""
    result = player.value(pair, values, observed=masks, **further)
    size = len(next(iter(values.values())))
    return checked_value(result, size, owner, player.unit), metrics_of(result)


def _without_metrics(result: tuple[Any, ...], owner: str) -> Any:
    metrics = result[1] if len(result) == 2 else None
    named = isinstance(metrics, Mapping) and all(isinstance(name, str) for name in metrics)
    if not named or not all(isinstance(t, Tensor) and t.shape == () for t in metrics.values()):  # type: ignore[union-attr]
        raise TypeError(
            f"{owner} must return values, or a tuple of values and a dict of metrics by name, each a "
            f"scalar tensor; got {result!r}."
        )
    return result[0]
