"""The runs below a folder; a run that cannot be read is listed with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from probgen.inference.training.recorder import CHECKPOINT, CONFIG, WEIGHTS, read_config
from probgen.inference.training.results import check_progress
from probgen.storage.files import RunError, read_file, read_tensors_record
from probgen.storage.run_records import check_record


def runs_below(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """An overview of every run, as `probgen list` shows it, or why it cannot be read.

    Args:
        folder: where to look; links to folders are not followed.
    """
    runs = []
    for path, error in _folders_with_configuration(Path(folder)):
        if error is not None:
            reason = os.strerror(error.errno) if error.errno else str(error)
            runs.append({"run": str(path), "status": f"cannot be read: {reason}"})
            continue
        try:
            if _is_run(path):
                runs.append(overview(path))
        except (MemoryError, OSError, ValueError) as damage:
            runs.append({"run": str(path), "status": f"damaged: {damage}"})
    return runs


def overview(path: str | os.PathLike[str]) -> dict[str, Any]:
    """An overview of one run, without building its pair or loading tensors.

    Raises:
        RunError: the run is damaged.
    """
    folder = Path(path)
    config = read_config(folder)
    file = state_file(folder)
    progress: Mapping[str, Any] = {"elbo": []}
    ended = file is not None and file.name == WEIGHTS
    if file is not None:
        record = read_tensors_record(file)
        check_record(record, config, file, "weights" if ended else "checkpoint")
        progress = record["progress"]
        try:
            check_progress(progress)
        except ValueError as error:
            raise RunError(f"{file} is not a file of a run: {error}") from error
    elbo, validation = progress["elbo"], progress.get("validation_elbo")
    return {
        "run": str(folder),
        "model": config["name"],
        "data": config["data"]["train"]["name"],
        "epochs": len(elbo),
        "quantity": quantity_of(config, progress),
        "elbo": elbo[-1] if elbo else None,
        "validation_elbo": validation[progress.get("best_epoch", 0) - 1] if validation else None,
        "status": progress.get("stopped", "completed") if ended else "unfinished",
    }


def quantity_of(config: Mapping[str, Any], progress: Mapping[str, Any]) -> str:
    """The name of the value that a run maximized, such as `"ELBO"`.

    Older runs did not record it. Their objectives were ELBOs, `SemiSupervised` and functions.

    Args:
        config: the configuration of the run.
        progress: its curves, as they are recorded with the weights.
    """
    if "quantity" in progress:
        return str(progress["quantity"])
    objective = str(config["settings"].get("objective", "elbo"))
    return "ELBO" if objective in ("elbo", "analytic-kl") or "ELBO" in objective else "objective"


def state_file(folder: Path) -> Path | None:
    """The weights of a run that has ended, or else its last checkpoint."""
    return next((folder / n for n in (WEIGHTS, CHECKPOINT) if (folder / n).is_file()), None)


def _folders_with_configuration(folder: Path) -> Iterator[tuple[Path, OSError | None]]:
    """Folders with a configuration, in order; and folders that cannot be read, with the error."""
    pending = [folder]
    while pending:
        path = pending.pop()
        try:
            with os.scandir(path) as entries:
                inside = sorted(entries, key=lambda entry: entry.name, reverse=True)
            folders = [path / entry.name for entry in inside if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            yield path, error
            continue
        if any(entry.name == CONFIG for entry in inside):
            yield path, None
        pending += folders


def _is_run(folder: Path) -> bool:
    """Whether a configuration belongs to a run and not to another program."""
    if any(name.endswith(".safetensors") for name in os.listdir(folder)):
        return True
    return b'"run"' in read_file(folder / CONFIG, 2**23)
