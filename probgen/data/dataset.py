"""Data: variables by name, and their training, validation and test parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.data import transformations as transform
from probgen.data.field import Field
from probgen.data.fingerprint import fingerprint as fingerprint  # its earlier place
from probgen.data.keywords import fields_of
from probgen.data.noise import Corruption, HowCorrupted, Rows
from probgen.data.views import FieldViews


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Dataset(FieldViews):
    """Tensors by variable name, the first dim the data.

    A data set is a record, `probgen.data.field.Field`, for each variable; `fields` holds them by
    name. The other attributes are views of these records, each a dict of the variables that have
    such an entry.

    Args:
        values: an array or a tensor `(data, *event_shape)` for each variable.
        name: how messages and tables call the data.
        observed: for a partly observed variable, a boolean mask `(data,)`; values where it is
            false are never looked at.
        transformations: what was done to each variable's raw data, in words.
        log_jacobians: what to add to log p per datum for the density of a variable before its
            transformation, nats.
        redrawn: variables whose values are probabilities, binarized anew in every batch.
        spread: for variables whose values are means, the standard deviation of the Gaussian noise
            that is added anew in every batch, shape of the values.
        classes: what the classes 0, 1, ... of a variable are called, where they have names.
        fields: records to start from; what the other arguments say replaces their entries.

    Raises:
        TypeError: values that are not arrays of real numbers, or a mask that is not boolean.
        ValueError: no data, masked cells, first dims that differ, or entries for a variable that
            is not there.

    Example:
        >>> import numpy as np, probgen as pg
        >>> data = pg.Dataset({"x": np.eye(4), "y": np.arange(4)})
        >>> len(data), data.split(test=1, seed=0).test["x"].shape
        (4, torch.Size([1, 4]))
        >>> data.fields["y"].values
        tensor([0, 1, 2, 3])
    """

    fields: Mapping[str, Field]
    name: str

    def __init__(
        self,
        values: Mapping[str, Any] | None = None,
        name: str = "data",
        observed: Mapping[str, Any] | None = None,
        transformations: Mapping[str, str] | None = None,
        log_jacobians: Mapping[str, float] | None = None,
        redrawn: Sequence[str] | None = None,
        spread: Mapping[str, Any] | None = None,
        classes: Mapping[str, Sequence[Any]] | None = None,
        *,
        fields: Mapping[str, Field] | None = None,
    ) -> None:
        given = {
            "observed": observed, "transformations": transformations, "log_jacobians": log_jacobians,
            "redrawn": redrawn, "spread": spread, "classes": classes,
        }  # fmt: skip
        self._set(fields_of(values, fields, given), name, "Dataset")

    @classmethod
    def from_fields(
        cls, fields: Mapping[str, Field], name: str = "data", *, owner: str = "Dataset"
    ) -> Dataset:
        """A data set of records by variable name.

        Args:
            fields: a record for each variable.
            name: how messages and tables call the data.
            owner: the function that messages name.

        Raises:
            TypeError: values that are not arrays of real numbers, or a mask that is not boolean.
            ValueError: no data, or first dims that differ.
        """
        data = object.__new__(cls)
        data._set(fields, name, owner)
        return data

    def _set(self, fields: Mapping[str, Field], name: str, owner: str) -> None:
        """Check the records, and set the attributes; see `from_fields`."""
        if not isinstance(fields, Mapping) or not fields:
            got = "no variable" if fields == {} else type(fields).__name__
            raise TypeError(
                f"{owner}: data must be a dict of arrays by variable name, such as {{'x': x}}, got {got}."
            )
        for variable, field in fields.items():
            if not isinstance(variable, str):
                raise TypeError(f"{owner}: variables need names such as 'x', got {variable!r}.")
            if not isinstance(field, Field):
                raise TypeError(
                    f"{owner}: {variable} must be a pg.Field, such as pg.Field(values), got "
                    f"{type(field).__name__}."
                )
        checked = {variable: field.checked(variable, owner) for variable, field in fields.items()}
        sizes = {variable: len(field) for variable, field in checked.items()}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{variable} has {size}" for variable, size in sizes.items())
            raise ValueError(f"{owner}: all variables need the same first dim, but {listed}.")
        if not next(iter(sizes.values())):
            raise ValueError(f"{owner}: the data set {name!r} is empty; give at least one datum.")
        object.__setattr__(self, "fields", checked)
        object.__setattr__(self, "name", name)

    def with_fields(self, **fields: Field) -> Dataset:
        """The same data with some variables replaced or added, by their records."""
        return Dataset.from_fields({**self.fields, **fields}, self.name)

    def with_values(self, values: Mapping[str, Any]) -> Dataset:
        """The same data with other values for some variables, whose records otherwise stay."""
        return Dataset({**self.values, **values}, self.name, fields=self.fields)

    def with_observed(self, masks: Mapping[str, Tensor | None]) -> Dataset:
        """The same data with other masks for some variables; `None` where all values are known."""
        records = {n: replace(self._field(n), observed=mask) for n, mask in masks.items()}
        return self.with_fields(**records)

    def subset(self, indices: Rows) -> Dataset:
        """Some of the data, by indices, boolean mask or slice."""
        return self.with_fields(**{n: field.subset(indices) for n, field in self.fields.items()})

    @one_at_a_time
    def batch(self, rows: Rows) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The values of some rows as a training step sees them, with new noise, and the masks."""
        values = {name: field.rows(rows) for name, field in self.fields.items()}
        for name in self.drawn_anew:
            noise = self.fields[name].noise
            values[name] = values[name] if noise is None else noise.draw(values[name], rows)
        return values, {name: mask[rows] for name, mask in self.observed.items()}

    def only(self, *names: str) -> Dataset:
        """Some of the variables, such as the images without their labels.

        Raises:
            KeyError: an unknown variable.
        """
        return Dataset.from_fields({name: self._field(name) for name in names}, self.name)

    def columns(self, columns: Tensor | slice, name: str = "x") -> Dataset:
        """Some elements of each datum of a variable, which is a vector."""
        return self.with_fields(**{name: self._field(name).columns(columns)})

    def to(self, device: torch.device) -> Dataset:
        """The data on a device."""
        return self.with_fields(**{n: field.to(device) for n, field in self.fields.items()})

    def split(self, *, validation: float | int = 0, test: float | int = 0, seed: int = 0) -> Splits:
        """Shuffle by the seed and cut into training, validation and test data.

        Args:
            validation: the number of data, or a fraction below one.
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
        return Splits(
            self.subset(order[n_test + n_valid :]),
            self.subset(order[n_test : n_test + n_valid]) if n_valid else None,
            self.subset(order[:n_test]) if n_test else None,
        )

    def dequantized(self, name: str = "x", *, levels: int, seed: int = 0) -> Dataset:
        """Grey levels k in 0..levels-1 to (k + u) / levels with one stored uniform draw u.

        A density of the result bounds the probability of the levels from below (Theis et al.,
        2016, "A note on the evaluation of generative models", eq. 3); `log_jacobians` takes
        it to the density of k + u.

        Raises:
            ValueError: values that are not whole numbers in 0..levels-1.
        """
        return self._with(name, transform.dequantized(self._field(name), name, levels, seed))

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
        return self._with(name, transform.binarized(self._field(name), name, how, seed))

    def corrupted(
        self, how: HowCorrupted, level: float, name: str = "x", *, into: str = "x_in"
    ) -> Dataset:
        """A second variable: a copy of one, corrupted anew in every batch (denoising autoencoders).

        A pair sees both: the guide infers latents from the corrupted copy, as in q(z | x_in), and
        the model scores the clean values.

        Args:
            how: `"masking"` sets elements to 0, `"salt-and-pepper"` sets them to 0 or 1 with equal
                probability, `"gaussian"` adds Gaussian noise.
            level: the probability with which an element is changed, or the standard deviation.
            name: the variable that is copied.
            into: the name of the copy.

        Raises:
            ValueError: an unknown word, a level out of range, values outside [0, 1] with
                `"salt-and-pepper"`, a name that is there already, or a variable that is itself drawn
                anew in every batch.

        References:
            Vincent, Larochelle, Lajoie, Bengio and Manzagol, 2010, "Stacked denoising
            autoencoders", section 4.3.

        Example:
            >>> import probgen as pg, torch
            >>> data = pg.Dataset({"x": torch.ones(2, 1000)}).corrupted("masking", 0.3)
            >>> batch, _ = data.batch(slice(0, 2))
            >>> float(batch["x"].mean()), 0.6 < float(batch["x_in"].mean()) < 0.8
            (1.0, True)
        """
        if into in self.fields:
            raise ValueError(
                f"Dataset.corrupted: there is a variable {into!r} already; give another name, as in "
                'into="x_noisy".'
            )
        noise = Corruption(how, level)
        return self._with(into, transform.corrupted(self._field(name), name, noise))

    def stored(self, *, seed: int = 0) -> Dataset:
        """One stored draw of each variable that is otherwise drawn anew in every batch."""
        others = [name for name in self.drawn_anew if name not in self.redrawn]
        index = {name: place for place, name in enumerate(others)}
        return self.with_fields(
            **{
                name: transform.stored(field, name, seed, index.get(name, 0))
                for name, field in self.fields.items()
            }
        )

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
        return self._with(name, transform.standardized(self._field(name), name, mean, scale))

    def keep_labels(self, per_class: int, name: str = "y", *, seed: int = 0) -> Dataset:
        """Hide all labels but `per_class` of each class, chosen by the seed among those known.

        Raises:
            ValueError: a class has fewer data, or per_class is below one.
        """
        return self._with(name, transform.labels_kept(self._field(name), per_class, seed))

    def _with(self, name: str, field: Field) -> Dataset:
        return self.with_fields(**{name: field})

    def _size(self, size: float | int, what: str) -> int:
        if isinstance(size, bool) or not isinstance(size, (int, float)) or size < 0:
            raise ValueError(f"Dataset.split: {what} must be a count or a fraction, got {size!r}.")
        return int(size) if isinstance(size, int) else round(size * len(self))


@dataclass(frozen=True, eq=False)
class Splits:
    """Training, validation and test data; `pg.fit` takes it whole, scores take one of them.

    Attributes:
        train: what is learned from.
        validation: what decides when to stop.
        test: what is scored.
        source: the arguments with which `pg.load` makes the same splits again, if it made them.

    Example:
        >>> import probgen as pg, torch
        >>> splits = pg.Splits(pg.Dataset({"x": torch.zeros(3, 2)}))
        >>> list(splits.parts), splits.test
        (['train'], None)
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

    def corrupted(
        self, how: HowCorrupted, level: float, name: str = "x", *, into: str = "x_in", seed: int = 0
    ) -> Splits:
        """`Dataset.corrupted` for each part: training data anew in every batch, others by one stored draw.

        Args:
            how: see `Dataset.corrupted`.
            level: likewise.
            name: likewise.
            into: likewise.
            seed: of the stored draws; the parts have noise of their own.
        """
        parts = {n: part.corrupted(how, level, name, into=into) for n, part in self.parts.items()}
        for index, other in enumerate(("validation", "test"), 1):
            if other in parts:
                draw = parts[other].only(into).stored(seed=1000 * seed + index)
                parts[other] = parts[other].with_fields(**draw.fields)
        return Splits(parts["train"], parts.get("validation"), parts.get("test"))

    def __repr__(self) -> str:
        rows = [f"  {label:<10}  {part!r}" for label, part in self.parts.items()]
        return "\n".join(["Splits", *rows])
