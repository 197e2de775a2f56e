"""Classifiers on top of M1: what learns the labels from the latent features of a VAE."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from sklearn.semi_supervised import LabelPropagation, LabelSpreading, SelfTrainingClassifier

from probgen.classifier.labels import Labels
from probgen.classifier.scaling import Array
from probgen.data.dataset import Dataset
from probgen.inference.sobol import gaussian_points, rounded

WIDE = 50
"""Principal components in which neighbours are looked for, where data have more elements."""


class FeatureClassifier:
    """A scikit-learn classifier of latent features; label spreading, where none is named.

    Args:
        classifier: any; one that learns from rows without a label too is given them.
    """

    def __init__(self, classifier: Any = None) -> None:
        self.classifier = classifier

    def fit(self, means: Array, labels: Labels) -> Any:
        """Learn from posterior means, shape `(rows, elements)`; returns the fitted classifier."""
        known, codes = labels.known, np.where(labels.known, labels.codes, -1)
        self.prior = np.bincount(codes[known], minlength=len(labels.classes)) / known.sum()
        if self.classifier is None:
            self.fitted: Any = spreading(means, codes)
            return self.fitted
        made = clone(self.classifier)
        last = made.steps[-1][1] if isinstance(made, Pipeline) else made
        takes_all = isinstance(last, (LabelPropagation, LabelSpreading, SelfTrainingClassifier))
        rows = np.ones_like(known) if takes_all else known
        self.fitted = made.fit(means[rows], codes[rows])
        return self.fitted

    def probabilities(self, found: Dataset, num_samples: int, seed: int) -> Array:
        """Averages over draws of the features, the same for every row, shape `(rows, classes)`.

        Args:
            found: features, with their posterior scales as spread.
            num_samples: draws, as `rounded` takes it.
            seed: of the draws.
        """
        points = gaussian_points(rounded(num_samples), found["x"].shape[1], seed)
        total: Any = 0.0
        for point in points:
            drawn = found["x"].double() + found.spread["x"].double() * point
            total = total + self._shares(drawn.numpy())
        return np.asarray(total / len(points))

    def _shares(self, rows: Array) -> Array:
        """What the classifier says: its probabilities, or its decisions where it has none.

        Rows that no label has spread to have the shares of the classes among the labels.
        """
        if not hasattr(self.fitted, "predict_proba"):
            return np.asarray(np.eye(len(self.prior))[self.fitted.predict(rows)])
        with np.errstate(invalid="ignore"):
            shares = np.asarray(self.fitted.predict_proba(rows), dtype=np.float64)
        return np.where(np.isfinite(shares).all(1, keepdims=True), shares, self.prior)


def spreading(x: Any, codes: Any) -> LabelSpreading:
    """Class codes, -1 where unknown, spread over ten neighbours."""
    made = LabelSpreading("knn", n_neighbors=min(10, len(x) - 1), alpha=0.9, max_iter=100)
    with warnings.catch_warnings():  # by then changes are a 40,000th of the first
        warnings.simplefilter("ignore", ConvergenceWarning)
        return made.fit(x, codes)


def spread_labels(data: Dataset) -> torch.Tensor:
    """A class for every row: its own where it is known, else what spreads there from its neighbours."""
    assert data.observed is not None
    known, codes, x = data.observed["y"], data["y"].long(), data["x"].double().numpy()
    if bool(known.all()):
        return codes
    if min(x.shape) > WIDE:  # the search for neighbours takes as long as x is wide
        x = PCA(WIDE, random_state=0).fit_transform(x)
    made = spreading(x, torch.where(known, codes, -1).numpy())
    # A row's neighbours say more than what reached it alone.
    return torch.where(known, codes, torch.from_numpy(made.predict(x)).long())
