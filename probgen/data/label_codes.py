"""Labels of a file as classes 0, 1, ...: different labels stay different, and none is lost on the way."""

from __future__ import annotations

import hashlib
import warnings
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probgen.data.csv_tables import MISSING, NUMBER

Array = NDArray[Any]

LARGEST = 2**63
"""Whole numbers below it are classes by number; larger ones are text."""


def coded(y: Array, file: str) -> tuple[NDArray[np.int64], NDArray[np.bool_], list[Any] | None]:
    """Labels as classes, which of them are known, and the classes' names, if they are not 0, 1, ...

    Text is a class by its characters, empty where it is unknown. It is a number only where all labels are
    whole numbers written in one way, so that 007 and 7, or 1e5 and 100000, stay two classes.

    Args:
        y: of every row.
        file: the name of the file.

    Raises:
        ValueError: labels that are no classes: fractions, infinity, floats too large to be told from their
            neighbours, or none at all.
    """
    if y.ndim != 1:
        raise ValueError(f"load: the labels of {file} have shape {y.shape}, expected ({len(y)},).")
    if y.dtype.kind in "iub":
        known = np.ones(len(y), bool)
        names, codes = np.unique(y, return_inverse=True)
        kinds: list[Any] = (names.astype(int) if y.dtype.kind == "b" else names).tolist()
    elif y.dtype.kind == "f":
        known = ~np.isnan(y)
        names, codes = np.unique(_whole(y[known], file), return_inverse=True)
        kinds = [int(name) for name in names.tolist()]
    elif y.dtype.kind in "USM":
        known, codes, kinds = _of_text(y, file)
    else:
        raise ValueError(
            f"load: the labels of {file} must be whole numbers or text, got an array of {y.dtype}."
        )
    if not kinds:
        raise ValueError(f"load: no label of {file} is known; leave the labels out.")
    result = np.zeros(len(y), np.int64)
    result[known] = codes
    return result, known, None if kinds == list(range(len(kinds))) else kinds


def coding(kinds: list[Any]) -> str:
    """What the codes mean, in words."""
    listed = ", ".join(f"{code}={kind}" for code, kind in enumerate(kinds[:20]))
    if len(kinds) > 20:
        digest = hashlib.sha256("\n".join(map(str, kinds)).encode()).hexdigest()[:8]
        listed += f", ... ({len(kinds)} classes, hash {digest})"
    return f"y coded {listed}"


def _whole(values: Array, file: str) -> Array:
    """Floats that are whole numbers, each the only one that rounds to it."""
    odd = values[~np.isfinite(values)]
    if len(odd):
        raise ValueError(
            f"load: the labels of {file} hold {odd[0]}, which is no class. Write NaN (in text: nothing) where "
            "a label is unknown."
        )
    if (values != np.round(values)).any():
        raise ValueError(
            f"load: the labels of {file} are no classes: {values[values != np.round(values)][0]} "
            "is no whole number. Leave real-valued columns among the data."
        )
    largest = 2.0 ** (np.finfo(values.dtype).nmant + 1)
    if (np.abs(values) >= largest).any():
        raise ValueError(
            f"load: the labels of {file} hold {values[np.abs(values) >= largest][0]}, where "
            f"{values.dtype} leaves whole numbers out. Store labels as integers or text."
        )
    return values


def _of_text(y: Array, file: str) -> tuple[NDArray[np.bool_], NDArray[Any], list[Any]]:
    try:
        given = y.astype(str)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"load: the labels of {file} are bytes that are no ASCII text; save them as text."
        ) from error
    text = np.char.strip(given)
    known = text != ""
    names, codes = np.unique(text[known], return_inverse=True)
    listed = names.tolist()
    if len(listed) < len(set(given[known].tolist())):
        _warn(f"load: labels of {file} that differ by blanks at their ends are taken as one class.")
    numbers = {name: _number(name) for name in listed}
    if listed and all(number is not None for number in numbers.values()):
        return _of_numbers(text, known, listed, numbers, file)
    missing = [name for name in listed if name.lower() in MISSING]
    others = [name for name in listed if name.lower() not in MISSING]
    if missing and others and all(numbers[name] is not None for name in others):
        _warn(
            f"load: {missing[0]!r} is a class among the labels of {file}, whose others are numbers. Leave "
            "cells empty where a label is unknown."
        )
    return known, codes, listed


def _of_numbers(
    text: Array, known: NDArray[np.bool_], names: list[str], numbers: dict[str, Decimal | None], file: str
) -> tuple[NDArray[np.bool_], NDArray[Any], list[Any]]:  # fmt: skip
    """Labels that all read as numbers: by number, or where that would change them as text."""
    there = {name: n for name, n in numbers.items() if n is not None and not n.is_nan()}
    endless = [name for name, number in there.items() if number.is_infinite()]
    if endless:
        raise ValueError(
            f"load: the labels of {file} hold {endless[0]!r}, which is no class beside numbers. Leave cells "
            "empty where a label is unknown."
        )
    fractions = [name for name, number in there.items() if number != number.to_integral_value()]
    if fractions:
        raise ValueError(
            f"load: the labels of {file} are no classes: {fractions[0]} is no whole number. Leave "
            "real-valued columns among the data."
        )
    values = {name: int(number) for name, number in there.items() if abs(number) < LARGEST}
    seen: dict[Decimal, str] = {}
    for name, number in there.items():
        if number in seen:
            _warn(
                f"load: the labels {seen[number]!r} and {name!r} of {file} are one number, but different text, "
                "so they are two classes. Write them alike if they are one."
            )
            break
        seen[number] = name
    padded = any(name.lstrip("+-").startswith("0") and value for name, value in values.items())
    if len(seen) < len(there) or len(values) < len(there) or padded:
        kept, codes = np.unique(text[known], return_inverse=True)
        return known, codes, kept.tolist()
    known = known & np.isin(text, list(there))  # NaN, as NumPy writes it
    kinds = sorted(values.values())
    place = {kind: code for code, kind in enumerate(kinds)}
    found = np.array([place[values[name]] for name in text[known].tolist()], np.int64)
    return known, found, kinds


def _number(text: str) -> Decimal | None:
    return Decimal(text) if NUMBER.fullmatch(text) else None


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=7)
