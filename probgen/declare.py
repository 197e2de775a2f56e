"""Declare a pair by its formula: writes the explicit pair as Python, compiles it and uses it.

There is no second interpreter of formulas. What `pair.source` prints is what runs.
"""

from __future__ import annotations

import hashlib
import keyword
import linecache
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from weakref import WeakValueDictionary, finalize

from torch import nn

from probgen.conditionals import Conditional
from probgen.formula import RESERVED, Factor, FormulaError, check_guide, parse, product, sort
from probgen.networks import as_activation, as_widths
from probgen.pair import LatentVariableModel, is_summable
from probgen.pair_source import DEFAULT_NAME, Declaration, write_source
from probgen.variables import Variable, is_library_variable, plain_copy

_classes: WeakValueDictionary[str, type[LatentVariableModel]] = WeakValueDictionary()
"""The class of each source, as long as one of its pairs is there."""


def declare(
    p: str,
    q: str = "",
    /,
    *,
    hidden: Sequence[int] = (500, 500),
    activation: Callable[[], nn.Module] = nn.Tanh,
    local: bool = False,
    name: str | None = None,
    **variables: Any,
) -> LatentVariableModel:
    """Write a pair from its factorization.

    Args:
        p: how data come about, `"p(y) p(z) p(x | y, z)"`. A variable that only stands on the
            right of a bar is an input: always given, never scored.
        q: how latents are inferred, `"q(y | x) q(z | x, y)"`. A discrete scalar without a guide
            factor is summed out in the model.
        hidden: widths of the hidden layers of every MLP; `()` is a linear map.
        activation: class of the MLPs' nonlinearity.
        local: say that a latent which no data inform, as with the guide q(w), is meant: each datum
            draws its own, from one guide for all. Without it declare warns and `fit` refuses, since
            most who write it mean one value for all data, which no pair has yet.
        name: how messages, tables and pictures call the pair, and the name of its class in the
            source; `"DeclaredPair"` by default.
        **variables: a variable for each name; and, as `p_x=` or `q_z=`, a network, a network
            factory or a whole `Conditional` of your own in place of the MLP of that factor.

    Returns:
        The pair: `print(pair)` shows what is observed, summed and sampled, `pair.source` the code.

    Warns:
        UserWarning: no data inform a latent, and `local` does not say that it is meant.

    Raises:
        FormulaError: a `ValueError` that shows the formula with a caret under the place.
        ValueError: a variable without a family, a family without a variable, a latent that
            nothing infers.
        TypeError: an argument of the wrong kind.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> m2 = pg.declare("p(y) p(z) p(x | y, z)", "q(y | x) q(z | x, y)", hidden=(8,),
        ...                 y=pg.Categorical(3), z=pg.Normal(2), x=pg.Bernoulli(6))
        >>> m2.sample(5)["x"].shape
        torch.Size([5, 6])
    """
    p, q, hidden = _as_line(p), _as_line(q), as_widths(hidden)
    as_activation(activation)  # says what is wrong with it
    if not isinstance(local, bool):
        raise TypeError(
            f"declare: local must be True or False, got {local!r}; as a variable, call it something else."
        )
    class_name = _as_class_name(name)
    # Names, numbers and variables go into source that runs: plain ones only, of no class that could
    # bring a text of its own.
    variables = {
        str.__str__(name): plain_copy(value) if is_library_variable(value) else value
        for name, value in variables.items()
    }
    own = {name: variables.pop(name) for name in list(variables) if name[:2] in ("p_", "q_")}
    p_factors = sort(parse(p, "p"), p, "p")
    q_factors = sort(parse(q, "q"), q, "q")
    if not p_factors:
        raise FormulaError(p, 0, "The model has no factor; write at least p(x).")
    check_guide(p_factors, q_factors, q)
    _check_variables(p, q, p_factors, q_factors, variables)
    given = _own_conditionals(own, p_factors, q_factors, variables)
    _check_inferable(p, p_factors, q_factors, variables)
    pair = _build(
        Declaration(
            p_factors,
            q_factors,
            hidden,
            activation,
            variables,
            given,
            local=local,
            class_name=class_name,
        )
    )
    if not local:
        _warn_of_uninformed(pair)
    vars(pair)["_declared"] = (p, q, hidden, activation, dict(variables), given)
    return pair


