"""Read .npy, .npz and .csv files as arrays x and labels y, with errors that name the cell that is wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from probgen.data.csv_tables import column_names, read_csv
from probgen.data.dataset import Dataset
from probgen.data.label_codes import coded, coding

SUFFIXES = (".npy", ".npz", ".csv")

Array = NDArray[Any]


def read_file(
    path: Path,
    labels: str | None,
    columns: Sequence[str] | None,
    header: bool | None = None,
    *,
    labels_optional: bool = False,
) -> tuple[Dataset, list[str] | None, bool | None]:
    """Read a file: a data set of x and labels y, the columns that make up x, and whether it has a header.

    Args:
        path: ends in .npy, .npz or .csv.
        labels: the column or the array with the labels.
        columns: in a .csv file, those that make up x.
        header: whether the first line of a .csv file names the columns; `None` to find out.
        labels_optional: read the file without labels if it has none of that name.

    Raises:
        FileNotFoundError: no such file.
        IsADirectoryError: it is a folder.
        PermissionError: it may not be read.
        ValueError: it cannot be read, or holds values that are not numbers.
    """
    _check_readable(path)
    if path.suffix != ".csv" and (columns is not None or header is not None):
        raise ValueError(
            f"load: columns are chosen in .csv files only, and only these have a header; {path.name} is no .csv file."
        )
    if labels is not None and labels_optional and not _has(path, labels, header):
        labels = None
    read = {".npy": _read_npy, ".npz": _read_npz}.get(path.suffix)
    names = None
    if read is not None:
        x, y = read(path, labels)
    else:
        table = read_csv(path, labels, columns, header)
        x, y, names, header = table.x, table.labels, table.names, table.header
    if x.dtype.kind not in "fiub":
        raise ValueError(f"load: {path.name} must hold numbers, got an array of {x.dtype}.")
    if x.ndim == 0 or not x.size:
        raise ValueError(f"load: {path.name} is empty (shape {x.shape}); give at least one datum.")
    if (
        x.dtype.kind == "f"
    ):  # all rows: a wrong value in the test data would be found only after training
        wrong = ~np.isfinite(x).reshape(len(x), -1).all(1)
        if wrong.any():
            raise ValueError(
                f"load: {path.name} has NaN or infinite values in {int(wrong.sum())} of {len(x)} rows, the "
                f"first in row {int(np.flatnonzero(wrong)[0])} (counted from 0). Drop those rows, or fill "
                "in their values."
            )
    if x.ndim == 1:
        x = x[:, None]
    elif x.ndim == 3:
        x = x[:, None]  # a stack of images gets its channel
    values = {"x": x}
    if y is None:
        return Dataset(values, name=path.stem), names, header
    if len(y) != len(x):
        raise ValueError(f"load: {path.name} has {len(x)} data but {len(y)} labels.")
    codes, known, classes = coded(y, path.name)
    dataset = Dataset(
        {**values, "y": codes},
        name=path.stem,
        observed={} if known.all() else {"y": torch.from_numpy(known)},
        transformations={} if classes is None else {"y": coding(classes)},
        classes={} if classes is None else {"y": classes},
    )
    return dataset, names, header


def _check_readable(path: Path) -> None:
    """Check that the path is a file that may be read.

    Raises:
        OSError: it is a folder, is not there, or may not be read.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(f"load: {path} is a folder. Name a file in it.")
        if not path.is_file():
            raise FileNotFoundError(
                f"load: there is no file {path} (looked in {os.getcwd()}). Check the name."
            )
        path.open("rb").close()
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(
            f"load: {path} cannot be read ({error.strerror}). Change its permissions, or load a copy."
        ) from error


def _has(path: Path, labels: str, header: bool | None) -> bool:
    """Whether a file has a column or an array of labels with that name."""
    if path.suffix == ".npz":
        return labels in _numpy_load(path)
    if path.suffix == ".npy":
        return False
    return labels in column_names(path, header)


def _read_npy(path: Path, labels: str | None) -> tuple[Array, Array | None]:
    if labels is not None:
        raise ValueError(
            f"load: {path.name} is one array, so it has no labels {labels!r}; save both in one "
            "file: np.savez('data.npz', x=x, y=y)."
        )
    return _numpy_load(path), None


def _read_npz(path: Path, labels: str | None) -> tuple[Array, Array | None]:
    archive = _numpy_load(path)
    names = list(archive)
    key = labels if labels is not None else ("y" if "y" in names else None)
    if key is not None and key not in names:
        raise ValueError(
            f"load: {path.name} has no array {key!r}; it has {', '.join(names) or 'none'}."
        )
    others = [name for name in names if name != key]
    if "x" not in others and len(others) != 1:
        raise ValueError(
            f"load: {path.name} needs an array named x, or exactly one array besides the labels; it has "
            f"{', '.join(names) or 'none'}."
        )
    return archive["x" if "x" in others else others[0]], archive[key] if key else None


def _numpy_load(path: Path) -> Any:
    """Read an array or a dict of arrays; nothing is ever unpickled."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray) != (path.suffix == ".npy"):
            raise ValueError("its content does not match its suffix")
        return loaded if isinstance(loaded, np.ndarray) else dict(loaded.items())
    except Exception as error:  # NumPy raises zip, zlib, EOF, OS, syntax and value errors here
        raise ValueError(
            f"load: {path} cannot be read as {path.suffix}: {error}. The file may be cut short, or "
            "hold Python objects; save plain numbers with np.save or np.savez."
        ) from error
