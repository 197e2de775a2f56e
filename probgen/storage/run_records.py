"""Checks of the records in a run directory: their types, and that they belong to this run.

Older runs may lack keys and later ones may have more, but every known key must have its type. A
checksum shows that a record was not changed, but not that probgen wrote it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probgen.storage.files import RunError

NUMBER = (int, float)
PLAIN = (str, bool, int, float, type(None))

BESIDE = ("source", "loaded")
"""Keys in the record of the data that are not one of its parts."""

_CONFIG: dict[str, tuple[type, ...]] = {
    "run": (str,), "name": (str,), "command": (str,), "started": (str,), "model": (dict,),
    "settings": (dict,), "data": (dict,), "versions": (dict,), "resumed": (list,),
}  # fmt: skip
_NEEDED = {"run", "name", "model", "settings", "data", "versions", "command", "resumed"}
_PART: dict[str, tuple[type, ...]] = {
    "name": (str,), "size": (int, type(None)), "hash": (str, type(None)), "shapes": (dict,),
    "transformations": (dict,), "redrawn": (list,), "spread": (str, type(None)),
    "given": (bool,),
}  # fmt: skip


def check_config(config: Mapping[str, Any], path: Path) -> None:
    """Check that a configuration has what every run needs, with the right types.

    Raises:
        RunError: a key is missing or has another type.
    """

    def refuse(what: str) -> RunError:
        return RunError(f"{path} is not the configuration of a run: {what}.")

    missing = sorted(_NEEDED - config.keys())
    if missing:
        raise refuse(f"it has no {missing[0]}")
    _check_types(config, _CONFIG, refuse, "")
    model, data = config["model"], config["data"]
    kind = model.get("kind")
    if not isinstance(kind, str) or (kind == "own" and not isinstance(model.get("class"), str)):
        raise refuse(f"its model is of the kind {_short(kind)}")
    if not isinstance(config["settings"].get("precision"), str):
        raise refuse("its settings name no precision")
    for place, values in (("settings", config["settings"]), ("versions", config["versions"])):
        for key, value in values.items():
            if not isinstance(value, PLAIN):
                raise refuse(f"{_short(key)} of its {place} is {_short(value)}")
    source = data.get("source")
    if source is not None and not (
        isinstance(source, dict) and isinstance(source.get("name"), str)
    ):
        raise refuse(f"the source of its data is {_short(source)}")
    if not isinstance(data.get("train"), dict):
        raise refuse("it has no training data")
    loaded = data.get("loaded")
    if loaded is not None and not (
        isinstance(loaded, dict) and all(isinstance(digest, str) for digest in loaded.values())
    ):
        raise refuse(f"the hashes of its data are {_short(loaded)}")
    for part, about in data.items():
        if part in BESIDE:
            continue
        if not isinstance(about, dict) or not {"name", "size", "hash"} <= about.keys():
            raise refuse(f"its {_short(part)} data are {_short(about)}")
        _check_types(about, _PART, refuse, f"its {_short(part)} data: ")
        for words in about.get("transformations", {}).values():
            if not isinstance(words, str):
                raise refuse(f"a transformation of its data is {_short(words)}")


def _check_types(
    record: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]], refuse: Any, where: str
) -> None:
    for key, kind in kinds.items():
        if key in record and (
            not isinstance(record[key], kind) or (record[key] is True and bool not in kind)
        ):
            raise refuse(f"{where}{key} is {_short(record[key])}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."


def check_record(
    record: Mapping[str, Any], config: Mapping[str, Any], path: Path, kind: str
) -> None:
    """Check that a file of tensors belongs to the run next to it, and is the file that its name states.

    Args:
        record: the record in the file.
        config: the configuration of the run.
        path: the file.
        kind: `"weights"`, `"checkpoint"` or `"score"`.

    Raises:
        RunError: the file belongs to another run or model, or is another file of the run.
    """
    if record.get("run") != config["run"]:
        raise RunError(
            f"{path} belongs to another run than the config.json next to it. Put it back."
        )
    content = "score" if "score" in record else "checkpoint" if "optimizer" in record else "weights"
    if content != kind or (kind != "score" and "progress" not in record):
        raise RunError(
            f"{path} is another file of the run: it holds a {content}, but {kind} is expected. "
            "Put the right file back."
        )
    if record.get("model", digest := model_digest(config["model"])) != digest:
        raise RunError(
            f"{path} holds weights of another model than the config.json next to it describes: one of "
            "them was changed. Put it back."
        )


def model_digest(description: Mapping[str, Any]) -> str:
    """A hash of the description of a pair, without the path of its file."""
    about = {key: value for key, value in description.items() if key != "path"}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
