"""What feeds a training: data, checked and on their device, cut into batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from probgen.data.dataset import Splits, fingerprint
from probgen.inference.compute.devices import as_dtype
from probgen.inference.compute.processes import Group
from probgen.inference.inputs import check_other_parts, prepare
from probgen.inference.objectives.base import Objective
from probgen.inference.training.batches import (
    BATCH_SIZE,
    VALIDATION_ROWS,
    Resident,
    Stratified,
    Stream,
    is_stream,
)
from probgen.inference.training.descriptions import describe_data
from probgen.inference.training.settings import Settings

DIFFERENT_DATA = (
    "fit: the processes were given different data, or other batch sizes. Load the same data in each of them: "
    "each takes its share of every batch by itself."
)


@dataclass(frozen=True)
class Feed:
    """What feeds a training.

    Attributes:
        training: batches of the training data.
        validation: blocks of the validation data, if there are any.
        validation_objective: what they are validated by.
        constants: numbers of all the training data that the objective takes.
        validation_constants: likewise of the validation data.
        group: the processes that share each batch.
        about: sizes, shapes, transformations and hashes of the data, for a run directory.
    """

    training: Resident | Stream
    validation: Resident | None
    validation_objective: Objective
    constants: Mapping[str, float]
    validation_constants: Mapping[str, float]
    group: Group | None
    about: Mapping[str, Any]


def prepare_feed(
    pair: Any, data: Any, objective: Objective, settings: Settings, group: Group | None
) -> Feed:
    """Choose the parts of the data, check and convert them, and cut them into batches.

    Args:
        pair: the model, on its device and in its precision.
        data: as given to `fit`.
        objective: checks the data, and says how batches are composed.
        settings: of the fit.
        group: the processes that share each batch.

    Raises:
        ValueError: data that do not fit the pair or the objective, or `patience` without validation data.
        TypeError: data of the wrong kind.
    """
    splits = data if isinstance(data, Splits) else None
    training_data = data.train if splits is not None else data
    validation_data = _validation_data(splits, objective, settings)
    where: dict[str, Any] = {"device": settings.device, "dtype": as_dtype(settings.precision)}
    training = _training(pair, training_data, objective, settings.batch_size, where, group)
    validation = None
    if validation_data is not None:
        prepared = prepare(pair, validation_data, owner="fit, validation data", **where)
        objective.check_validation(prepared)
        validation = Resident(prepared, VALIDATION_ROWS, clamp=True, group=group)
    if group is not None:
        group.check_same(_fingerprints(training, validation), DIFFERENT_DATA)
    if splits is not None:
        check_other_parts(pair, splits, "fit")
    judge = objective.for_validation()
    about = describe_data(
        getattr(training, "data", training_data), validation and validation.data, splits,
        given=splits is not None and validation_data is not splits.validation,
    )  # fmt: skip
    return Feed(
        training, validation, judge,
        {} if isinstance(training, Stream) else dict(objective.constants(training.data)),
        {} if validation is None else dict(judge.constants(validation.data)),
        group, about,
    )  # fmt: skip


def check_shareable(data: Any, devices: int, group: Group | None) -> None:
    """Several processes need data that are all there.

    Raises:
        ValueError: an iterable of batches.
    """
    if (devices == 1 and group is None) or isinstance(data, Splits) or not is_stream(data):
        return
    several = "several devices" if group is None else f"{group.size} processes"
    one = "use devices=1" if group is None else "start one process"
    raise ValueError(
        f"fit: {several} share data that are all there; give a Dataset or arrays in place of an iterable "
        f"of batches, or {one}."
    )


def _validation_data(splits: Splits | None, objective: Objective, settings: Settings) -> Any:
    data = settings.validation
    if isinstance(data, str):
        if data != "auto":
            raise ValueError(f'fit: validation must be "auto", None or data, got {data!r}.')
        data = None if splits is None or not objective.has_validation else splits.validation
    elif data is not None and not objective.has_validation:
        raise ValueError(
            f"fit: the objective {type(objective).__name__} has no value of validation data; use "
            "validation=None, and watch the training by metrics or a callback."
        )
    if settings.patience is not None and data is None:
        way_out = (
            "give validation=..., or Splits with a validation part (pg.Dataset.split)"
            if objective.has_validation
            else f"and the objective {type(objective).__name__} has no value of it; use patience=None"
        )
        raise ValueError(f"fit: patience={settings.patience} needs validation data; {way_out}.")
    return data


def _training(
    pair: Any, data: Any, objective: Objective, batch_size: int | None, where: Mapping[str, Any],
    group: Group | None,
) -> Resident | Stream:  # fmt: skip
    if is_stream(data):
        objective.check_stream()
        return Stream(pair, data, {**where, "learning": True})
    dataset = prepare(pair, data, owner="fit", learning=True, **where)
    batches = Resident(dataset, batch_size or BATCH_SIZE, clamp=batch_size is None, group=group)
    objective.check_data(dataset)
    composed = objective.composition(dataset, batches.size)
    if composed is None:
        return batches
    return Stratified(dataset, batches.size, composed.label, composed.labelled, group)


def _fingerprints(training: Resident | Stream, validation: Resident | None) -> list[Any]:
    """What several processes must agree on: the data and the size of a batch."""
    parts = [part for part in (training, validation) if isinstance(part, Resident)]
    return [(part.size, fingerprint(part.data.values, part.data.observed)) for part in parts]
