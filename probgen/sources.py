"""Where data come from: the digits that scikit-learn bundles, and MNIST."""

from __future__ import annotations

import gzip
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from probgen.data import Dataset, Splits

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}

Transform = Literal["default", "none", "static", "dynamic", "dequantize"]


def load(
    name: str, *, transform: Transform = "default", flat: bool = True, seed: int = 0
) -> Splits:
    """Load a data set by name, with its labels as `y`.

    - `"digits"`: 1,797 images of 8 x 8 pixels with 17 grey levels, bundled with scikit-learn;
      360 test and 180 validation data, chosen by the seed. By default dequantized.
    - `"mnist"`: 70,000 images of 28 x 28 pixels with 256 grey levels; the canonical test data, and
      10,000 of the 60,000 training data, chosen by the seed, for validation. By default
      binarized dynamically. Downloaded once, or found under `PROBGEN_DATA_DIR/mnist`.

    Args:
        name: the data set.
        transform: `"none"` (grey values in [0, 1]), `"static"`, `"dynamic"`, `"dequantize"`, or the
            data set's default. Validation and test data are one stored draw in any case.
        flat: pixels as one vector; otherwise images `(1, height, width)`.
        seed: of splits and stored draws.

    Raises:
        ValueError: an unknown name or transform.
        FileNotFoundError: MNIST is not at hand and cannot be downloaded; says what to put where.

    References:
        Alpaydin and Kaynak, 1998, "Optical recognition of handwritten digits".
        LeCun et al., 1998, "Gradient-based learning applied to document recognition".
    """
    if name == "digits":
        default, levels, parts = "dequantize", 17, _digits(seed)
    elif name == "mnist":
        default, levels, parts = "dynamic", 256, _mnist(seed)
    else:
        raise ValueError(
            f'load: unknown data set {name!r}; known are "digits" and "mnist". '
            "For arrays of your own use pg.Dataset({'x': array})."
        )
    chosen = default if transform == "default" else transform
    if chosen not in ("none", "static", "dynamic", "dequantize"):
        raise ValueError(
            'load: transform must be "none", "static", "dynamic", "dequantize" or "default", '
            f"got {transform!r}."
        )

    def prepared(part: Dataset, index: int) -> Dataset:
        # Each part has a draw of its own, so that none repeats another's noise.
        part_seed = 1000 * seed + index
        if chosen == "dequantize":
            part = part.dequantized(levels=levels, seed=part_seed)
        else:
            grey = part["x"].float() / (levels - 1)
            words = {"x": "x grey, from 0 to 1"}
            part = replace(part, values={**part.values, "x": grey}, transformations=words)
            if chosen != "none":
                how: Any = chosen if index == 0 else "static"
                part = part.binarized(how, seed=part_seed)
        if not flat:
            side = math.isqrt(part["x"].shape[-1])
            images = part["x"].reshape(-1, 1, side, side)
            part = replace(part, values={**part.values, "x": images})
        return part

    assert parts.validation is not None and parts.test is not None
    return Splits(prepared(parts.train, 0), prepared(parts.validation, 1), prepared(parts.test, 2))


def _digits(seed: int) -> Splits:
    from sklearn.datasets import load_digits

    bundle = load_digits()
    data = Dataset({"x": bundle.data, "y": bundle.target}, name="digits")
    return data.split(validation=180, test=360, seed=seed)


def _mnist(seed: int) -> Splits:
    folder = _mnist_folder()

    def part(prefix: str) -> Dataset:
        images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        x = torch.from_numpy(images.reshape(len(images), -1).copy())
        return Dataset({"x": x, "y": torch.from_numpy(labels.copy())}, name="mnist")

    train = part("train").split(validation=10_000, seed=seed)
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
