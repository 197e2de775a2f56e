"""What a run directory says in words and numbers: data, settings, versions, curves."""

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
    """The curves as CSV, one row per epoch; further metrics are further columns."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    further = sorted(result.metrics)  # in the order that they have when a run is read
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
    """Of each part its size, shapes, transformations and hash; and how to load them again.

    Args:
        train: what was trained on.
        validation: what was validated on.
        splits: where both came from, if from splits.
        given: whether the validation data are others than those of the splits.
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
        # Of all parts as they are loaded: fit may have validated on others, or on none.
        "loaded": splits
        and {n: fingerprint(p.values, p.observed) for n, p in splits.parts.items()},
        **described,
    }


def identity_of(about: Mapping[str, Any]) -> list[Any]:
    """What of the record of a part must be the same where a run is resumed."""
    drawn = [*about.get("redrawn", []), about.get("spread")]
    # Of the variables that it holds, in any order: records of earlier versions name others too.
    held = about.get("shapes") or {}
    words = [
        text for name, text in sorted(about.get("transformations", {}).items()) if name in held
    ]
    return [about["hash"], *words, *drawn]


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
    """An optimizer, scheduler or objective in words, without the address that repr would show."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, functools.partial):
        named = [f"{key}={described(part)}" for key, part in value.keywords.items()]
        return f"{described(value.func)}({', '.join([*map(str, value.args), *named])})"
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    if " at 0x" not in text:
        return text
    held = {k: v for k, v in vars(value).items() if isinstance(v, (str, int, float))}
    parts = ", ".join(f"{key}={part}" for key, part in sorted(held.items()))
    return f"{type(value).__module__}.{type(value).__qualname__}({parts})"


def working_folder() -> str | None:
    """Where the process works, unless that was deleted."""
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


def circumstances() -> dict[str, Any]:
    """When and by what a run was begun or resumed: versions and the machine."""
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
