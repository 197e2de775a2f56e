"""A pair from a Python file that the user wrote: `my_model.py:build`."""

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
    """Build a pair by calling a function of a Python file.

    The file is run as Python code, and modules in its folder can be imported meanwhile. A run
    directory later compares this file with the one that was trained, not what the file imports.

    Args:
        spec: `my_model.py:build`: the file, and the function without arguments (or the class)
            whose call returns the pair.

    Returns:
        The pair. Its `fit` records the file in the run directory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no function is named, the file has none of this name, the file or the function
            fails, or the result is not a pair.

    Example:
        >>> import tempfile, probgen as pg
        >>> from pathlib import Path
        >>> file = Path(tempfile.mkdtemp()) / "my_model.py"
        >>> _ = file.write_text(
        ...     "import probgen as pg\\n"
        ...     "def build():\\n"
        ...     "    return pg.models.VAE(x=pg.Bernoulli(4), z=pg.Normal(2))\\n"
        ... )
        >>> pg.load_pair(f"{file}:build").name
        'VAE'
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
    """Run the content of a file and call its builder; see `load_pair`.

    Args:
        path: the file.
        builder: name of a function, a class or a pair that the file defines.
        content: the bytes of the file.
        folder_first: modules next to the file take precedence over installed ones, as for a script.
    """
    target_name = f"{path.name}:{builder}"
    digest = hashlib.sha256(content).hexdigest()
    name = f"probgen_user_{hashlib.sha256(str(path).encode() + content).hexdigest()[:12]}"
    with _importable(path.parent, folder_first):
        module = _run(path, content, name)
        target = getattr(module, builder, None)
        if target is None:
            defined = [
                key
                for key, value in vars(module).items()
                if callable(value) and getattr(value, "__module__", "") == name
            ]
            raise ValueError(
                f"{path.name} has no builder {builder!r}; it defines {', '.join(defined) or 'nothing'}. "
                f"Write def {builder}(): ... that returns a pair, or name another."
            )
        if isinstance(target, GenerativeModel):
            pair: Any = target
        elif not callable(target):
            raise ValueError(f"{target_name} is {target!r}, not a function that returns a pair.")
        else:
            try:
                inspect.signature(target).bind()
            except TypeError as error:
                raise ValueError(
                    f"{target_name} must be callable without arguments: {error}. Write a function that "
                    "fills them in."
                ) from error
            try:
                pair = target()
            except Exception as error:
                raise ValueError(f"{target_name} failed: {_where(error, path)}") from error
    if not isinstance(pair, GenerativeModel):
        raise ValueError(
            f"{target_name} returned {type(pair).__name__}, expected a pair (pg.LatentVariableModel) or a "
            "pg.ImplicitModel."
        )
    pair = copy.deepcopy(pair)  # the file may keep a reference to the original
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
    sys.modules[name] = module  # so that the source of its classes can be read
    try:
        exec(compile(content, str(path), "exec"), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise ValueError(f"{path.name} failed: {_where(error, path)}") from error
    return module


def _where(error: Exception, path: Path) -> str:
    """The text of an error with the line of the user's file in which it was raised."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    line = f" (line {lines[-1]} of {path.name})" if lines else ""
    return f"{type(error).__name__}: {error}{line}"


_helpers: dict[str, Path] = {}
"""Modules that files imported from their own folders, to be imported anew for files of other folders."""


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
