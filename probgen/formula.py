"""The formula of a pair: text to factors, with errors that show the place of the mistake."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

RESERVED = frozenset(
    {"self", "super", "fn", "data", "particles", "hidden", "activation", "named", "seed", "n"}
    | {"pyro", "torch", "probgen", "pg", "local", "name"}
)
"""Words that the generated source or its signatures use, so that variables cannot have these names."""

_TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z_0-9]*|\S)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*\Z")


@dataclass(frozen=True)
class Factor:
    """One factor `p(name | parents)`; the columns are the places of the names in the formula."""

    name: str
    parents: tuple[str, ...]
    column: int = 0
    parent_columns: tuple[int, ...] = ()


class FormulaError(ValueError):
    """A formula that cannot be read; the message shows it with a caret under the place.

    Args:
        formula: the text.
        column: the place of the error, from 0.
        message: what is wrong, and what to write instead.

    Example:
        >>> import probgen as pg
        >>> try:
        ...     pg.declare("p(z) p(x | z", "q(z | x)", z=pg.Normal(2), x=pg.Normal(3))
        ... except pg.FormulaError as error:
        ...     print(error)
        Expected ')' to close p(x, but the formula ends.
            p(z) p(x | z
                        ^
    """

    def __init__(self, formula: str, column: int, message: str) -> None:
        super().__init__(f"{message}\n    {formula}\n    {' ' * column}^")
        self.column = column


class _Reader:
    """The tokens of a formula, one at a time."""

    def __init__(self, formula: str) -> None:
        self.formula = formula
        self.tokens = [(m.group(1), m.start(1)) for m in _TOKEN.finditer(formula)]
        self.tokens.append(("", len(formula.rstrip())))
        self.index = 0

    @property
    def token(self) -> str:
        return self.tokens[self.index][0]

    @property
    def column(self) -> int:
        return self.tokens[self.index][1]

    def fail(self, message: str) -> FormulaError:
        return FormulaError(self.formula, self.column, message)

    def take(self, wanted: str, why: str) -> None:
        if self.token != wanted:
            found = f"found {self.token!r}" if self.token else "the formula ends"
            raise self.fail(f"Expected {wanted!r} {why}, but {found}.")
        self.index += 1

    def name(self) -> str:
        token = self.token
        if not _NAME.match(token):
            found = f"found {token!r}" if token else "the formula ends"
            raise self.fail(f"Expected the name of a variable, but {found}.")
        if keyword.iskeyword(token) or token in RESERVED or token.startswith(("p_", "q_", "_")):
            raise self.fail(f"{token!r} is a reserved word; give the variable another name.")
        self.index += 1
        return token


def parse(formula: str, letter: str) -> list[Factor]:
    """Read `"p(z) p(x | z)"`, with the letter `p` or `q`, into factors in the order written.

    Raises:
        TypeError: the formula is not text.
        FormulaError: it is not a product of factors with one variable each, a variable has two
            factors, or depends on itself.
    """
    if not isinstance(formula, str):
        raise TypeError(
            f'The formula of {letter} must be text such as "{letter}(z | x)", got {formula!r}.'
        )
    reader = _Reader(formula)
    factors: list[Factor] = []
    while reader.token:
        reader.take(letter, "to begin a factor")
        reader.take("(", f"after {letter}")
        column, name = reader.column, reader.name()
        if reader.token == ",":
            raise reader.fail(
                f"A factor has one variable on its left; write {letter}({name}) {letter}(...) "
                "as separate factors."
            )
        parents: list[str] = []
        columns: list[int] = []
        if reader.token == "|":
            reader.index += 1
            while True:
                parent_column, parent = reader.column, reader.name()
                if parent in parents or parent == name:
                    what = "depends on itself" if parent == name else f"names {parent!r} twice"
                    raise FormulaError(formula, parent_column, f"{letter}({name} | ...) {what}.")
                parents.append(parent)
                columns.append(parent_column)
                if reader.token != ",":
                    break
                reader.index += 1
        reader.take(")", f"to close {letter}({name}")
        if any(factor.name == name for factor in factors):
            raise FormulaError(formula, column, f"{name!r} has two factors {letter}({name}).")
        factors.append(Factor(name, tuple(parents), column, tuple(columns)))
    return factors


def product(letter: str, parents: Mapping[str, Iterable[str]]) -> str:
    """Factors as text, `p(z) p(x | z)`, from the parents of each variable."""
    return " ".join(
        f"{letter}({name} | {', '.join(given)})" if given else f"{letter}({name})"
        for name, given in parents.items()
    )


def sort(factors: Sequence[Factor], formula: str, letter: str) -> list[Factor]:
    """The factors with every variable after its parents, otherwise in the order written.

    Raises:
        FormulaError: the factors form a cycle.
    """
    waiting = list(factors)
    ordered: list[Factor] = []
    own = {factor.name for factor in factors}
    while waiting:
        earlier = {factor.name for factor in ordered}
        ready = next((f for f in waiting if set(f.parents) & own <= earlier), None)
        if ready is None:
            names = ", ".join(factor.name for factor in waiting)
            raise FormulaError(
                formula,
                waiting[0].column,
                f"The factors of {letter} form a cycle through {names}, so they cannot be sampled in any "
                "order. Remove one dependence.",
            )
        waiting.remove(ready)
        ordered.append(ready)
    return ordered


def check_guide(p: Sequence[Factor], q: Sequence[Factor], formula: str) -> None:
    """Every guide factor infers a variable of the model.

    Raises:
        FormulaError: a guide factor for a variable without a factor in the model.
    """
    scored = {factor.name for factor in p}
    for factor in q:
        if factor.name not in scored:
            raise FormulaError(
                formula,
                factor.column,
                f"q({factor.name}) infers a variable that the model has no factor for; "
                f"add p({factor.name} | ...).",
            )
