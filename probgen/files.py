"""Files that are whole or not there: atomic writes, and tensors and records with a checksum.

Nothing here pickles. A file is written beside its place, forced to the disk and renamed, so that a
process killed at any moment leaves the old file or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM = "sha256"
_ASKING = threading.Lock()
"""The system tells its umask only to those that set it: two threads at once would leave the wrong one."""
_STAMP = re.compile(rb'"sha256":"([0-9a-f]{64})"')


class RunError(ValueError):
    """A run directory, or a file of one, that cannot be used; says why, and the way out."""


def write_atomically(path: Path, content: bytes, *, outlast_power: bool = True) -> None:
    """Replace a file in one step.

    Args:
        path: the file.
        content: what it will hold.
        outlast_power: wait until the disk has it, so that also a power cut leaves it whole.

    Raises:
        OSError: it cannot be written: no permission, no folder, a full disk; the old file is
            whole.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part"
        )
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            if outlast_power:
                os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
        if outlast_power:
            _sync_folder(path.parent)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OSError: it cannot be made, or is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, path) from error


def explained(error: OSError, path: Path) -> OSError:
    """The same kind of error with a message that says the way out."""
    hint = "Choose a folder that you can write to."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "The disk is full: free some space. What was there before is whole."
    reason = os.strerror(error.errno) if error.errno else str(error)
    return type(error)(f"{path} cannot be written ({reason}). {hint}")


def _umask() -> int:
    with _ASKING:
        current = os.umask(0o022)
        os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        with suppress(OSError):  # some network file systems cannot
            os.fsync(handle)
        os.close(handle)


# ---------------------------------------------------------------- records


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a dict as JSON with a checksum of its content."""
    whole = {**record, CHECKSUM: _digest_of_record(record)}
    write_atomically(path, (json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Raises:
        RunError: missing, cut short, no JSON, or changed since it was written.
    """
    try:
        record = json.loads(_read(path).decode())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged: it is no JSON any more ({error}). {_RESTORE}"
        ) from error
    if not isinstance(record, dict):
        raise RunError(f"{path} is damaged: it holds no JSON object. {_RESTORE}")
    found = record.pop(CHECKSUM, None)
    if found != _digest_of_record(record):
        raise RunError(
            f"{path} was changed after it was written: its checksum does not match. {_RESTORE}"
        )
    return record


def _digest_of_record(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------- tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON record as one safetensors file, with a checksum over every byte."""
    from safetensors.torch import save

    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    metadata = {"probgen": json.dumps(record, sort_keys=True), CHECKSUM: "0" * 64}
    content = save(plain, metadata)
    digest = hashlib.sha256(content).hexdigest().encode()
    write_atomically(path, _STAMP.sub(b'"sha256":"' + digest + b'"', content, count=1))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        RunError: missing, cut short, no safetensors file, or changed since it was written.
    """
    content, record = _verified(path)
    from safetensors.torch import load

    # Copies, so that each tensor is aligned as torch aligns its own.
    return {name: tensor.clone() for name, tensor in load(content).items()}, record


def read_tensors_record(path: Path) -> dict[str, Any]:
    """The record of what `write_tensors` wrote, without loading PyTorch.

    Raises:
        RunError: as `read_tensors`.
    """
    return _verified(path)[1]


def _verified(path: Path) -> tuple[bytes, dict[str, Any]]:
    content = _read(path)
    length = int.from_bytes(content[:8], "little")
    stamp = _STAMP.search(content, 8, min(8 + length, len(content)))
    if stamp is None:
        raise RunError(f"{path} is damaged: it is cut short or no file of a run. {_RESTORE}")
    start, stop = stamp.span(1)
    blank = content[:start] + b"0" * 64 + content[stop:]
    if hashlib.sha256(blank).hexdigest().encode() != stamp.group(1):
        raise RunError(
            f"{path} is damaged or was changed after it was written: its checksum does not match. "
            f"{_RESTORE}"
        )
    record: dict[str, Any] = json.loads(
        json.loads(content[8 : 8 + length])["__metadata__"]["probgen"]
    )
    return content, record


_RESTORE = "Restore the file from a copy, or train again in another folder."


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(f"{path} cannot be read ({reason}).") from error


# ---------------------------------------------------------------- states as records


def pack(value: Any, tensors: dict[str, Tensor], key: str) -> Any:
    """A state as JSON, its tensors moved into `tensors` under names that begin with `key`.

    Optimizers and schedulers keep dicts with integer keys and tuples, which JSON would change.

    Raises:
        TypeError: something that only a pickle could hold.
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
    """What `pack` packed."""
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {unpack(k, tensors): unpack(v, tensors) for k, v in content}
    parts = [unpack(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts
