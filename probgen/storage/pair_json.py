"""Recipes: how a pair is built again in another process, as plain JSON and never as a pickle.

A recipe holds formulas, the names of library classes and numbers. Building one runs the library's
own code only; the one exception, a user's Python file, says so.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from probgen import models
from probgen.basics.randomness import fixed_seed
from probgen.conditionals import Conditional
from probgen.declare import DeclaredModel, declare
from probgen.networks import MLP, ConvDecoder, ConvEncoder
from probgen.pair import LatentVariableModel
from probgen.pair_source import DEFAULT_NAME
from probgen.variables import Bernoulli, Categorical, Normal, Variable

Recipe = dict[str, Any]

FAMILIES = ("normal", "bernoulli", "categorical")
NETWORKS: dict[str, type[nn.Module]] = {c.__name__: c for c in (MLP, ConvEncoder, ConvDecoder)}
ACTIVATIONS: tuple[str, ...] = tuple(torch.nn.modules.activation.__all__)


MOST_ENTRIES, MOST_LETTERS, MOST_DEPTH = 100, 10_000, 10
"""How large the lists and dicts of a recipe, its texts and its nesting may be: it may come from
anybody, and what it describes is built."""


class _NotPlainError(Exception):
    """Something that has no plain form: a network or a family of the user's own."""


# ---------------------------------------------------------------- variables as text


def variable_text(variable: Variable) -> str:
    """A library variable as text: `normal:8`, `normal:1x28x28:shared`, `categorical:10`."""
    shape = "x".join(map(str, variable.event_shape)) or "scalar"
    if type(variable) is Normal:
        return f"normal:{shape}" + (f":{variable.scale}" if variable.scale != "network" else "")
    if type(variable) is Bernoulli:
        return f"bernoulli:{shape}"
    if type(variable) is Categorical:
        return f"categorical:{variable.num_classes}" + (f":{shape}" if variable.event_shape else "")
    raise _NotPlainError


def read_variable(text: str, example: torch.Tensor | None = None) -> Variable:
    """The variable that a text describes.

    Args:
        text: `normal:8`, `normal:1x28x28:shared`, `normal:8:0.1`, `bernoulli:784`,
            `bernoulli:scalar`, `categorical:10`. With data at hand the shape, or the number of
            classes, may be left out or empty: `normal`, `normal::shared`.
        example: data of the variable, `(data, *event_shape)`.

    Raises:
        ValueError: an unknown family, or what follows it cannot be read.

    Example:
        >>> read_variable("normal:1x28x28:shared")
        Normal((1, 28, 28), scale='shared')
    """
    if not isinstance(text, str):
        raise ValueError(f"A variable is text such as normal:8, got {text!r}.")
    family, *rest = text.strip().split(":")
    family = family.lower()
    if family not in FAMILIES:
        raise ValueError(
            f"{text!r} is no variable: unknown family {family!r}, known are {', '.join(FAMILIES)}. "
            "Write family:shape, such as normal:8, bernoulli:1x28x28 or categorical:10."
        )
    if len(rest) > (1 if family == "bernoulli" else 2):
        raise ValueError(f"{text!r} is no variable: {rest[-1]!r} is one part too many.")
    first, second = [*rest, "", ""][:2]
    if family == "categorical":
        if not first and example is None:
            raise ValueError(f"{text!r} needs its number of classes, such as categorical:10.")
        classes = _number(first, text) if first or example is None else int(example.max()) + 1
        return Categorical(classes, _shape(second, text) if second else ())
    if not first and example is None:
        raise ValueError(f"{text!r} needs its shape, such as {family}:8 or {family}:1x28x28.")
    shape = _shape(first, text) if first or example is None else tuple(example.shape[1:])
    if family == "bernoulli":
        return Bernoulli(shape)
    scale: Any = second or "network"
    if scale not in ("network", "shared", "isotropic"):
        try:
            scale = float(scale)
        except ValueError:
            raise ValueError(
                f"{text!r}: the scale {scale!r} is neither network, shared, isotropic nor a number."
            ) from None
        if not 0 < scale < math.inf:
            raise ValueError(f"{text!r}: a fixed scale must be finite and above 0.")
    return Normal(shape, scale)


def _shape(text: str, whole: str) -> tuple[int, ...]:
    if text == "scalar":
        return ()
    return tuple(_number(part, whole) for part in text.split("x"))


def _number(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:12]) < 10**9:
        raise ValueError(
            f"{whole!r}: {text!r} is no size; sizes are whole numbers from 1, joined by x."
        )
    return int(text)


# ---------------------------------------------------------------- from a pair


