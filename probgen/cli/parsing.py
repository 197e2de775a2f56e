"""Convert text from the command line to arguments: pairs, variables, transformations, splits."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Collection, Container, Sequence
from typing import Any

import numpy as np
import torch

import probgen as pg
from probgen.data.dataset import Dataset
from probgen.formula import parse
from probgen.models import MODELS
from probgen.networks import as_widths
from probgen.storage.pair_json import ACTIVATIONS
from probgen.variables import Variable, family_for, read_variable


def make_pair(
    model: str | None, p: str | None, q: str | None, var: Sequence[str], hidden: str | None,
    activation: str | None, data: Dataset, local: bool = False, name: str | None = None,
) -> pg.LatentVariableModel:  # fmt: skip
    """A pair from a formula, a library name or a file, with the shapes of the data.

    Raises:
        ValueError: no model or two, an unknown one, or variables that cannot be read.
        FileNotFoundError: no such file.
    """
    if (model is None) == (p is None):
        raise ValueError(
            f"Give one model: a name ({', '.join(MODELS.names())}), a file my_model.py:build, or a formula "
            "by --p and --q."
        )
    texts = assignments(var, "--var")
    reserved = [n for n in texts if n in ("local", "name", "hidden", "activation")]
    if reserved and p is not None:
        raise ValueError(
            f"--var {reserved[0]}: this name is reserved; choose another for the variable."
        )
    variables = {n: read_variable(text, data.values.get(n)) for n, text in texts.items()}
    networks: dict[str, Any] = {}
    if hidden is not None:
        networks["hidden"] = widths(hidden)
    if activation is not None:
        networks["activation"] = _activation(activation)
    if p is not None:
        variables |= _from_data(p, variables, data)
        if name is not None:
            networks["name"] = name
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "declare: .* is drawn anew")  # `check_local` refuses
            return pg.declare(p, q or "", local=local, **{**networks, **variables})
    if local or name is not None:
        raise ValueError("--local and --name are for a formula, given by --p and --q.")
    assert model is not None
    if ":" in model or model.endswith(".py"):
        if var or networks:
            raise ValueError(
                f"--var, --hidden and --activation belong in the code of {model}; leave them out."
            )
        return pg.load_pair(model)
    return _library_pair(model, variables, networks, data)


def _library_pair(
    model: str, variables: dict[str, Variable], networks: dict[str, Any], data: Dataset
) -> pg.LatentVariableModel:
    """An instance of a registered model; its arguments without a default are its variables."""
    if model not in MODELS:
        near = difflib.get_close_matches(model, MODELS.names(), 1)
        raise ValueError(
            f"Unknown model {model!r}; known are {', '.join(MODELS.names())}"
            + (f", did you mean {near[0]}?" if near else ".")
            + ' A file is written my_model.py:build, a formula --p "p(z) p(x | z)" --q "q(z | x)".'
        )
    cls = MODELS.get(model)
    parameters = inspect.signature(cls).parameters
    names = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    refused = [f"--{name}" for name in networks if name not in parameters]
    if refused:
        raise ValueError(f"{model} takes no {' and no '.join(refused)}; leave it out.")
    unknown = [name for name in variables if name not in names]
    if unknown:
        text = f"{', '.join(names[:-1])} and {names[-1]}"
        raise ValueError(f"{model} has the variables {text}, got {', '.join(unknown)}.")
    x = variables.setdefault("x", _default_variable(data))
    latent = pg.Normal(min(8, max(1, int(np.prod(x.event_shape)) // 2)))
    if "y" in names and "y" not in variables:
        if "y" not in data.values:
            raise ValueError(
                f"{model} needs a class y, and the data have none. Name their column with "
                "--labels-column, or give --var y=categorical:10."
            )
        variables["y"] = read_variable("categorical", data["y"])
    pair: pg.LatentVariableModel = cls(
        **{name: variables.get(name, latent) for name in names}, **networks
    )
    return pair


def check_local(pair: pg.LatentVariableModel, known: Collection[str]) -> None:
    """Refuse a formula with a latent whose guide depends on no data, unless --local is given.

    Args:
        pair: the declared pair.
        known: the variables that the data have.

    Raises:
        ValueError: there is such a latent; the message names it and what can be done.
    """
    inferred = pair.factors("q")
    names = [name for name in pair.uninformed_names(known) if name in inferred]
    if names and not pair.local:
        raise ValueError(
            f"The guide of {', '.join(names)} depends on no data, though --p draws {names[0]} for each "
            f"datum. If each datum has its own value, let the guide depend on the data, as in "
            f"q({names[0]} | x). One value for all data, such as the weights of a regression, is not "
            "available yet. If one guide for all data is intended, add --local."
        )


def transform(binarize: str | None, dequantize: bool, standardize: bool) -> Any:
    """The transformation of the data that at most one of three options chooses."""
    if binarize not in (None, "dynamic", "static"):
        raise ValueError(f"--binarize must be dynamic or static, got {binarize!r}.")
    chosen = [binarize] if binarize else []
    chosen += ["dequantize"] * dequantize + ["standardize"] * standardize
    if len(chosen) > 1:
        raise ValueError(
            f"--binarize, --dequantize and --standardize exclude each other; got {len(chosen)}."
        )
    return chosen[0] if chosen else "default"


def two_numbers(text: str) -> tuple[float, float]:
    """Counts or shares of the validation and test data."""
    try:
        first, second = (
            int(part) if part.strip().isdigit() else float(part) for part in text.split(",")
        )
    except ValueError:
        raise ValueError(
            f"--split must be two numbers, validation and test, such as 0.1,0.2 or 500,1000; got {text!r}."
        ) from None
    return first, second


def assignments(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Values by name from texts such as `z=normal:8`."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise ValueError(f"{flag} must be name=value, such as z=normal:8; got {text!r}.")
        if name in values:
            raise ValueError(f"{flag} names {name} twice.")
        values[name] = value.strip()
    return values


def widths(text: str) -> tuple[int, ...]:
    """Widths of layers from text."""
    if text.strip().lower() in ("none", "", "()"):
        return ()
    try:
        return as_widths([int(part) for part in text.split(",")], "--hidden")
    except ValueError:
        raise ValueError(
            f"--hidden must be widths such as 500,500, or none for a linear map; got {text!r}."
        ) from None


def shares(text: str) -> str | tuple[float, ...]:
    """The class prior from text: a word, or the probabilities of the classes."""
    if "," not in text:
        return text
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--class-prior must be learned, uniform or numbers such as 0.9,0.1; got {text!r}."
        ) from None


def _activation(text: str) -> Any:
    names = {name.lower(): name for name in ACTIVATIONS}
    if text.lower() not in names:
        near = difflib.get_close_matches(text.lower(), names, 1)
        hint = f"; did you mean {names[near[0]]}?" if near else ", such as Tanh, ReLU or SiLU."
        raise ValueError(f"--activation {text!r} is not a nonlinearity of torch.nn{hint}")
    return getattr(torch.nn, names[text.lower()])


def _from_data(p: str, given: Container[str], data: Dataset) -> dict[str, pg.Variable]:
    """The variables of a formula that are not given: x and y are inferred from the data.

    Raises:
        ValueError: a formula that cannot be read, or variables that are not in the data either.
    """
    names = dict.fromkeys(n for f in parse(p, "p") for n in (f.name, *f.parents))
    missing = [name for name in names if name not in given]
    unknown = [name for name in missing if name not in data.values]
    if unknown:
        options = " ".join(f"--var {name}=normal:8" for name in unknown)
        raise ValueError(
            f"The data have no {', '.join(unknown)}, so --p needs its family: {options}, or "
            "bernoulli:8, or categorical:10 for a class."
        )
    return {name: _default_variable(data, name) for name in missing}


def _default_variable(data: Dataset, name: str = "x") -> Variable:
    """The variable for data: a class for labels, otherwise the family that fits best."""
    values = data[name]
    if name != "x":
        return read_variable("normal" if values.is_floating_point() else "categorical", values)
    # Values from which each batch draws zeros and ones are stored as probabilities.
    binary = values[:1].round() if name in data.redrawn else values
    return family_for(binary)(tuple(values.shape[1:]))
