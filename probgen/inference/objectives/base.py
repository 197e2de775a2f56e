r"""The interface of an objective: its value per datum, its players, and how batches are composed.

An objective of the library is a file in this package that assigns `OBJECTIVE`, a class or function that
is called without arguments; `fit(objective="...")` finds it by the name of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from probgen.data.dataset import Dataset
from probgen.implicit import check_pair

Value = Tensor | tuple[Tensor, Mapping[str, Tensor]]
"""Values of shape `(batch,)`, alone or with metrics: scalar tensors by name."""


@dataclass(frozen=True)
class Composition:
    """The composition of each batch of a fit, if it is not random.

    Attributes:
        label: the partly observed variable.
        labelled: number of rows of a batch in which this variable is observed.
    """

    label: str
    labelled: int


@dataclass(frozen=True)
class Player:
    """Parameters that are trained together, the value that they maximize, and how they are updated.

    An update of a player computes only the gradients of its own parameters. All other parameters are
    constants in it, and their `.grad` does not change.

    Attributes:
        name: its name in messages, in the checkpoint, and in `FitResult.metrics`.
        parameters: the parameters that it learns. Parameters that do not require a gradient are
            ignored, and no parameter may belong to two players.
        value: the function that it maximizes, called like an objective: `value(pair, data,
            observed=masks, **further)`.
        optimizer: as in `fit`: a class, or a callable that returns an optimizer of the parameters;
            `None` means the optimizer that `fit` was given.
        steps: number of updates per batch, each with new noise.
        draws: `"fresh"` or `"shared"` noise. If it is shared, the first update starts from the same
            random state as the first update of the player before, so that both use the same draws.
        unit: `"datum"`: the value has shape `(batch,)`, and `fit` maximizes its average. `"batch"`: the
            value is a scalar that is not an average over data, such as a distance between two samples.
            With several devices, each computes the value of its part of the batch, and the gradients
            are averaged with the numbers of data as weights. For `"datum"` this is the gradient of the
            whole batch; for `"batch"` it is the gradient of the average of the values of the parts.

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
    """The function that `fit` maximizes: a base class for the user's own objectives.

    A subclass defines `__call__`, which returns one value per datum. Everything else has a default: by
    default one player learns all parameters of the pair.

    Attributes:
        quantity: the name of the value in curves, progress bars and messages.
        is_bound: whether the value is a lower bound of log p(x).
        warmup_epochs: if it is above 1, a call gets `kl_weight`, a scalar tensor that increases
            linearly to one over this number of epochs.
        has_validation: whether validation data have a value. If not, `fit` uses no validation data
            and refuses `patience`.
        keeps: which weights the pair has at the end if there is no validation value: those of the
            `"last"` epoch, or those of the epoch with the `"best"` training value.

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
        """One value per datum; larger is better: `objective(pair, data, observed=masks, **further)`.

        A subclass names its arguments.

        Args:
            *args: `pair`, the model; and `data`, tensors `(batch, *event_shape)` by variable name.
            **named: `observed`, boolean masks `(batch,)` of partly observed variables, or `None`; and
                the scalar tensors `kl_weight` (in a warm-up) and those that `constants` returned. A
                call without these must work too.

        Returns:
            Values of shape `(batch,)`; or these and a dict of metrics, scalar tensors by name, whose
            averages over each epoch are in `FitResult.metrics`.
        """
        raise TypeError(f"{type(self).__name__} must define __call__; see pg.Objective.")

    # ------------------------------------------------------------------ networks and players

    def networks(self, pair: Any) -> nn.Module | None:
        """The objective's own networks, such as a critic, with their initial weights.

        `fit` calls this once, with a random state that follows from its seed. The networks are
        trained, checkpointed and moved between devices and precisions together with the pair.
        """
        return None

    def players(self, pair: Any, networks: nn.Module | None) -> Sequence[Player]:
        """The players, in the order of their updates for each batch.

        The value of the first player is the training curve; the values of further players are metrics
        under their names.

        Args:
            pair: the model, on its device and in its precision.
            networks: what `networks` returned, on the same device and in the same precision.
        """
        return [Player(type(pair).__name__, tuple(pair.parameters()), self)]

    # ------------------------------------------------------------------ data

    def constants(self, data: Dataset) -> Mapping[str, float]:
        """Numbers computed from all the data, which a call gets by keyword as scalar tensors."""
        return {}

    def composition(self, data: Dataset, batch_size: int) -> Composition | None:
        """The composition of each batch of the training data; `None` means random batches."""
        return None

    def for_validation(self) -> Objective:
        """The objective that `fit` uses for validation, where data come in blocks of any composition."""
        return self

    # ------------------------------------------------------------------ checks before the training

    def check_model(self, pair: Any) -> None:
        """Check that the objective can train the model.

        Raises:
            TypeError: it cannot; by default, if the model is not a pair of model and guide.
        """
        check_pair(pair, "fit")

    def check_data(self, data: Dataset) -> None:
        """Raise a ValueError if the objective cannot use these training data."""

    def check_validation(self, data: Dataset) -> None:
        """Raise a ValueError if the objective cannot use these validation data."""

    def check_stream(self) -> None:
        """Raise a ValueError if the objective cannot use an iterable of batches.

        For an iterable, `constants` and `composition` are not called.
        """

    # ------------------------------------------------------------------ after an epoch

    def remarks(self, result: Any) -> Iterable[str]:
        """Remarks for the user after an epoch; `fit` gives each as a warning, once per run.

        Args:
            result: the `FitResult` so far, with curves and metrics.
        """
        return ()
