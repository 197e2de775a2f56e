"""What a trained classifier answers: classes, probabilities, features, and new rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from probgen.basics.checks import as_count
from probgen.basics.locking import one_at_a_time
from probgen.basics.tensors import as_tensor
from probgen.classifier.method import TrainedModel
from probgen.classifier.parameters import method_named
from probgen.classifier.rows import class_codes, labelled_rows, validate_rows
from probgen.classifier.scaling import Array, Scaling
from probgen.data.dataset import Dataset
from probgen.inference.queries.classification import calibration_error
from probgen.inference.queries.decode import decode_draws
from probgen.pair import LatentVariableModel

OWNER = "SemiSupervisedClassifier"


class TrainedClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    """The methods of `SemiSupervisedClassifier` that need a trained model; `fit` sets its attributes."""

    num_samples: int
    device: str
    classes_: NDArray[Any]
    method_: str
    pair_: LatentVariableModel
    _marker: Any
    _scaling: Scaling
    _seed: int
    _trained: TrainedModel

    @one_at_a_time
    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class of each row, shape `(rows,)`."""
        codes = self.predict_proba(X).argmax(1)
        return self.classes_[codes]

    @one_at_a_time
    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities of the classes, averaged over draws of latents, shape `(rows, classes)`.

        The same draws are used for all rows, so that the prediction for a row does not depend on the
        other rows.
        """
        return self._trained_model().class_probabilities(
            self.to_x(X), num_samples=self.num_samples, seed=self._seed, device=self.device
        )

    @one_at_a_time
    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The share of labelled rows whose class is predicted correctly; rows without a label are ignored.

        Raises:
            ValueError: no row has a label.
        """
        check_is_fitted(self, "pair_")
        rows, labels, known = labelled_rows(X, y, self._marker, self.classes_, OWNER)
        if sample_weight is not None:
            check_consistent_length(known, sample_weight)
        weights = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(self.predict(rows) == labels, weights=weights))

    @one_at_a_time
    def calibration_error(self, X: ArrayLike, y: ArrayLike, *, num_bins: int = 15) -> float:
        """The expected calibration error over the labelled rows, as `pg.calibration_error`.

        Raises:
            ValueError: no row has a label, or one has a class that was not among those of `fit`.
        """
        check_is_fitted(self, "pair_")
        rows, labels, _ = labelled_rows(X, y, self._marker, self.classes_, OWNER)
        probabilities = self.predict_proba(rows)
        codes = class_codes(labels, self.classes_, f"{OWNER}.calibration_error")
        return calibration_error(probabilities, codes, num_bins=num_bins)

    @one_at_a_time
    def transform(self, X: ArrayLike) -> Array:
        """Latent features of rows, shape `(rows, elements)`: posterior means of M1's active latents, of
        M2's style, or of ADGM's auxiliary latent."""
        return self._trained_model().features(self.to_x(X), seed=self._seed, device=self.device)

    @one_at_a_time
    def sample(
        self, n: int = 1, *, y: Any = None, means: bool = False, random_state: Any = None
    ) -> Array:
        """Draw new rows from the model.

        Args:
            n: number of rows; of each label, if several are given.
            y: a label, or several; by default the class of each row is drawn too. Not for `"m1"`, whose
                VAE has no class.
            means: return the mean of x given its latents instead of a draw, as is usual for images.
            random_state: seed of the draws.

        Returns:
            Shape `(n, columns)`, or `(labels * n, columns)` with the rows of a label together, in the
            units of the training rows.
        """
        model = self._trained_model()
        n = as_count(n, "n", f"{OWNER}.sample")
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        given: dict[str, Any] = {}
        if y is not None:
            if not method_named(self.method_).has_classes:
                raise ValueError(
                    f'{OWNER}.sample: "{self.method_}" has no model of rows given a class. Leave y out, '
                    'or use method="m2", "m1+m2" or "adgm".'
                )
            labels = np.atleast_1d(np.asarray(y))
            given["y"] = torch.from_numpy(class_codes(labels, self.classes_, f"{OWNER}.sample"))
        if means:
            x = decode_draws(model.pair, n, seed=seed, owner=f"{OWNER}.sample", **given)
        else:
            x = model.pair.sample(n, seed=seed, **given)["x"]
        x = x.transpose(0, 1).flatten(0, 1) if given else x
        return self._scaling.inverse(x)

    def to_x(self, X: ArrayLike) -> Dataset:
        """Rows as the data of `pair_`: grey values as probabilities of ones, or the columns that vary,
        standardized."""
        check_is_fitted(self, "pair_")
        return self._scaling.dataset(validate_rows(self, X, reset=False))

    def from_x(self, x: Any) -> Array:
        """The data x of `pair_` as rows, in the units of the training rows."""
        check_is_fitted(self, "pair_")
        return self._scaling.inverse(as_tensor(x, "x", f"{OWNER}.from_x"))

    @property
    def _n_features_out(self) -> int:
        return len(self._trained.columns)

    def _trained_model(self) -> TrainedModel:
        check_is_fitted(self, "pair_")
        return self._trained
