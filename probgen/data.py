"""Data: tensors by variable name, their splits, and where they come from."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}

Transform = Literal["default", "none", "static", "dynamic", "dequantize"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Tensors by variable name, the first dim the data.

    Attributes:
        values: a tensor `(data, *event_shape)` for each variable.
        name: how messages and tables call the data.
        observed: for a partly observed variable, a boolean mask `(data,)`; values where it is
            false are never looked at.
        transformation: what was done to the raw data, in words.
        log_jacobian: what to add to log p(x) for the density before the transformation, nats.
        redrawn: variables whose values are probabilities, binarized anew in every batch.

    Raises:
        TypeError: values that are no arrays, or a mask that is not boolean.
        ValueError: no data, first dims that differ, or a mask for an unknown variable.

    Example:
        >>> import numpy as np, probgen as pg
        >>> data = pg.Dataset({"x": np.eye(4), "y": np.arange(4)})
        >>> len(data), data.split(test=1, seed=0).test["x"].shape
        (4, torch.Size([1, 4]))
    """

    values: Mapping[str, Tensor]
    name: str = "data"
    observed: Mapping[str, Tensor] | None = None
    transformation: str = "none"
    log_jacobian: float = 0.0
    redrawn: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping) or not self.values:
            raise TypeError(
                f"Dataset: values must be a dict of arrays by variable name, such as {{'x': x}}, "
                f"got {type(self.values).__name__}."
            )
        values = {name: as_tensor(value, name) for name, value in self.values.items()}
        sizes = {name: len(value) for name, value in values.items()}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise ValueError(f"Dataset: all variables need the same first dim, but {listed}.")
        if not next(iter(sizes.values())):
            raise ValueError(f"Dataset {self.name!r}: it is empty; give at least one datum.")
        masks = {name: as_tensor(mask, name) for name, mask in (self.observed or {}).items()}
        for name, mask in masks.items():
            if name not in values:
                raise ValueError(f"Dataset: observed has {name!r}, but there is no such variable.")
            if mask.dtype != torch.bool or mask.shape != (sizes[name],):
                raise TypeError(
                    f"Dataset: observed[{name!r}] must be boolean of shape ({sizes[name]},), got "
                    f"{mask.dtype} of shape {tuple(mask.shape)}."
                )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "observed", masks)

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of a variable."""
        if name not in self.values:
            raise KeyError(f"{name!r} is not among the variables {', '.join(self.values)}")
        return self.values[name]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{n} {tuple(v.shape[1:])}" for n, v in self.values.items())
        partly = "".join(
            f", {n} known for {int(m.sum())}" for n, m in (self.observed or {}).items()
        )
        return f"Dataset({self.name}, {len(self)} data: {shapes}{partly}; {self.transformation})"

    def subset(self, indices: Tensor | slice) -> Dataset:
        """Some of the data, by indices, boolean mask or slice."""
        masks = {name: mask[indices] for name, mask in (self.observed or {}).items()}
        return replace(self, values={n: v[indices] for n, v in self.values.items()}, observed=masks)

    def split(self, *, validation: float | int = 0, test: float | int = 0, seed: int = 0) -> Splits:
        """Shuffle by the seed and cut into training, validation and test data.

        Args:
            validation: how many data, or a fraction below one.
            test: likewise.
            seed: of the shuffle.

        Raises:
            ValueError: nothing would be left to train on.
        """
        n_valid, n_test = self._size(validation, "validation"), self._size(test, "test")
        if n_valid + n_test >= len(self):
            raise ValueError(
                f"Dataset.split: validation ({n_valid}) and test ({n_test}) leave nothing of "
                f"{len(self)} data to train on."
            )
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self)))
        held, rest = order[: n_valid + n_test], order[n_valid + n_test :]
        return Splits(
            self.subset(rest),
            self.subset(held[n_test:]) if n_valid else None,
            self.subset(held[:n_test]) if n_test else None,
        )

    def _size(self, size: float | int, what: str) -> int:
        if isinstance(size, bool) or not isinstance(size, (int, float)) or size < 0:
            raise ValueError(f"Dataset.split: {what} must be a count or a fraction, got {size!r}.")
        return int(size) if isinstance(size, int) else round(size * len(self))

    def dequantized(self, name: str = "x", *, levels: int, seed: int = 0) -> Dataset:
        """Grey levels k in 0..levels-1 to (k + u) / levels with one stored uniform draw u.

        A density of the result bounds the probability of the levels from below (Theis et al.,
        2016, "A note on the evaluation of generative models", eq. 3); `log_jacobian` takes it to
        the density of k + u.

        Raises:
            ValueError: values that are not whole numbers in 0..levels-1.
        """
        value = self[name].double()
        if bool(((value != value.round()) | (value < 0) | (value >= levels)).any()):
            raise ValueError(
                f"Dataset.dequantized: {name} must hold whole grey levels 0..{levels - 1}, got "
                f"values from {value.min():.4g} to {value.max():.4g}."
            )
        draw = torch.from_numpy(np.random.default_rng(seed).random(value.shape))
        # Rounding k + u to float32 must not reach the next level.
        result = ((value + draw) / levels).float().clamp(max=1 - 2**-24)
        size = math.prod(value.shape[1:])
        return replace(
            self,
            values={**self.values, name: result},
            transformation=f"({name} + u) / {levels}, u uniform, one stored draw (seed {seed})",
            log_jacobian=-size * math.log(levels),
        )

    def binarized(
        self, how: Literal["static", "dynamic"], name: str = "x", *, seed: int = 0
    ) -> Dataset:
        """Grey values in [0, 1] to binary ones: each the probability of a one.

        Args:
            how: `"static"` stores one draw; `"dynamic"` draws anew in every training batch
                (Salakhutdinov and Murray, 2008, "On the quantitative analysis of deep belief
                networks").
            name: the variable.
            seed: of the stored draw.

        Raises:
            ValueError: an unknown word, or values outside [0, 1].
        """
        if how not in ("static", "dynamic"):
            raise ValueError(f'Dataset.binarized: use "static" or "dynamic", got {how!r}.')
        value = self[name]
        if not bool(((value >= 0) & (value <= 1)).all()):
            raise ValueError(
                f"Dataset.binarized: {name} must lie in [0, 1], got values from {value.min():.4g} "
                f"to {value.max():.4g}. Divide by the largest grey level first."
            )
        if how == "dynamic":
            words = "binarized anew in every batch"
            return replace(self, redrawn=(*self.redrawn, name), transformation=words)
        draw = torch.from_numpy(np.random.default_rng(seed).random(tuple(value.shape)))
        return replace(
            self,
            values={**self.values, name: (draw < value.double()).float()},
            redrawn=tuple(n for n in self.redrawn if n != name),
            transformation=f"binarized by one stored draw (seed {seed})",
        )

    def keep_labels(self, per_class: int, name: str = "y", *, seed: int = 0) -> Dataset:
        """Hide all labels but `per_class` of each class, chosen by the seed.

        Raises:
            ValueError: a class has fewer data, or per_class is below one.
        """
        labels = self[name].numpy()
        rng = np.random.default_rng(seed)
        mask = torch.zeros(len(self), dtype=torch.bool)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            if not 1 <= per_class <= len(rows):
                raise ValueError(
                    f"Dataset.keep_labels: class {label} has {len(rows)} data, so per_class must "
                    f"be from 1 to {len(rows)}, got {per_class}."
                )
            mask[torch.from_numpy(rng.choice(rows, per_class, replace=False))] = True
        return replace(self, observed={**(self.observed or {}), name: mask})


@dataclass(frozen=True, eq=False)
class Splits:
    """Training, validation and test data; `pg.fit` takes it whole, scores take one of them."""

    train: Dataset
    validation: Dataset | None = None
    test: Dataset | None = None

    def __repr__(self) -> str:
        parts = (("train", self.train), ("validation", self.validation), ("test", self.test))
        rows = [f"  {label:<10}  {part!r}" for label, part in parts if part is not None]
        return "\n".join(["Splits", *rows])


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
            part = replace(part, values={**part.values, "x": grey},
                           transformation="grey values in [0, 1]")  # fmt: skip
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


def as_tensor(value: Any, name: str) -> Tensor:
    """An array-like as a CPU or device tensor with at least one dim; floats stay floats."""
    if isinstance(value, Tensor):
        tensor = value.detach()
    else:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"Dataset: {name} must hold numbers, got an array of {array.dtype} "
                f"({type(value).__name__})."
            )
        tensor = torch.from_numpy(np.array(array))
    if tensor.is_complex() or tensor.dim() == 0:
        raise TypeError(
            f"Dataset: {name} must be a real array whose first dim is the data, got "
            f"{tensor.dtype} of shape {tuple(tensor.shape)}."
        )
    return tensor


def fingerprint(values: Mapping[str, Tensor]) -> str:
    """The first 12 hex digits of the SHA-256 of all values, as float32 or int64, by name."""
    digest = hashlib.sha256()
    for name in sorted(values):
        value = values[name].cpu()
        value = value.float() if value.is_floating_point() else value.long()
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
