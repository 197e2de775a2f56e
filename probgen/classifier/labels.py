"""Labels as users give them, some of them unknown, read as class codes and a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import column_or_1d

from probgen.basics.user_warnings import warn

NO_MARKER = object()
"""Stands for "no value marks an unknown label": every label is known."""


@dataclass(frozen=True)
class Labels:
    """One label per row, some of them unknown.

    Attributes:
        known: which rows have a label, shape `(rows,)`.
        filled: the labels, with an arbitrary known one where a label is unknown, shape `(rows,)`.
        classes: the classes, sorted, shape `(classes,)`.
        marker: the value that stands for an unknown label.
    """

    known: NDArray[np.bool_]
    filled: NDArray[Any]
    classes: NDArray[Any]
    marker: Any

    @classmethod
    def read(
        cls, y: ArrayLike, marker: Any, classes: Sequence[Any] | NDArray[Any] | None, owner: str
    ) -> Labels:
        """Read the labels that a user gave.

        Args:
            y: one label per row.
            marker: the value that stands for an unknown label.
            classes: all classes; by default those of the labelled rows.
            owner: the caller, for messages.

        Raises:
            ValueError: no row has a label; or the labels are of another kind than the marker, or of two
                kinds; or some are NaN or `None`, but the marker is not; or NumPy would change a label.
        """
        labels = _as_array(y, owner)
        _check_marker(labels, marker, owner)
        declared = [] if classes is None or _is_missing(marker) else np.asarray(classes).tolist()
        if marker in declared:
            if set(declared) != {-1, 1}:
                raise ValueError(
                    f"{owner}: unlabelled={marker!r} is among classes={declared!r}. "
                    "Choose another value for unlabelled rows."
                )
            marker = NO_MARKER
        elif classes is None and _is_binary_coding(labels, marker):
            warn(
                f"{owner}: y holds -1 and 1 only, which is read as two classes, all known; pass "
                "classes=[-1, 1] to say so without this warning. If -1 means unlabelled, only one class "
                "is labelled: label rows of a second class, and give both as classes=."
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
            filled = _unchanged(filled.tolist(), owner)
        _check_floats(filled, owner)
        all_classes = np.unique(filled if classes is None else _unchanged(list(classes), owner))
        return cls(known, filled, all_classes, marker)

    @property
    def given(self) -> NDArray[Any]:
        """The labels of the rows that have one."""
        return self.filled[self.known]

    @property
    def codes(self) -> NDArray[np.int64]:
        """The class code 0, 1, ... of each row, 0 where the label is unknown, shape `(rows,)`."""
        codes = np.searchsorted(self.classes, self.filled)
        return np.where(self.known, codes, 0).astype(np.int64)

    def check_classes(self, owner: str) -> None:
        """Check that the labels are enough to learn from.

        Raises:
            ValueError: a label that is not among the declared classes, a class without a labelled row,
                or only one class.
        """
        classes, labels = self.classes.tolist(), np.unique(self.given).tolist()
        beyond = [label for label in labels if label not in classes]
        without = [label for label in classes if label not in labels]
        if beyond or without:
            problem = "labels beyond the declared classes" if beyond else "no row is labelled"
            listed = ", ".join(map(repr, (beyond or without)[:5]))
            raise ValueError(
                f"{owner}: {problem}: {listed}; classes={classes!r}. Label at least one row of each class, "
                "or leave classes out."
            )
        if len(classes) < 2:
            raise ValueError(
                f"{owner}: all labelled rows are of one class, {classes[0]!r}, but a classifier needs at "
                "least two. Label rows of a second class."
            )
        if self.known.all() and self.marker is not NO_MARKER:
            warn(
                f"{owner}: every row has a label, so this is supervised learning. Rows without one are "
                f"marked by {self.marker!r}."
            )


def _as_array(y: ArrayLike, owner: str) -> NDArray[Any]:
    """Labels as an array that keeps each element as it was given: in ["a", -1] a text and a number."""
    if isinstance(y, np.ma.MaskedArray) and np.ma.is_masked(y):
        raise ValueError(
            f"{owner}: y is a masked array with {int(np.ma.count_masked(y))} masked labels, whose mask "
            "would be lost. Fill them with the value for unlabelled rows, as by y.filled(-1)."
        )
    if isinstance(y, (pd.Series, pd.api.extensions.ExtensionArray)) and not isinstance(
        y.dtype, np.dtype
    ):
        y = y.astype(object)  # a missing value would turn integers into floats
    try:
        labels = np.asarray(y)
    except ValueError as error:
        raise ValueError(f"{owner}: y must be one label per row: {error}.") from error
    if isinstance(y, (list, tuple)):
        types = {type(label) for label in y}
        integers = any(issubclass(given, (int, np.integer)) for given in types)
        mixed = (bool in types and len(types) > 1) or (labels.dtype.kind == "f" and integers)
        if labels.dtype.kind in "US" or mixed:
            labels = np.asarray(y, dtype=object)
    return np.asarray(column_or_1d(labels, warn=True))


def _unchanged(labels: list[Any], owner: str) -> NDArray[Any]:
    """Labels as an array of one kind.

    Raises:
        ValueError: NumPy would change a label: 2**53 + 1 among floats, or text that ends in NUL.
    """
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise ValueError(f"{owner}: each label must be one number or one text: {error}.") from error
    for given, stored in zip(labels, array.tolist(), strict=True):
        if given != stored and given == given:
            raise ValueError(
                f"{owner}: the label {given!r} would become {stored!r} in one array with the others. Make all labels "
                "integers of 64 bits, or all text."
            )
    return array


def _check_floats(labels: NDArray[Any], owner: str) -> None:
    """Refuse floats that cannot be classes: infinite ones, and those too large for all integers."""
    if labels.dtype.kind != "f":
        return
    largest = 2.0 ** (np.finfo(labels.dtype).nmant + 1)
    refused = labels[~np.isfinite(labels) | (np.abs(labels) >= largest)]
    if len(refused):
        raise ValueError(
            f"{owner}: y holds {refused[0]}, which is no class"
            + (
                f": {labels.dtype} cannot represent all integers of that size."
                if np.isfinite(refused[0])
                else "."
            )
            + " Store labels as integers or text."
        )


def _check_marker(labels: NDArray[Any], marker: Any, owner: str) -> None:
    """Refuse a marker that cannot mark the unlabelled rows of y, which would then become a class."""
    if marker is NO_MARKER:
        return
    missing = np.asarray(pd.isna(labels))
    if missing.any() and not _is_missing(marker):
        raise ValueError(
            f"{owner}: y holds {int(missing.sum())} missing values (NaN or None), but unlabelled rows are "
            f"marked by {marker!r}. If these are the unlabelled ones, use unlabelled=None."
        )
    number = isinstance(marker, Number)
    given = [label for label in labels[~missing].tolist() if number or label != marker]
    texts = [label for label in given if isinstance(label, str)]
    others = [label for label in given if not isinstance(label, str)]
    if number and texts and str(marker) in texts:
        raise ValueError(
            f"{owner}: the labels are text, {str(marker)!r} among them, but unlabelled={marker!r} is a "
            f"number. Use unlabelled={str(marker)!r}, or another word."
        )
    known = [label for label in others if label != marker]
    if isinstance(marker, str) and others and not texts:
        raise ValueError(
            f"{owner}: the labels are numbers such as {others[0]!r}, but unlabelled={marker!r} is text. "
            "Use a number that is no class."
        )
    booleans = [label for label in known if isinstance(label, (bool, np.bool_))]
    if booleans and len(booleans) < len(known):
        other = next(label for label in known if not isinstance(label, (bool, np.bool_)))
        raise ValueError(
            f"{owner}: the labels mix booleans and numbers, such as {booleans[0]!r} and {other!r}. "
            "Make them all of one kind."
        )
    if texts and known:
        raise ValueError(
            f"{owner}: the labels mix text and numbers, such as {texts[0]!r} and {known[0]!r}. Make them "
            "all of one kind."
        )
    if number and labels.dtype.kind == "u" and marker < 0:
        wrapped = int(np.array([int(marker)]).astype(labels.dtype)[0])
        if wrapped in others:
            raise ValueError(
                f"{owner}: y is {labels.dtype}, which cannot hold unlabelled={marker!r}, and has {wrapped}, "
                f"which {marker!r} may have become. Convert y by y.astype(int) before marking the unlabelled "
                "rows."
            )


def _is_missing(marker: Any) -> bool:
    return bool(np.ndim(marker) == 0 and pd.isna(marker))


def _is_marker(labels: NDArray[Any], marker: Any) -> NDArray[np.bool_]:
    if _is_missing(marker):
        return np.asarray(pd.isna(labels))
    return np.asarray([label == marker for label in labels.tolist()], dtype=bool)


def _is_binary_coding(labels: NDArray[Any], marker: Any) -> bool:
    """Whether all labels are -1 or 1, which in scikit-learn are two classes, all known."""
    return (
        bool(np.ndim(marker) == 0 and not isinstance(marker, str) and marker == -1)
        and labels.dtype.kind in "if"
        and set(np.unique(labels).tolist()) == {-1, 1}
    )
