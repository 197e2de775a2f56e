"""Code the labels of a file as classes 0, 1, ...; different labels get different codes, and none is lost."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probgen.basics.user_warnings import warn
from probgen.data.csv_tables import MISSING, NUMBER

Array = NDArray[Any]

LARGEST = 2**63
"""Whole numbers below this one are read as numbers; larger ones remain text."""


def coded(y: Array, file: str) -> tuple[NDArray[np.int64], NDArray[np.bool_], list[Any] | None]:
    """Code labels as classes.

    Labels that are text are one class if their characters are equal; empty text means unknown. Text is read
    as numbers only if all labels are whole numbers written in one way, so that 007 and 7, or 1e5 and 100000,
    stay two classes.

    Args:
        y: one label for each row, shape `(data,)`.
        file: the name of the file, for messages.

    Returns:
        The codes, a mask of the rows whose label is known, both of shape `(data,)`, and the names of the
        classes; `None` if these are 0, 1, ...

    Raises:
        ValueError: labels that cannot be classes: fractions, infinity, floats so large that they
            represent several whole numbers; or no label at all.
    """
    if y.ndim != 1:
        raise ValueError(f"load: the labels of {file} have shape {y.shape}, expected ({len(y)},).")
    if y.dtype.kind in "iub":
        known = np.ones(len(y), bool)
        names, codes = np.unique(y, return_inverse=True)
        classes: list[Any] = (names.astype(int) if y.dtype.kind == "b" else names).tolist()
    elif y.dtype.kind == "f":
        known = ~np.isnan(y)
        names, codes = np.unique(_whole(y[known], file), return_inverse=True)
        classes = [int(name) for name in names.tolist()]
    elif y.dtype.kind in "USM":
        known, codes, classes = _of_text(y, file)
    else:
        raise ValueError(
            f"load: the labels of {file} must be whole numbers or text, got an array of {y.dtype}."
        )
    if not classes:
        raise ValueError(f"load: no label of {file} is known. Load it without labels.")
    result = np.zeros(len(y), np.int64)
    result[known] = codes
    return result, known, None if classes == list(range(len(classes))) else classes


def coding(classes: list[Any]) -> str:
    """The meaning of the codes in words, as run directories record it."""
    listed = ", ".join(f"{code}={label}" for code, label in enumerate(classes[:20]))
    if len(classes) > 20:
        digest = hashlib.sha256("\n".join(map(str, classes)).encode()).hexdigest()[:8]
        listed += f", ... ({len(classes)} classes, hash {digest})"
    return f"y coded {listed}"


def _whole(values: Array, file: str) -> Array:
    """Check that floats are whole numbers, and small enough to be exact."""
    not_finite = values[~np.isfinite(values)]
    if len(not_finite):
        raise ValueError(
            f"load: the labels of {file} hold {not_finite[0]}, which cannot be a class. Where a label is unknown, write NaN "
            "(in text: nothing)."
        )
    if (values != np.round(values)).any():
        raise ValueError(
            f"load: the labels of {file} cannot be classes: {values[values != np.round(values)][0]} "
            "is not a whole number. Keep real-valued columns among the data."
        )
    largest = 2.0 ** (np.finfo(values.dtype).nmant + 1)
    if (np.abs(values) >= largest).any():
        raise ValueError(
            f"load: the labels of {file} hold {values[np.abs(values) >= largest][0]}, where "
            f"{values.dtype} cannot represent every whole number. Store labels as integers or text."
        )
    return values


def _of_text(y: Array, file: str) -> tuple[NDArray[np.bool_], NDArray[Any], list[Any]]:
    try:
        given = y.astype(str)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"load: the labels of {file} are bytes that are not ASCII text; save them as text."
        ) from error
    text = np.char.strip(given)
    known = text != ""
    names, codes = np.unique(text[known], return_inverse=True)
    listed = names.tolist()
    if len(listed) < len(set(given[known].tolist())):
        warn(
            f"load: labels of {file} that differ only in spaces at their ends are taken as one class."
        )
    numbers = {name: _number(name) for name in listed}
    if listed and all(number is not None for number in numbers.values()):
        return _of_numbers(text, known, listed, numbers, file)
    missing = [name for name in listed if name.lower() in MISSING]
    others = [name for name in listed if name.lower() not in MISSING]
    if missing and others and all(numbers[name] is not None for name in others):
        warn(
            f"load: {missing[0]!r} is a class among the labels of {file}, whose others are numbers. Leave "
            "cells empty where a label is unknown."
        )
    return known, codes, listed


def _of_numbers(
    text: Array, known: NDArray[np.bool_], names: list[str], numbers: dict[str, Decimal | None], file: str
) -> tuple[NDArray[np.bool_], NDArray[Any], list[Any]]:  # fmt: skip
    """Labels that can all be read as numbers: coded as numbers, or as text if two would be one number."""
    numeric = {name: n for name, n in numbers.items() if n is not None and not n.is_nan()}
    infinite = [name for name, number in numeric.items() if number.is_infinite()]
    if infinite:
        raise ValueError(
            f"load: the labels of {file} hold {infinite[0]!r}, which cannot be a class beside numbers. Leave cells "
            "empty where a label is unknown."
        )
    fractions = [name for name, number in numeric.items() if number != number.to_integral_value()]
    if fractions:
        raise ValueError(
            f"load: the labels of {file} cannot be classes: {fractions[0]} is not a whole number. Keep "
            "real-valued columns among the data."
        )
    values = {name: int(number) for name, number in numeric.items() if abs(number) < LARGEST}
    seen: dict[Decimal, str] = {}
    for name, number in numeric.items():
        if number in seen:
            warn(
                f"load: the labels {seen[number]!r} and {name!r} of {file} are the same number written in "
                "two ways, and are taken as two classes. Write them in one way if they are one class."
            )
            break
        seen[number] = name
    padded = any(name.lstrip("+-").startswith("0") and value for name, value in values.items())
    if len(seen) < len(numeric) or len(values) < len(numeric) or padded:
        labels, codes = np.unique(text[known], return_inverse=True)
        return known, codes, labels.tolist()
    known = known & np.isin(text, list(numeric))  # NaN, as NumPy writes it
    classes = sorted(values.values())
    code_of = {label: code for code, label in enumerate(classes)}
    codes = np.array([code_of[values[name]] for name in text[known].tolist()], np.int64)
    return known, codes, classes


def _number(text: str) -> Decimal | None:
    return Decimal(text) if NUMBER.fullmatch(text) else None
