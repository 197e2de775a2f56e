"""What somebody can do who writes a run directory: anything, under checksums that fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from probgen.files import read_record, read_tensors, write_record, write_tensors


def forged(run: Path, folder: Path, **config: Any) -> Path:
    """A copy of a run whose configuration says something else, and whose weights agree to it."""
    shutil.copytree(run, folder)
    write_record(folder / "config.json", {**read_record(folder / "config.json"), **config})
    for path in folder.glob("*.safetensors"):
        tensors, record = read_tensors(path)
        record.pop("model", None)
        write_tensors(path, tensors, record)
    return folder
