"""What somebody can do who writes a run directory: anything, under checksums that fit."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probgen.storage.files import read_record, read_tensors, write_record, write_tensors

MODEL = """
import pathlib
import probgen as pg

pathlib.Path({sentinel!r}).write_text("run")

def build():
    return pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(8,))
"""


ESCAPE = "\x1b]0;title\x07\x1b[31m\x9b2J\u202e\r\nb  done"


DECLARED: dict[str, Any] = {
    "kind": "declared", "p": "p(z) p(x | z)", "q": "q(z | x)", "hidden": [4],
    "variables": {"z": "normal:2", "x": "bernoulli:6"},
    "activation": {"activation": "Tanh"},
    "own": {"p_x": {"network": "MLP", "settings": {"hidden": [3]}},
            "q_z": {"network": "MLP", "settings": {"activation": {"activation": "ReLU"}}}},
}  # fmt: skip
CODE = (
    "__import__('os').system('true')", "x\n    import os", '"""; import os; """', "os.system",
    "z=__import__('os')", "p(x) import os", "x: print(1)", "{__import__('os')}", "lambda", "é",
    "__class__", "Tanh, __import__('os')", "normal:2'); print('", "normal:1:2e3:4", "normal:8:0x10",
)  # fmt: skip


HUGE: dict[str, Any] = {
    "widths": {"hidden": [30_000] * 20, "own": {}},
    "one width": {"hidden": [10**30], "own": {}},
    "depth": {"hidden": [1] * 1_000_000, "own": {}},
    "shape": {"variables": {"z": "normal:999999999x999999999x99", "x": "bernoulli:6"}},
    "prior": {"variables": {"z": "normal:2", "x": "bernoulli:6", "w": "normal:99999999"},
              "p": "p(w) p(z) p(x | z)", "q": "q(z | x)"},
    "dims": {"variables": {"z": "normal:" + "x".join(["1"] * 4000), "x": "bernoulli:6"}},
    "variables": {"variables": {f"a{i}": "normal:1" for i in range(50_000)}},
    "formula": {"p": "p(z) p(x | z) " * 10_000},
    "nesting": {"own": {"p_x": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}},
}  # fmt: skip


def forged(run: Path, folder: Path, **config: Any) -> Path:
    """A copy of a run whose configuration says something else, and whose weights agree to it."""
    shutil.copytree(run, folder)
    write_record(folder / "config.json", {**read_record(folder / "config.json"), **config})
    for path in folder.glob("*.safetensors"):
        tensors, record = read_tensors(path)
        record.pop("model", None)
        write_tensors(path, tensors, record)
    return folder


def recipe_of_file(path: str, content: bytes, builder: str = "build") -> dict[str, str]:
    digest = hashlib.sha256(content).hexdigest()
    return {"kind": "file", "path": path, "builder": builder, "sha256": digest}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a text stands in a recipe, keys of dicts included."""
    if isinstance(value, dict):
        own = [(*path, ("key", key)) for key in value]
        return own + [found for key, part in value.items() for found in places(part, (*path, key))]
    if isinstance(value, list):
        return [found for index, part in enumerate(value) for found in places(part, (*path, index))]
    return [path]


def put(value: Any, path: tuple[Any, ...], text: Any) -> Any:
    changed = json.loads(json.dumps(value))
    place = changed
    for step in path[:-1]:
        place = place[step]
    last = path[-1]
    if isinstance(last, tuple):
        place[text] = place.pop(last[1])
    else:
        place[last] = text
    return changed


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """A hang is an error."""

    def stop(*_: Any) -> None:
        raise AssertionError(f"it hangs for {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