def recipe_of(pair: LatentVariableModel) -> Recipe:
    """How to build a pair again; `{"kind": "own"}` where only its author can."""
    own = own_recipe(pair)
    held = vars(pair)
    if "_file" in held:
        return dict(held["_file"])
    try:
        if isinstance(pair, DeclaredModel):
            p, q, hidden, activation, variables, given = held["_declared"]
            recipe = {
                "kind": "declared",
                "p": p,
                "q": q,
                "variables": {name: variable_text(v) for name, v in variables.items()},
                "hidden": list(hidden),
                "activation": _plain(activation),
                "own": {name: _plain(value) for name, value in given.items()},
            }
            # Only where they are set, so that a run directory of before compares equal.
            own_name = {} if pair.name == DEFAULT_NAME else {"name": pair.name}
            return recipe | ({"local": True} if pair.local else {}) | own_name
        if type(pair) is getattr(models, type(pair).__name__, None):
            args, named = held["_arguments"]
            bound = inspect.signature(type(pair)).bind(*args, **named)
            arguments = {name: _plain(value) for name, value in bound.arguments.items()}
            return {"kind": "library", "class": type(pair).__name__, "arguments": arguments}
    except _NotPlainError:
        pass
    return own


def own_recipe(pair: LatentVariableModel) -> Recipe:
    """Of a pair that only its author can build: its class and its parts, to compare another with."""
    name = f"{type(pair).__module__}.{type(pair).__qualname__}"
    return {"kind": "own", "class": name, "parts": nn.Module.__repr__(pair)}


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Variable):
        return {"variable": variable_text(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    name = getattr(value, "__name__", "")
    if name in ACTIVATIONS and getattr(nn, name) is value:
        return {"activation": name}
    if NETWORKS.get(name) is value:
        return {"network": name, "settings": {}}
    if isinstance(value, functools.partial) and not value.args:
        settings = {key: _plain(part) for key, part in value.keywords.items()}
        name = getattr(value.func, "__name__", "")
        if NETWORKS.get(name) is value.func:
            return {"network": name, "settings": settings}
    if type(value) is Conditional and not value.parents:
        return {"conditional": variable_text(value.variable), "learned": value.learned}
    raise _NotPlainError


# ---------------------------------------------------------------- to a pair


def build(recipe: Mapping[str, Any]) -> LatentVariableModel:
    """Build a pair from a declared or library recipe; its weights are random.

    The global random state stays as it was.

    Raises:
        ValueError: the recipe is of no known kind, too large, or names something that does not
            exist.
    """
    try:
        _check_size(recipe)
        with fixed_seed(0, torch.device("cpu")):
            if recipe["kind"] == "declared":
                own = {name: _made(value) for name, value in recipe["own"].items()}
                variables = {n: read_variable(text) for n, text in recipe["variables"].items()}
                return declare(
                    recipe["p"],
                    recipe["q"],
                    hidden=recipe["hidden"],
                    activation=_made(recipe["activation"]),
                    local=recipe.get("local", False),
                    name=recipe.get("name"),
                    **variables,
                    **own,
                )
            if recipe["kind"] == "library" and recipe["class"] in models.__all__:
                arguments = {name: _made(value) for name, value in recipe["arguments"].items()}
                pair: LatentVariableModel = getattr(models, recipe["class"])(**arguments)
                return pair
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"The recipe of the model cannot be followed: {error}") from error
    raise ValueError(f"The recipe of the model is of an unknown kind: {recipe.get('kind')!r}.")


def _check_size(part: Any, depth: int = 0) -> None:
    if isinstance(part, str):
        if len(part) > MOST_LETTERS:
            raise ValueError(f"a text of {len(part):,} letters; at most {MOST_LETTERS:,} are read")
    elif isinstance(part, (list, tuple, Mapping)):
        if len(part) > MOST_ENTRIES:
            raise ValueError(f"{len(part):,} entries in one place; at most {MOST_ENTRIES} are read")
        if depth >= MOST_DEPTH:
            raise ValueError(f"more than {MOST_DEPTH} levels")
        inner = [*part.keys(), *part.values()] if isinstance(part, Mapping) else part
        for value in inner:
            _check_size(value, depth + 1)


def _made(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_made(part) for part in value)
    if not isinstance(value, dict):
        return value
    if "variable" in value:
        return read_variable(value["variable"])
    if "conditional" in value:
        return Conditional(read_variable(value["conditional"]), learned=value["learned"] is True)
    if "activation" in value:
        if value["activation"] not in ACTIVATIONS:
            raise ValueError(f"unknown activation {value['activation']!r}")
        return getattr(nn, value["activation"])
    settings = {name: _made(part) for name, part in value["settings"].items()}
    return functools.partial(NETWORKS[value["network"]], **settings)
