"""Data of users, checked against the pair and converted: one Dataset of the variables of the pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.data.dataset import Dataset, Splits
from probgen.data.field import Field
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
from probgen.inference.compute.processes import Group
from probgen.inference.informed import check_informed
from probgen.inference.traces import PairTrace, Site, trace_pair
from probgen.pair import LatentVariableModel, is_summable
from probgen.structure import variable_names
from probgen.variables import Variable

REDRAWN = "data that are drawn anew in every batch"
"""What a variable is whose values are probabilities."""


def check_given(pair: Any, data: Any, devices: int, group: Group | None) -> bool:
    """Check what can be checked before the data of `fit` are sent to processes or converted.

    Args:
        pair: the pair.
        data: as given to `fit`.
        devices: the number of processes that `fit` is asked to start.
        group: the processes that a launcher started.

    Returns:
        Whether the data are an iterable of batches, and not the data themselves.

    Raises:
        ValueError: several processes and an iterable of batches, which they cannot share; or splits
            with a wrong shape or values outside the support.
    """
    if isinstance(data, Splits):
        # The process that starts others has checked the parts already.
        if group is None or not group.spawned:
            _check_parts(pair, data, "fit")
        return False
    streamed = _is_stream(data)
    if streamed and (devices > 1 or group is not None):
        several = "several devices" if group is None else f"{group.size} processes"
        one = "use devices=1" if group is None else "start one process"
        raise ValueError(
            f"fit: {several} cannot share an iterable of batches; give a Dataset or arrays, or {one}."
        )
    return streamed


def _is_stream(data: Any) -> bool:
    if isinstance(data, (Tensor, Mapping, Dataset, str, type)) or hasattr(data, "__array__"):
        return False
    return hasattr(data, "__iter__") and not _is_one_array(data)


def _is_one_array(data: Any) -> bool:
    """Whether data are a list or tuple of one array, as a TensorDataset yields; it stands for the array."""
    return isinstance(data, (list, tuple)) and len(data) == 1 and hasattr(data[0], "shape")


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
        probe: run the pair on two data first, so that breaches of its contract show; for a stream of
            batches that is done with the first one only.
        learning: refuse latents that no data inform, unless the pair has `local = True`.

    Raises:
        TypeError: data of the wrong kind.
        ValueError: unknown or missing variables, a wrong shape, values outside the support.
    """
    dataset = _select(pair, data, owner).to(device)
    variables, masks = pair.variables, dataset.observed
    sites: dict[str, Site] = {}
    # An implicit model has no density, so it is not run on data.
    if not isinstance(pair, ImplicitModel) and (
        probe or not variables.keys() >= set(dataset.values)
    ):
        trace = _probe(pair, dataset, dtype)
        sites = trace.model
        if learning and probe:
            complete = [n for n in dataset.values if n not in masks or bool(masks[n].all())]
            conditional = {**pair.factors("p"), **pair.factors("q")}
            inputs = [name for name in dataset.values if name not in conditional]
            constant = [name for name in inputs if _is_constant(dataset[name])]
            check_informed(pair, trace, complete, constant, owner)
    for name in dataset.values:
        _check_variable(pair, dataset, name, sites.get(name), dtype, owner, warn=probe)
    converted = {n: convert(v, variables.get(n), dtype) for n, v in dataset.values.items()}
    return dataset.with_fields(
        **{n: dataset.fields[n].with_values(v) for n, v in converted.items()}
    )


def _check_parts(pair: LatentVariableModel, splits: Splits, owner: str) -> None:
    """Check shapes of all parts, and the values of validation and test data, before the training.

    Otherwise errors in those data would show only when they are scored, after the training. Unknown labels
    and missing variables are allowed here.

    Raises:
        ValueError: a wrong shape, or values outside the support; says of which part.
    """
    variables = pair.variables
    for part, data in splits.parts.items():
        about = owner if part == "train" else f"{owner}, {part} data"
        for name in [name for name in data.values if name in variables]:
            value, variable = data[name], variables[name]
            check_shape(value, variable, name, about, pair.name)
            if part != "train":  # `prepare` checks those
                described = f"{pair.name} is {variable!r}"
                _check_values(data, name, value, variable.support, described, about, variable)


