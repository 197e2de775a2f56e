"""Run directories, read back: the pair, what it was trained on, its curves and its scores."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probgen.basics.locking import one_at_a_time
from probgen.basics.text import printable
from probgen.data.dataset import Dataset, Splits
from probgen.data.fingerprint import fingerprint
from probgen.data.load import load, load_whole
from probgen.data.sources import SOURCES
from probgen.inference.compute.devices import as_dtype
from probgen.inference.inputs import known_part
from probgen.inference.scoring.scores import Score
from probgen.inference.training.checkpoint import load_weights, split_weights
from probgen.inference.training.descriptions import metrics_text
from probgen.inference.training.recorder import CONFIG, METRICS, WEIGHTS, read_config
from probgen.inference.training.results import FitResult, set_progress
from probgen.pair import LatentVariableModel
from probgen.runs.listing import state_file
from probgen.runs.pairs import Code, built_pair, code_of, unbuilt_pair
from probgen.storage.files import (
    RunError,
    make_folder,
    read_file,
    read_tensors,
    write_tensors,
)
from probgen.storage.run_records import BESIDE, check_record, model_digest

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
        return {part: about for part, about in self.config["data"].items() if part not in BESIDE}

    def load_data(self) -> Splits:
        """The data, loaded again; every part is compared with what it was.

        The validation part is that of the file, also where fit was given other validation data.

        Raises:
            RunError: the run does not know where they came from, or says it in a way that `load` does not
                understand, or they have changed.
            FileNotFoundError: their file is gone.
        """
        source = self.config["data"]["source"]
        if source is None:
            raise RunError(
                f"{self.path} was trained on arrays, and does not know where they came from. Score "
                "them from Python: pg.log_marginal_likelihood(run.pair, data); or name a file that "
                "holds them."
            )
        with self._told_to_load(source):
            splits = load(**_with(source))
        for part, held in splits.parts.items():
            about = self.data.get(part, {})
            hashes = self.config["data"].get("loaded")
            if (
                hashes is None and part == "validation"
            ):  # of an older run: fit may have been given another
                self._compare_validation(about, held, source["name"])
                continue
            before = hashes.get(part) if hashes else about.get("hash")
            if before is not None and fingerprint(held.values, held.observed) != before:
                raise RunError(self._changed(part, about, held, source["name"]))
        return splits

    @contextmanager
    def _told_to_load(self, source: Mapping[str, Any]) -> Iterator[None]:
        """What the configuration tells `load` may be of anybody's making."""
        otherwise = (
            f"The configuration of {self.path} was written otherwise than by this version of probgen: where "
            "its data came from"
        )
        way_out = "Score from Python: pg.log_marginal_likelihood(run.pair, data); or train again."
        odd = [key for key in source if key not in signature(load).parameters]
        if odd:
            raise RunError(f"{otherwise} has {odd[0]!r}, which load does not take. {way_out}")
        try:
            yield
        except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
            raise RunError(f"{otherwise} cannot be used ({error}). {way_out}") from error

    def _compare_validation(self, about: Mapping[str, Any], held: Dataset, name: str) -> None:
        """An older run tells what it validated on, but not whether that was the validation part."""
        part = known_part(self.pair, held)
        if about and fingerprint(part.values, part.observed) != about["hash"]:
            warnings.warn(
                f"{self.path} was validated on other data than the validation part of {name} is now: fit was "
                "given them, or the file has changed. Scores of that part are not of what it was validated on.",
                stacklevel=3,
            )

    def _changed(self, part: str, about: Mapping[str, Any], held: Dataset, name: str) -> str:
        """Why a part that was loaded again is not what it was."""
        before = {} if about.get("given") else about.get("transformations", {})
        now = {name: words for name, words in held.transformations.items() if name in before}
        if before != now:
            version = self.config["versions"]["probgen"]
            return (
                f"The {part} data of {self.path} cannot be made again: probgen {version} prepared them as "
                f"{'; '.join(before.values()) or 'they are'}, and this version as "
                f"{'; '.join(now.values()) or 'they are'}, with another draw or other classes. {name} need "
                "not have changed. Scores of one are none of the other; train again to compare."
            )
        return (
            f"{name} has changed since {self.path} was trained: the {part} data have another hash. Restore "
            "the file, or train again in another folder."
        )

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
        if name in SOURCES:
            raise RunError(
                f"{self.path} was trained on {self.data['train']['name']}, prepared in its own way, which "
                f"says nothing about {name}. Save what is to be scored as a file."
            )
        if source is None and any(self.data["train"].get("transformations", {}).values()):
            raise RunError(
                f"{self.path} was trained on arrays that were prepared in Python; a file cannot be "
                "prepared alike. Score it there: pg.log_marginal_likelihood(run.pair, data)."
            )
        with self._told_to_load(source or {}):
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
        found = self.read_scores()
        for score in found.values():
            if isinstance(score, RunError):
                raise score
        return {name: score for name, score in found.items() if isinstance(score, Score)}

    def read_scores(self) -> dict[str, Score | RunError]:
        """Likewise, with the reason in place of a score whose file is damaged."""
        found: dict[str, Score | RunError] = {}
        now = self._weights_hash()
        for path in sorted((self.path / "scores").glob("*.safetensors")):
            try:
                tensors, record = read_tensors(path)
                check_record(record, self.config, path, "score")
                if record.get("weights") == now:
                    found[path.stem] = score_from(tensors, record, path)
            except RunError as error:
                found[path.stem] = error
        return found

    def save_score(self, score: Score, name: str) -> Path:
        """Keep a score in the run directory.

        Args:
            score: of this run's pair.
            name: of the file, such as `test-K5000`.

        Raises:
            ValueError: the name is no plain file name.
            RunError: the folder `scores` is a link.
            OSError: it cannot be written.
        """
        if not name or Path(name).name != name:
            raise ValueError(f"Run.save_score: {name!r} is no plain file name.")
        make_folder(self.path / "scores", within=self.path)
        path = self.path / "scores" / f"{name}.safetensors"
        arrays = {
            key: torch.from_numpy(np.array(value))
            for key in ARRAYS
            if (value := getattr(score, key)) is not None
        }
        plain = {f.name: getattr(score, f.name) for f in fields(score) if f.name not in ARRAYS}
        record = {
            "run": self.config["run"],
            "model": model_digest(self.config["model"]),
            "weights": self._weights_hash(),
            "name": name,
            "score": plain,
        }
        write_tensors(path, arrays, record, within=self.path)
        return path

    def _weights_hash(self) -> str:
        return fingerprint(self.pair.state_dict())

    def __repr__(self) -> str:
        config, train = self.config, self.data["train"]
        sizes = ", ".join(f"{about['size']} {part}" for part, about in self.data.items())
        versions = ", ".join(f"{n} {config['versions'].get(n)}" for n in ("probgen", "torch"))
        resumed = f", resumed {len(config['resumed'])} times" if config["resumed"] else ""
        settings = ", ".join(f"{k} {v}" for k, v in config["settings"].items() if v is not None)
        lines = [
            f"Run {self.path}",
            f"  command   {config['command']}",
            f"  begun     {config.get('started')}, {versions}{resumed}",
            f"  data      {train['name']}: {sizes}, hash {train['hash']}",
            *(f"            {words}" for words in train.get("transformations", {}).values()),
            f"  settings  {settings}",
            f"  result    {self.result!r}",
        ]
        # Each is one line, whatever the files say.
        lines = [printable(line, lines=False) for line in lines]
        for name, score in self.read_scores().items():
            shown = f"cannot be read: {score}" if isinstance(score, RunError) else repr(score)
            lines += (
                printable(f"  score     {name}: {shown}")
                .replace("\n", "\n            ")
                .split("\n")
            )
        return "\n".join(
            [*lines, *(f"  {printable(line)}" for line in repr(self.pair).splitlines())]
        )


