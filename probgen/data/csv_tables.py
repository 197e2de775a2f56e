"""Read a .csv file as columns of numbers, and labels as text.

The first line is read as a header, or as data, only if there is no doubt; otherwise an error asks
the user to decide.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII
)
"""The ways in which a number may be written."""

WHOLE = re.compile(r"0|-?[1-9][0-9]*")
"""A whole number, written in the way in which Python prints an integer."""

YEARS = range(1800, 2101)
"""Whole numbers that may be years, and therefore names of columns."""

MISSING = frozenset(
    ["na", "n/a", "#n/a", "#na", "<na>", "nan", "null", "none", "?", "-", "--", ".", "*"]
)
"""Words that stand for a missing value, in lower case."""


@dataclass(frozen=True)
class Table:
    """The content of a .csv file.

    Attributes:
        x: the chosen columns, shape `(rows, columns)`.
        labels: the column of labels as text, if one was named.
        names: of the chosen columns.
        header: whether the first line names the columns.
    """

    x: Array
    labels: Array | None
    names: list[str]
    header: bool


def has_header(path: Path, header: bool | None) -> bool:
    """Whether the first line of a file names its columns.

    If the user does not decide, a line of numbers (or of words for missing values) is data, and a
    line of words is a header, even if four or more of its columns are named by their own numbers. A
    line that may be either is refused: words next to other numbers, years, and whole numbers in
    order such as 0, 1, 2.

    Args:
        path: the file.
        header: the user's decision, or `None`.

    Raises:
        ValueError: the line may be either, or the file is empty or is not text.
    """
    first, second = _head(path)
    if header is not None:
        return header
    cells = [cell.strip() for cell in first]
    words = [c for c in cells if c and not NUMBER.fullmatch(c) and c.lower() not in MISSING]
    numbers = [c for c in cells if NUMBER.fullmatch(c) and c.lower() not in MISSING]
    missing = [c for c in cells if c.lower() in MISSING]
    if words and not missing and (not numbers or _numbered(cells)):
        return True
    if words:
        reason = f"{words[0]!r} next to {(numbers or missing)[0]!r}"
    elif _counts_up(cells, [cell.strip() for cell in second]):
        reason = "whole numbers that may be years or numbers of columns"
    else:
        return False
    shown = ",".join(first[:6]) + (",..." if len(first) > 6 else "")
    raise ValueError(
        f"load: the first line of {path.name} ({shown}) may be names of columns or data: it has {reason}. "
        "Say which, by header=True or header=False (--header or --no-header)."
    )


def _numbered(cells: list[str]) -> bool:
    """Whether each number of a line is the number of its column, as in 0,1,2,3,kind."""
    places = [place for place, cell in enumerate(cells) if NUMBER.fullmatch(cell)]
    return len(places) >= 4 and all(cells[place] == str(place) for place in places)


def _counts_up(cells: list[str], second: list[str]) -> bool:
    """Whether a line of numbers may be a header: 0,1,2 or 1990,1991,1992, or 0,2,5 above fractions."""
    if not all(WHOLE.fullmatch(cell) for cell in cells):
        return False
    values = [int(cell) for cell in cells]
    below = [int(cell) for cell in second if WHOLE.fullmatch(cell)]
    if len(set(values)) == len(values) and _are_years(values):
        return len(below) < len(second) or not _are_years(below)
    if len(values) == 1:  # a table of one column, as pandas writes it
        return values == [0] and not below
    steps = {after - before for before, after in pairwise(values)}
    if min(steps) > 0 and not below:
        return True
    return len(steps) == 1 and (steps == {1} or (len(values) > 2 and min(steps) > 0))


def _are_years(values: list[int]) -> bool:
    return all(value in YEARS for value in values)


def column_names(path: Path, header: bool | None) -> list[str]:
    """The names of a file's columns; without a header these are the numbers from 0."""
    first, _ = _head(path)
    named = has_header(path, header)
    return [name.strip() for name in first] if named else [str(i) for i in range(len(first))]


