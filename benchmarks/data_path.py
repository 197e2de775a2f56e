"""One argument followed through a package from call to call, in the order in which the code is written.

Followed are the parameter and, within a function:

- names and attributes that are assigned from it, its items, and what it is iterated into;
- a tuple, list, dict or record that holds it; a record is an object of a dataclass of the package (called, or
  made by one of its class methods), or of a class without an `__init__` of its own, once a name is given to it or to a list or dict that holds it;
- what one of its methods, or a function outside the package, makes of it; not what is only said of it
  (`len`, `isinstance`, a comparison, an f-string), nor its attributes;
- what a function of the package that was given it returns, where every `return` gives it back (of tuples,
  place by place).

Any other class of the package takes it in: its `__init__` is followed, the object is not. Both sides of a
branch are followed, and loops once. A function is followed once; further calls of it count as calls.

The class of an object is known from an annotation of the parameter, from a call that makes it, or from the
annotation of what a called function returns. If the package has subclasses of it that override the method,
one of them runs, as a registry decides; the one with the longest way is followed. A call through a variable, or
of a method of an object whose class the source does not name, is not followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks.package_source import Package, dotted

Function = ast.FunctionDef | ast.AsyncFunctionDef
Held = bool | tuple[bool, ...]
"""Whether an expression is or holds the argument; for a tuple, of each of its places."""
SAYS = {"len", "isinstance", "hasattr", "callable", "type", "repr", "str", "id", "print"}
"""Built-in functions that say something of the argument and return no part of it."""


@dataclass(frozen=True)
class Place:
    """A function of the package, or a method with its class."""

    module: str
    name: str
    node: Function = field(compare=False, repr=False)
    owner: str | None = None

    @property
    def parameters(self) -> list[str]:
        """Names of parameters, `*args` and `**kwargs` aside, those given by keyword alone last."""
        a = self.node.args
        return [argument.arg for argument in [*a.posonlyargs, *a.args, *a.kwonlyargs]]


@dataclass(frozen=True)
class Call:
    """A call that was given the argument."""

    module: str
    function: str
    parameters: tuple[str, ...]


class Path:
    """Follows one argument; `calls` are those that were given it, in order."""

    def __init__(self, package: Package, name: str, parameter: str) -> None:
        """Begin at a parameter of a public name, `function` or `Class.method`.

        Raises:
            ValueError: the package has no such name, or the function no such parameter.
        """
        self.package = package
        self.calls: list[Call] = []
        self._returned: dict[Place, Held] = {}
        place = self._public(name)
        if place is None:
            raise ValueError(f"{name} is no public function or method of {package.name}.")
        if parameter not in place.parameters:
            raise ValueError(
                f"{name} has no parameter {parameter!r}, but {', '.join(place.parameters)}."
            )
        self.follow(place, {parameter})

    def follow(self, place: Place, parameters: set[str]) -> Held:
        """Go through a function that is given the argument; whether it returns it."""
        self.calls.append(Call(place.module, place.name, tuple(sorted(parameters))))
        if place not in self._returned:
            self._returned[place] = False  # what a call of it within itself is taken to return
            self._returned[place] = _Body(self, place, parameters).returned()
        return self._returned[place]

    def length(self, way: tuple[Place, set[str]]) -> int:
        """How many changes of module a call would add; nothing is added."""
        calls, returned = list(self.calls), dict(self._returned)
        self.follow(*way)
        modules = [call.module for call in self.calls]
        self.calls, self._returned = calls, returned
        return sum(a != b for a, b in pairwise(modules))

    def _public(self, name: str) -> Place | None:
        first, _, method = name.partition(".")
        there = self.package.find(self.package.name, first)
        if there is None or there[1] is None:
            return None
        if self.package.a_class(*there) is not None:
            return self.method(there[0], there[1], method or "__init__")
        return None if method else self.function(there[0], there[1])

    def function(self, module: str, name: str) -> Place | None:
        """A function at the top of a module."""
        node = self.package.modules[module].definitions.get(name)
        if node is None:
            return self._decorated(module, name)
        return Place(module, name, node) if isinstance(node, Function) else None

    def _decorated(self, module: str, name: str) -> Place | None:
        """The function f of `name = decorator(f)`, which the decorator calls with what it is given."""
        for node in self.package.modules[module].tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                targets = [part.id for part in node.targets if isinstance(part, ast.Name)]
                if targets == [name] and len(node.value.args) == 1:
                    there = self.package.named(module, node.value.args[0])
                    return None if there is None else self.function(*there)
        return None

    def method(self, module: str, owner: str, name: str) -> Place | None:
        """A method of a class of the package, or of the classes that it extends."""
        node = self.package.a_class(module, owner)
        if node is None:
            return None
        for part in node.body:
            if isinstance(part, Function) and part.name == name:
                return Place(module, f"{owner}.{name}", part, owner)
        for base in node.bases:
            there = self.package.named(module, base)
            if there is None or there == (module, owner):
                continue
            if (found := self.method(*there, name)) is not None:
                return found
        return None

    def methods(self, module: str, owner: str, name: str) -> list[Place]:
        """A method of a class, and what overrides it in its subclasses; an abstract one is left out."""
        found = [self.method(module, owner, name)]
        for there in self.package.subclasses(module, owner):
            node = self.package.a_class(*there)
            if node is not None and any(getattr(part, "name", None) == name for part in node.body):
                found.append(self.method(*there, name))
        places = [place for place in found if place is not None]
        return [p for p in places if "abstractmethod" not in _decorators(p.node)] or places

    def annotated(self, place: Place, annotation: ast.expr) -> tuple[str, str] | None:
        """The class of the package that an annotation in a function names."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        there = self.package.named(place.module, annotation)
        return there if there is not None and self.package.a_class(*there) is not None else None


