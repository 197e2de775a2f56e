"""The classification error on validation rows, recorded while a model is trained."""

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

NUM_EVALUATIONS = 20
"""How often the error is computed during a fit."""


class ValidationErrors:
    """A callback of `fit` that records the share of misclassified validation rows.

    The error is that of the model which will predict, with the draws that predictions use, so that the
    last error recorded equals the error of the trained classifier.

    Args:
        pair: the pair that is trained.
        validation: further rows x with their classes y; `None` records nothing.
        num_epochs: of the fit.
        path: a file that keeps the errors for a fit that is resumed; `None` keeps none.
        device: where to compute.
        predictor: returns the model that predicts, given the pair in its present state.
        num_samples: draws of latents over which a prediction is averaged.
        seed: of the draws.
    """

    def __init__(
        self, pair: LatentVariableModel, validation: Dataset | None, num_epochs: int,
        path: Path | None, device: str | torch.device,
        predictor: Callable[[Any], LatentVariableModel], num_samples: int, seed: int,
    ) -> None:  # fmt: skip
        self.pair, self.validation, self.num_epochs = pair, validation, num_epochs
        self.path, self.device, self.predictor = path, device, predictor
        self.num_samples, self.seed = num_samples, seed
        self.errors: list[tuple[int, float]] = []
        if validation is None:
            return
        self.data = f"{fingerprint(validation.values)}, {num_samples} draws, seed {seed}"
        if path is not None and path.exists():
            record = json.loads(path.read_text())
            if record["data"] == self.data:  # errors on other rows do not belong to this curve
                self.errors = [(epoch, error) for epoch, error in record["errors"]]

    def __call__(self, result: FitResult) -> None:
        """Record the error, if it is due after this epoch."""
        epoch, interval = len(result.elbo), max(1, self.num_epochs // NUM_EVALUATIONS)
        if self.validation is None or (epoch % interval and epoch != self.num_epochs):
            return
        predicted = class_probabilities(
            self.predictor(self.pair), self.validation, num_samples=self.num_samples,
            draws="rqmc", seed=self.seed, device=self.device,
        ).argmax(1)  # fmt: skip
        error = float((predicted != self.validation["y"]).double().mean())
        # A fit that resumes from a checkpoint passes some epochs a second time.
        self.errors = [*(pair for pair in self.errors if pair[0] < epoch), (epoch, error)]
        if self.path is not None:
            text = json.dumps({"data": self.data, "errors": self.errors})
            write_atomically(self.path, text.encode(), durable=False)

    def complete(self) -> list[tuple[int, float]]:
        """All errors, pairs of an epoch and a share, after adding the trained model's if it is missing."""
        last = self.errors[-1][0] if self.errors else None
        if self.validation is not None and last != self.num_epochs:
            self(FitResult(self.pair, elbo=[0.0] * self.num_epochs))
        return self.errors
