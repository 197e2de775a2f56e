"""Where data come from: the digits that scikit-learn bundles, MNIST, and files."""

from __future__ import annotations

import difflib
import gzip
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from probgen.basics.checks import as_count, as_seed
from probgen.data.dataset import Dataset, Splits
from probgen.data.files import SUFFIXES, read_file

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}

Transform = Literal["default", "none", "static", "dynamic", "dequantize", "standardize"]
TRANSFORMS = get_args(Transform)
DEFAULTS = {"digits": (17, "dequantize"), "mnist": (256, "dynamic")}
NAMES = tuple(DEFAULTS)


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
      binarized dynamically. Downloaded once, or found under `PROBGEN_DATA_DIR/mnist`.
    - a `.npy` file: an array whose first dim is the data. Stacks of images `(n, H, W)` become
      `(n, 1, H, W)`.
    - a `.npz` file: the array `x` (or the only one), and labels `y`.
    - a `.csv` file: a column an element, with or without a line of names; the labels may be text,
      and empty where they are unknown.

    Args:
        name: the data set, or a path that ends in .npy, .npz or .csv.
        transform: `"none"`, `"static"` or `"dynamic"` (binarized), `"dequantize"`, `"standardize"`
            (by mean and scale of the training data), or the data set's default; files are by
            default taken as they are. Validation and test data are one stored draw in any case.
        flat: pixels as one vector, or images `(1, height, width)`; by default vectors for digits
            and MNIST, and whatever shape a file has.
        seed: of splits and stored draws.
        labels: of a file: the column, or the array, with the labels.
        columns: of a .csv file: the columns that make up x; by default all but the labels.
        header: of a .csv file: whether its first line names the columns. By default words do and numbers
            do not; a line that may be either, such as one of years, is refused.
        split: validation and test data, as counts or as fractions below one; of a file by default
            a tenth and a fifth. MNIST has its own test data, so there the second must be 0.
        levels: of a file with grey levels 0..levels-1: how many; 256 for bytes.

    Raises:
        ValueError: an unknown name or transform, or a file that cannot be used.
        FileNotFoundError: no such file; or MNIST is not at hand and cannot be downloaded: says
            what to put where.

    References:
        Alpaydin and Kaynak, 1998, "Optical recognition of handwritten digits".
        LeCun et al., 1998, "Gradient-based learning applied to document recognition".
    """
    seed = as_seed(seed, "load")
    if transform not in TRANSFORMS:
        listed = ", ".join(f'"{word}"' for word in TRANSFORMS)
        raise ValueError(f"load: transform must be one of {listed}, got {transform!r}.")
    text = os.fspath(name)
    split = None if split is None else _as_split(split)
    if header is not None and not isinstance(header, bool):
        raise ValueError(f"load: header must be True, False or None, got {header!r}.")
    parts, columns, header = _raw(text, seed, labels, columns, header, split)
    source: dict[str, Any] = {"name": text, "transform": transform, "flat": flat, "seed": seed}
    source["split"] = None if split is None else list(split)
    if text in NAMES:
        if (labels, columns, levels, header) != (None, None, None, None):
            raise ValueError(
                f"load: labels, columns and levels are for files, as header is; {text} comes with its own."
            )
        levels, default = DEFAULTS[text]
        flat = True if flat is None else flat
    else:
        default = "none"
        x = parts.train["x"]
        if levels is None and x.dtype == torch.uint8 and transform != "standardize":
            largest = max(int(part["x"].max()) for part in parts.parts.values())
            levels = 256 if largest > 1 else None
        # What was inferred here is stored: other files are not asked anew.
        source |= {"name": str(Path(text).absolute()), "labels": labels, "levels": levels}
        source |= {"columns": columns, "header": header}
    chosen = default if transform == "default" else transform
    prepared = {
        part: _transformed(data, chosen, levels, _draw_seed(seed, part), part == "train")
        for part, data in parts.parts.items()
    }
    if chosen == "standardize":
        moments = _moments(parts.train)
        prepared = {n: d.standardized(**moments) for n, d in parts.parts.items()}
    shaped = {part: _shaped(data, flat) for part, data in prepared.items()}
    return Splits(**shaped, source=source)


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
    chosen, levels, flat = (source.get(key) for key in ("transform", "levels", "flat"))
    if source.get("name") in NAMES:  # a file like digits or MNIST
        levels, default = DEFAULTS[source["name"]]
        chosen, flat = (default if chosen == "default" else chosen), flat is None or flat
    seed = as_seed(source.get("seed", 0), "load")
    if chosen == "standardize":
        split = source.get("split")
        raw, _, _ = _raw(
            source["name"], seed, source.get("labels"), columns, source.get("header"),
            None if split is None else tuple(split),
        )  # fmt: skip
        data = data.standardized(**_moments(raw.train))
    elif chosen not in (None, "default") or levels is not None:
        chosen = "none" if chosen in (None, "default") else chosen
        data = _transformed(data, chosen, levels, _draw_seed(seed, "test"), False)
    return _shaped(data, flat)


def _raw(
    name: str, seed: int, labels: str | None, columns: Sequence[str] | None, header: bool | None,
    split: tuple[float, float] | None,
) -> tuple[Splits, list[str] | None, bool | None]:  # fmt: skip
    """The parts as they are on the disk, the columns that make up x, and whether a line names them."""
    if name in NAMES:
        parts = _digits(seed, split) if name == "digits" else _mnist(seed, split)
        return parts, None if columns is None else list(columns), header
    if Path(name).suffix in SUFFIXES:
        validation, test = (0.1, 0.2) if split is None else split
        whole, names, header = read_file(Path(name).absolute(), labels, columns, header)
        return whole.split(validation=validation, test=test, seed=seed), names, header
    if os.path.isdir(name):
        raise IsADirectoryError(
            f"load: {name} is a folder. Name a file in it that ends in {', '.join(SUFFIXES)}."
        )
    near = difflib.get_close_matches(name, NAMES, 1)
    raise ValueError(
        f"load: unknown data set {name!r}; known are "
        + " and ".join(f'"{known}"' for known in NAMES)
        + (f', did you mean "{near[0]}"? ' if near else ". ")
        + f"A file must end in {', '.join(SUFFIXES)}; for arrays use pg.Dataset({{'x': array}})."
    )


def _draw_seed(seed: int, part: str) -> int:
    """The seed of a part's stored draw, which the words for the data name.

    By the role of the part, whichever others there are: none repeats another's noise, and the test data are
    the same with validation data and without.
    """
    return 1000 * seed + ("train", "validation", "test").index(part)


def _moments(data: Dataset) -> dict[str, Any]:
    x = data["x"].double()
    return {"mean": x.mean(0), "scale": x.std(0, correction=0)}


def _transformed(
    data: Dataset, chosen: str, levels: int | None, seed: int, training: bool
) -> Dataset:
    if chosen == "standardize":
        return data  # by the training data, once all parts are there
    if levels is not None:
        levels = as_count(levels, "levels", "load", least=2)
    if chosen == "dequantize":
        if levels is None:
            raise ValueError(
                f"load: say how many grey levels {data.name} has to dequantize it, such as levels=17."
            )
        return data.dequantized(levels=levels, seed=seed)
    if levels is not None:
        words = {**data.transformations, "x": "x grey, from 0 to 1"}
        x = data["x"].double()
        if bool(((x != x.round()) | (x < 0) | (x >= levels)).any()):
            raise ValueError(
                f"load: {data.name} must hold whole grey levels 0..{levels - 1}, got values from "
                f"{x.min():.4g} to {x.max():.4g}; say how many there are, as in levels=256."
            )
        jacobian = -math.prod(x.shape[1:]) * math.log(levels - 1)
        data = replace(
            data,
            values={**data.values, "x": (x / (levels - 1)).float()},
            transformations=words,
            log_jacobians={**data.log_jacobians, "x": jacobian},
        )
    if chosen == "none":
        return data
    how: Any = chosen if training else "static"
    return data.binarized(how, seed=seed)


def _shaped(data: Dataset, flat: bool | None) -> Dataset:
    """Pixels as a vector, or as an image with its channel."""
    x = data["x"]
    if flat is None or (flat and x.dim() == 2) or (not flat and x.dim() > 2):
        return data
    if flat:
        x = x.flatten(1)
    else:
        side = math.isqrt(x.shape[1])
        if side * side != x.shape[1]:
            raise ValueError(
                f"load: {x.shape[1]} elements make no square image; save x as (data, height, width)."
            )
        x = x.reshape(-1, 1, side, side)
    return replace(data, values={**data.values, "x": x})


def _as_split(split: Any) -> tuple[float, float]:
    if not isinstance(split, (tuple, list)) or len(split) != 2:
        raise ValueError(
            f"load: split must be two numbers, validation and test data, such as (0.1, 0.2), got {split!r}."
        )
    if not all(isinstance(part, (int, float)) and 0 <= part < math.inf for part in split):
        raise ValueError(f"load: split must be counts or shares from 0, got {split!r}.")
    return split[0], split[1]


def _digits(seed: int, split: tuple[float, float] | None) -> Splits:
    from sklearn.datasets import load_digits

    bundle = load_digits()
    data = Dataset({"x": bundle.data, "y": bundle.target}, name="digits")
    validation, test = (180, 360) if split is None else split
    return data.split(validation=validation, test=test, seed=seed)


def _mnist(seed: int, split: tuple[float, float] | None) -> Splits:
    folder = _mnist_folder()

    def part(prefix: str) -> Dataset:
        images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        x = torch.from_numpy(images.reshape(len(images), -1).copy())
        return Dataset({"x": x, "y": torch.from_numpy(labels.copy())}, name="mnist")

    validation, test = (10_000, 0) if split is None else split
    if test:
        raise ValueError(
            f"load: MNIST has its own 10,000 test data; split=({validation}, 0) keeps them."
        )
    train = part("train").split(validation=validation, seed=seed)
    return Splits(train.train, train.validation, part("t10k"))


def _mnist_folder() -> Path:
    """The folder with the four canonical files, each checked against its SHA-256."""
    import pooch

    root = os.environ.get("PROBGEN_DATA_DIR")
    folder = (Path(root) if root else Path(pooch.os_cache("probgen"))) / "mnist"
    for file, digest in MNIST_FILES.items():
        path = folder / file
        if path.is_file():
            if pooch.file_hash(str(path)) == digest:
                continue
            raise ValueError(
                f"load: {path} is not the canonical MNIST file (its SHA-256 should begin "
                f"{digest[:12]}). Delete it; the next call downloads it anew."
            )
        try:
            pooch.retrieve(f"{MNIST_URL}{file}", digest, file, folder, progressbar=False)
        except Exception as error:
            raise FileNotFoundError(
                f"load: MNIST is not in {folder} and could not be downloaded "
                f"({type(error).__name__}). Put the files {', '.join(MNIST_FILES)} there, or set "
                "PROBGEN_DATA_DIR to a folder that has them in mnist/."
            ) from error
    return folder


def _read_idx(path: Path) -> np.ndarray[Any, Any]:
    """An IDX file: two zero bytes, the type code (8 is uint8), the number of dims, sizes, values."""
    with gzip.open(path, "rb") as stream:
        content = stream.read()
    dims = content[3]
    shape = np.frombuffer(content, ">i4", count=dims, offset=4)
    if content[:3] != b"\x00\x00\x08" or len(content) != 4 + 4 * dims + int(shape.prod()):
        raise ValueError(f"load: {path} is not an IDX file of bytes, or is cut short.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dims).reshape(shape)