def read_csv(
    path: Path, labels: str | None, columns: Sequence[str] | None, header: bool | None
) -> Table:
    """Read a table of numbers, and its labels as text.

    Raises:
        ValueError: the file is not a table; a column is not there, has no name, or shares its name with
            another; or a cell holds text or nothing.
    """
    import pandas as pd

    header = has_header(path, header)
    _, second = _head(path)
    names = column_names(path, header)
    options: dict[str, Any] = {"header": 0 if header else None, "skipinitialspace": True}
    try:
        table = pd.read_csv(path, low_memory=False, **options)
    except (ValueError, UnicodeDecodeError, OSError) as error:  # pandas' errors are ValueErrors
        raise ValueError(f"load: {path} cannot be read as a table: {error}") from error
    if (header and len(second) > len(names)) or len(table.columns) != len(names):
        raise ValueError(  # pandas would shift the columns
            f"load: {path.name} has more cells in a row than its first line has "
            f"{'names' if header else 'cells'} ({len(names)}). "
            + (
                "Give every column a name."
                if header
                else "Give every row the same number of cells."
            )
        )
    chosen = _chosen(path, names, labels, columns, header)
    if not len(table):
        raise ValueError(f"load: {path.name} is empty: it has no row below its header.")
    table.columns = pd.RangeIndex(len(names))
    place = {name: index for index, name in enumerate(names)}
    y = None
    if labels is not None:
        # Labels are read as text, since a class may be called NA.
        options |= {"dtype": str, "keep_default_na": False, "usecols": [place[labels]]}
        y = pd.read_csv(path, **options).iloc[:, 0].to_numpy(dtype=str)
    part = table[[place[name] for name in chosen]]
    _check_cells(path, part, chosen, 2 if header else 1)
    return Table(part.to_numpy(dtype=np.float64), y, chosen, header)


def _chosen(
    path: Path, names: list[str], labels: str | None, columns: Sequence[str] | None, header: bool
) -> list[str]:
    """The names of the columns that make up x."""
    counts = Counter(names)
    required = [*(columns or []), *([labels] if labels is not None else [])]
    described = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    for name in required:
        if name not in counts:
            raise ValueError(
                f"load: {path.name} has no column {name!r}; its columns are {described}"
                + ("." if header else " (counted from 0, since its first line holds numbers).")
            )
    used = required if columns is not None else names
    shared = [name for name in used if counts[name] > 1 and name]
    if shared:
        raise ValueError(
            f"load: two columns of {path.name} have the same name, {shared[0]!r}; rename one. If the first "
            "line does not hold names, say header=False (--no-header)."
        )
    if "" in used:
        raise ValueError(
            f"load: column {names.index('') + 1} of {path.name} has no name, like a column of row numbers; "
            "name it, or choose other columns by columns=."
        )
    repeated = [name for name, count in Counter(columns or ()).items() if count > 1]
    if repeated:
        raise ValueError(f"load: columns names {repeated[0]!r} twice; name each column once.")
    chosen = [name for name in (columns or names) if name != labels]
    if not chosen:
        raise ValueError(f"load: {path.name} has no column besides the labels {labels!r}.")
    return chosen


def _check_cells(path: Path, part: Any, names: list[str], first_line: int) -> None:
    """Check that every cell holds a finite number."""
    import pandas as pd

    kinds = part.dtypes.to_numpy()
    for index in np.flatnonzero([kind.kind not in "fiub" for kind in kinds])[:1]:
        column = part.iloc[:, index]
        bad = pd.to_numeric(column, errors="coerce").isna() & column.notna()
        row = int(np.flatnonzero(bad)[0]) if bad.any() else 0
        raise ValueError(
            f"load: column {names[index]!r} of {path.name} holds text ({column.iloc[row]!r} in line "
            f"{row + first_line}). Say that it holds the labels, choose other columns, or code it as numbers."
        )
    values = part.to_numpy(dtype=np.float64)
    for wrong, what in ((np.isnan(values), "empty or NaN"), (np.isinf(values), "infinite")):
        if wrong.any():
            index = int(np.flatnonzero(wrong.any(0))[0])
            rows = np.flatnonzero(wrong[:, index])
            raise ValueError(
                f"load: column {names[index]!r} of {path.name} has {len(rows)} {what} cells, the first in "
                f"line {int(rows[0]) + first_line}. Drop those lines, or fill in the cells."
            )


def _head(path: Path) -> tuple[list[str], list[str]]:
    """The cells of the first two lines that are not empty."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = (row for row in csv.reader(stream, skipinitialspace=True) if row)
            first, second = next(rows, []), next(rows, [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"load: {path} cannot be read as a table: {error}") from error
    if not first:
        raise ValueError(f"load: {path.name} is empty; give at least one datum.")
    return first, second
