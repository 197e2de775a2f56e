"""Labels as users give them, some of them unknown: class codes and a mask."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import column_or_1d

NO_MARKER = object()
"""Where every label is known."""


@dataclass(frozen=True)
class Labels:
    """A label a row.

    Attributes:
        known: which rows have one.
        filled: the labels, with an arbitrary known one where there is none.
        classes: the classes, sorted.
        marker: what stands for an unknown label.
    """

    known: NDArray[np.bool_]
    filled: NDArray[Any]
    classes: NDArray[Any]
    marker: Any

    @classmethod
    def read(
        cls, y: ArrayLike, marker: Any, classes: Sequence[Any] | NDArray[Any] | None, owner: str
    ) -> Labels:
        """Read what a user gave.

        Raises:
            ValueError: no row has a label, or the marker is a number and the labels are text.
        """
        labels = _as_array(y, marker, owner)
        if classes is None and _is_binary_coding(labels, marker):
            warnings.warn(
                f"{owner}: y holds -1 and 1 only, which is read as two classes, all known. If -1 means "
                "unlabelled, there is one class only: label rows of a second one.",
                stacklevel=5,
            )
            marker = NO_MARKER
        known = ~_is_marker(labels, marker)
        if not known.any():
            raise ValueError(
                f"{owner}: none of the {len(labels)} rows has a label (all are {marker!r}, which means "
                "unlabelled). Label some rows of every class."
            )
        filled = labels.copy()
        filled[~known] = labels[known][0]
        if labels.dtype == object:
            filled = np.asarray(filled.tolist())
        found = np.unique(filled if classes is None else np.asarray(classes))
        return cls(known, filled, found, marker)

    @property
    def given(self) -> NDArray[Any]:
        """The labels of the rows that have one."""
        return self.filled[self.known]

    @property
    def codes(self) -> NDArray[np.int64]:
        """The number of each row's class, 0 where it is unknown."""
        found = np.searchsorted(self.classes, self.filled)
        return np.where(self.known, found, 0).astype(np.int64)

    def check_classes(self, owner: str) -> None:
        """Whether the labels are enough to learn from.

        Raises:
            ValueError: a label beyond the declared classes, a class without a label, or one class only.
        """
        classes, found = self.classes.tolist(), np.unique(self.given).tolist()
        beyond = [label for label in found if label not in classes]
        without = [label for label in classes if label not in found]
        if beyond or without:
            what = "labels beyond the declared classes" if beyond else "no row is labelled"
            shown = ", ".join(map(repr, (beyond or without)[:5]))
            raise ValueError(
                f"{owner}: {what}: {shown}; classes={classes!r}. Label at least one row of each class, "
                "or leave classes out."
            )
        if len(classes) < 2:
            raise ValueError(
                f"{owner}: all labelled rows are of one class, {classes[0]!r}, so there is nothing to "
                "tell apart. Label rows of a second class."
            )
        if self.known.all() and self.marker is not NO_MARKER:
            warnings.warn(
                f"{owner}: every row has a label, so this is supervised learning. Rows without one are "
                f"marked by {self.marker!r}.",
                stacklevel=4,
            )


def _as_array(y: ArrayLike, marker: Any, owner: str) -> NDArray[Any]:
    """Labels as an array whose elements are what the user gave: ["a", -1] keeps its number."""
    labels = np.asarray(y)
    if isinstance(y, (list, tuple)) and labels.dtype.kind in "US":
        labels = np.asarray(y, dtype=object)
    labels = column_or_1d(labels, warn=True)
    if labels.dtype.kind in "USO" and isinstance(marker, (int, float)):
        text = str(marker)
        if any(isinstance(label, str) and label == text for label in labels.tolist()):
            raise ValueError(
                f"{owner}: the labels are text, {text!r} among them, but unlabelled={marker!r} is no "
                f"text. Use unlabelled={text!r}, or another word."
            )
    return labels


def _is_marker(labels: NDArray[Any], marker: Any) -> NDArray[np.bool_]:
    if marker is None or marker != marker:  # NaN
        return np.asarray(pd.isna(labels))
    return np.asarray([label == marker for label in labels.tolist()], dtype=bool)


def _is_binary_coding(labels: NDArray[Any], marker: Any) -> bool:
    """Whether labels are -1 and 1: by scikit-learn's convention two classes, all known."""
    number = isinstance(marker, int) and marker == -1
    return number and labels.dtype.kind in "if" and set(np.unique(labels).tolist()) == {-1, 1}
