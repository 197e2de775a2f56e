"""Scores in a run directory: written, and read for the weights to which they belong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probgen.inference.scoring.scores import Score
from probgen.storage.files import RunError, make_folder, read_tensors, write_tensors
from probgen.storage.run_records import check_record, model_digest

FOLDER = "scores"
ARRAYS = ("log_prob", "standard_error", "bias", "ess", "khat", "replicates")
"""Fields of a score that are arrays; the others are stored as text."""


def write_score(
    folder: Path, config: Mapping[str, Any], weights_hash: str, score: Score, name: str
) -> Path:
    """Write a score into a run directory.

    Args:
        folder: the run directory.
        config: its configuration.
        weights_hash: fingerprint of the weights that were scored.
        score: of this run's pair.
        name: of the file, such as `test-K5000`.

    Raises:
        ValueError: the name is not a plain file name.
        RunError: the folder `scores` is a link.
        OSError: it cannot be written.
    """
    if not name or Path(name).name != name:
        raise ValueError(f"Run.save_score: {name!r} is not a plain file name.")
    make_folder(folder / FOLDER, within=folder)
    path = folder / FOLDER / f"{name}.safetensors"
    arrays = {
        key: torch.from_numpy(np.array(value))
        for key in ARRAYS
        if (value := getattr(score, key)) is not None
    }
    plain = {f.name: getattr(score, f.name) for f in fields(score) if f.name not in ARRAYS}
    record = {
        "run": config["run"],
        "model": model_digest(config["model"]),
        "weights": weights_hash,
        "name": name,
        "score": plain,
    }
    write_tensors(path, arrays, record, within=folder)
    return path


def read_scores(
    folder: Path, config: Mapping[str, Any], weights_hash: str
) -> dict[str, Score | RunError]:
    """The scores of some weights by name; for a damaged file the error in place of the score."""
    scores: dict[str, Score | RunError] = {}
    for path in sorted((folder / FOLDER).glob("*.safetensors")):
        try:
            tensors, record = read_tensors(path)
            check_record(record, config, path, "score")
            if record.get("weights") == weights_hash:
                scores[path.stem] = score_from(tensors, record, path)
        except RunError as error:
            scores[path.stem] = error
    return scores


def score_from(tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any], path: Path) -> Score:
    """Build a score from the content of its file.

    Raises:
        RunError: the file was renamed, or its content is not that of a score.
    """
    if record.get("name", path.stem) != path.stem:
        raise RunError(
            f"{path} is the score {record['name']!r} under another name. Rename it back."
        )
    plain = record["score"]
    try:
        arrays: dict[str, Any] = {name: tensors[name].numpy() for name in tensors}
        allowed = {"int": (int,), "float": (int, float), "str": (str,)}
        for part in fields(Score):
            types = allowed.get(str(part.type))
            if types is not None and part.name in plain and type(plain[part.name]) not in types:
                raise TypeError(f"{part.name} is {plain[part.name]!r}")
        sizes = {array.shape[-1:] for array in arrays.values()}
        if len(sizes) != 1 or any(array.dtype.kind != "f" for array in arrays.values()):
            raise TypeError("its arrays do not have one number per datum")
        if "method" not in plain:  # written by an older version, whose scores did not have it
            methods = {0: "exact", 1: "summed"}
            plain = {**plain, "method": methods.get(plain["num_samples"], "importance")}
        chunk = plain.get("chunk")
        score = Score(**arrays, **{**plain, "chunk": chunk and (int(chunk[0]), int(chunk[1]))})
        repr(score)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunError(f"{path} does not hold the fields of a score ({error!r}).") from error
    return score
