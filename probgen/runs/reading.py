"""Reading run directories: also unfinished or damaged ones, or those whose code is not trusted."""

from __future__ import annotations

import os
from pathlib import Path

from probgen.basics.locking import one_at_a_time
from probgen.inference.compute.devices import as_dtype
from probgen.inference.training.checkpoint import load_weights, split_weights
from probgen.inference.training.descriptions import metrics_text
from probgen.inference.training.recorder import CONFIG, METRICS, WEIGHTS, read_config
from probgen.inference.training.results import FitResult, set_progress
from probgen.pair import LatentVariableModel
from probgen.runs.listing import quantity_of, state_file
from probgen.runs.pairs import Code, built_pair, code_of, unbuilt_pair
from probgen.runs.run import Run
from probgen.storage.files import RunError, read_file, read_tensors
from probgen.storage.run_records import check_record


@one_at_a_time
def load_run(
    path: str | os.PathLike[str],
    *,
    pair: LatentVariableModel | None = None,
    trust_code: bool = False,
) -> Run:
    """Read a run directory, also of a run that was killed or is still training.

    Declared and library pairs are built again from their names and numbers; nothing is unpickled
    and no code is run. A pair from a Python file can only be built by running that file. Since a
    run directory may be of unknown origin, you have to allow that: give the pair, or
    `trust_code=True`.

    Args:
        path: the folder that `fit(run_dir=...)` wrote.
        pair: a new pair into which the weights are loaded, for a pair that was written by hand, has
            networks of its own or comes from a file.
        trust_code: run the Python file that the configuration names, if it has not changed, or else
            its copy in the folder. Read it first; what it imports is not checked.

    Returns:
        The run. Its weights are those that `fit` kept, or, if the run has not ended, the best so far
        (the latest, if there are no validation data).

    Raises:
        RunError: (a `ValueError`) there is no such run; it is damaged, edited or of a newer version;
            or its pair cannot be built, or needs code that is not trusted.

    Example:
        >>> import tempfile, torch, probgen as pg
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
        >>> folder = tempfile.mkdtemp()
        >>> _ = pg.fit(ppca, torch.randn(40, 3), num_epochs=2, run_dir=folder, progress=False)
        >>> run = pg.load_run(folder)
        >>> run.pair.name, len(run.result.elbo)
        ('PPCA', 2)
    """
    return _read_or_say_why(Path(path), pair, trust_code)


def look_at_run(path: str | os.PathLike[str], reason: str) -> Run:
    """Read a run without building its pair, so that no code is run; `pair` can only be printed.

    Args:
        path: the folder.
        reason: why the pair is not built.

    Raises:
        RunError: there is no such run, or it is damaged.
    """
    return _read_or_say_why(Path(path), None, False, reason)


def code_of_run(path: str | os.PathLike[str]) -> Code | None:
    """The Python file that `load_run` has to run; `None` for declared and library pairs.

    Raises:
        RunError: there is no such run, or it is damaged.
    """
    return code_of(Path(path), read_config(_folder_of_run(Path(path)))["model"])


def _read_or_say_why(
    folder: Path, pair: LatentVariableModel | None, trust_code: bool, unbuilt: str | None = None
) -> Run:
    try:
        return _read(folder, pair, trust_code, unbuilt)
    except RunError:
        raise
    except ValueError as error:
        raise RunError(f"{folder}: {error}") from error
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise RunError(
            f"{folder} cannot be read: its files do not hold what those of a run do ({error!r})."
        ) from error


def _folder_of_run(folder: Path) -> Path:
    try:
        is_run = (folder / CONFIG).is_file()
    except OSError as error:
        raise RunError(
            f"{folder} cannot be read ({error.strerror or error}). Change its permissions."
        ) from error
    if not is_run:
        what = "has no config.json" if folder.is_dir() else "does not exist"
        raise RunError(
            f"There is no run in {folder}: it {what}. `probgen list FOLDER` shows the runs below a "
            "folder."
        )
    return folder


def _read(
    folder: Path, pair: LatentVariableModel | None, trust_code: bool, unbuilt: str | None
) -> Run:
    config = read_config(_folder_of_run(folder))
    file = state_file(folder)
    if file is None:
        raise RunError(
            f"{folder} holds a configuration but no weights: it was stopped before its "
            "first checkpoint, or they were deleted. Train it: the same command with --resume."
        )
    tensors, record = read_tensors(file)
    kind = "weights" if file.name == WEIGHTS else "checkpoint"
    check_record(record, config, file, kind)
    latest, best = split_weights(tensors)
    if unbuilt is None:
        pair = built_pair(folder, config["model"], best or latest, file, pair, trust_code)
        pair.to(device="cpu", dtype=as_dtype(config["settings"]["precision"]))
        load_weights(pair, best or latest, file)
        pair.eval()
    else:
        pair = unbuilt_pair(folder, config, best or latest, unbuilt)
    result = FitResult(pair)
    set_progress(result, record["progress"])
    result.quantity = quantity_of(config, record["progress"])
    ended = file.name == WEIGHTS
    result.stopped = record["progress"]["stopped"] if ended else "interrupted"
    if not ended and not best:
        result.best_epoch = len(result.elbo)
    _check_metrics(folder, result, ended)
    return Run(folder, config, pair, result)


def _check_metrics(folder: Path, result: FitResult, ended: bool) -> None:
    """Check that the .csv table agrees with the record in the file of the weights."""
    path = folder / METRICS
    if not path.is_file():
        return
    expected = metrics_text(result).encode()
    content = read_file(path, 2**26)
    # The table of a run that is training, or was killed, may have one row more or fewer.
    if not (expected.startswith(content) or (not ended and content.startswith(expected))):
        raise RunError(
            f"{path} was changed after it was written: it does not agree with the weights next to "
            "it. Delete it; the numbers are in the weights' file too."
        )
