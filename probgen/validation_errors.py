"""Classification errors on validation rows, noted while a model is trained."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from probgen.data import Dataset, fingerprint
from probgen.files import write_atomically
from probgen.inference.classification import class_probabilities
from probgen.inference.results import FitResult
from probgen.pair import LatentVariableModel


class Errors:
    """A callback of `fit` that notes the share of wrong validation rows, twenty times along the way.

    Args:
        pair: what is trained.
        held: rows with their classes; without them nothing is noted.
        epochs: of the fit.
        path: a file that keeps what was noted for a fit that goes on.
        device: where to compute.
    """

    def __init__(
        self, pair: LatentVariableModel, held: Dataset | None, epochs: int, path: Path | None,
        device: str | torch.device,
    ) -> None:  # fmt: skip
        self.pair, self.held, self.epochs, self.path, self.device = pair, held, epochs, path, device
        self.data = None if held is None else fingerprint(held.values)
        self.found: list[tuple[int, float]] = []
        if held is not None and self.path is not None and self.path.exists():
            kept = json.loads(self.path.read_text())
            if kept["data"] == self.data:  # of other rows they would say nothing
                self.found = [(epoch, share) for epoch, share in kept["errors"]]

    def __call__(self, result: FitResult) -> None:
        done = len(result.elbo)
        if self.held is None or (done % max(1, self.epochs // 20) and done != self.epochs):
            return
        wrong = class_probabilities(self.pair, self.held, device=self.device).argmax(1)
        share = float((wrong != self.held["y"]).double().mean())
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
