"""Data sets by name, and files: read, split, transformed and shaped."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from probgen.basics.checks import as_count, as_seed
from probgen.data.dataset import Dataset, Splits
from probgen.data.files import SUFFIXES, read_file
from probgen.data.sources import SOURCES, Source
from probgen.data.transformations import scaled_to_unit

Transform = Literal["default", "none", "static", "dynamic", "dequantize", "standardize"]
TRANSFORMS = get_args(Transform)


def load(
    name: str | os.PathLike[str],
    *,
    transform: Transform = "default",
    flat: bool | None = None,
    seed: int = 0,
    labels: str | None = None,
    columns: Sequence[str] | None = None,
    header: bool | None = None,
    split: tuple[float, float] | None = None,
    levels: int | None = None,
) -> Splits:
    """Load a data set by name, or a file, as x, with its labels as `y`.

    - `"digits"`: 1,797 images of 8 x 8 pixels with 17 grey levels, bundled with scikit-learn;
      360 test and 180 validation data, chosen by the seed. By default dequantized.
    - `"mnist"`: 70,000 images of 28 x 28 pixels with 256 grey levels; the canonical test data, and
      10,000 of the 60,000 training data, chosen by the seed, for validation. By default
      binarized anew in every batch. Downloaded once, or found under `PROBGEN_DATA_DIR/mnist`.
    - any other name of a file in `probgen/data/sources/`, or of a source that was registered with
      `pg.register_source`.
    - a `.npy` file: an array whose first dim is the data. Stacks of images `(n, H, W)` become
      `(n, 1, H, W)`.
    - a `.npz` file: the array `x` (or the only one), and labels `y`.
    - a `.csv` file: one column per element, with or without a line of names; the labels may be
      text, and empty where they are unknown.

    Args:
        name: the data set, or a path that ends in .npy, .npz or .csv.
        transform: `"none"`, `"static"` or `"dynamic"` (binarized), `"dequantize"`, `"standardize"`
            (by mean and scale of the training data), or the data set's default; files are by
                default not transformed. Validation and test data are always one stored draw.
        flat: pixels as one vector, or images `(1, height, width)`; by default vectors for digits
            and MNIST, and the shape in which a file has them.
        seed: of the splits and the stored draws.
        labels: in a file, the column or the array with the labels.
        columns: in a .csv file, the columns that make up x; by default all but the labels.
        header: whether the first line of a .csv file names the columns. By default a line of words does
            and a line of numbers does not; one that may be either, such as years, is refused.
        split: validation and test data, as counts or as fractions below one; by default a tenth and
            a fifth of a file. MNIST has its own test data, so there the second must be 0.
        levels: the number of grey levels 0..levels-1 in a file; 256 for bytes.

    Returns:
        Training, validation and test data, each with x of shape `(data, *event_shape)` and, if
        there are labels, y of shape `(data,)`.

    Raises:
        ValueError: an unknown name or transform, or a file that cannot be used.
        FileNotFoundError: no such file; or MNIST is not found and cannot be downloaded; the message
            names the files that are needed and their folder.

    References:
        Alpaydin and Kaynak, 1998, "Optical recognition of handwritten digits".
        LeCun et al., 1998, "Gradient-based learning applied to document recognition".

    Example:
        >>> import probgen as pg
        >>> data = pg.load("digits")
        >>> len(data.train), len(data.validation), len(data.test), data.train["x"].shape[1:]
        (1257, 180, 360, torch.Size([64]))
    """
    seed = as_seed(seed, "load")
    if transform not in TRANSFORMS:
        listed = ", ".join(f'"{word}"' for word in TRANSFORMS)
        raise ValueError(f"load: transform must be one of {listed}, got {transform!r}.")
    split = None if split is None else _checked_split(split)
    if header is not None and not isinstance(header, bool):
        raise ValueError(f"load: header must be True, False or None, got {header!r}.")
    text = os.fspath(name)
    source = _source(text)
    if source is not None and (labels, columns, levels, header) != (None, None, None, None):
        raise ValueError(
            f"load: labels, columns and levels are for files, as is header; {text} has its own."
        )
    raw, columns, header = _raw(text, source, seed, labels, columns, header, split)
    arguments: dict[str, Any] = {"name": text, "transform": transform, "flat": flat, "seed": seed}
    arguments["split"] = None if split is None else list(split)
    if source is None:
        if levels is None and raw.train["x"].dtype == torch.uint8 and transform != "standardize":
            largest = max(int(part["x"].max()) for part in raw.parts.values())
            levels = 256 if largest > 1 else None
        # Arguments inferred here are stored, so that other files are prepared in the same way.
        arguments |= {"name": str(Path(text).absolute()), "labels": labels, "levels": levels}
        arguments |= {"columns": columns, "header": header}
    chosen, levels, flat = _preparation(source, transform, levels, flat)
    prepared = {
        part: _transformed(data, chosen, levels, _draw_seed(seed, part), part == "train")
        for part, data in raw.parts.items()
    }
    if chosen == "standardize":
        moments = _moments(raw.train)
        prepared = {part: data.standardized(**moments) for part, data in prepared.items()}
    shaped = {part: _shaped(data, flat, source) for part, data in prepared.items()}
    return Splits(**shaped, source=arguments)


def load_whole(name: str, source: Mapping[str, Any]) -> Dataset:
    """All of a file, prepared as `load(**source)` prepares test data.

    Args:
        name: the file.
        source: the arguments of `load` for the training data, as `Splits.source` has them.

    Raises:
        ValueError: no file that can be read.
        FileNotFoundError: no such file.
    """
    path = Path(name).absolute()
    if path.suffix not in SUFFIXES:
        raise ValueError(f"load: {name!r} is neither a data set nor a {', '.join(SUFFIXES)} file.")
    header = source.get("header") if path.suffix == ".csv" else None
    columns = source.get("columns")
    data, _, _ = read_file(path, source.get("labels"), columns, header, labels_optional=True)
    trained = _source(source["name"]) if "name" in source else None  # a file like digits or MNIST
    transform = source.get("transform") or "default"
    chosen, levels, flat = _preparation(
        trained, transform, source.get("levels"), source.get("flat")
    )
    seed = as_seed(source.get("seed", 0), "load")
    if chosen == "standardize":
        split = source.get("split")
        raw, _, _ = _raw(
            source["name"], trained, seed, source.get("labels"), columns, source.get("header"),
            None if split is None else tuple(split),
        )  # fmt: skip
        data = data.standardized(**_moments(raw.train))
    elif chosen != "none" or levels is not None:
        data = _transformed(data, chosen, levels, _draw_seed(seed, "test"), False)
    return _shaped(data, flat, trained)


def _source(name: str) -> Source | None:
    """The data set with a name, or `None` if there is none."""
    return SOURCES.get(name)() if name in SOURCES else None


def _preparation(
    source: Source | None, transform: str, levels: int | None, flat: bool | None
) -> tuple[str, int | None, bool | None]:
    """The transform, the number of grey levels and the shape, by default those of the data set."""
    if source is None:
        return ("none" if transform == "default" else transform), levels, flat
    chosen = source.transform if transform == "default" else transform
    return chosen, source.levels, source.flat if flat is None else flat


def _raw(
    name: str, source: Source | None, seed: int, labels: str | None, columns: Sequence[str] | None,
    header: bool | None, split: tuple[float, float] | None,
) -> tuple[Splits, list[str] | None, bool | None]:  # fmt: skip
    """The parts as they are stored, the columns that make up x, and whether a line names them."""
    if source is not None:
        splits = source.load(source.split if split is None else split, seed)
        if not isinstance(splits, Splits) or "x" not in splits.train.fields:
            raise TypeError(
                f"{type(source).__name__}.load must return pg.Splits whose data have a variable x, got "
                f"{splits!r}. Dataset.split makes them of one data set."
            )
        return splits, None if columns is None else list(columns), header
    if Path(name).suffix in SUFFIXES:
        validation, test = (0.1, 0.2) if split is None else split
        whole, names, header = read_file(Path(name).absolute(), labels, columns, header)
        return whole.split(validation=validation, test=test, seed=seed), names, header
    if os.path.isdir(name):
        raise IsADirectoryError(
            f"load: {name} is a folder. Name a file in it that ends in {', '.join(SUFFIXES)}."
        )
    near = difflib.get_close_matches(name, SOURCES.names(), 1)
    raise ValueError(
        f"load: unknown data set {name!r}; known are "
        + ", ".join(f'"{known}"' for known in SOURCES.names())
        + (f', did you mean "{near[0]}"? ' if near else ". ")
        + f"A file must end in {', '.join(SUFFIXES)}; for arrays use pg.Dataset({{'x': array}}). A data set "
        "of your own is known once pg.register_source has run in this process."
    )


def _draw_seed(seed: int, part: str) -> int:
    """The seed of the stored draw of a part, which the description of its transformation names.

    It depends on the role of the part alone: parts have different noise, and the test
    data are the same with and without validation data.
    """
    return 1000 * seed + ("train", "validation", "test").index(part)


def _moments(data: Dataset) -> dict[str, Any]:
    x = data["x"].double()
    return {"mean": x.mean(0), "scale": x.std(0, correction=0)}


def _transformed(
    data: Dataset, chosen: str, levels: int | None, seed: int, training: bool
) -> Dataset:
    if chosen == "standardize":
        return data  # done in load, since it needs the training data
    if levels is not None:
        levels = as_count(levels, "levels", "load", least=2)
    if chosen == "dequantize":
        if levels is None:
            raise ValueError(
                f"load: to dequantize {data.name}, say how many grey levels it has, such as levels=17."
            )
        return data.dequantized(levels=levels, seed=seed)
    if levels is not None:
        x = scaled_to_unit(data.fields["x"], "x", levels, f"load: {data.name}")
        data = data.with_fields(x=x)
    if chosen == "none":
        return data
    how: Any = chosen if training else "static"
    return data.binarized(how, seed=seed)


def _shaped(data: Dataset, flat: bool | None, source: Source | None) -> Dataset:
    """Reshape pixels to a vector, or to an image with a channel, and note whether they are images."""
    field = data.fields["x"]
    x, images = field.values, field.images
    if source is not None and source.images is not None:
        images = source.images
    elif source is None and x.dim() == 2:
        images = False  # the columns of a table
    if flat and x.dim() > 2:
        x = x.flatten(1)
    elif flat is False and x.dim() == 2:
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            raise ValueError(
                f"load: x has {x.shape[1]} elements, which make no square image. Save x as (data, height, "
                "width)."
            )
        x, images = x.reshape(-1, 1, side, side), True
    return data.with_fields(x=replace(field, values=x, images=images))


def _checked_split(split: Any) -> tuple[float, float]:
    if not isinstance(split, (tuple, list)) or len(split) != 2:
        raise ValueError(
            f"load: split must be two numbers, validation and test data, such as (0.1, 0.2), got {split!r}."
        )
    if not all(isinstance(part, (int, float)) and 0 <= part < math.inf for part in split):
        raise ValueError(f"load: split must be counts, or fractions from 0 to 1, got {split!r}.")
    return split[0], split[1]
