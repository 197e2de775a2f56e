"""The result of a fit: its curves, and why it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from probgen.pair import LatentVariableModel


@dataclass
class FitResult:
    """The result of `fit`: the trained pair, the curves of the epochs, and why training ended.

    Attributes:
        pair: the pair, with the selected weights.
        elbo: average training value of each epoch; for the ELBO in nats per datum, in a warm-up with
            the KL weight of that epoch. The attribute has this name for other objectives too;
            `objective` is the same curve.
        validation_elbo: the same on the validation data; empty if there are none.
        metrics: the further metrics that the objective returns, by name, averaged over each epoch.
        quantity: the name of the value, such as `"ELBO"`.
        learning_rate: the learning rate of each epoch, of the optimizer's first parameter group.
        seconds: the duration of each epoch in seconds.
        best_epoch: the epoch, counted from one, whose weights the pair has.
        stopped: why training ended: `"completed"`, `"early"` or `"interrupted"`.
        device: the device of the training.
        observed: the variables that were given.
        precision: the precision of the computation.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
        >>> data = pg.Dataset({"x": torch.randn(100, 3)}).split(validation=20, seed=0)
        >>> result = pg.fit(ppca, data, num_epochs=5, patience=3, device="cpu", progress=False)
        >>> len(result.elbo), len(result.validation_elbo), result.best_epoch, result.stopped
        (5, 5, 5, 'completed')
    """

    pair: LatentVariableModel
    elbo: list[float] = field(default_factory=list)
    validation_elbo: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int = 0
    stopped: Literal["completed", "early", "interrupted"] = "completed"
    device: str = "cpu"
    observed: tuple[str, ...] = ()
    precision: str = "float32"
    metrics: dict[str, list[float]] = field(default_factory=dict)
    quantity: str = "ELBO"

    @property
    def objective(self) -> list[float]:
        """Average training value of each epoch: the curve `elbo`, for any objective."""
        return self.elbo

    def last_epoch(self, num_data: int) -> str:
        """One line about the last epoch, for a progress bar.

        Args:
            num_data: the number of data in the epoch.
        """
        text = f"{self.quantity} {self.elbo[-1]:.2f}"
        if self.validation_elbo:
            text += f"  validation {self.validation_elbo[-1]:.2f}"
        for name, curve in self.metrics.items():
            text += f"  {name} {curve[-1]:.3g}"
        return f"{text}  {num_data / self.seconds[-1]:,.0f} data/s"

    def __repr__(self) -> str:
        if not self.elbo:
            return f"FitResult({self.pair.name}: {self.stopped} before the end of the first epoch)"
        text = (
            f"FitResult({self.pair.name}: {self.stopped} after {len(self.elbo)} epochs in "
            f"{sum(self.seconds):.1f} s on {self.device}; training {self.quantity} {self.elbo[-1]:.2f}"
        )
        if self.validation_elbo:
            best = self.validation_elbo[self.best_epoch - 1] if self.best_epoch else float("nan")
            text += f", best validation {self.quantity} {best:.2f} in epoch {self.best_epoch}"
        unit = " nats per datum" if self.quantity == "ELBO" else ""
        return f"{text}{unit}; observed {', '.join(self.observed)})"


def progress_of(result: FitResult) -> dict[str, Any]:
    """The fields of a result, without the pair, as a record."""
    return {name: value for name, value in vars(result).items() if name != "pair"}


def set_progress(result: FitResult, progress: Mapping[str, Any]) -> None:
    """Set the fields of a result to what `progress_of` returned.

    Raises:
        ValueError: a curve is not a list of one number per epoch, or another value is wrong.
    """
    check_progress(progress)
    known = {part.name for part in fields(FitResult)} - {"pair"}
    for name, value in progress.items():
        if name in known:
            setattr(result, name, tuple(value) if name == "observed" else value)
    result.stopped = "completed"


CURVES = ("elbo", "validation_elbo", "learning_rate", "seconds")


def check_progress(progress: Mapping[str, Any]) -> None:
    """Check that a record read from a file has the types that `progress_of` returns.

    Raises:
        ValueError: it has other types.
    """
    if not isinstance(progress, Mapping) or not isinstance(progress.get("elbo"), list):
        raise ValueError("The learning curves are missing.")
    epochs = len(progress["elbo"])
    for name in CURVES:
        curve = progress.get(name)
        if name not in progress:
            continue
        if not isinstance(curve, list) or any(type(value) not in (int, float) for value in curve):
            raise ValueError(f"The curve {name} is not a list of numbers.")
        if len(curve) != epochs and not (name == "validation_elbo" and not curve):
            raise ValueError(f"The curve {name} has {len(curve)} values for {epochs} epochs.")
    metrics = progress.get("metrics", {})
    if not isinstance(metrics, dict) or not all(isinstance(name, str) for name in metrics):
        raise ValueError("The metrics are not a table of curves by name.")
    for name, curve in metrics.items():
        if not isinstance(curve, list) or any(type(value) not in (int, float) for value in curve):
            raise ValueError(f"The metric {name} is not a list of numbers.")
        if len(curve) != epochs:
            raise ValueError(f"The metric {name} has {len(curve)} values for {epochs} epochs.")
    if not isinstance(progress.get("quantity", ""), str):
        raise ValueError("The name of the training value is not text.")
    best, observed = progress.get("best_epoch", 0), progress.get("observed", ())
    if type(best) is not int or not 0 <= best <= epochs:
        raise ValueError(f"The best epoch is {best!r}, but there are {epochs} epochs.")
    if progress.get("stopped", "completed") not in ("completed", "early", "interrupted"):
        raise ValueError(
            'The reason why the run stopped must be "completed", "early" or "interrupted", got '
            f"{progress['stopped']!r}."
        )
    if not isinstance(progress.get("device", ""), str) or not isinstance(observed, (list, tuple)):
        raise ValueError("The device is not text, or the observed variables are not a list.")
    if any(not isinstance(name, str) for name in observed):
        raise ValueError("The names of the observed variables are not text.")


def resume_progress(result: FitResult, progress: Mapping[str, Any]) -> None:
    """Set the fields of a result when training is resumed; its device stays the present one."""
    device = result.device
    set_progress(result, progress)
    result.device = device
