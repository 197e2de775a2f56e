"""MNIST: 70,000 handwritten digits of 28 x 28 pixels, with the canonical test data."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probgen.data.dataset import Dataset, Splits
from probgen.data.sources import Source

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


class MNIST(Source):
    """70,000 handwritten digits of 28 x 28 pixels, with the canonical test data.

    References:
        LeCun et al., 1998, "Gradient-based learning applied to document recognition".
    """

    levels = 256
    transform = "dynamic"
    flat = True
    images = True
    split = (10_000, 0)

    def load(self, split: tuple[float, float], seed: int) -> Splits:
        folder = _mnist_folder()
        validation, test = split
        if test:
            raise ValueError(
                f"load: MNIST has its own 10,000 test data; split=({validation}, 0) keeps them."
            )
        train = _read_part(folder, "train").split(validation=validation, seed=seed)
        return Splits(train.train, train.validation, _read_part(folder, "t10k"))


def _read_part(folder: Path, prefix: str) -> Dataset:
    """The images and labels of the files whose names begin with this prefix."""
    images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    x = torch.from_numpy(images.reshape(len(images), -1).copy())
    return Dataset({"x": x, "y": torch.from_numpy(labels.copy())}, name="mnist")


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
