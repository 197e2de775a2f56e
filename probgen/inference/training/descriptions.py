"""Descriptions for a run directory: of the data, the settings, the versions, and the curves."""

from __future__ import annotations

import csv
import functools
import io
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch

from probgen.basics.version import __version__
from probgen.data.dataset import Dataset, Splits
from probgen.data.fingerprint import fingerprint
from probgen.inference.training.results import CURVES, FitResult


def metrics_text(result: FitResult) -> str:
    """The curves as CSV: one row per epoch, and one column for each further metric."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    further = sorted(result.metrics)  # a run that is read has them in this order
    writer.writerow(["epoch", *CURVES, *further])
    validation: list[Any] = result.validation_elbo or [""] * len(result.elbo)
    curves = (result.elbo, validation, result.learning_rate, result.seconds)
    for epoch, row in enumerate(
        zip(*curves, *(result.metrics[name] for name in further), strict=True), 1
    ):
        writer.writerow([epoch, *row])
    return stream.getvalue()


def describe_data(
    train: Any, validation: Any, splits: Splits | None, *, given: bool = False
) -> dict[str, Any]:
    """Describe each part of the data by size, shapes, transformations and hash, and how to load it.

    Args:
        train: the training data.
        validation: the validation data, or `None`.
        splits: the splits that the data come from, or `None`.
        given: whether the user gave validation data that are not those of the splits.
    """
    parts = {"train": train, "validation": validation}
    if splits is not None:
        parts = {**splits.parts, "train": splits.train, "validation": validation}
    described: dict[str, Any] = {
        name: _describe_part(part) for name, part in parts.items() if part is not None
    }
    if given and "validation" in described:
        described["validation"]["given"] = True
    return {
        "source": dict(splits.source) if splits and splits.source else None,
        # Hashes of all parts as loaded, because fit may use other validation data, or none.
        "loaded": splits
        and {n: fingerprint(p.values, p.observed) for n, p in splits.parts.items()},
        **described,
    }


def identity_of(about: Mapping[str, Any]) -> list[Any]:
    """The entries of the record of a data set that must be the same when a run is resumed."""
    noise = [*about.get("redrawn", []), about.get("spread")]
    # Only for the variables of the data set: records of earlier versions name others too.
    variables = about.get("shapes") or {}
    transformations = [
        text for name, text in sorted(about.get("transformations", {}).items()) if name in variables
    ]
    return [about["hash"], *transformations, *noise]


def _describe_part(part: Any) -> dict[str, Any]:
    if not isinstance(part, Dataset):
        return {"name": type(part).__name__, "size": None, "hash": None}
    return {
        "name": part.name,
        "size": len(part),
        "shapes": {name: list(value.shape[1:]) for name, value in part.values.items()},
        "transformations": dict(part.transformations),
        "redrawn": list(part.redrawn),
        "spread": fingerprint(part.spread) if part.spread else None,
        "hash": fingerprint(part.values, part.observed),
    }


def described(value: Any) -> Any:
    """An optimizer, scheduler or objective as text, without the memory address that repr shows."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, functools.partial):
        keywords = [f"{key}={described(part)}" for key, part in value.keywords.items()]
        return f"{described(value.func)}({', '.join([*map(str, value.args), *keywords])})"
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    if " at 0x" not in text:
        return text
    plain = {k: v for k, v in vars(value).items() if isinstance(v, (str, int, float))}
    arguments = ", ".join(f"{key}={part}" for key, part in sorted(plain.items()))
    return f"{type(value).__module__}.{type(value).__qualname__}({arguments})"


def working_folder() -> str | None:
    """The current working directory, or `None` if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return None


def circumstances() -> dict[str, Any]:
    """The time, versions and machine of the start of a run, or of its resumption."""
    import numpy
    import pyro

    versions = {
        "probgen": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "numpy": numpy.__version__,
    }
    machine = {"system": platform.platform(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"started": started, "versions": versions, "machine": machine}
