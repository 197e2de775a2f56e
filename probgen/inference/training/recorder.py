"""The run directory that a fit writes while it trains, and from which it can be resumed.

    config.json               the request: command, versions, model, data, settings
    checkpoint.safetensors    the state after the last complete epoch: weights, optimizer, curves
    weights.safetensors       the selected weights, after the run has ended
    metrics.csv               one row per epoch
    figures/                  the learning curve, and the plots of `probgen plot`
    scores/                   the scores of `probgen evaluate`
    model.py                  the code of a pair that came from a file, for reading only

The checkpoint is replaced in one step, so it is always complete. All other files follow from it and
the configuration.
"""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from probgen.inference.training.checkpoint import restore_state, state_of
from probgen.inference.training.descriptions import (
    circumstances,
    identity_of,
    metrics_text,
    working_folder,
)
from probgen.inference.training.results import FitResult, progress_of
from probgen.inference.training.settings import RESUMABLE_WITH
from probgen.pair import LatentVariableModel
from probgen.storage.files import (
    RunError,
    absolute,
    explained,
    make_folder,
    read_record,
    read_tensors,
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
Probe = Callable[[LatentVariableModel], Any]
"""Computes numbers from a pair that are the same for two equal pairs."""


class Recorder:
    """The run directory of one call of fit; only one process at a time may use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = absolute(folder)  # still valid if the working directory changes
        make_folder(self.folder)
        self._lock = FolderLock(self.folder)

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], resume: bool, pair: LatentVariableModel,
        settings: Mapping[str, Any], data: Mapping[str, Any], probe: Probe,
    ) -> Recorder:  # fmt: skip
        """Start a run, or resume the one in the folder.

        Args:
            folder: the run directory.
            resume: whether to resume the run if there is one.
            pair: the pair.
            settings: the record of the settings.
            data: the description of the data.
            probe: computes numbers by which two pairs are compared.

        Raises:
            RunError: the folder has a run and `resume` is false; another process trains in it; or its
                run has another model, other data or other settings.
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
            "folder": working_folder(),
            **circumstances(),
        }
        if not path.exists():
            if (self.folder / CHECKPOINT).exists() or (self.folder / WEIGHTS).exists():
                raise RunError(
                    f"{self.folder} has weights but no {CONFIG}, so it is not known what they belong to. "
                    f"Restore {CONFIG}, or choose another folder."
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
                f"{self.folder} already holds a run. Resume it (resume=True, or --resume), or choose "
                "another folder."
            )
        self.config = read_config(self.folder)
        self._compare(recipe, settings, data)
        settings = {**settings, "captured": self.config["settings"].get("captured", False)}
        # The model must not change, because the weights belong to it; only its path may be new.
        model = self.config["model"] | {k: v for k, v in recipe.items() if k == "path"}
        self.config |= {"settings": settings, "model": model, "data": dict(data)}
        self.config["resumed"].append(now)
        write_record(path, self.config)
        for part in self.folder.glob(".*.part"):  # left by a process that was killed while writing
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _compare(
        self, recipe: Mapping[str, Any], settings: Mapping[str, Any], data: Mapping[str, Any]
    ) -> None:
        # The path of the user's file may change, because the folder of a project may be moved.
        models = [
            {k: v for k, v in m.items() if k != "path"} for m in (self.config["model"], recipe)
        ]
        compared: list[tuple[str, Any, Any]] = [("model", models[0], models[1])]
        before = {"devices": 1, **self.config["settings"]}
        compared += [
            (n, before.get(n), settings[n])
            for n in settings
            if n not in (*RESUMABLE_WITH, "captured")
        ]
        hashes = [
            {part: identity_of(about) for part, about in d.items() if part not in BESIDE}
            for d in (self.config["data"], data)
        ]
        compared.append(("data", hashes[0], hashes[1]))
        for name, old, new in compared:
            if old != new:
                raise RunError(
                    f"{self.folder} was begun with {name} {old}, but now it is {new}. Resume with "
                    f"the same, or choose another folder; only {', '.join(RESUMABLE_WITH)} may change."
                )

    # ------------------------------------------------------------------ the state

    def restore(self, state: Any) -> None:
        """Load the state after the last complete epoch, or store the initial state of a new run."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            if (self.folder / WEIGHTS).exists():
                raise RunError(
                    f"{self.folder} has {WEIGHTS} but no {CHECKPOINT}, so the run cannot be resumed. "
                    f"Restore {CHECKPOINT}, or start another run from these weights in another folder."
                )
            self.store(state)
            return
        self._lock.check()
        tensors, record = read_tensors(path)
        check_record(record, self.config, path, "checkpoint")
        restore_state(state, tensors, record, path)
        self._write_metrics(state.result)
        try:
            (self.folder / WEIGHTS).unlink(missing_ok=True)  # written again when the run ends
        except OSError as error:
            raise explained(error, self.folder / WEIGHTS) from error

    def store(self, state: Any) -> None:
        """Write the state after an epoch into the checkpoint."""
        tensors, record = state_of(state)
        record = {**self._about(state.result), **record}
        self._lock.check()
        write_tensors(self.folder / CHECKPOINT, tensors, record)
        self._write_metrics(state.result)

    def finish(self, result: FitResult) -> None:
        """Write the selected weights."""
        weights = {f"pair/{name}": tensor for name, tensor in result.pair.state_dict().items()}
        self._lock.check()
        write_tensors(self.folder / WEIGHTS, weights, self._about(result))
        self._write_metrics(result)

    def _about(self, result: FitResult) -> dict[str, Any]:
        return {
            "run": self.config["run"],
            "model": model_digest(self.config["model"]),
            "progress": progress_of(result),
        }

    def _write_metrics(self, result: FitResult) -> None:
        content = metrics_text(result).encode()
        write_atomically(self.folder / METRICS, content, durable=False)

    def close(self) -> None:
        """Release the folder, so that other processes can use it."""
        self._lock.close()


def _checked_recipe(pair: LatentVariableModel, probe: Probe) -> dict[str, Any]:
    """The recipe of a pair if it builds an equal pair, otherwise a description of the user's code.

    The two differ if the user has replaced parts of the pair after making it.
    """
    recipe = pair_to_json(pair)
    if recipe["kind"] in ("declared", "library", "registered"):
        first = next(pair.parameters())
        try:
            rebuilt = pair_from_json(recipe).to(first.device, first.dtype)
            rebuilt.load_state_dict(pair.state_dict())
            same = torch.equal(probe(rebuilt), probe(pair))
        except (ValueError, RuntimeError, TypeError):
            same = False
        if not same:
            return describe_own_code(pair)
    return recipe


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run.

    Raises:
        RunError: the file is missing, damaged, edited, or of a newer version.
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
