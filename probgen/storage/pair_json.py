"""How a pair is built again in another process: a description in plain JSON, never a pickle.

A description holds formulas, names of library classes, and numbers. Building a pair from it runs
only the library's own code and classes that the user registered in this process. Descriptions of a
user's Python file are not built here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from probgen.basics.randomness import fixed_seed
from probgen.conditionals import Conditional
from probgen.declare import DeclaredModel, declare
from probgen.models import MODELS
from probgen.networks import MLP, ConvDecoder, ConvEncoder
from probgen.pair import LatentVariableModel
from probgen.pair_source import DEFAULT_NAME
from probgen.variables import Variable, read_variable, variable_text

Description = dict[str, Any]

NETWORKS: dict[str, type[nn.Module]] = {c.__name__: c for c in (MLP, ConvEncoder, ConvDecoder)}
ACTIVATIONS: tuple[str, ...] = tuple(torch.nn.modules.activation.__all__)

MOST_ENTRIES, MOST_LETTERS, MOST_DEPTH = 100, 10_000, 10
"""How large the lists and dicts of a description, its texts and its nesting may be: it may be of
unknown origin, and a pair is built from it."""


class _NotPlainError(Exception):
    """A value that JSON cannot hold, such as a network that the user wrote."""


# ---------------------------------------------------------------- from a pair


def pair_to_json(pair: LatentVariableModel) -> Description:
    """The description of a pair, from which `pair_from_json` builds it with random weights.

    Returns:
        A dict with the key `"kind"`: `"declared"` by a formula; `"library"`, a class of
        `pg.models`; `"registered"`, a class given to `pg.register_model`; `"file"`, a user's
        Python file; or `"own"` if only the author's code can build the pair.
    """
    attributes = vars(pair)
    if "_file" in attributes:
        return dict(attributes["_file"])
    try:
        if isinstance(pair, DeclaredModel):
            return _declared_to_json(pair)
        return _instance_to_json(pair)
    except _NotPlainError:
        return describe_own_code(pair)


def describe_own_code(pair: LatentVariableModel) -> Description:
    """A description that can only be compared, not built: the class and the parts of the pair."""
    name = f"{type(pair).__module__}.{type(pair).__qualname__}"
    return {"kind": "own", "class": name, "parts": nn.Module.__repr__(pair)}


def _declared_to_json(pair: DeclaredModel) -> Description:
    p, q, hidden, activation, variables, given = vars(pair)["_declared"]
    description = {
        "kind": "declared",
        "p": p,
        "q": q,
        "variables": {name: _variable_to_json(v) for name, v in variables.items()},
        "hidden": list(hidden),
        "activation": _value_to_json(activation),
        "own": {name: _value_to_json(value) for name, value in given.items()},
    }
    # Only if they are set, so that the description equals that of older run directories.
    if pair.local:
        description["local"] = True
    if pair.name != DEFAULT_NAME:
        description["name"] = pair.name
    return description


def _instance_to_json(pair: LatentVariableModel) -> Description:
    """The description of an instance of a registered class."""
    cls = type(pair)
    name = MODELS.name_of(cls)
    if name is None:
        raise _NotPlainError
    args, named = vars(pair)["_arguments"]
    bound = inspect.signature(cls).bind(*args, **named)
    arguments = {name: _value_to_json(value) for name, value in bound.arguments.items()}
    if MODELS.library_name_of(cls) is not None:
        return {"kind": "library", "class": cls.__name__, "arguments": arguments}
    place = f"{cls.__module__}.{cls.__qualname__}"
    return {"kind": "registered", "name": name, "class": place, "arguments": arguments}


def _variable_to_json(variable: Variable) -> str:
    text = variable_text(variable)
    if text is None:
        raise _NotPlainError
    return text


def _value_to_json(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Variable):
        return {"variable": _variable_to_json(value)}
    if isinstance(value, (tuple, list)):
        return [_value_to_json(part) for part in value]
    name = getattr(value, "__name__", "")
    if name in ACTIVATIONS and getattr(nn, name) is value:
        return {"activation": name}
    if NETWORKS.get(name) is value:
        return {"network": name, "settings": {}}
    if isinstance(value, functools.partial) and not value.args:
        settings = {key: _value_to_json(part) for key, part in value.keywords.items()}
        name = getattr(value.func, "__name__", "")
        if NETWORKS.get(name) is value.func:
            return {"network": name, "settings": settings}
    if type(value) is Conditional and not value.parents:
        return {"conditional": _variable_to_json(value.variable), "learned": value.learned}
    raise _NotPlainError


# ---------------------------------------------------------------- to a pair


def pair_from_json(description: Mapping[str, Any]) -> LatentVariableModel:
    """Build the pair that a description describes; its weights are random.

    The global random state stays as it was.

    Raises:
        ValueError: the description is of no kind that can be built, too large, or names something
            that does not exist or is not registered in this process.
    """
    builders = {
        "declared": _declared_from_json,
        "library": _library_instance_from_json,
        "registered": _registered_instance_from_json,
    }
    try:
        _check_size(description)
        builder = builders.get(description["kind"])
        if builder is not None:
            with fixed_seed(0, torch.device("cpu")):
                return builder(description)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"The model cannot be built from its description: {error}") from error
    kind = description.get("kind")
    raise ValueError(f"The description of the model is of an unknown kind: {kind!r}.")


def _declared_from_json(description: Mapping[str, Any]) -> LatentVariableModel:
    given = {name: _value_from_json(value) for name, value in description["own"].items()}
    variables = {name: read_variable(text) for name, text in description["variables"].items()}
    return declare(
        description["p"],
        description["q"],
        hidden=description["hidden"],
        activation=_value_from_json(description["activation"]),
        local=description.get("local", False),
        name=description.get("name"),
        **variables,
        **given,
    )


def _library_instance_from_json(description: Mapping[str, Any]) -> LatentVariableModel:
    names = MODELS.attributes()
    if description["class"] not in names:
        raise ValueError(f"there is no model {description['class']!r} in pg.models")
    return _instance(MODELS.get(names[description["class"]]), description)


def _registered_instance_from_json(description: Mapping[str, Any]) -> LatentVariableModel:
    name, place = description["name"], description["class"]
    if name not in MODELS.registered_names():
        raise ValueError(
            f"it is {place}, a model of your own that is not registered in this process; import the "
            "module that defines it, which calls pg.register_model, and load the run again"
        )
    return _instance(MODELS.get(name), description)


def _instance(cls: Any, description: Mapping[str, Any]) -> LatentVariableModel:
    pair: LatentVariableModel = cls(
        **{name: _value_from_json(value) for name, value in description["arguments"].items()}
    )
    return pair


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


def _value_from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_value_from_json(part) for part in value)
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
    settings = {name: _value_from_json(part) for name, part in value["settings"].items()}
    return functools.partial(NETWORKS[value["network"]], **settings)
