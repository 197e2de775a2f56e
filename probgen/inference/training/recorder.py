"""What a fit writes into its run directory while it runs, and how it goes on from there.

    config.json               what was asked for: command, versions, model, data, settings
    checkpoint.safetensors    the state after the last whole epoch: weights, optimizer, curves
    weights.safetensors       the weights kept, once the run has ended
    metrics.csv               a row an epoch
    figures/                  the learning curve, and what `probgen plot` draws
    scores/                   what `probgen evaluate` measured
    model.py                  the code of a pair that came from a file, for reading

The checkpoint is the one truth: it is replaced in one step, and everything else can be made from it
and the configuration.
"""

from __future__ import annotations

import csv
import functools
import io
import os
import platform
import shlex
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probgen.data.dataset import Dataset, Splits
from probgen.data.fingerprint import fingerprint
from probgen.inference.training.results import FitResult, go_on_from, progress_of
from probgen.pair import LatentVariableModel
from probgen.storage.files import (
    RunError,
    absolute,
    explained,
    make_folder,
    pack,
    read_record,
    read_tensors,
    unpack,
    write_atomically,
    write_record,
    write_tensors,
)
from probgen.storage.folder_lock import FolderLock
from probgen.storage.pair_json import describe_own_code, pair_from_json, pair_to_json
from probgen.storage.run_records import BESIDE, check_config, check_record, model_digest

FORMAT = 1
CONFIG, CHECKPOINT, WEIGHTS, METRICS = (
    "config.json",
    "checkpoint.safetensors",
    "weights.safetensors",
    "metrics.csv",
)
FREE = ("num_epochs", "patience", "device", "compile")
"""Settings that may change when a run is resumed."""

Probe = Callable[[LatentVariableModel], Any]
"""What a pair makes of some data: numbers that two equal pairs have in common."""


class Recorder:
    """The run directory of one call of fit; only one process at a time holds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = absolute(folder)  # wherever the process goes
        make_folder(self.folder)
        self._lock = FolderLock(self.folder)

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], resume: bool, pair: LatentVariableModel,
        settings: Mapping[str, Any], data: Mapping[str, Any], probe: Probe,
    ) -> Recorder:  # fmt: skip
        """Begin a run, or go on with the one that the folder holds.

        Raises:
            RunError: the folder holds a run and `resume` is false, another process trains in it,
                or the run in it is of another model, other data or other settings.
            OSError: the folder cannot be written.
        """
        recorder = cls(Path(folder))
        try:
            recorder._begin(resume, pair, settings, data, probe)
        except BaseException:
            recorder.close()
            raise
        return recorder

    def _begin(
        self, resume: bool, pair: LatentVariableModel, settings: Mapping[str, Any],
        data: Mapping[str, Any], probe: Probe,
    ) -> None:  # fmt: skip
        path = self.folder / CONFIG
        recipe = _checked_recipe(pair, probe)
        code = recipe.pop("code", None)
        now = {
            "command": shlex.join(sys.orig_argv),
            "folder": _working_folder(),
            **_circumstances(),
        }
        if not path.exists():
            if (self.folder / CHECKPOINT).exists() or (self.folder / WEIGHTS).exists():
                raise RunError(
                    f"{self.folder} has weights but no {CONFIG}, so nobody can tell what they are. "
                    "Restore it, or choose another folder."
                )
            self.config: dict[str, Any] = {
                "format": FORMAT,
                "run": uuid.uuid4().hex,
                **now,
                "name": pair.name,
                "model": recipe,
                "settings": dict(settings),
                "data": dict(data),
                "resumed": [],
            }
            if code is not None:
                write_atomically(self.folder / "model.py", code.encode())
            write_record(path, self.config)
            return
        if not resume:
            raise RunError(
                f"{self.folder} already holds a run. Go on with it (resume=True, or --resume), or "
                "choose another folder."
            )
        self.config = read_config(self.folder)
        self._compare(recipe, settings, data)
        settings = {**settings, "captured": self.config["settings"].get("captured", False)}
        # What the weights say of their model stays true: only its file may lie elsewhere.
        model = self.config["model"] | {k: v for k, v in recipe.items() if k == "path"}
        self.config |= {"settings": settings, "model": model, "data": dict(data)}
        self.config["resumed"].append(now)
        write_record(path, self.config)
        for part in self.folder.glob(".*.part"):  # of a write that was killed
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _compare(
        self, recipe: Mapping[str, Any], settings: Mapping[str, Any], data: Mapping[str, Any]
    ) -> None:
        # A project may move: what counts of a file is its content.
        models = [
            {k: v for k, v in m.items() if k != "path"} for m in (self.config["model"], recipe)
        ]
        what: list[tuple[str, Any, Any]] = [("model", models[0], models[1])]
        before = {"devices": 1, **self.config["settings"]}
        what += [(n, before.get(n), settings[n]) for n in settings if n not in (*FREE, "captured")]
        hashes = [
            {part: _compared(about) for part, about in d.items() if part not in BESIDE}
            for d in (self.config["data"], data)
        ]
        what.append(("data", hashes[0], hashes[1]))
        for name, old, new in what:
            if old != new:
                raise RunError(
                    f"{self.folder} was begun with {name} {old}, but now it is {new}. Resume with "
                    f"the same, or choose another folder; only {', '.join(FREE)} may change."
                )

    # ------------------------------------------------------------------ the state

    def restore(self, state: Any) -> None:
        """Put a training state back to the last whole epoch, or store where a new one begins."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            if (self.folder / WEIGHTS).exists():
                raise RunError(
                    f"{self.folder} has its weights, but {CHECKPOINT} is gone, so the run cannot go on "
                    "from them. Restore it, or begin another run with these weights in another folder."
                )
            self.store(state)
            return
        self._lock.check()
        tensors, record = read_tensors(path)
        check_record(record, self.config, path, "checkpoint")
        pair, best = split_weights(tensors)
        load_weights(state.pair, pair, path)
        state.best = best or None
        try:
            state.optimizer.load_state_dict(unpack(record["optimizer"], tensors))
            if state.scheduler is not None:
                state.scheduler.load_state_dict(unpack(record["scheduler"], tensors))
            go_on_from(state.result, record["progress"])
        except _NOT_A_STATE as error:
            raise RunError(
                f"{path} does not hold the state of this training ({error!r}). Restore it, or begin "
                "in another folder."
            ) from error
        self._write_metrics(state.result)
        try:
            (self.folder / WEIGHTS).unlink(missing_ok=True)  # they come anew when the run ends
        except OSError as error:
            raise explained(error, self.folder / WEIGHTS) from error

    def store(self, state: Any) -> None:
        """Write the state after an epoch."""
        tensors = {f"pair/{n}": _tensor(n, t) for n, t in state.pair.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in (state.best or {}).items()}
        record = self._about(state.result)
        record["optimizer"] = pack(state.optimizer.state_dict(), tensors, "optimizer")
        if state.scheduler is not None:
            record["scheduler"] = pack(state.scheduler.state_dict(), tensors, "scheduler")
        self._lock.check()
        write_tensors(self.folder / CHECKPOINT, tensors, record)
        self._write_metrics(state.result)

    def finish(self, result: FitResult) -> None:
        """Write the weights kept and the learning curve."""
        weights = {f"pair/{name}": tensor for name, tensor in result.pair.state_dict().items()}
        self._lock.check()
        write_tensors(self.folder / WEIGHTS, weights, self._about(result))
        self._write_metrics(result)
        if result.elbo:
            from probgen.plots.curves import learning_curve
            from probgen.plots.style import save

            path = self.folder / "figures" / "learning_curve.png"
            make_folder(path.parent, within=self.folder)
            save(path, learning_curve, result, within=self.folder)

    def _about(self, result: FitResult) -> dict[str, Any]:
        return {
            "run": self.config["run"],
            "model": model_digest(self.config["model"]),
            "progress": progress_of(result),
        }

    def _write_metrics(self, result: FitResult) -> None:
        content = metrics_text(result).encode()
        write_atomically(self.folder / METRICS, content, outlast_power=False)

    def close(self) -> None:
        """Let others use the folder."""
        self._lock.close()


_NOT_A_STATE = (
    ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError, ValueError
)  # fmt: skip
"""What optimizers and schedulers raise for a state that is none of theirs."""


def _checked_recipe(pair: LatentVariableModel, probe: Probe) -> dict[str, Any]:
    """The recipe, if what it builds is the pair: parts may have been exchanged since."""
    recipe = pair_to_json(pair)
    if recipe["kind"] in ("declared", "library", "registered"):
        like = next(pair.parameters())
        try:
            again = pair_from_json(recipe).to(like.device, like.dtype)
            again.load_state_dict(pair.state_dict())
            same = torch.equal(probe(again), probe(pair))
        except (ValueError, RuntimeError, TypeError):
            same = False
        if not same:
            return describe_own_code(pair)
    return recipe


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run.

    Raises:
        RunError: missing, damaged, edited, or of a newer version.
    """
    config = read_record(folder / CONFIG)
    version = config.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise RunError(
            f"{folder} was written by a newer probgen ({config.get('versions')}, "
            f"format {version}; this one reads up to {FORMAT}). Update probgen."
        )
    if version != FORMAT:
        raise RunError(f"{folder / CONFIG} is not the configuration of a run.")
    check_config(config, folder / CONFIG)
    return config


def split_weights(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The latest weights and the best ones of a checkpoint, by the pair's names."""
    latest, best = (
        {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        for prefix in ("pair/", "best/")
    )
    return latest, best


def load_weights(pair: LatentVariableModel, weights: Mapping[str, Tensor], path: Path) -> None:
    """Weights into a pair.

    Raises:
        RunError: names, shapes or precision differ.
    """
    check_shapes(pair, weights, path)
    for name, tensor in pair.state_dict().items():
        if tensor.dtype != weights[name].dtype:
            raise RunError(
                f"{path} does not fit {pair.name}: {name} has {weights[name].dtype} in the run and "
                f"{tensor.dtype} by the precision in its {CONFIG}. One of them was changed."
            )
    pair.load_state_dict(weights)


def check_shapes(pair: LatentVariableModel, weights: Mapping[str, Tensor], path: Path) -> None:
    """Weights have the names and shapes of a pair's.

    Raises:
        RunError: they have not.
    """
    own = {name: tuple(tensor.shape) for name, tensor in pair.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if own != theirs:
        odd = sorted(n for n in own.keys() | theirs.keys() if own.get(n) != theirs.get(n))[0]
        raise RunError(
            f"{path} does not fit {pair.name}: {odd} has shape {theirs.get(odd)} in the run and "
            f"{own.get(odd)} in the pair. Give the pair that was trained."
        )


# ---------------------------------------------------------------- what is written about a run


def metrics_text(result: FitResult) -> str:
    """The curves as CSV, a row an epoch."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["epoch", "elbo", "validation_elbo", "learning_rate", "seconds"])
    held: list[Any] = result.validation_elbo or [""] * len(result.elbo)
    rows = zip(result.elbo, held, result.learning_rate, result.seconds, strict=True)
    for epoch, row in enumerate(rows, 1):
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


def _compared(about: Mapping[str, Any]) -> list[Any]:
    drawn = [*about.get("redrawn", []), about.get("spread")]
    return [about["hash"], *about.get("transformations", {}).values(), *drawn]


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


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


def _circumstances() -> dict[str, Any]:
    import numpy
    import pyro

    import probgen

    versions = {
        "probgen": probgen.__version__,
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


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"fit: {name} in the pair's state_dict is {type(value).__name__}, no tensor; a run "
            "directory stores tensors only."
        )
    return value
