"""The state of a training as tensors and a record, and back.

pair/...              weights of the pair after the epoch
best/...              weights of the best epoch so far, if one is kept
objective/...         networks of the objective, and best-objective/... those of the best epoch
optimizer/...         of the first player; optimizers/NAME/... of further ones
scheduler/...         likewise, schedulers/NAME/...
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from probgen.inference.training.results import go_on_from
from probgen.storage.files import RunError, pack, unpack

Record = dict[str, Any]

_PLACES = {"pair.": ("pair/", "best/"), "networks.": ("objective/", "best-objective/")}
"""Where tensors of the training module are stored: the latest, and those of the best epoch."""


def state_of(training: Any) -> tuple[dict[str, Tensor], Record]:
    """Tensors by name, and a record of everything else.

    Args:
        training: a `Training`.
    """
    states = (training.module.state_dict(), training.best or {})
    tensors: dict[str, Tensor] = {}
    for which, state in enumerate(states):
        for name, tensor in state.items():
            part = next(part for part in _PLACES if name.startswith(part))
            own = name.removeprefix(part)
            tensors[_PLACES[part][which] + own] = _tensor(own, tensor)
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
    """Put a `Training` back to what `state_of` made of one, of this version or an earlier one.

    Raises:
        RunError: another model, other networks, or the state of other optimizers.
    """
    module = training.module
    pair, best = split_weights(tensors)
    load_weights(module.pair, pair, path)
    networks, best_networks = (_under(prefix, tensors) for prefix in _PLACES["networks."])
    if module.networks is not None:
        load_weights(module.networks, networks, path, "the networks of the objective")
    elif networks:
        raise RunError(
            f"{path} has networks of an objective, and this objective has none. Resume with the objective "
            "that the run was begun with."
        )
    both = {"pair.": best, "networks.": best_networks}
    training.best = {part + n: t for part, own in both.items() for n, t in own.items()} or None
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
        go_on_from(training.result, record["progress"])
    except _NOT_A_STATE as error:
        raise RunError(
            f"{path} does not hold the state of this training ({error!r}). Restore it, or begin "
            "in another folder."
        ) from error


def _load(target: Any, packed: Any, tensors: Mapping[str, Tensor]) -> None:
    target.load_state_dict(unpack(packed, tensors))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


_NOT_A_STATE = (
    ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError, ValueError
)  # fmt: skip
"""What optimizers and schedulers raise for a state that is none of theirs."""


def split_weights(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The latest weights and the best ones of a checkpoint, by the pair's names."""
    latest, best = (
        {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        for prefix in ("pair/", "best/")
    )
    return latest, best


def load_weights(
    pair: Any, weights: Mapping[str, Tensor], path: Path, name: str | None = None
) -> None:
    """Weights into a pair, or into another module, which then has a name.

    Raises:
        RunError: names, shapes or precision differ.
    """
    check_shapes(pair, weights, path, name)
    owner = name or pair.name
    for part, tensor in pair.state_dict().items():
        if tensor.dtype != weights[part].dtype:
            raise RunError(
                f"{path} does not fit {owner}: {part} has {weights[part].dtype} in the run and "
                f"{tensor.dtype} by the precision in its config.json. One of them was changed."
            )
    pair.load_state_dict(weights)


def check_shapes(
    pair: Any, weights: Mapping[str, Tensor], path: Path, name: str | None = None
) -> None:
    """Weights have the names and shapes of a pair's, or of another module's, which then has a name.

    Raises:
        RunError: they have not.
    """
    own = {name: tuple(tensor.shape) for name, tensor in pair.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if own != theirs:
        odd = sorted(n for n in own.keys() | theirs.keys() if own.get(n) != theirs.get(n))[0]
        raise RunError(
            f"{path} does not fit {name or pair.name}: {odd} has shape {theirs.get(odd)} in the run and "
            f"{own.get(odd)} in the pair. Give the pair that was trained."
        )


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"fit: {name} in the pair's state_dict is {type(value).__name__}, no tensor; a run "
            "directory stores tensors only."
        )
    return value
