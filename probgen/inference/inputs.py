"""What users hand over, checked against the pair: one Dataset of the variables it knows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.basics.tensors import as_tensor
from probgen.data.dataset import Dataset, Splits
from probgen.data.support import (
    check_finite,
    check_range,
    check_shape,
    check_support,
    convert,
    is_class,
    warn_coarse,
)
from probgen.implicit import ImplicitModel, check_pair
from probgen.inference.compute.devices import as_device, placed
from probgen.inference.informed import check_informed
from probgen.inference.traces import PairTrace, Site, trace_pair
from probgen.pair import LatentVariableModel, is_summable
from probgen.variables import Variable

REDRAWN = "data that are drawn anew in every batch"
"""What a variable is whose values are probabilities."""


def prepare(
    pair: LatentVariableModel,
    data: Any,
    *,
    owner: str,
    device: torch.device,
    dtype: torch.dtype,
    probe: bool = True,
    learning: bool = False,
) -> Dataset:
    """Select the pair's variables, check names, shapes and supports over all data, and convert.

    Args:
        pair: on the device and of the dtype given.
        data: a Dataset, a dict of arrays by variable name, or one array for a pair with one
            data variable.
        owner: the function that messages name.
        device: where the values go.
        dtype: of values that are not classes.
        probe: run the pair on two data first, so that breaches of its contract show; a stream of
            batches does so once.
        learning: refuse latents that no data inform, unless the pair says that they are meant.

    Raises:
        TypeError: data of the wrong kind.
        ValueError: unknown or missing variables, a wrong shape, values outside the support.
    """
    dataset = as_dataset(pair, data, owner)
    known = variable_names(pair)
    if isinstance(data, Mapping):
        unknown = [name for name in dataset.values if name not in known]
        if unknown:
            raise ValueError(
                f"{owner}: {pair.name} has no variable {', '.join(unknown)}; "
                f"its variables are {', '.join(known)}."
            )
    selected = {name: value for name, value in dataset.values.items() if name in known}
    missing = [name for name in pair.data_names if name not in selected]
    if missing or not selected:
        raise ValueError(
            f"{owner}: {pair.name} needs {', '.join(missing or pair.data_names or known)}, got "
            f"{', '.join(dataset.values)}. Give every data variable by its name."
        )
    masks = {n: m for n, m in dataset.observed.items() if n in selected}
    variables, summable = pair.variables, pair.summed_names
    for name in [name for name in masks if name in variables and name not in summable]:
        if not bool(masks[name].all()):
            raise ValueError(
                f"{owner}: {name} is observed for some data only, but {pair.name} cannot sum it out "
                f"where it is missing. {_way_out(pair, name, variables[name])}"
            )
        del masks[name]
    for name, value in selected.items():
        if name in variables:
            check_shape(value, variables[name], name, owner, pair.name)
    fields = {n: replace(dataset.fields[n], observed=masks.get(n)).to(device) for n in selected}
    dataset = Dataset.from_fields(fields, dataset.name)
    values, masks = dataset.values, dataset.observed
    sites: dict[str, Site] = {}
    implicit = isinstance(pair, ImplicitModel)  # nothing to run on data: it has no density
    if not implicit and (probe or any(name not in variables for name in values)):
        passed = _probe(pair, dataset, dtype)
        sites = passed.model
        if learning and probe:
            known = [name for name in values if name not in masks or bool(masks[name].all())]
            check_informed(pair, passed, known, owner)
    for name, value in values.items():
        site = sites.get(name)
        support = variables[name].support if name in variables else site and site["fn"].support
        family = repr(variables[name]) if name in variables else f"supported on {support}"
        value, mask = _check_values(
            dataset, name, value, support, f"{pair.name} is {family}", owner, variables.get(name)
        )
        if not is_class(variables.get(name)):
            check_range(value, dtype, name, owner, mask)
        if (
            probe
            and dtype == torch.float32
            and fields[name].noise is None
            and not is_class(variables.get(name))
        ):
            warn_coarse(value, name, owner)
    converted = {name: convert(v, variables.get(name), dtype) for name, v in values.items()}
    return dataset.with_fields(**{n: fields[n].with_values(v) for n, v in converted.items()})


def place_and_prepare(
    pair: LatentVariableModel, data: Any, owner: str, device: str | torch.device
) -> tuple[LatentVariableModel, Dataset]:
    """The pair and the data on a device, in the precision of the pair."""
    check_pair(pair, owner)
    target = as_device(device)
    dtype = next((p.dtype for p in pair.parameters()), torch.get_default_dtype())
    on_device = placed(pair, target, dtype)
    return on_device, prepare(on_device, data, owner=owner, device=target, dtype=dtype)


def check_other_parts(pair: LatentVariableModel, splits: Splits, owner: str) -> None:
    """Shapes and supports of validation and test data, which training does not look at.

    What is wrong with them would show when they are scored, after the training. Labels that are unknown
    and variables that are not there may be fine then.

    Raises:
        ValueError: a wrong shape, or values outside the support; says of which part.
    """
    variables = pair.variables
    for part, data in splits.parts.items():
        if part == "train":
            continue
        for name in [name for name in data.values if name in variables]:
            value, variable = data[name], variables[name]
            about, described = f"{owner}, {part} data", f"{pair.name} is {variable!r}"
            check_shape(value, variable, name, about, pair.name)
            _check_values(data, name, value, variable.support, described, about, variable)


def _check_values(
    data: Dataset,
    name: str,
    value: Tensor,
    support: Any,
    described: str,
    owner: str,
    variable: Variable | None,
) -> tuple[Tensor, Tensor | None]:
    """All values of a variable against its support; what a step sees of them, and their mask.

    Where there is no support, values are to be finite; where they are drawn anew in every batch, they
    are probabilities, and a step sees zeros and ones.
    """
    mask, noise = data.observed.get(name), data.fields[name].noise
    if noise is not None and noise.support is not None:
        check_support(value, noise.support, name, owner, REDRAWN, mask)
        value, mask = noise.without_noise(value[:1]), None
    if support is None:
        check_finite(value, name, owner, mask)
    else:
        check_support(value, support, name, owner, described, mask, variable=variable)
    return value, mask


def as_dataset(pair: LatentVariableModel, data: Any, owner: str) -> Dataset:
    """A Dataset from whatever holds data."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Splits):
        raise TypeError(f"{owner}: got all splits of the data; choose one, such as data.test.")
    if is_one_array(data):
        data = data[0]
    if isinstance(data, Mapping):
        values = data
    elif isinstance(data, Tensor) or hasattr(data, "__array__"):
        names = pair.data_names or variable_names(pair)[:1]
        if len(names) != 1:
            raise ValueError(
                f"{owner}: {pair.name} has the data variables {', '.join(names)}; give a dict of "
                "arrays by name."
            )
        values = {names[0]: as_tensor(data, names[0], owner)}
    elif isinstance(data, (list, tuple)):
        raise TypeError(
            f"{owner}: a batch of {len(data)} parts has no names; let the loader yield dicts such as "
            "{'x': images}."
        )
    else:
        raise TypeError(
            f"{owner}: data must be a tensor, an array, a pg.Dataset or a dict of arrays by variable "
            f"name, got {type(data).__name__}."
        )
    return Dataset(values)