@one_at_a_time
def load_run(
    path: str | os.PathLike[str],
    *,
    pair: LatentVariableModel | None = None,
    trust_code: bool = False,
) -> Run:
    """Read a run directory, also of a run that was killed or is still going on.

    Declared and library pairs are built again from their names and numbers; nothing is unpickled
    and no code is run. A pair from a Python file needs that file to be run, and no folder can say
    that it may be: give the pair, or `trust_code=True`.

    Args:
        path: the folder that `fit(run_dir=...)` wrote.
        pair: for a pair that was written by hand, has networks of its own or comes from a file: a
            new one, into which the weights go.
        trust_code: run the Python file that the configuration names, if it is as it was, or else
            its copy in the folder. Read it first; what it imports is not checked.

    Returns:
        The run. Weights are those that `fit` kept, or, of a run that has not ended, the best so
        far (the latest, where there are no validation data).

    Raises:
        RunError: (a `ValueError`) no such run, one that is damaged, edited or of a newer version,
            or whose pair cannot be built, or needs code that is not trusted.

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
    """A run whose pair is not built, so that no code is run; its `pair` can be shown only.

    Args:
        path: the folder.
        reason: why it is not built.

    Raises:
        RunError: no such run, or a damaged one.
    """
    return _read_or_say_why(Path(path), None, False, reason)


def code_of_run(path: str | os.PathLike[str]) -> Code | None:
    """The Python file that `load_run` needs to run; none for declared and library pairs.

    Raises:
        RunError: no such run, or a damaged one.
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
        found = (folder / CONFIG).is_file()
    except OSError as error:
        raise RunError(
            f"{folder} cannot be read ({error.strerror or error}). Change its permissions."
        ) from error
    if not found:
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
            f"{folder} holds a configuration but no weights: it was stopped before it began, or "
            "they were deleted. Train it: the same command with --resume."
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
    ended = file.name == WEIGHTS
    result.stopped = record["progress"]["stopped"] if ended else "interrupted"
    if not ended and not best:
        result.best_epoch = len(result.elbo)
    _check_metrics(folder, result, ended)
    return Run(folder, config, pair, result)


