"""The players of a fit in training: each with its step, its optimizer and its scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probgen.basics.randomness import random_state, set_random_state
from probgen.inference.compute.capture import Captured, Tensors
from probgen.inference.compute.devices import mixed
from probgen.inference.compute.processes import Group
from probgen.inference.objectives.base import Objective, Player
from probgen.inference.objectives.registry import name_of
from probgen.inference.objectives.values import value_and_metrics
from probgen.inference.training.averages import Outcome
from probgen.inference.training.module import TrainingModule
from probgen.inference.training.optimizers import make_optimizer, make_scheduler
from probgen.inference.training.settings import Settings

RandomState = tuple[Tensor, Tensor | None]
Inspect = Callable[["Learner", Tensor, RandomState | None], None]


@dataclass
class Learner:
    """A player with what trains it.

    Attributes:
        player: what the objective declared.
        step: its loss, with gradients of its own parameters.
        optimizer: of its parameters.
        scheduler: of the optimizer, if there is one.
        owner: the player in messages.
    """

    player: Player
    step: Captured
    optimizer: torch.optim.Optimizer
    scheduler: Any
    owner: str

    def update(
        self, batch: Sequence[Tensors], state: RandomState | None, group: Group | None,
        eager: bool, inspect: Inspect,
    ) -> Outcome:  # fmt: skip
        """One update: the loss before it, the metrics, and the number of data of all processes."""
        size = len(next(iter(batch[0].values())))
        loss = (self.step.run_eagerly if eager else self.step)(*batch)
        inspect(self, loss, state)
        metrics = self.step.metrics
        if group is not None:
            own_size = size
            loss, size = group.average(loss, own_size, self.step.parameters)
            if metrics:
                sums = group.sums(*(own_size * float(metric) for metric in metrics.values()))
                metrics = {n: loss.new_tensor(s / size) for n, s in zip(metrics, sums, strict=True)}
        self.optimizer.step()
        return loss, metrics, size

    @property
    def learns(self) -> bool:
        """Whether the last step gave a parameter a gradient."""
        return any(parameter.grad is not None for parameter in self.step.parameters)


def learners_of(
    module: TrainingModule, objective: Objective, settings: Settings, device: torch.device,
    capture: bool,
) -> list[Learner]:  # fmt: skip
    """The players that an objective declares, ready to learn, in the order of their updates.

    Raises:
        TypeError: a player that is none.
        ValueError: no player, two of one name or with a common parameter, parameters of another
            module, or nothing that can be learned.
    """
    players = list(objective.players(module.pair, module.networks))
    _check_players(players, module, objective)
    return [
        _learner(player, module, objective, settings, device, capture, alone=len(players) == 1)
        for player in players
    ]


def _learner(
    player: Player, module: TrainingModule, objective: Objective, settings: Settings,
    device: torch.device, capture: bool, alone: bool,
) -> Learner:  # fmt: skip
    owner = f"fit: the objective {name_of(objective)}"
    if not alone:
        owner += f", player {player.name},"
    parameters = [p for p in player.parameters if p.requires_grad]
    made = player.optimizer if player.optimizer is not None else settings.optimizer
    if not alone and player.optimizer is None and isinstance(made, torch.optim.Optimizer):
        raise ValueError(
            f"fit: the objective {name_of(objective)} has several players, each with an optimizer of its "
            "own; give optimizer= a class or a callable that makes one of parameters, such as "
            "functools.partial(torch.optim.Adam, lr=1e-3)."
        )
    optimizer = make_optimizer(
        parameters, made, settings.learning_rate, device, module.name if alone else player.name
    )
    step = Captured(
        module, loss_of(player, module, settings.precision, device, owner), gradients=True,
        capture=capture, precision=settings.precision, owner="fit", parameters=parameters,
    )  # fmt: skip
    return Learner(player, step, optimizer, make_scheduler(settings.scheduler, optimizer), owner)


def loss_of(
    player: Player, module: TrainingModule, precision: str, device: torch.device, owner: str
) -> Callable[[Tensors, Tensors, Tensors], Any]:
    """The negative value of a batch, with the metrics where there are some."""

    def loss(values: Tensors, masks: Tensors, further: Tensors) -> Any:
        with mixed(precision, device):
            found, metrics = value_and_metrics(player, module.pair, values, masks, further, owner)
            negative = -found.mean()
        return (negative, metrics) if metrics else negative

    return loss


def _check_players(players: Sequence[Player], module: TrainingModule, objective: Objective) -> None:
    owner = f"fit: the objective {name_of(objective)}"
    for player in players:
        if not isinstance(player, Player):
            raise TypeError(f"{owner}: players must return pg.Player records, got {player!r}.")
    names = [player.name for player in players]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"{owner}: players must be one or more, each with a name of its own; got {names}."
        )
    known = {id(parameter) for parameter in module.parameters()}
    taken: dict[int, str] = {}
    for player in players:
        learnable = [p for p in player.parameters if p.requires_grad]
        if any(id(parameter) not in known for parameter in learnable):
            raise ValueError(
                f"{owner}: the player {player.name} has parameters that belong neither to the pair nor to "
                "the objective's networks, so they would not be stored. Return them from networks()."
            )
        if not learnable:
            raise ValueError(
                f"{owner}: the player {player.name} has no parameters that can be learned. Give it some, "
                "or free them: requires_grad_(True)."
            )
        for parameter in learnable:
            other = taken.setdefault(id(parameter), player.name)
            if other != player.name:
                raise ValueError(
                    f"{owner}: the players {other} and {player.name} have a parameter in common. Give each "
                    "parameter to one player."
                )


def update_all(
    learners: Sequence[Learner], batch: Sequence[Tensors], device: torch.device,
    group: Group | None, *, eager: bool, look: bool, inspect: Inspect,
) -> list[Outcome]:  # fmt: skip
    """One batch: every player's updates in order.

    Args:
        learners: the players.
        batch: values, masks and further tensors.
        device: where.
        group: the processes that share the batch.
        eager: whether to run the steps without graphs.
        look: note the random state before each update, from which it can be repeated.
        inspect: called before each update with the player, its loss and that state.

    Returns:
        What each player's last update returned.
    """
    outcomes: list[Outcome] = []
    started: RandomState | None = None
    for learner in learners:
        if learner.player.draws == "shared" and started is not None:
            set_random_state(started, device)
        for update in range(learner.player.steps):
            state = random_state(device) if look or len(learners) > 1 else None
            if update == 0:
                started = state
            outcome = learner.update(batch, state, group, eager, inspect)
        outcomes.append(outcome)
    return outcomes
