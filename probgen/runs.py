"""Run directories, read back: the pair, what it was trained on, its curves and its scores."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probgen.data import Splits, fingerprint
from probgen.files import (
    RunError,
    make_folder,
    read_tensors,
    read_tensors_record,
    write_tensors,
)
from probgen.inference.devices import as_dtype
from probgen.inference.recording import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    WEIGHTS,
    check_run,
    load_weights,
    metrics_text,
    read_config,
    split_weights,
)
from probgen.inference.results import FitResult, set_progress
from probgen.inference.scores import Score
from probgen.locking import one_at_a_time
from probgen.pair import LatentVariableModel
from probgen.pair_files import build_from_file
from probgen.recipes import build, recipe_of
from probgen.sources import NAMES, load, load_whole

ARRAYS = ("log_prob", "standard_error", "bias", "ess", "khat", "replicates")


class Run:
    """A run directory, read.

    Attributes:
        path: the folder.
        config: what was asked for: command, versions, machine, settings, data.
        pair: the pair with the weights kept, on the CPU, in eval mode.
        result: its curves, as `fit` returned them.
    """

    def __init__(
        self, path: Path, config: dict[str, Any], pair: LatentVariableModel, result: FitResult
    ) -> None:
        self.path, self.config, self.pair, self.result = path, config, pair, result

    @property
    def data(self) -> dict[str, Any]:
        """What it was trained on: of each part its size, shapes, transformations and hash."""
        return {part: about for part, about in self.config["data"].items() if part != "source"}

    def load_data(self) -> Splits:
        """The data, loaded again; training and test data are compared with what they were.

        Raises:
            RunError: the run does not know where they came from, or they have changed.
            FileNotFoundError: their file is gone.
        """
        source = self.config["data"]["source"]
        if source is None:
            raise RunError(
                f"{self.path} was trained on arrays, and does not know where they came from. Score "
                "them from Python: pg.log_marginal_likelihood(run.pair, data); or name a file that "
                "holds them."
            )
        splits = load(**_with(source))
        for part, held in splits.parts.items():
            about = self.data.get(part)
            if part == "validation" or about is None:  # fit may have been given another
                continue
            if fingerprint(held.values, held.observed) != about["hash"]:
                raise RunError(
                    f"{source['name']} has changed since {self.path} was trained: the {part} data "
                    "have another hash. Restore the file, or train again in another folder."
                )
        return splits

    def load_other(self, name: str) -> Splits:
        """Other data, prepared as those that the run was trained on.

        Args:
            name: a data set, or a file; all of a file is in the part `train`, in one stored draw.

        Raises:
            RunError: labels whose codes would mean something else than in training.
            ValueError: data that cannot be read or prepared so.
        """
        source = self.config["data"]["source"]
        if source is not None and name == source["name"]:
            return self.load_data()
        if name in NAMES:
            raise RunError(
                f"{self.path} was trained on {self.data['train']['name']}, prepared in its own way, which "
                f"says nothing about {name}. Save what is to be scored as a file."
            )
        if source is None and any(self.data["train"].get("transformations", {}).values()):
            raise RunError(
                f"{self.path} was trained on arrays that were prepared in Python; a file cannot be "
                "prepared alike. Score it there: pg.log_marginal_likelihood(run.pair, data)."
            )
        whole = load_whole(name, source or {})
        if "y" in self.pair.variables and "y" in whole.values:
            before = self.data["train"].get("transformations", {}).get("y", "")
            if whole.transformations.get("y", "") != before:
                raise RunError(
                    f"{name}: its labels are {whole.transformations.get('y') or '0, 1, ...'}, but those "
                    f"of the training data {before or '0, 1, ...'}. Code both alike, as 0, 1, ..."
                )
        columns = None if source is None else source.get("columns")
        return Splits(whole, source={"name": name, "columns": columns})

    @property
    def scores(self) -> dict[str, Score]:
        """The scores of these weights that were saved, by name.

        Raises:
            RunError: a file of a score is damaged.
        """
        found = {}
        now = self._weights_hash()
        for path in sorted((self.path / "scores").glob("*.safetensors")):
            tensors, record = read_tensors(path)
            check_run(record, self.config, path)
            if record["weights"] == now:
                arrays: dict[str, Any] = {name: tensors[name].numpy() for name in tensors}
                chunk = record["score"].get("chunk")
                plain = {**record["score"], "chunk": chunk and (chunk[0], chunk[1])}
                found[path.stem] = Score(**arrays, **plain)
        return found

    def save_score(self, score: Score, name: str) -> Path:
        """Keep a score in the run directory.

        Args:
            score: of this run's pair.
            name: of the file, such as `test-K5000`.

        Raises:
            ValueError: the name is no plain file name.
            OSError: it cannot be written.
        """
        if not name or Path(name).name != name:
            raise ValueError(f"Run.save_score: {name!r} is no plain file name.")
        make_folder(self.path / "scores")
        path = self.path / "scores" / f"{name}.safetensors"
        arrays = {
            key: torch.from_numpy(np.array(value))
            for key in ARRAYS
            if (value := getattr(score, key)) is not None
        }
        plain = {f.name: getattr(score, f.name) for f in fields(score) if f.name not in ARRAYS}
        record = {"run": self.config["run"], "weights": self._weights_hash(), "score": plain}
        write_tensors(path, arrays, record)
        return path

    def _weights_hash(self) -> str:
        return fingerprint(self.pair.state_dict())

    def __repr__(self) -> str:
        config, train = self.config, self.data["train"]
        sizes = ", ".join(f"{about['size']} {part}" for part, about in self.data.items())
        lines = [
            f"Run {self.path}",
            f"  command   {config['command']}",
            f"  begun     {config['started']}, probgen {config['versions']['probgen']}, torch "
            f"{config['versions']['torch']}"
            + (f", resumed {len(config['resumed'])} times" if config["resumed"] else ""),
            f"  data      {train['name']}: {sizes}, hash {train['hash']}",
        ]
        lines += [f"            {words}" for words in train.get("transformations", {}).values()]
        settings = ", ".join(f"{k} {v}" for k, v in config["settings"].items() if v is not None)
        lines += [f"  settings  {settings}", f"  result    {self.result!r}"]
        for name, score in self.scores.items():
            shown = repr(score).replace("\n", "\n            ")
            lines.append(f"  score     {name}: {shown}")
        return "\n".join([*lines, *(f"  {line}" for line in repr(self.pair).splitlines())])


@one_at_a_time
def load_run(
    path: str | os.PathLike[str],
    *,
    pair: LatentVariableModel | None = None,
    trust_code: bool = False,
) -> Run:
    """Read a run directory, also of a run that was killed or is still going on.

    Declared and library pairs are built again from their names and numbers; nothing is unpickled
    and no code of the folder is run. A pair from a Python file is built by running that file, as
    long as it is where it was, outside the folder, and unchanged; what it imports is not checked.

    Args:
        path: the folder that `fit(run_dir=...)` wrote.
        pair: for a pair that was written by hand or has networks of its own: a new one, into
            which the weights go.
        trust_code: run the copy of a pair's Python file that lies in the folder. Read it first.

    Returns:
        The run. Weights are those that `fit` kept, or, of a run that has not ended, the best so
        far (the latest, where there are no validation data).

    Raises:
        RunError: (a `ValueError`) no such run, one that is damaged, edited or of a newer version,
            or whose pair cannot be built.

    Example:
        >>> import tempfile, torch, probgen as pg
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
        >>> folder = tempfile.mkdtemp()
        >>> _ = pg.fit(ppca, torch.randn(40, 3), num_epochs=2, run_dir=folder, progress=False)
        >>> run = pg.load_run(folder)
        >>> run.pair.name, len(run.result.elbo)
        ('PPCA', 2)
    """
    folder = Path(path)
    try:
        return _read(folder, pair, trust_code)
    except RunError:
        raise
    except ValueError as error:
        raise RunError(f"{folder}: {error}") from error
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise RunError(
            f"{folder} cannot be read: its files do not hold what those of a run do ({error!r})."
        ) from error


def _read(folder: Path, pair: LatentVariableModel | None, trust_code: bool) -> Run:
    if not (folder / CONFIG).is_file():
        what = "has no config.json" if folder.is_dir() else "does not exist"
        raise RunError(
            f"There is no run in {folder}: it {what}. `probgen list FOLDER` shows the runs below a "
            "folder."
        )
    config = read_config(folder)
    file = _state_file(folder)
    if file is None:
        raise RunError(
            f"{folder} holds a configuration but no weights: it was stopped before it began, or "
            "they were deleted. Train it: the same command with --resume."
        )
    tensors, record = read_tensors(file)
    check_run(record, config, file)
    latest, best = split_weights(tensors)
    pair = _built(folder, config, pair, trust_code)
    pair.to(device="cpu", dtype=as_dtype(config["settings"]["precision"]))
    load_weights(pair, best or latest, file)
    pair.eval()
    result = FitResult(pair)
    set_progress(result, record["progress"])
    ended = file.name == WEIGHTS
    result.stopped = record["progress"]["stopped"] if ended else "interrupted"
    if not ended and not best:
        result.best_epoch = len(result.elbo)
    _check_metrics(folder, result, ended)
    return Run(folder, config, pair, result)


def overview(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `probgen list` shows of a run, without building its pair or loading PyTorch's tensors.

    Raises:
        RunError: the run is damaged.
    """
    folder = Path(path)
    config = read_config(folder)
    file = _state_file(folder)
    progress: Mapping[str, Any] = {} if file is None else read_tensors_record(file)["progress"]
    elbo, held = progress.get("elbo") or [None], progress.get("validation_elbo")
    ended = file is not None and file.name == WEIGHTS
    return {
        "run": str(folder),
        "model": config["name"],
        "data": config["data"]["train"]["name"],
        "epochs": len(progress.get("elbo", [])),
        "elbo": elbo[-1],
        "validation_elbo": held[progress["best_epoch"] - 1] if held else None,
        "status": progress["stopped"] if ended else "unfinished",
    }