def _select(pair: LatentVariableModel, data: Any, owner: str) -> Dataset:
    """The variables of the pair as a Dataset, with masks for those that may be partly observed.

    Raises:
        TypeError: data of the wrong kind.
        ValueError: unknown or missing variables, a wrong shape, or a mask of a variable that cannot
            be summed out.
    """
    dataset = _as_dataset(pair, data, owner)
    names = variable_names(pair)
    if isinstance(data, Mapping):
        unknown = [name for name in dataset.values if name not in names]
        if unknown:
            raise ValueError(
                f"{owner}: {pair.name} has no variable {', '.join(unknown)}; "
                f"its variables are {', '.join(names)}."
            )
    selected = {name: value for name, value in dataset.values.items() if name in names}
    missing = [name for name in pair.data_names if name not in selected]
    if missing or not selected:
        raise ValueError(
            f"{owner}: {pair.name} needs {', '.join(missing or pair.data_names or names)}, got "
            f"{', '.join(dataset.values)}. Give every data variable by its name."
        )
    masks = {n: m for n, m in dataset.observed.items() if n in selected}
    variables, summable = pair.variables, pair.summed_names
    for name in [name for name in masks if name in variables and name not in summable]:
        if not bool(masks[name].all()):
            raise ValueError(
                f"{owner}: {name} is observed for some data only, but {pair.name} cannot sum it out "
                f"where it is missing. {_what_to_do(pair, name, variables[name])}"
            )
        del masks[name]
    for name, value in selected.items():
        if name in variables:
            check_shape(value, variables[name], name, owner, pair.name)
    fields = {n: replace(dataset.fields[n], observed=masks.get(n)) for n in selected}
    return Dataset.from_fields(fields, dataset.name)


def _is_constant(value: Tensor) -> bool:
    """Whether all data have the same value."""
    return bool((value == value[:1]).all())


def _as_dataset(pair: LatentVariableModel, data: Any, owner: str) -> Dataset:
    """A Dataset of the data, which may be one, arrays by name, or one array."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Splits):
        raise TypeError(f"{owner}: got all splits of the data; choose one, such as data.test.")
    if _is_one_array(data):
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
        values = {names[0]: data}
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
    return Dataset.from_fields({name: Field(v) for name, v in values.items()}, owner=owner)


def _check_variable(
    pair: LatentVariableModel, dataset: Dataset, name: str, site: Site | None, dtype: torch.dtype,
    owner: str, *, warn: bool,
) -> None:  # fmt: skip
    """All values of a variable against its support, and whether the dtype can hold them."""
    variable = pair.variables.get(name)
    if variable is not None:
        support, family = variable.support, repr(variable)
    else:
        support = None if site is None else site["fn"].support
        family = f"supported on {support}"
    value, mask = _check_values(
        dataset, name, dataset[name], support, f"{pair.name} is {family}", owner, variable
    )
    if is_class(variable):
        return
    check_range(value, dtype, name, owner, mask)
    if warn and dtype == torch.float32 and dataset.fields[name].noise is None:
        warn_coarse(value, name, owner)


def place_and_prepare(
    pair: LatentVariableModel, data: Any, owner: str, device: str | torch.device
) -> tuple[LatentVariableModel, Dataset]:
    """The pair and the data on a device, in the precision of the pair."""
    check_pair(pair, owner)
    target = as_device(device)
    dtype = next((p.dtype for p in pair.parameters()), torch.get_default_dtype())
    on_device = placed(pair, target, dtype)
    return on_device, prepare(on_device, data, owner=owner, device=target, dtype=dtype)


def _check_values(
    data: Dataset,
    name: str,
    value: Tensor,
    support: Any,
    described: str,
    owner: str,
    variable: Variable | None,
) -> tuple[Tensor, Tensor | None]:
    """Check all values of a variable against its support.

    Without a support, values must be finite. Values that are binarized anew in every batch must be
    probabilities; what is returned are then zeros and ones, as in a training step.

    Returns:
        The values that a training step sees, and the mask of those that are observed.
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


def known_part(pair: LatentVariableModel, data: Dataset) -> Dataset:
    """The variables of a Dataset that the pair has."""
    names = variable_names(pair)
    return data.only(*[name for name in data.values if name in names])


def _what_to_do(pair: LatentVariableModel, name: str, variable: Variable) -> str:
    """What to do with a variable that is partly observed and cannot be summed out."""
    if is_summable(variable) and name in pair.factors("p"):
        return f"Drop those data, or add a guide factor q({name} | ...)."
    out = "" if name in pair.data_names else f", or leave {name} out for all data"
    return (
        "Only a scalar class with a distribution may have holes; "
        f"a {variable!r} is given for all data or for none. Drop those data, or fill the holes{out}."
    )


def _probe(pair: LatentVariableModel, dataset: Dataset, dtype: torch.dtype) -> PairTrace:
    """Run the pair once on two data, so that breaches of the contract show before the training."""
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
