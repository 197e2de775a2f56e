"""Check seeds and counts that users give."""

from __future__ import annotations

import operator
from typing import Any


def as_seed(seed: Any, owner: str) -> int:
    """A seed as an int, small enough that a seed of each pass can be derived from it.

    Raises:
        TypeError: not an integer.
        ValueError: negative, or 2**40 or more.
    """
    try:
        value = operator.index(seed)
    except TypeError:
        raise TypeError(f"{owner}: seed must be an int, got {seed!r}.") from None
    if not 0 <= value < 2**40:
        raise ValueError(f"{owner}: seed must be from 0 to 2**40 - 1, got {value}.")
    return value


def as_count(value: Any, name: str, owner: str, least: int = 1, most: int | None = None) -> int:
    """A count as an int; integers of NumPy are accepted.

    Raises:
        ValueError: not an integer, below `least`, or above `most`.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = least - 1
    if isinstance(value, bool) or count < least:
        raise ValueError(f"{owner}: {name} must be an int of at least {least}, got {value!r}.")
    if most is not None and count > most:
        raise ValueError(f"{owner}: {name} must be at most {most:,}, got {count:,}.")
    return count
