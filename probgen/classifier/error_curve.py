"""Classification errors on validation rows, noted while a model is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from probgen.data.dataset import Dataset
from probgen.data.fingerprint import fingerprint
from probgen.inference.queries.classification import class_probabilities
from probgen.inference.training.results import FitResult
from probgen.pair import LatentVariableModel
from probgen.storage.files import write_atomically


class Errors:
    """A callback of `fit` that notes the share of wrong validation rows, twenty times along the way.

    They are those of what is made of the pair for predictions, with the draws of predictions, so that the
    last is that of the classifier.

    Args:
        pair: what is trained.
        held: x of further rows with their classes y; without them nothing is noted.
        epochs: of the fit.
        path: a file that keeps what was noted for a fit that goes on.
        device: where to compute.
        predicting: makes of the pair as it stands what predicts.
        num_samples: draws of latents that a prediction is averaged over.
        seed: of the draws.
    """

    def __init__(
        self, pair: LatentVariableModel, held: Dataset | None, epochs: int, path: Path | None,
        device: str | torch.device, predicting: Callable[[Any], LatentVariableModel],
        num_samples: int, seed: int,
    ) -> None:  # fmt: skip
        self.pair, self.held, self.epochs, self.path, self.device = pair, held, epochs, path, device
        self.predicting, self.num_samples, self.seed = predicting, num_samples, seed
        self.data = (
            None
            if held is None
            else f"{fingerprint(held.values)}, {num_samples} draws, seed {seed}"
        )
        self.found: list[tuple[int, float]] = []
        if held is not None and self.path is not None and self.path.exists():
            kept = json.loads(self.path.read_text())
            if kept["data"] == self.data:  # of other rows they would say nothing
                self.found = [(epoch, share) for epoch, share in kept["errors"]]

    def __call__(self, result: FitResult) -> None:
        done = len(result.elbo)
        if self.held is None or (done % max(1, self.epochs // 20) and done != self.epochs):
            return
        found = class_probabilities(
            self.predicting(self.pair), self.held, num_samples=self.num_samples, draws="rqmc",
            seed=self.seed, device=self.device,
        ).argmax(1)  # fmt: skip
        share = float((found != self.held["y"]).double().mean())
        # A fit that goes on from a checkpoint comes by again.
        self.found = [*((e, s) for e, s in self.found if e < done), (done, share)]
        if self.path is not None:
            text = json.dumps({"data": self.data, "errors": self.found})
            write_atomically(self.path, text.encode(), outlast_power=False)

    def at_the_end(self) -> list[tuple[int, float]]:
        """All of them, the last of the trained weights."""
        if self.held is not None and (not self.found or self.found[-1][0] != self.epochs):
            self(FitResult(self.pair, elbo=[0.0] * self.epochs))
        return self.found
