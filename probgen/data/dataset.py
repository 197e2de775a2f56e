"""Data: tensors by variable name, their splits and transformations."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.basics.tensors import as_tensor, plain_tensor

HASHED_ROWS = 4096
"""Rows that a fingerprint copies at a time."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Tensors by variable name, the first dim the data.

    Attributes:
        values: a tensor `(data, *event_shape)` for each variable.
        name: how messages and tables call the data.
        observed: for a partly observed variable, a boolean mask `(data,)`; values where it is
            false are never looked at.
        transformations: what was done to each variable's raw data, in words.
        log_jacobians: what to add to log p for the density of a variable before it, nats.
        redrawn: variables whose values are probabilities, binarized anew in every batch.
        spread: of variables whose values are means, the scale of the Gaussian noise that is added
            anew in every batch, shape of the values.
        classes: what the classes 0, 1, ... of a variable are called, where they have names.

    Raises:
        TypeError: values that are no arrays of real numbers, or a mask that is not boolean.
        ValueError: no data, masked cells, first dims that differ, or a mask for an unknown variable.

    Example:
        >>> import numpy as np, probgen as pg
        >>> data = pg.Dataset({"x": np.eye(4), "y": np.arange(4)})
        >>> len(data), data.split(test=1, seed=0).test["x"].shape
        (4, torch.Size([1, 4]))
    """

    values: Mapping[str, Any]
    name: str = "data"
    observed: Mapping[str, Tensor] | None = None
    transformations: Mapping[str, str] = field(default_factory=dict)
    log_jacobians: Mapping[str, float] = field(default_factory=dict)
    redrawn: tuple[str, ...] = ()
    spread: Mapping[str, Tensor] = field(default_factory=dict)
    classes: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping) or not self.values:
            raise TypeError(
                f"Dataset: values must be a dict of arrays by variable name, such as {{'x': x}}, "
                f"got {type(self.values).__name__}."
            )
        odd = [name for name in self.values if not isinstance(name, str)]
        if odd:
            raise TypeError(f"Dataset: variables need names such as 'x', got {odd[0]!r}.")
        values = {name: as_tensor(value, name) for name, value in self.values.items()}
        sizes = {name: len(value) for name, value in values.items()}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise ValueError(f"Dataset: all variables need the same first dim, but {listed}.")
        if not next(iter(sizes.values())):
            raise ValueError(f"Dataset {self.name!r}: it is empty; give at least one datum.")
        masks = {
            name: as_tensor(mask, f"observed[{name!r}]")
            for name, mask in (self.observed or {}).items()
        }
        for name, mask in masks.items():
            if name not in values:
                raise ValueError(f"Dataset: observed has {name!r}, but there is no such variable.")
            if mask.dtype != torch.bool or mask.shape != (sizes[name],):
                raise TypeError(
                    f"Dataset: observed[{name!r}] must be boolean of shape ({sizes[name]},), got "
                    f"{mask.dtype} of shape {tuple(mask.shape)}."
                )
        spread = {
            name: as_tensor(scale, f"spread[{name!r}]") for name, scale in self.spread.items()
        }
        for name, scale in spread.items():
            if (
                name not in values
                or scale.shape != values[name].shape
                or not bool((scale >= 0).all())
            ):
                raise ValueError(
                    f"Dataset: spread[{name!r}] must be of at least 0 and of the shape of a variable "
                    f"{name}, got shape {tuple(scale.shape)}."
                )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "observed", masks)
        object.__setattr__(self, "spread", spread)

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of a variable."""
        if not isinstance(name, str):
            raise TypeError(f"Dataset: give a variable's name, or take rows by .subset({name!r}).")
        if name not in self.values:
            raise KeyError(f"{name!r} is not among the variables {', '.join(self.values)}")
        value: Tensor = self.values[name]
        return value

    def __repr__(self) -> str:
        shapes = ", ".join(f"{n} {tuple(v.shape[1:])}" for n, v in self.values.items())
        partly = "".join(
            f", {n} known for {int(m.sum())}" for n, m in (self.observed or {}).items()
        )
        done = "".join(f"; {words}" for words in self.transformations.values())
        return f"Dataset({self.name}, {len(self)} data: {shapes}{partly}{done})"

    def subset(self, indices: Tensor | slice) -> Dataset:
        """Some of the data, by indices, boolean mask or slice."""
        masks = {name: mask[indices] for name, mask in (self.observed or {}).items()}
        return replace(
            self,
            values={name: value[indices] for name, value in self.values.items()},
            observed=masks,
            spread={name: scale[indices] for name, scale in self.spread.items()},
        )

    @one_at_a_time
    def batch(self, rows: Tensor | slice) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What a step sees of some rows: values, drawn anew where asked, and masks."""
        if isinstance(rows, Tensor):  # a third of the time of value[rows]
            values = {name: value.index_select(0, rows) for name, value in self.values.items()}
        else:
            values = {name: value[rows] for name, value in self.values.items()}
        for name in self.redrawn:
            # A third of the time of torch.bernoulli, and as exact: never at 0, always at 1.
            values[name] = torch.rand_like(values[name]).lt_(values[name])
        for name, scale in self.spread.items():
            values[name] = values[name] + scale[rows] * torch.randn_like(values[name])
        return values, {name: mask[rows] for name, mask in (self.observed or {}).items()}

    def only(self, *names: str) -> Dataset:
        """Some of the variables, such as the images without their labels.

        Raises:
            KeyError: an unknown variable.
        """
        return replace(
            self,
            values={name: self[name] for name in names},
            observed={n: m for n, m in (self.observed or {}).items() if n in names},
            transformations={n: w for n, w in self.transformations.items() if n in names},
            log_jacobians={n: v for n, v in self.log_jacobians.items() if n in names},
            redrawn=tuple(name for name in self.redrawn if name in names),
            spread={n: scale for n, scale in self.spread.items() if n in names},
            classes={n: kinds for n, kinds in self.classes.items() if n in names},
        )

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
        2016, "A note on the evaluation of generative models", eq. 3); `log_jacobians` takes
        it to the density of k + u.

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
            transformations={
                **self.transformations,
                name: f"({name} + u) / {levels}, u uniform, one stored draw (seed {seed})",
            },
            log_jacobians={**self.log_jacobians, name: -size * math.log(levels)},
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
        if name in self.spread:
            raise ValueError(f"Dataset.binarized: {name} is drawn anew in every batch already.")
        value = self[name]
        if not bool(((value >= 0) & (value <= 1)).all()):
            raise ValueError(
                f"Dataset.binarized: {name} must lie in [0, 1], got values from {value.min():.4g} "
                f"to {value.max():.4g}. Divide by the largest grey level first."
            )
        # A probability mass has no Jacobian.
        jacobians = {n: value for n, value in self.log_jacobians.items() if n != name}
        before = self.transformations.get(name)
        prefix = f"{before}, then " if before else ""
        if how == "dynamic":
            words = f"{prefix}{name} binarized anew in every batch"
            return replace(
                self,
                redrawn=(*self.redrawn, name),
                transformations={**self.transformations, name: words},
                log_jacobians=jacobians,
            )
        draw = torch.from_numpy(np.random.default_rng(seed).random(tuple(value.shape)))
        return replace(
            self,
            values={**self.values, name: (draw < value.double()).float()},
            redrawn=tuple(n for n in self.redrawn if n != name),
            transformations={
                **self.transformations,
                name: f"{prefix}{name} binarized by one stored draw (seed {seed})",
            },
            log_jacobians=jacobians,
        )

    def stored(self, *, seed: int = 0) -> Dataset:
        """One stored draw of whatever is drawn anew in every batch."""
        data = self
        for index, (name, scale) in enumerate(self.spread.items()):
            noise = np.random.default_rng([seed, index]).standard_normal(tuple(scale.shape))
            value = data[name] + scale * torch.from_numpy(noise).to(scale)
            words = f"{self.transformations.get(name, name)}, one stored draw (seed {seed})"
            data = replace(
                data,
                values={**data.values, name: value},
                spread={n: other for n, other in data.spread.items() if n != name},
                transformations={**data.transformations, name: words},
            )
        for name in self.redrawn:
            data = data.binarized("static", name, seed=seed)
        return data

    def standardized(
        self, name: str = "x", *, mean: Tensor | None = None, scale: Tensor | None = None
    ) -> Dataset:
        """Each element less its mean, over its standard deviation.

        Args:
            name: the variable.
            mean: shape `event_shape`; by default of these data.
            scale: likewise. For validation and test data give those of the training data.

        Raises:
            ValueError: an element is constant, so that it has no scale.
        """
        value = self[name].double()
        mean, scale = (
            found if given is None else plain_tensor(given, what, "Dataset.standardized").double()
            for given, found, what in (
                (mean, value.mean(0), "mean"),
                (scale, value.std(0, correction=0), "scale"),
            )
        )
        constant = (scale <= 0).flatten().nonzero().flatten()
        if len(constant):
            raise ValueError(
                f"Dataset.standardized: {len(constant)} elements of {name} are constant, the first "
                f"is number {int(constant[0])} (counted from 0). Leave them out."
            )
        jacobian = self.log_jacobians.get(name, 0.0) - float(scale.log().sum())
        before = self.transformations.get(name)
        words = f"{f'{before}, then ' if before else ''}{name} standardized by the training data"
        return replace(
            self,
            values={**self.values, name: ((value - mean) / scale).float()},
            spread={n: (s / scale).float() if n == name else s for n, s in self.spread.items()},
            transformations={**self.transformations, name: words},
            log_jacobians={**self.log_jacobians, name: jacobian},
        )

    def keep_labels(self, per_class: int, name: str = "y", *, seed: int = 0) -> Dataset:
        """Hide all labels but `per_class` of each class, chosen by the seed among those known.

        Raises:
            ValueError: a class has fewer data, or per_class is below one.
        """
        labels = self[name].numpy()
        rng = np.random.default_rng(seed)
        mask = torch.zeros(len(self), dtype=torch.bool)
        known = (self.observed or {}).get(name, torch.ones_like(mask)).numpy()
        for label in np.unique(labels[known]):
            rows = np.flatnonzero((labels == label) & known)
            if not 1 <= per_class <= len(rows):
                raise ValueError(
                    f"Dataset.keep_labels: class {label} has {len(rows)} data, so per_class must "
                    f"be from 1 to {len(rows)}, got {per_class}."
                )
            mask[torch.from_numpy(rng.choice(rows, per_class, replace=False))] = True
        return replace(self, observed={**(self.observed or {}), name: mask})


@dataclass(frozen=True, eq=False)
class Splits:
    """Training, validation and test data; `pg.fit` takes it whole, scores take one of them.

    Attributes:
        train: what is learned from.
        validation: what decides when to stop.
        test: what is scored.
        source: the arguments with which `pg.load` makes the same splits again, if it made them.
    """

    train: Dataset
    validation: Dataset | None = None
    test: Dataset | None = None
    source: Mapping[str, Any] | None = None

    @property
    def parts(self) -> dict[str, Dataset]:
        """The parts that there are, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    def __repr__(self) -> str:
        rows = [f"  {label:<10}  {part!r}" for label, part in self.parts.items()]
        return "\n".join(["Splits", *rows])


def fingerprint(values: Mapping[str, Tensor], observed: Mapping[str, Tensor] | None = None) -> str:
    """The first 12 hex digits of the SHA-256 of all values, as float32, by name.

    Values that are not observed do not count; which ones they are does.
    """
    digest = hashlib.sha256()
    for name in sorted(values):
        value, shape = values[name], tuple(values[name].shape)
        mask = observed[name].cpu() if observed and name in observed else None
        if mask is not None:
            digest.update(mask.numpy().tobytes())
            shape = (int(mask.sum()), *shape[1:])
        digest.update(f"{name}{shape}".encode())
        rows = torch.atleast_1d(value)
        for start in range(0, len(rows), HASHED_ROWS):  # all at once would be a further copy or two
            part = rows[start : start + HASHED_ROWS].cpu().float()
            if mask is not None:
                part = part[mask[start : start + HASHED_ROWS]]
            digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
