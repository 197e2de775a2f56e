"""A Python package as its source shows it: modules, what they define, and what they import.

Nothing is imported or run; every answer is read from the syntax trees.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SHORT = 40
"""A module of fewer lines than this that no import ties to the others is not counted."""


@dataclass
class Module:
    """One file of the package."""

    name: str
    lines: int
    tree: ast.Module
    stub: ast.Module | None
    is_package: bool
    definitions: dict[str, Definition] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    """Names at the top of the module that are assigned a value, dunder names aside."""
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Local name -> (module, name in it), or (module, None) where the module itself is named."""

    @property
    def defines_something(self) -> bool:
        return bool(self.definitions or self.values)


class Package:
    """The modules of a package by their full names."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.modules: dict[str, Module] = {}
        for path in sorted(folder.rglob("*.py")):
            module = _read(path, folder)
            self.modules[module.name] = module
        for module in self.modules.values():
            for tree in (module.tree, module.stub):
                if tree is not None:
                    for local, target in self._imports(module, tree):
                        module.imports[local] = target

    def _imports(
        self, module: Module, tree: ast.Module
    ) -> Iterator[tuple[str, tuple[str, str | None]]]:
        """Every import of the package in a module, inside functions and for type checking too."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == self.name:
                        local = alias.asname or self.name
                        yield local, (alias.name if alias.asname else self.name, None)
            elif isinstance(node, ast.ImportFrom):
                start = imported_from(node, module)
                if start.split(".")[0] != self.name:
                    continue
                for alias in node.names:
                    whole = f"{start}.{alias.name}"
                    target = (whole, None) if whole in self.modules else (start, alias.name)
                    yield alias.asname or alias.name, target

    def find(self, module: str, name: str | None) -> tuple[str, str | None] | None:
        """The module that defines a name, through modules that only hand it on; None where unknown.

        A name of None stands for the module itself.
        """
        for _ in range(len(self.modules) + 1):  # a chain of imports may be a circle
            if module not in self.modules:
                return None
            here = self.modules[module]
            if name is None or name in here.definitions or name in here.values:
                return module, name
            if name in here.imports:
                module, name = here.imports[name]
            elif f"{module}.{name}" in self.modules:
                module, name = f"{module}.{name}", None
            else:
                return None
        return None

    def named(self, module: str, node: ast.expr) -> tuple[str, str] | None:
        """The module and name of what an expression in a module names, if the package defines it."""
        there: tuple[str, str | None] | None = (module, None)
        for part in dotted(node):
            if there is None or there[1] is not None:
                return None
            there = self.find(there[0], part)
        return None if there is None or there[1] is None else (there[0], there[1])

    def a_class(self, module: str, name: str | None) -> ast.ClassDef | None:
        """The class of that name in a module."""
        node = self.modules[module].definitions.get(name or "")
        return node if isinstance(node, ast.ClassDef) else None

    def is_dataclass(self, module: str, name: str) -> bool:
        """Whether a class is decorated as a dataclass."""
        node = self.a_class(module, name)
        marks = [] if node is None else node.decorator_list
        names = [mark.func if isinstance(mark, ast.Call) else mark for mark in marks]
        return any(dotted(mark)[-1:] == ["dataclass"] for mark in names)

    def subclasses(self, module: str, name: str) -> list[tuple[str, str]]:
        """All classes of the package that extend a class, directly or not."""
        found: list[tuple[str, str]] = []
        for other in self.modules.values():
            for node in other.definitions.values():
                if isinstance(node, ast.ClassDef) and any(
                    self.named(other.name, base) == (module, name) for base in node.bases
                ):
                    found += [(other.name, node.name), *self.subclasses(other.name, node.name)]
        return list(dict.fromkeys(found))

    def arrows(self) -> set[tuple[str, str]]:
        """(A, B) where A imports B. What a module hands on counts as an import of where it is defined."""
        found = set()
        for module in self.modules.values():
            if not module.defines_something:
                continue
            targets = {(name, what) for name, what in module.imports.values()}
            targets |= self._imported_whole(module)
            for target, name in targets:
                there = (target, name)
                if not self._defines(target):
                    there = self.find(target, name) or there
                if self._defines(there[0]):
                    found.add((module.name, there[0]))
        return {(a, b) for a, b in found if a != b}

    def _defines(self, module: str) -> bool:
        return module in self.modules and self.modules[module].defines_something

    def _imported_whole(self, module: Module) -> set[tuple[str, str | None]]:
        """`import p.a.b`, and names taken from a package that was imported: `p.models.VAE`."""
        found: set[tuple[str, str | None]] = set()
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                names = (alias.name for alias in node.names)
                found |= {(name, None) for name in names if name.split(".")[0] == self.name}
            elif isinstance(node, ast.Attribute):
                parts = dotted(node)
                if parts and parts[0] in module.imports:
                    start, name = module.imports[parts[0]]
                    if name is None:
                        for part in parts[1:]:
                            if f"{start}.{part}" not in self.modules:
                                found.add((start, part))
                                break
                            start = f"{start}.{part}"
        return found

    def rooms(self) -> dict[str, int]:
        """Modules that count, with their lines: they define something, and are tied or not short."""
        tied = {module for arrow in self.arrows() for module in arrow}
        return {
            name: module.lines
            for name, module in self.modules.items()
            if module.defines_something and (name in tied or module.lines >= SHORT)
        }


def _read(path: Path, folder: Path) -> Module:
    parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
    is_package = parts[-1] == "__init__"
    text = path.read_text(encoding="utf-8")
    stub = path.with_suffix(".pyi")
    module = Module(
        ".".join(parts[:-1] if is_package else parts),
        text.count("\n"),
        ast.parse(text),
        ast.parse(stub.read_text(encoding="utf-8")) if stub.exists() else None,
        is_package,
    )
    for node in _top(module.tree.body):
        if isinstance(node, Definition):
            module.definitions[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            module.values |= {n for n in names if not (n.startswith("__") and n.endswith("__"))}
    return module


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements at the top of a module, those under `if` and `try` included."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try):
                yield from _top(getattr(node, part, []))
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                yield from _top(handler.body)


def imported_from(node: ast.ImportFrom, module: Module) -> str:
    """The full name of the module after `from`, relative imports included."""
    if node.level == 0:
        return node.module or ""
    parts = module.name.split(".")
    if not module.is_package:
        parts = parts[:-1]
    parts = parts[: len(parts) - (node.level - 1)]
    return ".".join([*parts, *(node.module or "").split(".")]).rstrip(".")


def dotted(node: ast.expr) -> list[str]:
    """`a.b.c` as its parts; empty for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return [*before, node.attr]
    return []
