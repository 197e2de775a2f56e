"""The data of a run: loaded again and compared, or other data prepared in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

from probgen.basics.user_warnings import warn
from probgen.data.dataset import Dataset, Splits
from probgen.data.fingerprint import fingerprint
from probgen.data.load import load, load_whole
from probgen.data.sources import SOURCES
from probgen.inference.inputs import known_part
from probgen.pair import LatentVariableModel
from probgen.storage.files import RunError
from probgen.storage.run_records import BESIDE


def training_data(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration states about each part of the data: size, shapes, transformations, hash."""
    return {part: about for part, about in config["data"].items() if part not in BESIDE}


def reload_data(path: Path, config: Mapping[str, Any], pair: LatentVariableModel) -> Splits:
    """Load the data of a run again, and compare each part with what it was.

    Args:
        path: the run directory.
        config: its configuration.
        pair: its pair.

    Raises:
        RunError: the data did not come from a file, the configuration has arguments that `load`
            does not accept, or the data have changed.
        FileNotFoundError: the file is gone.
    """
    source = config["data"]["source"]
    if source is None:
        raise RunError(
            f"{path} was trained on arrays and does not record where they came from. Score them "
            "from Python: pg.log_marginal_likelihood(run.pair, data); or name a file that holds them."
        )
    with _source_errors(path, source):
        splits = load(**_load_arguments(source))
    hashes = config["data"].get("loaded")
    for part, loaded in splits.parts.items():
        about = training_data(config).get(part, {})
        if (
            hashes is None and part == "validation"
        ):  # in an older run other data may have been given to fit
            _compare_validation(path, pair, about, loaded, source["name"])
            continue
        before = hashes.get(part) if hashes else about.get("hash")
        if before is not None and fingerprint(loaded.values, loaded.observed) != before:
            raise RunError(_what_changed(path, config, part, loaded, source["name"]))
    return splits


def load_other_data(
    path: Path, config: Mapping[str, Any], pair: LatentVariableModel, name: str
) -> Splits:
    """Load other data, prepared in the same way as those that a run was trained on.

    Args:
        path: the run directory.
        config: its configuration.
        pair: its pair.
        name: a file; all of it becomes the part `train`, with one stored draw of any noise.

    Raises:
        RunError: labels whose codes have other meanings than in training, or data whose preparation
            cannot be repeated.
        ValueError: data that cannot be read or prepared so.
    """
    source, about = config["data"]["source"], training_data(config)["train"]
    if name in SOURCES:
        raise RunError(
            f"{path} was trained on {about['name']}, whose preparation cannot be applied to {name}. "
            "Save the data to be scored as a file."
        )
    if source is None and any(about.get("transformations", {}).values()):
        raise RunError(
            f"{path} was trained on arrays that were prepared in Python; a file cannot be prepared in "
            "the same way. Score it from Python: pg.log_marginal_likelihood(run.pair, data)."
        )
    with _source_errors(path, source or {}):
        whole = load_whole(name, source or {})
    if "y" in pair.variables and "y" in whole.values:
        before = about.get("transformations", {}).get("y", "")
        if whole.transformations.get("y", "") != before:
            raise RunError(
                f"{name}: its labels are {whole.transformations.get('y') or '0, 1, ...'}, but those "
                f"of the training data {before or '0, 1, ...'}. Code both in the same way, as 0, 1, ..."
            )
    columns = None if source is None else source.get("columns")
    return Splits(whole, source={"name": name, "columns": columns})


@contextmanager
def _source_errors(path: Path, source: Mapping[str, Any]) -> Iterator[None]:
    """A configuration may be of unknown origin, so any argument of `load` in it may be wrong."""
    subject = (
        f"The configuration of {path} was not written by this version of probgen: its data source"
    )
    remedy = "Score from Python: pg.log_marginal_likelihood(run.pair, data); or train again."
    unknown = [key for key in source if key not in signature(load).parameters]
    if unknown:
        raise RunError(f"{subject} has {unknown[0]!r}, which load does not take. {remedy}")
    try:
        yield
    except (TypeError, AttributeError, LookupError, ArithmeticError) as error:
        raise RunError(f"{subject} cannot be used ({error}). {remedy}") from error


def _load_arguments(source: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `load`, as read from JSON, which has no tuples."""
    arguments = dict(source)
    if arguments.get("split"):
        arguments["split"] = tuple(arguments["split"])
    return arguments


def _compare_validation(
    path: Path, pair: LatentVariableModel, about: Mapping[str, Any], loaded: Dataset, name: str
) -> None:
    """An older run states the hash of its validation data, which may not be the validation part."""
    part = known_part(pair, loaded)
    if about and fingerprint(part.values, part.observed) != about["hash"]:
        warn(
            f"{path} was validated on other data than the validation part of {name} is now: fit was "
            "given them, or the file has changed. Scores of that part are not scores of the data that "
            "the run was validated on."
        )


def _what_changed(
    path: Path, config: Mapping[str, Any], part: str, loaded: Dataset, name: str
) -> str:
    """The reason why a part that was loaded again differs from the stored description."""
    about = training_data(config).get(part, {})
    before = {} if about.get("given") else about.get("transformations", {})
    now = {name: words for name, words in loaded.transformations.items() if name in before}
    if before != now:
        return (
            f"The {part} data of {path} cannot be prepared again as they were. probgen "
            f"{config['versions']['probgen']} prepared them as {'; '.join(before.values()) or 'they are'}, "
            f"this version as {'; '.join(now.values()) or 'they are'}, with another draw or other classes, "
            f"even if {name} has not changed. Their scores cannot be compared; train again to compare."
        )
    return (
        f"{name} has changed since {path} was trained: the {part} data have another hash. Restore the "
        "file, or train again in another folder."
    )
