"""Averages of the players' losses and of the metrics over an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from probgen.inference.training.results import CURVES

Outcome = tuple[Tensor, dict[str, Tensor], int]
"""Average loss and average metrics of some data, and the number of these data."""

RESERVED = ("epoch", *CURVES)
"""Columns of `metrics.csv` that every run has, so that no metric may have their names."""


class Averages:
    """Losses and metrics of the batches of an epoch; their numbers are read when it ends.

    Args:
        players: names of the players in order; the value of the first one is the training curve.
    """

    def __init__(self, players: Sequence[str]) -> None:
        self.players = list(players)
        self.losses: list[Tensor] = []
        self.metrics: dict[str, list[Tensor]] = {}
        self.counts: list[int] = []

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Add a batch.

        Args:
            outcomes: the result of the last update of each player.

        Raises:
            ValueError: two metrics have the same name, or a name is reserved.
        """
        loss, metrics, size = outcomes[0]
        all_metrics = dict(metrics)
        for name, (other_loss, other_metrics, _) in zip(
            self.players[1:], outcomes[1:], strict=True
        ):
            for metric, value in {name: -other_loss, **other_metrics}.items():
                if metric in all_metrics:
                    raise ValueError(
                        f"fit: two players return a metric {metric!r}; give each metric its own name."
                    )
                all_metrics[metric] = value
        reserved = [name for name in all_metrics if name in RESERVED]
        if reserved:
            raise ValueError(
                f"fit: a metric cannot be called {reserved[0]!r}, because every run records a column of "
                "this name; choose another name."
            )
        self.losses.append(loss)
        self.counts.append(size)
        for name, value in all_metrics.items():
            self.metrics.setdefault(name, []).append(value)

    def add_recorded(self, outcome: Outcome | None) -> None:
        """Add the averages over the steps of a recording; `None` adds nothing."""
        if outcome is None:
            return
        loss, metrics, size = outcome
        self.losses.append(loss.to(self.losses[0].dtype) if self.losses else loss)
        self.counts.append(size)
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append(value)

    @property
    def num_data(self) -> int:
        """Number of data in the epoch."""
        return sum(self.counts)

    @property
    def all_finite(self) -> bool:
        """Whether the losses of all players are finite; this waits for the device."""
        tensors = [self.losses, *(self.metrics[name] for name in self.players[1:])]
        return all(bool(torch.stack(values).isfinite().all()) for values in tensors)

    def numbers(self) -> tuple[float, dict[str, float]]:
        """The value of the first player and the metrics, averaged over the data."""
        sizes = torch.tensor(self.counts, dtype=torch.float64)

        def average(tensors: list[Tensor]) -> float:
            return float((torch.stack(tensors).double().cpu() * sizes).sum() / sizes.sum())

        return -average(self.losses), {name: average(t) for name, t in self.metrics.items()}