def _state_file(folder: Path) -> Path | None:
    """The weights of a run that has ended, or else its last checkpoint."""
    return next((folder / n for n in (WEIGHTS, CHECKPOINT) if (folder / n).is_file()), None)


def _with(source: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The arguments of `load`, out of JSON, with some of them changed."""
    arguments = {**source, **changes}
    if arguments.get("split"):
        arguments["split"] = tuple(arguments["split"])
    return arguments


def _built(
    folder: Path, config: Mapping[str, Any], pair: LatentVariableModel | None, trust_code: bool
) -> LatentVariableModel:
    recipe = config["model"]
    if pair is not None:
        theirs = recipe_of(pair)
        if recipe["kind"] != "file" and theirs != recipe:
            raise RunError(
                f"{folder} is a run of another pair than the one given: {_named(recipe)} was trained, "
                f"{_named(theirs)} was given, and classes, settings and parts must be the same."
            )
        return pair
    if recipe["kind"] == "own":
        raise RunError(
            f"The pair of {folder} is {recipe['class']}, which only its author's code can build: make "
            "a new one and give it, load_run(path, pair=...). For the command line put a function "
            "that returns it into a file: my_model.py:build."
        )
    if recipe["kind"] != "file":
        try:
            return build(recipe)
        except ValueError as error:
            raise RunError(f"{folder / CONFIG}: {error}") from error
    original, copy = Path(recipe["path"]), folder / "model.py"
    # A file that comes with the run directory is a stranger's, whatever the configuration says.
    known = original.is_absolute() and folder.resolve() not in original.resolve().parents
    for file, allowed in ((original, known or trust_code), (copy, trust_code)):
        if allowed and file.is_file():
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() == recipe["sha256"]:
                return build_from_file(file, recipe["builder"], content)
    state = "has changed since" if original.is_file() else "is not there any more"
    raise RunError(
        f"The pair of {folder} comes from {original}, which {state}. "
        + (
            f"The copy in {copy} does not match either."
            if trust_code
            else f"{copy} is the code as it was: read it, and run it by trust_code=True "
            "(--trust-code)."
        )
    )


def _named(recipe: Mapping[str, Any]) -> str:
    """A recipe in a few words."""
    if recipe["kind"] == "declared":
        return f"{recipe['p']}, {recipe['q']} {recipe['variables']}"
    return str({k: v for k, v in recipe.items() if k in ("class", "arguments", "path", "builder")})


def _check_metrics(folder: Path, result: FitResult, ended: bool) -> None:
    """The table for readers says what the weights' own record says."""
    path = folder / METRICS
    if not path.is_file():
        return
    found, expected = path.read_bytes(), metrics_text(result).encode()
    # A run that is going on, or was killed, may be a row ahead or behind.
    if not (expected.startswith(found) or (not ended and found.startswith(expected))):
        raise RunError(
            f"{path} was changed after it was written: it does not agree with the weights beside "
            "it. Delete it; the numbers are in the weights' file too."
        )
