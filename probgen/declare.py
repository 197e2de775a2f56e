"""Declare a pair by its formula: writes the explicit pair as Python, compiles it and uses it.

The code that `pair.source` prints is the code that runs.
"""

from __future__ import annotations

import hashlib
import linecache
from collections.abc import Callable, Sequence
from typing import Any, cast
from weakref import WeakValueDictionary, finalize

from torch import nn

from probgen.basics.user_warnings import warn
from probgen.declare_checks import (
    as_class_name,
    check_conditionals,
    check_inferable,
    check_variables,
)
from probgen.formula import FormulaError, check_guide, parse, product, sort
from probgen.networks import as_activation, as_widths
from probgen.pair import LatentVariableModel
from probgen.pair_source import Declaration, write_source
from probgen.variables import is_library_variable, plain_copy

_classes: WeakValueDictionary[str, type[LatentVariableModel]] = WeakValueDictionary()
"""The class of each source, kept as long as one of its pairs exists."""


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
    r"""Write a pair from its factorization, in mathematical notation.

    A factor $p(x \mid z)$ becomes a conditional distribution whose parameters an MLP of z returns; the
    joint density is the product of the factors.

    Args:
        p: the model, `"p(y) p(z) p(x | y, z)"`. A variable that appears only on the right of a
            bar is an input: it is always given and has no log-probability.
        q: the guide, by which latents are inferred, `"q(y | x) q(z | x, y)"`. A discrete scalar
            without a guide factor is summed out in the model.
        hidden: widths of the hidden layers of every MLP; `()` is a linear map.
        activation: class of the MLPs' nonlinearity.
        local: allow a latent whose guide factor depends on no data, such as q(w): each datum then
            draws its own value, from one distribution for all data. Without it `declare` warns and
            `fit` refuses the pair, since most people who write q(w) mean one value for all data,
            which pairs do not have yet.
        name: the name of the pair in messages, tables and pictures, and of its class in the
            source; `"DeclaredPair"` by default.
        **variables: a variable for each name; and, as `p_x=` or `q_z=`, a network, a network
            factory or a whole `Conditional` of your own in place of the MLP of that factor.

    Returns:
        The pair: `print(pair)` shows what is observed, summed and sampled, `pair.source` the code.

    Warns:
        UserWarning: the guide of a latent depends on no data, and `local` is not set.

    Raises:
        FormulaError: the formula cannot be read; a `ValueError` that shows it with a caret under the
            place.
        ValueError: a name without a variable, a variable without a factor, or a latent that nothing
            infers.
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
    as_activation(activation)  # raises an error if it is none
    if not isinstance(local, bool):
        raise TypeError(
            f"declare: local must be True or False, got {local!r}. If you mean a variable, give it another "
            "name."
        )
    class_name = as_class_name(name)
    # Names, numbers and variables are written into source that runs. Only plain ones get there: the
    # repr of a user's subclass could contain any code.
    variables = {
        str.__str__(name): plain_copy(value) if is_library_variable(value) else value
        for name, value in variables.items()
    }
    networks = {name: variables.pop(name) for name in list(variables) if name[:2] in ("p_", "q_")}
    p_factors = sort(parse(p, "p"), p, "p")
    q_factors = sort(parse(q, "q"), q, "q")
    if not p_factors:
        raise FormulaError(p, 0, "The model has no factor; write at least p(x).")
    check_guide(p_factors, q_factors, q)
    check_variables(p, q, p_factors, q_factors, variables)
    given = check_conditionals(networks, p_factors, q_factors, variables)
    check_inferable(p, p_factors, q_factors, variables)
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


def _as_line(formula: Any) -> Any:
    """A formula on one line with the same columns; a value that is not text is returned as it is."""
    if not isinstance(formula, str):
        return formula
    return str.__str__(formula).replace("\n", " ").replace("\t", " ")


class DeclaredModel(LatentVariableModel):
    """A pair written by `declare`; pickled and copied by building its class again."""

    _source: str

    @property
    def source(self) -> str:
        """The pair as Python: save it to a file to edit it by hand."""
        return self._source

    def _sites_without_factor(self, prefix: str) -> frozenset[str]:
        return frozenset()  # the formula lists every variable that is read

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
    """An empty instance of the class that the source defines; unpickling sets its state afterwards."""
    cls = _compile(source)
    pair = cls.__new__(cls)
    nn.Module.__init__(pair)
    return pair


def _compile(source: str) -> Any:
    """The class that a source defines; tracebacks show its lines.

    Equal sources share a class. The class and its lines are deleted with the last of its pairs.
    """
    existing = _classes.get(source)
    if existing is not None:
        return existing
    filename = f"<probgen pair {hashlib.sha256(source.encode()).hexdigest()[:12]}>"
    namespace: dict[str, Any] = {"__name__": "probgen.declared"}
    exec(compile(source, filename, "exec"), namespace)
    written = next(value for value in namespace.values() if isinstance(value, type))
    new = type(written.__name__, (written, DeclaredModel), {"__module__": __name__})
    # Another thread may have compiled the same source meanwhile; then its class is used.
    cls = _classes.setdefault(source, new)
    if cls is new:
        lines = source.splitlines(keepends=True)
        linecache.cache[filename] = (len(source), None, lines, filename)
        finalize(new, linecache.cache.pop, filename, None).atexit = False
    return cls


def _warn_of_uninformed(pair: LatentVariableModel) -> None:
    names = pair.uninformed_names()
    if names:
        factors = product("q", {n: f.parents for n, f in pair.factors("q").items() if n in names})
        warn(
            f"declare: {', '.join(names)} is drawn anew for each datum, and the guide {factors} depends "
            "on no data: this is not one value for all data, such as the weights of a regression, which "
            "pairs do not have yet. fit refuses the pair unless local=True says that it is intended."
        )
