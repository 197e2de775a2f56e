"""What the tests of fit share: a small pair, data with structure, a network that breaks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import probgen as pg
from tests.pairs import CASES

QUICK: Any = {"progress": False, "device": "cpu"}


def vae() -> pg.LatentVariableModel:
    torch.manual_seed(0)
    return CASES["VAE"].build()


def structured(n: int = 64) -> Tensor:
    """Binary rows of two kinds, so that there is something to learn."""
    kinds = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).float()
    return kinds[torch.arange(n) % 2]


def weights(pair: pg.LatentVariableModel) -> Tensor:
    return torch.cat([p.detach().flatten() for p in pair.parameters()])


def bad(value: Any) -> Tensor:
    x = structured(32)
    x[5, 2] = value
    return x


class Explodes(torch.nn.Module):
    """A linear map whose output is multiplied by `value` from its call number `start` on."""

    def __init__(self, value: float, start: int) -> None:
        super().__init__()
        self.linear, self.value, self.start, self.calls = torch.nn.Linear(2, 6), value, start, 0

    def forward(self, z: Tensor) -> Tensor:
        self.calls += self.training
        out: Tensor = self.linear(z)
        return out * self.value if self.calls >= self.start else out
