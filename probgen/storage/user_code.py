"""A pair from a Python file of the user's own: `my_model.py:build`."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from probgen.basics.locking import one_at_a_time
from probgen.generative import GenerativeModel
from probgen.pair import LatentVariableModel
from probgen.storage.disk import absolute


@one_at_a_time
def load_pair(spec: str) -> LatentVariableModel:
    """Build a pair by a function of a Python file.

    The file is Python code and is run. Its folder is importable while it runs. What a run directory
    compares later is this file; what it imports is not looked at.

    Args:
        spec: `my_model.py:build`: the file, and the function without arguments (or the class)
            whose call returns the pair.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no builder named, no such builder, the file or the builder fails, or what it
            returns is no pair.
    """
    file, colon, builder = spec.rpartition(":")
    if not colon or not file.endswith(".py") or not builder.isidentifier():
        raise ValueError(
            f"A model of your own is written file:builder, such as my_model.py:build, got {spec!r}."
        )
    path = absolute(file)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}, named by {spec!r}. Check the name.")
    return build_from_file(path, builder, path.read_bytes())


def build_from_file(
    path: Path, builder: str, content: bytes, *, folder_first: bool = True
) -> LatentVariableModel:
    """Run a file's content and call its builder; `load_pair` says the rest.

    Args:
        path: the file.
        builder: a function, a class or a pair that it defines.
        content: of the file.
        folder_first: modules beside the file come before installed ones, as for a script.
    """
    shown = f"{path.name}:{builder}"
    digest = hashlib.sha256(content).hexdigest()
    name = f"probgen_user_{hashlib.sha256(str(path).encode() + content).hexdigest()[:12]}"
    with _importable(path.parent, folder_first):
        module = _run(path, content, name)
        made = getattr(module, builder, None)
        if made is None:
            own = [
                key
                for key, value in vars(module).items()
                if callable(value) and getattr(value, "__module__", "") == name
            ]
            raise ValueError(
                f"{path.name} has no builder {builder!r}; it defines {', '.join(own) or 'nothing'}. "
                f"Write def {builder}(): ... that returns a pair, or name another."
            )
        if isinstance(made, GenerativeModel):
            pair: Any = made
        elif not callable(made):
            raise ValueError(f"{shown} is {made!r}, not a function that returns a pair.")
        else:
            try:
                inspect.signature(made).bind()
            except TypeError as error:
                raise ValueError(
                    f"{shown} must be callable without arguments: {error}. Write a function that "
                    "fills them in."
                ) from error
            try:
                pair = made()
            except Exception as error:
                raise ValueError(f"{shown} failed: {_where(error, path)}") from error
    if not isinstance(pair, GenerativeModel):
        raise ValueError(
            f"{shown} returned {type(pair).__name__}, expected a pair (pg.LatentVariableModel) or a "
            "pg.ImplicitModel."
        )
    pair = copy.deepcopy(pair)  # what the file holds on to stays as it is
    vars(pair)["_file"] = {
        "kind": "file",
        "path": str(path),
        "builder": builder,
        "sha256": digest,
        "code": content.decode(errors="replace"),
    }
    return pair


def _run(path: Path, content: bytes, name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its classes can say their source
    try:
        exec(compile(content, str(path), "exec"), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise ValueError(f"{path.name} failed: {_where(error, path)}") from error
    return module


def _where(error: Exception, path: Path) -> str:
    """The error and the line of the user's file that it comes from."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    place = f" (line {lines[-1]} of {path.name})" if lines else ""
    return f"{type(error).__name__}: {error}{place}"


_helpers: dict[str, Path] = {}
"""Modules that files imported from their own folders: those of another folder are not theirs."""


@contextmanager
def _importable(folder: Path, first: bool) -> Iterator[None]:
    for name in [name for name, home in _helpers.items() if home != folder]:
        sys.modules.pop(name, None)
        del _helpers[name]
    before = set(sys.modules)
    sys.path.insert(0 if first else len(sys.path), str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for name in sys.modules.keys() - before:
            place = getattr(sys.modules[name], "__file__", None)
            if place and folder in Path(place).parents and not name.startswith("probgen_user_"):
                _helpers[name] = folder
        if str(folder) in sys.path:
            places = [i for i, place in enumerate(sys.path) if place == str(folder)]
            del sys.path[places[0 if first else -1]]
