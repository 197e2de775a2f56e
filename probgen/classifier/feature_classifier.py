"""The classifier of M1: it learns labels from the latent features of a VAE."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.semi_supervised import LabelPropagation, LabelSpreading, SelfTrainingClassifier

from probgen.classifier.label_spreading import fit_label_spreading
from probgen.classifier.scaling import Array
from probgen.data.dataset import Dataset
from probgen.inference.sobol import gaussian_points, rounded

TRANSDUCTIVE = (LabelPropagation, LabelSpreading, SelfTrainingClassifier)
"""Classifiers that learn from rows without a label too, which they take with the label -1."""


class FeatureClassifier:
    """A scikit-learn classifier of latent features; label spreading by default.

    Args:
        classifier: any scikit-learn classifier. One that also learns from rows without a label
            is given them; every other one is given the labelled rows only.
    """

    def __init__(self, classifier: Any = None) -> None:
        self.classifier = classifier

    def fit(self, encoded: Dataset) -> FeatureClassifier:
        """Learn the classes from posterior means.

        Args:
            encoded: posterior means x of the active latents, shape `(rows, elements)`, and the class
                codes y, with a mask if some are unknown.
        """
        means = encoded["x"].double().numpy()
        known = encoded.fields["y"].known.numpy()
        codes = np.where(known, encoded["y"].numpy(), -1)
        self.class_shares = np.bincount(codes[known]) / known.sum()
        if self.classifier is None:
            self.fitted: Any = fit_label_spreading(means, codes)
            return self
        classifier = clone(self.classifier)
        last = classifier.steps[-1][1] if isinstance(classifier, Pipeline) else classifier
        rows = np.ones_like(known) if isinstance(last, TRANSDUCTIVE) else known
        self.fitted = classifier.fit(means[rows], codes[rows])
        return self

    def class_probabilities(self, encoded: Dataset, num_samples: int, seed: int) -> Array:
        """Class probabilities, averaged over draws of the features.

        The same standard normal draws are used for every row, so that the probabilities of one
        row do not depend on the other rows.

        Args:
            encoded: posterior means x with their scales as noise, as `features(redraw=True)` returns.
            num_samples: number of draws, rounded to 16 times a power of two.
            seed: of the draws.

        Returns:
            Shape `(rows, classes)`.
        """
        points = gaussian_points(rounded(num_samples), encoded["x"].shape[1], seed)
        total: Any = 0.0
        for point in points:
            drawn = encoded["x"].double() + encoded.spread["x"].double() * point
            total = total + self._probabilities(drawn.numpy())
        return np.asarray(total / len(points))

    def _probabilities(self, rows: Array) -> Array:
        """The classifier's probabilities, or one-hot decisions of a classifier without any.

        Rows that label spreading does not reach get the shares of the classes among the labels.
        """
        if not hasattr(self.fitted, "predict_proba"):
            return np.asarray(np.eye(len(self.class_shares))[self.fitted.predict(rows)])
        with np.errstate(invalid="ignore"):
            probabilities = np.asarray(self.fitted.predict_proba(rows), dtype=np.float64)
        reached = np.isfinite(probabilities).all(1, keepdims=True)
        return np.where(reached, probabilities, self.class_shares)