def is_one_array(data: Any) -> bool:
    """Whether data are a list or tuple of one array, as of a TensorDataset: the array itself is meant."""
    return isinstance(data, (list, tuple)) and len(data) == 1 and hasattr(data[0], "shape")


def variable_names(pair: LatentVariableModel) -> list[str]:
    """Every name that the pair's model takes."""
    parameters = inspect.signature(pair.model).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return list(pair.variables)
    return [p.name for p in parameters]


def known_part(pair: LatentVariableModel, data: Dataset) -> Dataset:
    """The variables of a Dataset that the pair has."""
    names = variable_names(pair)
    return data.only(*[name for name in data.values if name in names])


def _way_out(pair: LatentVariableModel, name: str, variable: Variable) -> str:
    """What to do with a variable that is partly observed and cannot be summed out."""
    if is_summable(variable) and name in pair.factors("p"):
        return f"Drop those data, or add a guide factor q({name} | ...)."
    out = "" if name in pair.data_names else f", or leave {name} out for all data"
    return (
        "Only a scalar class with a distribution may have holes; "
        f"a {variable!r} is given for all data or for none. Drop those data, or fill the holes{out}."
    )


def _probe(pair: LatentVariableModel, dataset: Dataset, dtype: torch.dtype) -> PairTrace:
    """Run the pair once on two data: breaches of the contract show before the first step."""
    few = dataset.subset(slice(0, 2))
    variables = pair.variables
    values = {}
    for name, value in few.values.items():
        noise = few.fields[name].noise
        if noise is not None:
            value = noise.without_noise(value)
        if is_class(variables.get(name)):
            # Values are checked later; here only shapes and structure matter.
            values[name] = torch.zeros_like(value, dtype=torch.long)
        else:
            values[name] = torch.zeros_like(value, dtype=dtype) if name in variables else value
            if value.is_floating_point() or value.dtype == torch.bool:
                values[name] = values[name].to(dtype)
    device = next(iter(values.values())).device
    with evaluation(pair), fixed_seed(0, device):
        return trace_pair(pair, values, observed=few.observed)
