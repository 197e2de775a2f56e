"""Checks of what `declare` is given: names, variables and networks against the formulas."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

from probgen.conditionals import Conditional
from probgen.formula import RESERVED, Factor, FormulaError
from probgen.pair import is_summable
from probgen.pair_source import DEFAULT_NAME
from probgen.variables import Variable


def as_class_name(name: Any) -> str:
    """The name of the generated class.

    Raises:
        TypeError: it is not text.
        ValueError: a class cannot have this name.
    """
    if name is None:
        return DEFAULT_NAME
    if not isinstance(name, str):
        raise TypeError(
            f'declare: name must be text such as "M2", got {name!r}. If you mean a variable, give it '
            "another name."
        )
    name = str.__str__(name)
    if not re.fullmatch("[A-Za-z][A-Za-z_0-9]*", name):
        raise ValueError(
            f"declare: name={name!r} must be the name of a class: letters, digits and _, with a letter "
            "first."
        )
    if keyword.iskeyword(name) or name in RESERVED:
        raise ValueError(f"declare: name={name!r} is a reserved word; give the pair another name.")
    return name


def check_variables(
    p: str, q: str, p_factors: Sequence[Factor], q_factors: Sequence[Factor],
    variables: Mapping[str, Any],
) -> None:  # fmt: skip
    """Every name in the formulas has a variable, and every variable is in a formula.

    Raises:
        FormulaError: a name without a variable, or one that is in the guide only.
        TypeError: a value that is not a variable.
        ValueError: a variable that is in no factor.
    """
    named: dict[str, tuple[str, int]] = {}
    for formula, factors in ((p, p_factors), (q, q_factors)):
        for factor in factors:
            named.setdefault(factor.name, (formula, factor.column))
            for name, column in zip(factor.parents, factor.parent_columns, strict=True):
                named.setdefault(name, (formula, column))
    p_names = {name for f in p_factors for name in (f.name, *f.parents)}
    for name, (formula, column) in named.items():
        if name not in variables:
            raise FormulaError(
                formula, column, f"{name!r} has no family; add {name}=pg.Normal(...) or another."
            )
        if not isinstance(variables[name], Variable):
            raise TypeError(
                f"declare: {name} must be a variable such as pg.Normal(8), got {variables[name]!r}."
            )
        if name not in p_names:
            raise FormulaError(
                formula,
                column,
                f"{name!r} is in the guide but not in the model; add a factor p({name} | ...), or remove it.",
            )
    for name in variables:
        if name not in named:
            raise ValueError(
                f"declare: {name}={variables[name]!r} is in no factor of {p!r} or {q!r}. "
                "Leave it out, or add its factor."
            )


def check_inferable(
    p: str, p_factors: Sequence[Factor], q_factors: Sequence[Factor],
    variables: Mapping[str, Variable],
) -> None:  # fmt: skip
    """Every variable that others depend on is inferred by the guide, summed out, or data.

    Raises:
        FormulaError: one is not.
    """
    guided = {factor.name for factor in q_factors}
    seen_by_guide = {parent for factor in q_factors for parent in factor.parents}
    parents = {parent for factor in p_factors for parent in factor.parents}
    for factor in p_factors:
        name = factor.name
        latent = name in parents and name not in guided and name not in seen_by_guide
        if latent and not is_summable(variables[name]):
            raise FormulaError(
                p,
                factor.column,
                f"Nothing infers {name!r}, a {variables[name]!r}; add a guide factor "
                f"q({name} | ...), or let the guide depend on {name} if it is data.",
            )


def check_conditionals(
    networks: Mapping[str, Any], p: Sequence[Factor], q: Sequence[Factor],
    variables: Mapping[str, Variable],
) -> dict[str, Any]:  # fmt: skip
    """The networks and conditionals that replace MLPs; each must belong to a factor and fit it.

    Raises:
        TypeError: a value that can be neither a network nor a conditional.
        ValueError: no such factor, or another variable or other parents than the formula's.
    """
    factors = {f"{letter}_{f.name}": f for letter, fs in (("p", p), ("q", q)) for f in fs}
    given = {}
    for attribute, value in networks.items():
        factor = factors.get(attribute)
        if factor is None:
            raise ValueError(
                f"declare: {attribute}= belongs to no factor; the factors are {', '.join(factors)}."
            )
        variable = variables[factor.name]
        if attribute.startswith("q_"):
            variable = variable.inferred()
        parents = {name: variables[name] for name in factor.parents}
        if isinstance(value, Conditional):
            kind = (type(variable), variable.event_shape, variable.input_shape)
            theirs = value.variable
            if (type(theirs), theirs.event_shape, theirs.input_shape) != kind:
                raise ValueError(
                    f"declare: {attribute} is a Conditional of {value.variable!r}, "
                    f"but the formula's variable is {variable!r}."
                )
            if value.parents != parents:
                raise ValueError(
                    f"declare: {attribute} has parents {value.parents}, "
                    f"but the formula says {parents}."
                )
        elif not parents:
            raise ValueError(
                f"declare: {attribute} has no parents to feed a network; give a Conditional, such as "
                f"pg.Conditional({variable!r}, learned=True)."
            )
        elif not callable(value):
            raise TypeError(
                f"declare: {attribute} must be a Conditional, a torch.nn.Module or a function that "
                f"makes one, got {value!r}."
            )
        given[attribute] = value
    return given