def _as_class_name(name: Any) -> str:
    """A name that a class can bear."""
    if name is None:
        return DEFAULT_NAME
    if not isinstance(name, str):
        raise TypeError(
            f'declare: name must be text such as "M2", got {name!r}; as a variable, call it something '
            "else."
        )
    name = str.__str__(name)
    if not re.fullmatch("[A-Za-z][A-Za-z_0-9]*", name):
        raise ValueError(
            f"declare: name={name!r} must be the name of a class: letters, digits and _, a letter first."
        )
    if keyword.iskeyword(name) or name in RESERVED:
        raise ValueError(
            f"declare: name={name!r} is a reserved word; call the pair something else."
        )
    return name


def _as_line(formula: Any) -> Any:
    """A formula on one line, its columns kept for messages; what is no text stays as it is."""
    if not isinstance(formula, str):
        return formula
    return str.__str__(formula).replace("\n", " ").replace("\t", " ")


class DeclaredModel(LatentVariableModel):
    """A pair written by `declare`; pickles and copies by rebuilding its class from its source."""

    _source: str

    @property
    def source(self) -> str:
        """The pair as Python: save it to a file to take over by hand."""
        return self._source

    def _unread(self, prefix: str) -> frozenset[str]:
        return frozenset()  # the formula says all

    def __reduce__(self) -> Any:
        return _restore, (self._source,), self.__dict__


def _build(declaration: Declaration) -> LatentVariableModel:
    """Write the source, compile it, and make an instance of its class."""
    arguments: dict[str, Any] = {
        name: value
        for name, value in declaration.variables.items()
        if not is_library_variable(value)
    }
    if declaration.uses_mlp:
        arguments |= {"hidden": declaration.hidden, "activation": declaration.activation}
    source = write_source(declaration)
    pair = _compile(source)(**arguments, **declaration.given)
    pair._source = source
    return cast(LatentVariableModel, pair)


def _restore(source: str) -> LatentVariableModel:
    """An empty instance of the class that the source defines; its state follows from the pickle."""
    cls = _compile(source)
    pair = cls.__new__(cls)
    nn.Module.__init__(pair)
    return pair


def _compile(source: str) -> Any:
    """The class that a source defines; tracebacks show its lines.

    Equal sources share a class. Class and lines go when the last of its pairs does.
    """
    known = _classes.get(source)
    if known is not None:
        return known
    filename = f"<probgen pair {hashlib.sha256(source.encode()).hexdigest()[:12]}>"
    namespace: dict[str, Any] = {"__name__": "probgen.declared"}
    exec(compile(source, filename, "exec"), namespace)
    written = next(made for made in namespace.values() if isinstance(made, type))
    made = type(written.__name__, (written, DeclaredModel), {"__module__": __name__})
    kept = _classes.setdefault(source, made)
    if kept is made:
        lines = source.splitlines(keepends=True)
        linecache.cache[filename] = (len(source), None, lines, filename)
        finalize(made, linecache.cache.pop, filename, None).atexit = False
    return kept


def _warn_of_uninformed(pair: LatentVariableModel) -> None:
    names = pair.uninformed_names()
    if names:
        factors = product("q", {n: f.parents for n, f in pair.factors("q").items() if n in names})
        warnings.warn(
            f"declare: {', '.join(names)} is drawn anew for each datum, and the guide {factors} sees no "
            "data that tell of it: this is not one value for all data, such as the weights of a "
            "regression, which no pair has yet. fit refuses the pair unless local=True says that it is "
            "meant.",
            stacklevel=3,
        )


def _check_variables(
    p: str, q: str, p_factors: Sequence[Factor], q_factors: Sequence[Factor],
    variables: Mapping[str, Any],
) -> None:  # fmt: skip
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
                formula, column, f"{name!r} stands in the guide but nowhere in the model."
            )
    for name in variables:
        if name not in named:
            raise ValueError(
                f"declare: {name}={variables[name]!r} stands in no factor of {p!r} or {q!r}. "
                "Leave it out, or add its factor."
            )


def _check_inferable(
    p: str, p_factors: Sequence[Factor], q_factors: Sequence[Factor],
    variables: Mapping[str, Variable],
) -> None:  # fmt: skip
    """A variable that others depend on and the guide does not infer must be summable, or data."""
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
                f"q({name} | ...), or let the guide depend on {name} where it is data.",
            )


def _own_conditionals(
    own: Mapping[str, Any], p: Sequence[Factor], q: Sequence[Factor],
    variables: Mapping[str, Variable],
) -> dict[str, Any]:  # fmt: skip
    factors = {f"{letter}_{f.name}": f for letter, fs in (("p", p), ("q", q)) for f in fs}
    given = {}
    for attribute, value in own.items():
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
