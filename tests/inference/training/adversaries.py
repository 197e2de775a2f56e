"""Objectives with two players for tests, in a module that other processes can import."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import probgen as pg


class Adversaries(pg.Objective):
    """A critic tells data from what the decoder makes of noise; the decoder learns to deceive it."""

    quantity = "V(D, G)"
    has_validation = False

    def __init__(
        self, *, draws: Any = "fresh", steps: int = 1, noise_of_data: bool = False,
        normalized: bool = True, dies_in_epoch: int | None = None,
    ) -> None:  # fmt: skip
        self.draws, self.steps, self.noise_of_data = draws, steps, noise_of_data
        self.normalized, self.dies_in_epoch = normalized, dies_in_epoch
        self.seen: list[tuple[str, Tensor]] = []
        self.calls = 0

    def __repr__(self) -> str:
        return f"Adversaries({self.draws}, {self.steps})"

    def networks(self, pair: Any) -> nn.Module:
        middle = [nn.BatchNorm1d(8)] if self.normalized else []
        return nn.Sequential(nn.Linear(6, 8), *middle, nn.Tanh(), nn.Linear(8, 1))

    def players(self, pair: Any, networks: Any) -> Sequence[pg.Player]:
        def fake(name: str, x: Tensor) -> Tensor:
            z = x[:, :2] - x[:, 2:4] if self.noise_of_data else torch.randn_like(x[:, :2])
            self.seen.append((name, z.detach()))
            mean: Tensor = pair.p_x(z=z).mean
            return mean

        def criticism(
            pair: Any, data: Mapping[str, Tensor], *, observed: Any = None
        ) -> tuple[Tensor, dict[str, Tensor]]:
            self.calls += 1
            if self.dies_in_epoch is not None and self.calls == 3 * self.dies_in_epoch - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            real, made = networks(data["x"]), networks(fake("critic", data["x"]))
            value = -softplus(-real) - softplus(made)
            return value.squeeze(1), {"D(x)": real.sigmoid().mean()}

        def deception(pair: Any, data: Mapping[str, Tensor], *, observed: Any = None) -> Tensor:
            return -softplus(-networks(fake("generator", data["x"]))).squeeze(1)

        decoder = tuple(pair.p_x.parameters())
        return [
            pg.Player("critic", tuple(networks.parameters()), criticism, steps=self.steps,
                      optimizer=partial(torch.optim.Adam, lr=2e-3)),
            pg.Player("generator", decoder, deception, draws=self.draws),
        ]  # fmt: skip


class Moments(pg.Objective):
    """A value of a batch: how near the average of the decoder's means is to that of the data."""

    has_validation = False

    def __init__(self, parts: int) -> None:
        self.parts = parts

    def players(self, pair: Any, networks: Any) -> Sequence[pg.Player]:
        def nearness(pair: Any, data: Mapping[str, Tensor], *, observed: Any = None) -> Tensor:
            total = torch.zeros((), dtype=torch.float64)
            for x in data["x"].tensor_split(self.parts):
                made = pair.p_x(z=x[:, :2] - x[:, 2:4]).mean.mean(0)
                total = total - len(x) * (made - x.mean(0)).square().sum()
            return total / len(data["x"])

        return [pg.Player("decoder", tuple(pair.p_x.parameters()), nearness, unit="batch")]
