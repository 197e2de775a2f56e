"""The data of a training: checked, on their device, and divided into batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from probgen.data.dataset import Dataset, Splits
from probgen.data.fingerprint import fingerprint
from probgen.inference.compute.devices import as_dtype
from probgen.inference.compute.processes import Group
from probgen.inference.inputs import prepare
from probgen.inference.objectives.base import Objective
from probgen.inference.training.batches import (
    BATCH_SIZE,
    VALIDATION_ROWS,
    Resident,
    Stratified,
    Stream,
)
from probgen.inference.training.descriptions import describe_data
from probgen.inference.training.settings import Settings

DIFFERENT_DATA = (
    "fit: the processes were given different data, or other batch sizes. Load the same data in each of them: "
    "each takes its share of every batch by itself."
)


@dataclass(frozen=True)
class Feed:
    """The data of a training, in batches.

    Attributes:
        training: batches of the training data.
        validation: blocks of the validation data, if there are any.
        validation_objective: the objective whose value on the validation data is computed.
        constants: numbers of all training data that the objective needs.
        validation_constants: the same numbers of the validation data.
        group: the processes that share each batch.
        splits: the splits that contain the training data, if splits were given.
        own_validation: whether the validation data are not those of the splits.
    """

    training: Resident | Stream
    validation: Resident | None
    validation_objective: Objective
    constants: Mapping[str, float]
    validation_constants: Mapping[str, float]
    group: Group | None
    splits: Splits | None = None
    own_validation: bool = False

    def describe(self) -> dict[str, Any]:
        """Sizes, shapes, transformations and hashes of the data, for a run directory."""
        return describe_data(
            self.training.data, self.validation and self.validation.data, self.splits,
            given=self.own_validation,
        )  # fmt: skip


def prepare_feed(
    pair: Any, data: Any, objective: Objective, settings: Settings, group: Group | None, *,
    streamed: bool,
) -> Feed:  # fmt: skip
    """Choose the parts of the data, check and convert them, and cut them into batches.

    Args:
        pair: the model, on its device and in its precision.
        data: as given to `fit`.
        objective: checks the data, and says how batches are composed.
        settings: of the fit.
        group: the processes that share each batch.
        streamed: the data are an iterable of batches.

    Raises:
        ValueError: data that do not fit the pair or the objective, or `patience` without validation data.
        TypeError: data of the wrong kind.
    """
    splits = data if isinstance(data, Splits) else None
    training_data = data.train if splits is not None else data
    validation_data = _validation_data(splits, objective, settings)
    place: dict[str, Any] = {"device": settings.device, "dtype": as_dtype(settings.precision)}
    training: Resident | Stream
    if streamed:
        objective.check_stream()
        training = Stream(pair, training_data, {**place, "learning": True})
    else:
        prepared = prepare(pair, training_data, owner="fit", learning=True, **place)
        training = _batches(prepared, objective, settings.batch_size, group)
    validation = None
    if validation_data is not None:
        prepared = prepare(pair, validation_data, owner="fit, validation data", **place)
        objective.check_validation(prepared)
        validation = Resident(prepared, VALIDATION_ROWS, clamp=True, group=group)
    if group is not None and not group.spawned:  # each process has loaded data of its own
        group.check_same(_fingerprints(training, validation), DIFFERENT_DATA)
    validation_objective = objective.for_validation()
    return Feed(
        training, validation, validation_objective,
        {} if isinstance(training, Stream) else dict(objective.constants(training.data)),
        {} if validation is None else dict(validation_objective.constants(validation.data)),
        group, splits, splits is not None and validation_data is not splits.validation,
    )  # fmt: skip


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
        advice = (
            "give validation=..., or Splits with a validation part (pg.Dataset.split)"
            if objective.has_validation
            else f"and the objective {type(objective).__name__} has no value of it; use patience=None"
        )
        raise ValueError(f"fit: patience={settings.patience} needs validation data; {advice}.")
    return data


def _batches(
    data: Dataset, objective: Objective, batch_size: int | None, group: Group | None
) -> Resident:
    """Batches of training data that the objective accepts, composed as it needs them."""
    batches = Resident(data, batch_size or BATCH_SIZE, clamp=batch_size is None, group=group)
    objective.check_data(data)
    composed = objective.composition(data, batches.size)
    if composed is None:
        return batches
    return Stratified(data, batches.size, composed.label, composed.labelled, group)


def _fingerprints(training: Resident | Stream, validation: Resident | None) -> list[Any]:
    """What several processes must agree on: the data and the size of a batch."""
    parts = [part for part in (training, validation) if isinstance(part, Resident)]
    return [(part.size, fingerprint(part.data.values, part.data.observed)) for part in parts]
