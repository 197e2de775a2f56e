"""Views of the records of a data set: each kind of entry as a dict by variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from probgen.data.field import Field
from probgen.data.noise import Binarization, GaussianNoise


class FieldViews:
    """Views of the records of a data set.

    Attributes:
        fields: a record for each variable.
        name: the name of the data in messages and tables.
    """

    fields: Mapping[str, Field]
    name: str

    @property
    def values(self) -> dict[str, Tensor]:
        """The stored values by variable, each of shape `(data, *event_shape)`."""
        return {name: field.values for name, field in self.fields.items()}

    @property
    def observed(self) -> dict[str, Tensor]:
        """The masks of partly observed variables, each of shape `(data,)`."""
        return {n: f.observed for n, f in self.fields.items() if f.observed is not None}

    @property
    def transformations(self) -> dict[str, str]:
        """The transformations of the raw data of variables, in words."""
        return {n: f.transformation for n, f in self.fields.items() if f.transformation is not None}

    @property
    def log_jacobians(self) -> dict[str, float]:
        """The number to add to log p for the density before a transformation, nats per datum."""
        return {n: f.log_jacobian for n, f in self.fields.items() if f.log_jacobian is not None}

    @property
    def redrawn(self) -> tuple[str, ...]:
        """Variables that are binarized anew in every batch."""
        return tuple(n for n, f in self.fields.items() if isinstance(f.noise, Binarization))

    @property
    def spread(self) -> dict[str, Tensor]:
        """The standard deviations of Gaussian noise that is added anew in every batch."""
        noise = {n: f.noise for n, f in self.fields.items()}
        return {n: each.scale for n, each in noise.items() if isinstance(each, GaussianNoise)}

    @property
    def classes(self) -> dict[str, Sequence[Any]]:
        """The names of the classes 0, 1, ... of variables, if they have names."""
        return {n: f.classes for n, f in self.fields.items() if f.classes is not None}

    @cached_property  # each batch reads it
    def drawn_anew(self) -> tuple[str, ...]:
        """Variables with noise, in the order in which a batch draws it: binarized ones first."""
        noisy = [name for name, field in self.fields.items() if field.noise is not None]
        return (*self.redrawn, *(name for name in noisy if name not in self.redrawn))

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of a variable."""
        return self._field(name).values

    def __repr__(self) -> str:
        shapes = ", ".join(f"{n} {tuple(v.shape[1:])}" for n, v in self.values.items())
        partly = "".join(f", {n} known for {int(m.sum())}" for n, m in self.observed.items())
        transformed = "".join(f"; {words}" for words in self.transformations.values())
        return f"Dataset({self.name}, {len(self)} data: {shapes}{partly}{transformed})"

    def _field(self, name: str) -> Field:
        if not isinstance(name, str):
            raise TypeError(f"Dataset: give a variable's name, or take rows by .subset({name!r}).")
        if name not in self.fields:
            raise KeyError(f"{name!r} is not among the variables {', '.join(self.fields)}")
        return self.fields[name]