def _with(source: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """The arguments of `load`, out of JSON, with some of them changed."""
    arguments = {**source, **changes}
    if arguments.get("split"):
        arguments["split"] = tuple(arguments["split"])
    return arguments


def score_from(tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any], path: Path) -> Score:
    """A score out of its file.

    Raises:
        RunError: the file was renamed, or does not hold what a score does.
    """
    if record.get("name", path.stem) != path.stem:
        raise RunError(f"{path} is the score {record['name']!r} under another name. Put it back.")
    plain = record["score"]
    try:
        arrays: dict[str, Any] = {name: tensors[name].numpy() for name in tensors}
        kinds = {"int": (int,), "float": (int, float), "str": (str,)}
        for part in fields(Score):
            kind = kinds.get(str(part.type))
            if kind is not None and part.name in plain and type(plain[part.name]) not in kind:
                raise TypeError(f"{part.name} is {plain[part.name]!r}")
        sizes = {array.shape[-1:] for array in arrays.values()}
        if len(sizes) != 1 or any(array.dtype.kind != "f" for array in arrays.values()):
            raise TypeError("its arrays are not one number a datum")
        if "method" not in plain:  # written by a version whose scores did not state it
            methods = {0: "exact", 1: "summed"}
            plain = {**plain, "method": methods.get(plain["num_samples"], "importance")}
        chunk = plain.get("chunk")
        score = Score(**arrays, **{**plain, "chunk": chunk and (int(chunk[0]), int(chunk[1]))})
        repr(score)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunError(f"{path} does not hold what a score does ({error!r}).") from error
    return score


def _check_metrics(folder: Path, result: FitResult, ended: bool) -> None:
    """The table for readers says what the weights' own record says."""
    path = folder / METRICS
    if not path.is_file():
        return
    expected = metrics_text(result).encode()
    found = read_file(path, 2**26)
    # A run that is going on, or was killed, may be a row ahead or behind.
    if not (expected.startswith(found) or (not ended and found.startswith(expected))):
        raise RunError(
            f"{path} was changed after it was written: it does not agree with the weights beside "
            "it. Delete it; the numbers are in the weights' file too."
        )
