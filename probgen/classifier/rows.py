"""Rows and labels as scikit-learn's users give them: checked once, and turned into arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import _safe_indexing, validation
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length

from probgen.basics.tensors import refuse_masked
from probgen.classifier.labels import Labels
from probgen.classifier.scaling import Array


def validate_rows(estimator: Any, X: Any, y: Any = "no_validation", **settings: Any) -> Any:
    """Rows as float64, checked by scikit-learn, which would silently drop a mask of missing cells.

    Args:
        estimator: whose columns these are.
        X: numbers, shape `(rows, columns)`.
        y: labels to be checked too, all of them known; then both are returned.
        **settings: of scikit-learn's `validate_data`; `reset=False` compares the columns with those
            of `fit`.

    Raises:
        ValueError: masked cells, values that are not finite numbers, or other columns than in `fit`.
    """
    refuse_masked(X, "X", type(estimator).__name__)
    return validation.validate_data(estimator, X, y, dtype=np.float64, **settings)


def training_rows(
    estimator: Any, X: ArrayLike, y: ArrayLike, owner: str
) -> tuple[Array, Labels]:  # fmt: skip
    """Rows and their labels, some of them unknown, checked for training.

    Args:
        estimator: the classifier; its `unlabelled` and `classes` say how labels are read.
        X: numbers, shape `(rows, columns)`.
        y: labels, shape `(rows,)`.
        owner: the caller, for messages.

    Raises:
        ValueError: rows that scikit-learn refuses, or labels from which nothing can be learned.
    """
    labels = None if y is None else Labels.read(y, estimator.unlabelled, estimator.classes, owner)
    values, filled = validate_rows(
        estimator, X, labels and labels.filled, ensure_min_samples=2, order="C"
    )  # raises where y is None
    assert labels is not None
    check_classification_targets(filled)
    labels.check_classes(owner)
    return values, labels


def labelled_rows(
    X: Any,
    y: ArrayLike,
    marker: Any,
    classes: NDArray[Any],
    owner: str,
) -> tuple[Any, NDArray[Any], NDArray[np.bool_]]:
    """The rows that have a label, their labels, and which of all rows they are.

    Args:
        X: rows of any kind that scikit-learn indexes.
        y: labels, some of them unknown.
        marker: the value that stands for an unknown label.
        classes: the classes of `fit`.
        owner: the caller, for messages.

    Raises:
        ValueError: no row has a label, or there are more rows than labels or fewer.
    """
    labels = Labels.read(y, marker, classes, owner)
    check_consistent_length(X, labels.filled)
    return _safe_indexing(X, np.flatnonzero(labels.known)), labels.given, labels.known


def class_codes(labels: NDArray[Any], classes: NDArray[Any], owner: str) -> NDArray[np.int64]:
    """The code 0, 1, ... of each label.

    Raises:
        ValueError: a label that is not among the classes.
    """
    unknown = [label for label in np.unique(labels).tolist() if label not in classes.tolist()]
    if unknown:
        raise ValueError(f"{owner}: no class {unknown[0]!r}; the classes are {classes.tolist()!r}.")
    codes: NDArray[np.int64] = np.searchsorted(classes, labels).astype(np.int64)
    return codes
