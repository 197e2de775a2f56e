"""Things of one kind by name: one file each in a package, or registered by a user.

Names and one-line descriptions are read from the files' syntax, so that `probgen --help` imports no
model and no PyTorch. A file is imported when its thing is first used.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Entry:
    """Where a thing of the library is defined."""

    module: str
    attribute: str
    description: str


class Registry:
    """Things of one kind by name, found in the files of a package or registered by a user.

    A file of the package is one thing if it defines one of these at its top level: a
    constant, or, with `bases`, a public class that derives from one of them. The thing's name is
    the file's with `-` for `_`, or the class's `registered_name = "..."`. Files that define
    neither, such as a base class or helpers, are ignored.

    Args:
        kind: what the things are called in messages, such as `"data source"`.
        package: the package with one file for each thing, such as `"probgen.data.sources"`.
        attribute: the constant that a file defines; by default `kind` in capitals, `DATA_SOURCE`.
        bases: names of base classes. If they are given, each file's thing is its first public
            class that derives from one of them, directly or through other files of the package.

    Example:
        >>> models = Registry("model", "probgen.models", bases=["LatentVariableModel"])
        >>> "factor-analysis" in models.names()
        True
        >>> models.help("vae")
        'The variational autoencoder.'
        >>> models.get("vae").__name__
        'VAE'
    """

    def __init__(
        self,
        kind: str,
        package: str,
        *,
        attribute: str | None = None,
        bases: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.package = package
        self._attribute = attribute or kind.upper().replace(" ", "_")
        self._bases = tuple(bases)
        self._entries: dict[str, _Entry] | None = None
        self._registered: dict[str, Any] = {}

    def names(self) -> tuple[str, ...]:
        """All names, those of the library first, each part in alphabetical order."""
        return (*sorted(self._library()), *self.registered_names())

    def registered_names(self) -> tuple[str, ...]:
        """The names that were registered in this process."""
        return tuple(sorted(self._registered))

    def __contains__(self, name: object) -> bool:
        return name in self._registered or name in self._library()

    def get(self, name: str) -> Any:
        """Return the thing with a name; imports only the file that defines it.

        Raises:
            ValueError: there is no such name; the message lists the known names.
        """
        if name in self._registered:
            return self._registered[name]
        entry = self._library().get(name)
        if entry is None:
            near = difflib.get_close_matches(str(name), self.names(), 1)
            raise ValueError(
                f"Unknown {self.kind} {name!r}; known are {', '.join(self.names())}"
                + (f", did you mean {near[0]}?" if near else ".")
            )
        return getattr(importlib.import_module(entry.module), entry.attribute)

    def help(self, name: str) -> str:
        """One line that describes a thing: the first line of its file's docstring, or of its own.

        Raises:
            ValueError: there is no such name.
        """
        entry = self._library().get(name)
        if entry is not None:
            return entry.description
        return _first_line(getattr(self.get(name), "__doc__", None))

    def register(self, name: str, thing: Any) -> None:
        """Add a thing that the user defined, for this process.

        A class or function that is defined again, as by a notebook cell that is run twice, replaces
        the one of the same module and name.

        Raises:
            TypeError: the name is not text.
            ValueError: the name is not letters, digits, `-`, `+` and `_` with a letter first, or is taken already.
        """
        if not isinstance(name, str):
            raise TypeError(f"The name of a {self.kind} must be text, got {name!r}.")
        if not name[:1].isalpha() or not all(c.isalnum() or c in "-+_" for c in name):
            raise ValueError(
                f"{name!r} cannot be the name of a {self.kind}: use letters, digits, -, + and _, "
                "with a letter first."
            )
        registered = self._registered.get(name)
        replaced = registered is not None and _origin(registered) == _origin(thing)
        if name in self._library() or (registered is not None and not replaced):
            where = "by the library" if name in self._library() else "by you"
            raise ValueError(
                f"A {self.kind} named {name!r} is registered already {where}; known are "
                f"{', '.join(self.names())}. Choose another name."
            )
        self._registered[name] = thing

    def name_of(self, thing: Any) -> str | None:
        """The name under which a class is known, or `None`; imports nothing."""
        for name, registered in self._registered.items():
            if registered is thing:
                return name
        return self.library_name_of(thing)

    def library_name_of(self, thing: Any) -> str | None:
        """The name of a class that a file of the package defines, or `None`; imports nothing."""
        place = _origin(thing)
        for name, entry in self._library().items():
            if place == (entry.module, entry.attribute) and self.get(name) is thing:
                return name
        return None

    def attributes(self) -> dict[str, str]:
        """The name of each thing of the library by its name in Python: `{"VAE": "vae"}`."""
        return {entry.attribute: name for name, entry in self._library().items()}

    def _library(self) -> dict[str, _Entry]:
        if self._entries is None:
            self._entries = dict(self._read_package())
        return self._entries

    def _read_package(self) -> Iterator[tuple[str, _Entry]]:
        trees = dict(_syntax_trees(self.package))
        derived = _derived_classes(trees.values(), self._bases)
        for stem, tree in trees.items():
            name, attribute = stem.replace("_", "-"), self._attribute
            if self._bases:
                matching = [c for c in _classes(tree) if c.name in derived and c.name[0] != "_"]
                if not matching:
                    continue
                name, attribute = _stated_name(matching[0]) or name, matching[0].name
            elif attribute not in _assigned(tree):
                continue
            line = _first_line(ast.get_docstring(tree))
            yield name, _Entry(f"{self.package}.{stem}", attribute, line)


def _syntax_trees(package: str) -> Iterator[tuple[str, ast.Module]]:
    """The syntax of each public file of a package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ValueError(f"There is no package {package}; name one with a file for each thing.")
    for info in pkgutil.iter_modules(spec.submodule_search_locations):
        name = f"{package}.{info.name}"
        file = info.module_finder.find_spec(name, None)
        if info.ispkg or info.name.startswith("_") or file is None:
            continue
        source = getattr(file.loader, "get_source", lambda _: None)(name)
        if source is not None:
            yield info.name, ast.parse(source)


def _classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def _derived_classes(trees: Any, bases: Sequence[str]) -> set[str]:
    """Names of all classes that derive from the bases, directly or through one another."""
    parents = {
        node.name: {_last_name(base) for base in node.bases}
        for tree in trees
        for node in _classes(tree)
    }
    derived: set[str] = set()
    while True:
        more = {name for name, above in parents.items() if above & (derived | {*bases})} - derived
        if not more:
            return derived
        derived |= more


def _last_name(node: ast.expr) -> str:
    """`LatentVariableModel` of `pg.LatentVariableModel`, and of the name alone."""
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _stated_name(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        value = getattr(statement, "value", None)
        if "registered_name" in _targets(statement) and isinstance(value, ast.Constant):
            return str(value.value)
    return None


def _assigned(tree: ast.Module) -> set[str]:
    return {name for statement in tree.body for name in _targets(statement)} | {
        node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }


def _targets(statement: ast.stmt) -> list[str]:
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().split("\n")[0]


def _origin(thing: Any) -> Any:
    """Module and name of a class or a function; of another object, the object itself."""
    name = getattr(thing, "__qualname__", None)
    return thing if name is None else (getattr(thing, "__module__", None), name)