class _Body:
    """The inside of one function that was given the argument."""

    def __init__(self, path: Path, place: Place, parameters: set[str]) -> None:
        self.path, self.package, self.place = path, path.package, place
        self.held = set(parameters)
        self.returns: list[Held] = []
        self.classes: dict[str, tuple[str, str]] = {}
        """Names of objects whose class is known: annotated parameters, and objects made here."""
        if place.owner is not None:
            self.classes |= dict.fromkeys(("self", "cls"), (place.module, place.owner))
        arguments = place.node.args
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            if argument.annotation is not None:
                there = self.package.named(place.module, argument.annotation)
                if there is not None:
                    self.classes[argument.arg] = there
        self._block(place.node.body)

    def returned(self) -> Held:
        """Whether every `return` gives the argument back."""
        lengths = {len(held) if isinstance(held, tuple) else None for held in self.returns}
        if len(lengths) == 1 and None not in lengths:
            return tuple(all(places) for places in zip(*map(_places, self.returns), strict=True))
        return bool(self.returns) and all(any(_places(held)) for held in self.returns)

    def _block(self, body: list[ast.stmt]) -> None:
        for node in body:
            self._go(node)

    def _go(self, node: ast.AST) -> None:
        """One statement, or a part of one."""
        if isinstance(node, ast.expr):
            self._value(node)
        elif isinstance(node, Function):  # what it does with names of the function around it
            before = list(self.returns)
            self._block(node.body)
            self.returns = before
        elif isinstance(node, ast.Assign):
            held = self._value(node.value, named=True)
            for target in node.targets:
                self._assign(target, held, node.value)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            if node.value is not None:
                self._assign(node.target, self._value(node.value, named=True), node.value)
        elif isinstance(node, ast.Return):
            if node.value is not None:
                self.returns.append(self._value(node.value))
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            self._assign(node.target, self._holds(node.iter))
            for part in [n for name in ("ifs", "body", "orelse") for n in getattr(node, name, [])]:
                self._go(part)
        elif isinstance(node, ast.withitem):
            held = self._value(node.context_expr, named=True)
            if node.optional_vars is not None:
                self._assign(node.optional_vars, held, node.context_expr)
        elif not isinstance(node, ast.ClassDef):
            for child in ast.iter_child_nodes(node):
                self._go(child)

    def _assign(self, target: ast.expr, held: Held, value: ast.expr | None = None) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            places = held if isinstance(held, tuple) else (held,) * len(target.elts)
            if len(places) != len(target.elts):
                places = (any(places),) * len(target.elts)
            for part, place in zip(target.elts, places, strict=True):
                self._assign(part, place)
        elif isinstance(target, ast.Starred | ast.Subscript):  # a container holds it from now on
            self._assign(target.value, held)
        elif name := ".".join(dotted(target)):
            if any(_places(held)):
                self.held.add(name)
            if isinstance(value, ast.Call) and (made := self._class_of(value)):
                self.classes[name] = made

    def _holds(self, node: ast.expr) -> bool:
        return any(_places(self._value(node)))

    def _value(self, node: ast.expr, *, named: bool = False) -> Held:
        """Whether an expression is or holds the argument; calls within it are followed in order.

        `named` says that the value is given a name.
        """
        if isinstance(node, ast.Name):
            return node.id in self.held
        if isinstance(node, ast.Attribute):
            self._value(node.value)
            return ".".join(dotted(node)) in self.held
        if isinstance(node, ast.Call):
            return self._call(node, named)
        if isinstance(node, ast.Tuple):
            return tuple([self._holds(part) for part in node.elts])
        if isinstance(node, ast.NamedExpr):
            held = self._value(node.value, named=True)
            self._assign(node.target, held, node.value)
            return held
        if isinstance(node, ast.Subscript):
            self._value(node.slice)
            return self._holds(node.value)
        if isinstance(node, ast.IfExp):
            self._value(node.test)
            return any([self._holds(node.body), self._holds(node.orelse)])
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            for part in node.generators:
                self._go(part)
            elements = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            return any([self._holds(part) for part in elements])
        if isinstance(node, ast.Dict | ast.List):
            elements = node.values if isinstance(node, ast.Dict) else node.elts
            return any([any(_places(self._value(n, named=named))) for n in elements])
        parts = [self._holds(n) for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr)]
        said = isinstance(node, ast.Compare | ast.JoinedStr | ast.FormattedValue | ast.Lambda)
        return any(parts) and not said

    def _call(self, node: ast.Call, named: bool) -> Held:
        own = isinstance(node.func, ast.Attribute) and self._holds(node.func.value)
        given = [self._holds(argument) for argument in node.args]
        keywords = [(keyword.arg, self._holds(keyword.value)) for keyword in node.keywords]
        if not (own or any(given) or any(held for _, held in keywords)):
            return False
        made = self._class_made(node.func)
        if made:
            place = self.path.method(*made, "__init__")
            if place is not None and (passed := set(_passed(place, node.args, given, keywords))):
                self.path.follow(place, passed)
            return named and (place is None or self.package.is_dataclass(*made))
        places = self._functions(node.func)
        if not places:
            return not (isinstance(node.func, ast.Name) and node.func.id in SAYS)
        ways = [(p, set(_passed(p, node.args, given, keywords))) for p in places]
        ways = [(place, passed) for place, passed in ways if passed]
        if not ways:
            return own
        longest = max(ways, key=self.path.length)
        returned = self.path.follow(*longest)
        return named if self._makes_a_record(longest[0]) else returned

    def _makes_a_record(self, place: Place) -> bool:
        """Whether a class method returns a new object of its class, which is a dataclass."""
        if "classmethod" not in _decorators(place.node) or place.node.returns is None:
            return False
        made = self.path.annotated(place, place.node.returns)
        return made == (place.module, place.owner) and self.package.is_dataclass(*made)

    def _class_made(self, function: ast.expr) -> tuple[str, str] | None:
        """The class of the package that is called to make an object."""
        if isinstance(function, ast.Name) and function.id == "cls":
            return self.classes.get("cls")
        there = self.package.named(self.place.module, function)
        return there if there is not None and self.package.a_class(*there) is not None else None

    def _functions(self, function: ast.expr) -> list[Place]:
        """The function or method of the package that is called; several if subclasses override it."""
        there = self.package.named(self.place.module, function)
        if there is not None:
            place = self.path.function(*there)
            return [] if place is None else [place]
        if not isinstance(function, ast.Attribute):
            return []
        if isinstance(function.value, ast.Call):
            owner = self._class_of(function.value)
        else:
            owner = self.classes.get(".".join(dotted(function.value)))
            owner = owner or self.package.named(self.place.module, function.value)
        return self.path.methods(*owner, function.attr) if owner else []

    def _class_of(self, call: ast.Call) -> tuple[str, str] | None:
        """The class of what a call returns: a new object, or as the function is annotated."""
        if made := self._class_made(call.func):
            return made
        for place in self._functions(call.func):
            if place.node.returns is not None:
                return self.path.annotated(place, place.node.returns)
        return None


def _places(held: Held) -> tuple[bool, ...]:
    return held if isinstance(held, tuple) else (held,)


def _decorators(node: Function) -> set[str]:
    return {n.id for n in node.decorator_list if isinstance(n, ast.Name)}


def _passed(
    place: Place, arguments: list[ast.expr], given: list[bool],
    keywords: list[tuple[str | None, bool]],
) -> Iterator[str]:  # fmt: skip
    """The parameters that are given the argument."""
    a, names = place.node.args, place.parameters
    if place.owner is not None and "staticmethod" not in _decorators(place.node):
        names = names[1:]
    by_place = names[: len(names) - len(a.kwonlyargs)]
    for index, (argument, held) in enumerate(zip(arguments, given, strict=True)):
        if held and isinstance(argument, ast.Starred):
            yield from by_place[index:]
        elif held and index < len(by_place):
            yield by_place[index]
        elif held and a.vararg is not None:
            yield a.vararg.arg
    for name, held in keywords:
        if held and name in names:
            yield str(name)
        elif held and a.kwarg is not None:
            yield a.kwarg.arg
