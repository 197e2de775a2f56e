"""The module that is trained: the pair together with the networks of the objective."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from probgen.basics.randomness import fixed_seed
from probgen.inference.objectives.base import Objective


class TrainingModule(nn.Module):
    """The pair, and the networks of the objective, such as a critic.

    Args:
        pair: the model, on its device and in its precision.
        objective: makes its networks; their initial weights depend on the seed.
        seed: the seed of the fit.
        device: the device of the networks.
        dtype: the dtype of their weights.

    Raises:
        TypeError: the objective returns networks that are not a module.
    """

    def __init__(
        self, pair: Any, objective: Objective, seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.pair = pair
        with fixed_seed(seed, torch.device("cpu")):
            networks = objective.networks(pair)
        if networks is not None and not isinstance(networks, nn.Module):
            raise TypeError(
                f"fit: {type(objective).__name__}.networks must return a torch.nn.Module or None, got "
                f"{networks!r}."
            )
        self.networks = None if networks is None else networks.to(device=device, dtype=dtype)

    @property
    def name(self) -> str:
        """The name of the pair, for messages."""
        return str(self.pair.name)

    def label(self, name: str) -> str:
        """The name of a parameter in messages; parameters of the pair have no prefix."""
        return name.removeprefix("pair.")
