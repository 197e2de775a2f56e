"""Averages over an epoch: of the players' values and of the metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Outcome = tuple[Tensor, dict[str, Tensor], int]
"""A loss, metrics, and the number of data that they are averages over."""

RESERVED = ("epoch", "elbo", "validation_elbo", "learning_rate", "seconds")
"""Columns of `metrics.csv` that every run has."""


class Averages:
    """Losses and metrics of the batches of an epoch, which are read at its end.

    Args:
        players: names of the players in order; the value of the first is the curve of the run.
    """

    def __init__(self, players: Sequence[str]) -> None:
        self.players = list(players)
        self.losses: list[Tensor] = []
        self.metrics: dict[str, list[Tensor]] = {}
        self.counts: list[int] = []

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """A batch: what each player's last update returned.

        Raises:
            ValueError: two metrics of one name, or a name that is reserved.
        """
        loss, metrics, size = outcomes[0]
        together = dict(metrics)
        for name, (other_loss, other_metrics, _) in zip(
            self.players[1:], outcomes[1:], strict=True
        ):
            for metric, value in {name: -other_loss, **other_metrics}.items():
                if metric in together:
                    raise ValueError(
                        f"fit: two players return a metric {metric!r}; give each a name of its own."
                    )
                together[metric] = value
        reserved = [name for name in together if name in RESERVED]
        if reserved:
            raise ValueError(
                f"fit: a metric cannot be called {reserved[0]!r}, which every run notes by itself; "
                "choose another name."
            )
        self.losses.append(loss)
        self.counts.append(size)
        for name, value in together.items():
            self.metrics.setdefault(name, []).append(value)

    def add_recorded(self, outcome: Outcome | None) -> None:
        """The average over recorded steps, if there were any."""
        if outcome is None:
            return
        loss, metrics, size = outcome
        self.losses.append(loss.to(self.losses[0].dtype) if self.losses else loss)
        self.counts.append(size)
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append(value)

    @property
    def num_data(self) -> int:
        """Data of the epoch."""
        return sum(self.counts)

    @property
    def all_finite(self) -> bool:
        """Whether the values of all players are finite; waits for the device."""
        tensors = [self.losses, *(self.metrics[name] for name in self.players[1:])]
        return all(bool(torch.stack(part).isfinite().all()) for part in tensors)

    def numbers(self) -> tuple[float, dict[str, float]]:
        """The first player's value and the metrics, averaged over the data."""
        sizes = torch.tensor(self.counts, dtype=torch.float64)

        def average(tensors: list[Tensor]) -> float:
            return float((torch.stack(tensors).double().cpu() * sizes).sum() / sizes.sum())

        return -average(self.losses), {name: average(t) for name, t in self.metrics.items()}
