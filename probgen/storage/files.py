"""Tensors and records in files with a checksum, and states without pickles.

A file is written under a temporary name, forced to the disk and renamed, so that a process killed at
any moment leaves the old file or the new one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probgen.storage.disk import (
    RunError,
    absolute,
    explained,
    machine_memory,
    make_folder,
    read_file,
    write_atomically,
)

__all__ = [
    "RunError",
    "absolute",
    "explained",
    "make_folder",
    "pack",
    "read_file",
    "read_record",
    "read_tensors",
    "read_tensors_record",
    "unpack",
    "write_atomically",
    "write_record",
    "write_tensors",
]

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM = "sha256"
_STAMP = re.compile(rb'"sha256":"([0-9a-f]{64})"')
LARGEST_RECORD = 2**23
"""The largest JSON file that is read, in bytes; a configuration has a few thousand."""
LARGEST_HEADER = 2**26
"""The most bytes of names, shapes and record that are read from a file of tensors."""


# ---------------------------------------------------------------- records


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a dict as JSON with a checksum of its content."""
    whole = {**record, CHECKSUM: _digest_of_record(record)}
    try:
        content = json.dumps(whole, indent=2, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a file name that is not valid text, which JSON can escape
        content = json.dumps(whole, indent=2).encode()
    write_atomically(path, content + b"\n")


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Raises:
        RunError: the file is missing, not a regular file, too large, cut short, not JSON, or changed
            since it was written.
    """
    content = read_file(path, LARGEST_RECORD)
    try:
        record = json.loads(content.decode())
        if not isinstance(record, dict):
            raise RunError(f"{path} is damaged: it does not hold a JSON object. {_RESTORE}")
        stored = record.pop(CHECKSUM, None)
        expected = _digest_of_record(record)
    except (ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(
            f"{path} is damaged: it is not JSON any more ({error}). {_RESTORE}"
        ) from error
    if stored != expected:
        raise RunError(
            f"{path} was changed after it was written: its checksum does not match. {_RESTORE}"
        )
    return record


def _digest_of_record(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------- tensors


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any], within: Path | None = None
) -> None:
    """Write tensors and a JSON record as one safetensors file, with a checksum over every byte."""
    from safetensors.torch import save

    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    metadata = {"probgen": json.dumps(record, sort_keys=True), CHECKSUM: "0" * 64}
    content = save(plain, metadata)
    digest = hashlib.sha256(content).hexdigest().encode()
    content = _STAMP.sub(b'"sha256":"' + digest + b'"', content, count=1)
    write_atomically(path, content, within=within)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        RunError: the file is missing, cut short, not a safetensors file, or changed since it was
            written.
    """
    content, record = _verified(path)
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # Copies, so that each tensor is aligned as torch aligns its own.
        return {name: tensor.clone() for name, tensor in load(content).items()}, record
    except (SafetensorError, KeyError, RuntimeError, MemoryError) as error:
        raise RunError(f"{path} is damaged: its tensors cannot be read ({error}).") from error


def read_tensors_record(path: Path) -> dict[str, Any]:
    """The record of what `write_tensors` wrote, without loading PyTorch.

    Raises:
        RunError: as `read_tensors`.
    """
    return _verified(path)[1]


def _verified(path: Path) -> tuple[bytes, dict[str, Any]]:
    content = read_file(path, machine_memory())
    length = int.from_bytes(content[:8], "little")
    if length > LARGEST_HEADER:
        raise RunError(f"{path} is damaged: it is not a file of a run. {_RESTORE}")
    stamp = _STAMP.search(content, 8, min(8 + length, len(content)))
    if stamp is None:
        raise RunError(f"{path} is damaged: it is cut short or not a file of a run. {_RESTORE}")
    start, stop = stamp.span(1)
    blank = content[:start] + b"0" * 64 + content[stop:]
    if hashlib.sha256(blank).hexdigest().encode() != stamp.group(1):
        raise RunError(
            f"{path} is damaged or was changed after it was written: its checksum does not match. "
            f"{_RESTORE}"
        )
    try:
        record = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["probgen"])
    except (ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise RunError(f"{path} is damaged: its header cannot be read ({error!r}).") from error
    if not isinstance(record, dict):
        raise RunError(f"{path} is damaged: its record is not a JSON object. {_RESTORE}")
    return content, record


_RESTORE = "Restore the file from a copy, or train again in another folder."


# ---------------------------------------------------------------- states as records


def pack(value: Any, tensors: dict[str, Tensor], key: str) -> Any:
    """Write a state as JSON; its tensors go into `tensors` under names that begin with `key`.

    Optimizers and schedulers keep dicts with integer keys and tuples, which JSON would change.

    Raises:
        TypeError: the state has a part that only a pickle could hold.
    """
    import torch

    def inner(part: Any, name: object) -> Any:
        return pack(part, tensors, f"{key}/{name}")

    if isinstance(value, torch.Tensor):
        tensors[key] = value
        return {"tensor": key}
    if value is None or type(value) in (bool, str, int, float):
        return value
    if isinstance(value, Mapping):
        pairs = [[inner(k, "key"), inner(v, k)] for k, v in value.items()]
        return {"dict": pairs}
    if isinstance(value, tuple):
        return {"tuple": [inner(part, index) for index, part in enumerate(value)]}
    if isinstance(value, list):
        return {"list": [inner(part, index) for index, part in enumerate(value)]}
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()  # a NumPy number
    raise TypeError(f"{key} is {value!r}, which cannot be stored without a pickle.")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that `pack` wrote."""
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {unpack(k, tensors): unpack(v, tensors) for k, v in content}
    parts = [unpack(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts
