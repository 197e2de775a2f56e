"""The keyword arguments of a `Dataset`, each a dict by variable, as one record for each variable.

Each keyword gives one kind of entry for several variables; a data set stores one record per variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from probgen.data.field import Field
from probgen.data.noise import Binarization, GaussianNoise

ATTRIBUTES = {
    "observed": "observed",
    "transformations": "transformation",
    "log_jacobians": "log_jacobian",
    "classes": "classes",
}
"""Keywords of `Dataset`, and the entry of a record that each sets."""


def fields_of(
    values: Any, fields: Mapping[str, Field] | None, given: Mapping[str, Any]
) -> dict[str, Field]:
    """A record for each variable, whose entries are not yet checked.

    Args:
        values: arrays by variable; `None` to take those of the fields.
        fields: records to start from.
        given: the other keywords by name. One that is not `None` replaces its entry in all records.

    Raises:
        TypeError: values that are not a dict of arrays by name.
        ValueError: an entry for a variable that is not there.
    """
    records = _start(values, fields)
    for keyword, entries in given.items():
        for unknown in [name for name in entries or () if name not in records]:
            raise ValueError(
                f"Dataset: {keyword} has {unknown!r}, but there is no such variable; the variables are "
                f"{', '.join(records)}."
            )
        if entries is None:
            continue
        for name, field in records.items():
            if keyword == "redrawn":
                records[name] = _with_binarization(field, name in entries)
            elif keyword == "spread":
                records[name] = _with_gaussian_noise(field, entries.get(name))
            else:
                records[name] = replace(field, **{ATTRIBUTES[keyword]: entries.get(name)})
    return records


def _start(values: Any, fields: Mapping[str, Field] | None) -> dict[str, Field]:
    """A record for each variable: of the values, with the other entries of the fields if there are any."""
    if values is None and fields is not None:
        return dict(fields)
    if not isinstance(values, Mapping):
        raise TypeError(
            f"Dataset: values must be a dict of arrays by variable name, such as {{'x': x}}, "
            f"got {type(values).__name__}."
        )
    known = fields or {}
    return {
        name: replace(known[name], values=value) if name in known else Field(value)
        for name, value in values.items()
    }


def _with_binarization(field: Field, drawn: bool) -> Field:
    """The record with binarization in every batch, or without it."""
    if drawn:
        return replace(field, noise=Binarization())
    return replace(field, noise=None) if isinstance(field.noise, Binarization) else field


def _with_gaussian_noise(field: Field, scale: Any) -> Field:
    """The record with Gaussian noise of a scale in every batch, or without it."""
    if scale is not None:
        return replace(field, noise=GaussianNoise(scale))
    return replace(field, noise=None) if isinstance(field.noise, GaussianNoise) else field
