r"""What `fit` may ask of an objective: a value per datum, who learns what, and how data are composed.

An objective is one file in this package that assigns `OBJECTIVE`, a class or function that makes it
without arguments; `fit(objective="...")` finds it by the name of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from probgen.data.dataset import Dataset
from probgen.implicit import check_pair

Value = Tensor | tuple[Tensor, Mapping[str, Tensor]]
"""Values of shape `(batch,)`, alone or with further metrics by name, each a scalar tensor."""


@dataclass(frozen=True)
class Composition:
    """How each batch of a fit is composed, where it is not by chance.

    Attributes:
        label: the partly observed variable.
        labelled: rows of a batch in which it is observed.
    """

    label: str
    labelled: int


@dataclass(frozen=True)
class Player:
    """Who learns what: parameters, the value that they maximize, and how they are updated.

    An update of a player computes gradients of its own parameters only. All other parameters are
    constants in it, and their `.grad` stays as it was.

    Attributes:
        name: in messages, in the checkpoint, and in `FitResult.metrics`.
        parameters: what it learns. Parameters that do not require a gradient are left out, and no
            parameter may belong to two players.
        value: what it maximizes, called as an objective is: `value(pair, data, observed=masks,
            **further)`.
        optimizer: as in `fit`: a class, or a callable that makes an optimizer of the parameters;
            `None` takes the one that `fit` was given.
        steps: updates per batch, each with new noise.
        draws: `"fresh"` noise, or `"shared"`: the first update starts from the random state from which
            the player before it started, so that both see the same draws.
        unit: `"datum"`: the value has shape `(batch,)`, and `fit` maximizes its average. `"batch"`: the
            value is a scalar that is no average over data, such as a distance between two samples.
            With several devices each takes the value of its own part of the batch, and the gradients
            are averaged with the numbers of data as weights: for `"datum"` that is the gradient of the
            whole batch, for `"batch"` that of the average of the values of the parts.

    Example:
        >>> import torch, probgen as pg
        >>> network = torch.nn.Linear(2, 1)
        >>> pg.Player("critic", tuple(network.parameters()), lambda pair, data, **_: ...).steps
        1
    """

    name: str
    parameters: Sequence[nn.Parameter]
    value: Callable[..., Value]
    optimizer: Any = None
    steps: int = 1
    draws: Literal["fresh", "shared"] = "fresh"
    unit: Literal["datum", "batch"] = "datum"

    def __post_init__(self) -> None:
        owner = f"Player {self.name!r}"
        if not callable(self.value):
            raise TypeError(f"{owner}: value must be callable, got {self.value!r}.")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"{owner}: steps must be an int of at least 1, got {self.steps!r}.")
        if self.draws not in ("fresh", "shared"):
            raise ValueError(f'{owner}: draws must be "fresh" or "shared", got {self.draws!r}.')
        if self.unit not in ("datum", "batch"):
            raise ValueError(f'{owner}: unit must be "datum" or "batch", got {self.unit!r}.')


class Objective:
    """What `fit` maximizes: a base class for objectives of your own.

    A subclass defines `__call__`, one value per datum. All else has a default: one player that learns
    all parameters of the pair.

    Attributes:
        quantity: what the value is called in curves, progress bars and messages.
        is_bound: the value is a lower bound of log p(x).
        warmup_epochs: where it is above 1, a call gets `kl_weight`, a scalar tensor that grows
            linearly to one over so many epochs.
        has_validation: there is a value of validation data. Without one, `fit` uses no validation data
            and refuses `patience`.
        keeps: which weights the pair has at the end where there is no validation value: those of the
            `"last"` epoch, or of the epoch with the `"best"` training value.

    Example:
        >>> import torch, probgen as pg
        >>> class SquaredError(pg.Objective):
        ...     quantity = "negative squared error"
        ...     def __call__(self, pair, data, *, observed=None):
        ...         return -(data["x"] - pair.center).square().sum(-1)
        >>> pair = pg.declare("p(x)", x=pg.Normal(2))
        >>> pair.center = torch.nn.Parameter(torch.zeros(2))
        >>> result = pg.fit(pair, torch.ones(4, 2), num_epochs=50, learning_rate=0.1,
        ...                 objective=SquaredError(), device="cpu", progress=False)
        >>> result.quantity, bool(result.objective[-1] > result.objective[0])
        ('negative squared error', True)
    """

    quantity: str = "objective"
    is_bound: bool = False
    warmup_epochs: int = 0
    has_validation: bool = True
    keeps: Literal["last", "best"] = "last"

    def __call__(self, *args: Any, **named: Any) -> Any:
        """One value per datum, larger is better: `objective(pair, data, observed=masks, **further)`.

        A subclass names the arguments that it takes.

        Args:
            *args: `pair`, the model; and `data`, tensors `(batch, *event_shape)` by variable name.
            **named: `observed`, boolean masks `(batch,)` of partly observed variables, or `None`; what
                `constants` returned, and `kl_weight` in a warm-up: scalar tensors. A call without
                these must work too.

        Returns:
            Shape `(batch,)`; or that and a dict of scalar tensors, further metrics by name, whose
            averages over each epoch are in `FitResult.metrics`.
        """
        raise TypeError(f"{type(self).__name__} must define __call__; see pg.Objective.")

    # ------------------------------------------------------------------ who learns what

    def networks(self, pair: Any) -> nn.Module | None:
        """Networks of the objective's own, such as a critic, with weights to start from.

        `fit` calls this once, with the random state that its seed determines. The networks are
        trained, checkpointed and moved between devices and precisions together with the pair.
        """
        return None

    def players(self, pair: Any, networks: nn.Module | None) -> Sequence[Player]:
        """Who learns what, in the order of their updates of each batch.

        The value of the first player is the curve of the run; those of further players are metrics
        under their names.

        Args:
            pair: the model, on its device and in its precision.
            networks: what `networks` returned, likewise.
        """
        return [Player(type(pair).__name__, tuple(pair.parameters()), self)]

    # ------------------------------------------------------------------ data

    def constants(self, data: Dataset) -> Mapping[str, float]:
        """Numbers of all the data that a call takes as keywords, as scalar tensors."""
        return {}

    def composition(self, data: Dataset, batch_size: int) -> Composition | None:
        """How each batch of the training data is composed; `None` is by chance."""
        return None

    def for_validation(self) -> Objective:
        """The same objective for blocks of data that are not composed, which `fit` validates by."""
        return self

    # ------------------------------------------------------------------ checks before the training

    def check_model(self, pair: Any) -> None:
        """Refuse a model that the objective is not for.

        Raises:
            TypeError: by default where it is no pair of model and guide.
        """
        check_pair(pair, "fit")

    def check_data(self, data: Dataset) -> None:
        """Refuse training data that the objective cannot use, with a ValueError."""

    def check_validation(self, data: Dataset) -> None:
        """Refuse validation data that the objective cannot use, with a ValueError."""

    def check_stream(self) -> None:
        """Refuse an iterable of batches, of which `constants` and `composition` know nothing."""

    # ------------------------------------------------------------------ after an epoch

    def remarks(self, result: Any) -> Iterable[str]:
        """What the user should know after an epoch: each is a warning, given once per run.

        Args:
            result: the `FitResult` so far, with curves and metrics.
        """
        return ()
