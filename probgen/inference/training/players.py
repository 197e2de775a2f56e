"""The learners of a fit: each is a player with its step, its optimizer and its scheduler."""

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
    """A player with its step, its optimizer and its scheduler.

    Attributes:
        player: the player that the objective declared.
        step: computes its loss and the gradients of its parameters.
        optimizer: the optimizer of its parameters.
        scheduler: the scheduler of the optimizer, or `None`.
        owner: the name of the player in messages.
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
        """Make one update.

        Returns:
            The loss before the update, the metrics, and the number of data of all processes.
        """
        size = len(next(iter(batch[0].values())))
        loss = (self.step.run_eagerly if eager else self.step)(*batch)
        inspect(self, loss, state)
        metrics = self.step.metrics
        if group is not None:
            own_size = size  # the number of data of this process
            loss, size = group.average(loss, own_size, self.step.parameters)
            if metrics:
                sums = group.sums(*(own_size * float(metric) for metric in metrics.values()))
                metrics = {n: loss.new_tensor(s / size) for n, s in zip(metrics, sums, strict=True)}
        self.optimizer.step()
        return loss, metrics, size

    @property
    def learns(self) -> bool:
        """Whether a parameter has a gradient from the last step."""
        return any(parameter.grad is not None for parameter in self.step.parameters)


def learners_of(
    module: TrainingModule, objective: Objective, settings: Settings, device: torch.device,
    capture: bool,
) -> list[Learner]:  # fmt: skip
    """The learners for the players that an objective declares, in the order of their updates.

    Raises:
        TypeError: a player is not a `Player`.
        ValueError: there is no player; two players have the same name or a common parameter; or a
            player has parameters of another module, or no learnable ones.
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
    choice = player.optimizer if player.optimizer is not None else settings.optimizer
    if not alone and player.optimizer is None and isinstance(choice, torch.optim.Optimizer):
        raise ValueError(
            f"fit: the objective {name_of(objective)} has several players, and each needs its own "
            "optimizer; give optimizer= a class or a callable that returns one for given parameters, such "
            "as functools.partial(torch.optim.Adam, lr=1e-3)."
        )
    optimizer = make_optimizer(
        parameters, choice, settings.learning_rate, device, module.name if alone else player.name
    )
    step = Captured(
        module, loss_of(player, module, settings.precision, device, owner), gradients=True,
        capture=capture, precision=settings.precision, owner="fit", parameters=parameters,
    )  # fmt: skip
    return Learner(player, step, optimizer, make_scheduler(settings.scheduler, optimizer), owner)


def loss_of(
    player: Player, module: TrainingModule, precision: str, device: torch.device, owner: str
) -> Callable[[Tensors, Tensors, Tensors], Any]:
    """A function that returns minus the player's average value, with the metrics if there are any."""

    def loss(values: Tensors, masks: Tensors, further: Tensors) -> Any:
        with mixed(precision, device):
            value, metrics = value_and_metrics(player, module.pair, values, masks, further, owner)
            negative = -value.mean()
        return (negative, metrics) if metrics else negative

    return loss


def _check_players(players: Sequence[Player], module: TrainingModule, objective: Objective) -> None:
    owner = f"fit: the objective {name_of(objective)}"
    for player in players:
        if not isinstance(player, Player):
            raise TypeError(f"{owner}: players() must return pg.Player records, got {player!r}.")
    names = [player.name for player in players]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"{owner}: players() must return one or more players with different names, got {names}."
        )
    known = {id(parameter) for parameter in module.parameters()}
    owners: dict[int, str] = {}
    for player in players:
        learnable = [p for p in player.parameters if p.requires_grad]
        if any(id(parameter) not in known for parameter in learnable):
            raise ValueError(
                f"{owner}: the player {player.name} has parameters that belong neither to the pair nor to "
                "the networks of the objective, so they would not be stored. Return them from networks()."
            )
        if not learnable:
            raise ValueError(
                f"{owner}: the player {player.name} has no learnable parameters. Give it some, or make its "
                "parameters learnable: requires_grad_(True)."
            )
        for parameter in learnable:
            other = owners.setdefault(id(parameter), player.name)
            if other != player.name:
                raise ValueError(
                    f"{owner}: the players {other} and {player.name} have a parameter in common. Give each "
                    "parameter to one player."
                )


def update_all(
    learners: Sequence[Learner], batch: Sequence[Tensors], device: torch.device,
    group: Group | None, *, eager: bool, look: bool, inspect: Inspect,
) -> list[Outcome]:  # fmt: skip
    """Make the updates of all players for one batch, in order.

    Args:
        learners: the learners.
        batch: values, masks and further tensors.
        device: the device of the parameters.
        group: the processes that share the batch, or `None`.
        eager: whether to run the steps without graphs.
        look: whether to save the random state before each update, so that it can be repeated.
        inspect: called before each update with the learner, its loss and that state.

    Returns:
        The result of the last update of each player.
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
