"""What a player's value returned, checked against what it promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from probgen.inference.objectives.base import Player


def checked_value(found: Any, size: int, owner: str, unit: str = "datum") -> Tensor:
    """The values alone, after a check of their kind, shape and gradient.

    Args:
        found: what the call returned.
        size: data in the batch.
        owner: the objective in messages.
        unit: of the player.

    Raises:
        TypeError: no tensor of floating-point numbers, or metrics that are no scalar tensors by name.
        ValueError: another shape, or no gradient where one is asked for.
    """
    if isinstance(found, tuple):
        found = _without_metrics(found, owner)
    if not isinstance(found, Tensor) or not found.is_floating_point():
        got = f"a tensor of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(
            f"{owner} must return a tensor of floating-point numbers, one per datum, got {got}."
        )
    if unit == "batch" and found.shape != ():
        raise ValueError(
            f"{owner} has a value of a whole batch and must return a scalar, got shape "
            f'{tuple(found.shape)}. One value per datum is unit="datum".'
        )
    if unit == "datum" and found.shape != (size,):
        raise ValueError(
            f"{owner} must return one value per datum, shape ({size},) for a batch of {size}, got shape "
            f"{tuple(found.shape)}. fit takes the average over the batch itself."
        )
    if torch.is_grad_enabled() and not found.requires_grad:
        raise ValueError(
            f"{owner} returned values without a gradient, so nothing can be learned from them. Compute "
            "them in torch from parameters that are not frozen, without detach(), item(), numpy() or "
            "torch.no_grad()."
        )
    return found


def metrics_of(found: Any) -> dict[str, Tensor]:
    """The further metrics of what a call returned, none where it returned values alone."""
    return dict(found[1]) if isinstance(found, tuple) else {}


def value_and_metrics(
    player: Player, pair: Any, values: Mapping[str, Tensor], masks: Mapping[str, Tensor],
    further: Mapping[str, Tensor], owner: str,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """A player's values of a batch, checked, and its metrics."""
    found = player.value(pair, values, observed=masks, **further)
    size = len(next(iter(values.values())))
    return checked_value(found, size, owner, player.unit), metrics_of(found)


def _without_metrics(found: tuple[Any, ...], owner: str) -> Any:
    metrics = found[1] if len(found) == 2 else None
    named = isinstance(metrics, Mapping) and all(isinstance(name, str) for name in metrics)
    if not named or not all(isinstance(t, Tensor) and t.shape == () for t in metrics.values()):  # type: ignore[union-attr]
        raise TypeError(
            f"{owner} must return values, or a tuple of values and a dict of metrics by name, each a "
            f"scalar tensor; got {found!r}."
        )
    return found[0]
