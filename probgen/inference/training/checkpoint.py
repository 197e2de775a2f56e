"""Conversion of the state of a training into tensors and a record, and back.

The names of the tensors begin with:

    pair/                weights of the pair after the epoch
    best/                weights of the best epoch so far, if they are stored
    objective/           weights of the objective's networks after the epoch
    best-objective/      weights of the objective's networks in the best epoch
    optimizer/           optimizer state of the first player
    optimizers/NAME/     optimizer state of every other player
    scheduler/           scheduler state of the first player
    schedulers/NAME/     scheduler state of every other player
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from probgen.inference.training.results import resume_progress
from probgen.storage.files import RunError, pack, unpack

Record = dict[str, Any]

_PREFIXES = {"pair.": ("pair/", "best/"), "networks.": ("objective/", "best-objective/")}
"""Prefixes in a checkpoint of the latest weights and of the best ones, by part of the module."""


def state_of(training: Any) -> tuple[dict[str, Tensor], Record]:
    """Convert the state of a training.

    Args:
        training: a `TrainingState`.

    Returns:
        The tensors by name, and a record of everything else.
    """
    states = (training.module.state_dict(), training.best or {})
    tensors: dict[str, Tensor] = {}
    for which, state in enumerate(states):
        for name, tensor in state.items():
            part = next(part for part in _PREFIXES if name.startswith(part))
            short = name.removeprefix(part)
            tensors[_PREFIXES[part][which] + short] = _checked_tensor(short, tensor)
    first, *further = training.learners
    record: Record = {"optimizer": pack(first.optimizer.state_dict(), tensors, "optimizer")}
    if first.scheduler is not None:
        record["scheduler"] = pack(first.scheduler.state_dict(), tensors, "scheduler")
    for kind, attribute in (("optimizers", "optimizer"), ("schedulers", "scheduler")):
        states_by_name = {
            learner.player.name: getattr(learner, attribute).state_dict()
            for learner in further
            if getattr(learner, attribute) is not None
        }
        if states_by_name:
            record[kind] = pack(states_by_name, tensors, kind)
    return tensors, record


def restore_state(
    training: Any, tensors: Mapping[str, Tensor], record: Mapping[str, Any], path: Path
) -> None:
    """Set the state of a training to what `state_of` returned, in this version or an earlier one.

    Raises:
        RunError: the state is that of another model, other networks or other optimizers.
    """
    module = training.module
    pair, best = split_weights(tensors)
    load_weights(module.pair, pair, path)
    networks, best_networks = (_with_prefix(prefix, tensors) for prefix in _PREFIXES["networks."])
    if module.networks is not None:
        load_weights(module.networks, networks, path, "the networks of the objective")
    elif networks:
        raise RunError(
            f"{path} has networks of an objective, and this objective has none. Resume the run with the "
            "objective that it was started with."
        )
    best_parts = {"pair.": best, "networks.": best_networks}
    training.best = {
        part + name: tensor
        for part, weights in best_parts.items()
        for name, tensor in weights.items()
    } or None
    first, *further = training.learners
    try:
        _load(first.optimizer, record["optimizer"], tensors)
        if first.scheduler is not None:
            _load(first.scheduler, record["scheduler"], tensors)
        optimizers = unpack(record["optimizers"], tensors) if further else {}
        schedulers = unpack(record.get("schedulers", {"dict": []}), tensors)
        for learner in further:
            learner.optimizer.load_state_dict(optimizers[learner.player.name])
            if learner.scheduler is not None:
                learner.scheduler.load_state_dict(schedulers[learner.player.name])
        resume_progress(training.result, record["progress"])
    except _LOADING_ERRORS as error:
        raise RunError(
            f"{path} does not hold the state of this training ({error!r}). Restore the file, or use "
            "another folder."
        ) from error


def _load(target: Any, packed: Any, tensors: Mapping[str, Tensor]) -> None:
    target.load_state_dict(unpack(packed, tensors))


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


_LOADING_ERRORS = (
    ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError, ValueError
)  # fmt: skip
"""What optimizers and schedulers raise when they load a state that does not belong to them."""


def split_weights(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The latest weights and the best ones of a checkpoint, by the pair's names."""
    return _with_prefix("pair/", tensors), _with_prefix("best/", tensors)


def load_weights(
    pair: Any, weights: Mapping[str, Tensor], path: Path, name: str | None = None
) -> None:
    """Load weights into a pair, or into another module.

    Args:
        pair: the pair or the module.
        weights: tensors by name.
        path: the file that they come from.
        name: what messages call the module; by default the name of the pair.

    Raises:
        RunError: names, shapes or precision differ.
    """
    check_shapes(pair, weights, path, name)
    owner = name or pair.name
    for part, tensor in pair.state_dict().items():
        if tensor.dtype != weights[part].dtype:
            raise RunError(
                f"{path} does not fit {owner}: {part} has dtype {weights[part].dtype} in the run, but "
                f"{tensor.dtype} by the precision in its config.json. One of the two was changed."
            )
    pair.load_state_dict(weights)


def check_shapes(
    pair: Any, weights: Mapping[str, Tensor], path: Path, name: str | None = None
) -> None:
    """Check that weights have the names and shapes of a pair's, or of another module's.

    Raises:
        RunError: names or shapes differ.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in pair.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != stored:
        names = expected.keys() | stored.keys()
        first = min(n for n in names if expected.get(n) != stored.get(n))
        raise RunError(
            f"{path} does not fit {name or pair.name}: {first} has shape {stored.get(first)} in the run and "
            f"{expected.get(first)} in the pair. Give the pair that was trained."
        )


def _checked_tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"fit: {name} in the pair's state_dict is of type {type(value).__name__}, but a run directory "
            "stores only tensors. Register it as a buffer, or leave it out of the state_dict."
        )
    return value
