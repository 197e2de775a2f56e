"""What a fit did: its curves, and why it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from probgen.pair import LatentVariableModel


@dataclass
class FitResult:
    """What `fit` did.

    Attributes:
        pair: the pair, with the weights kept.
        elbo: average training value of each epoch, of the ELBO in nats per datum; in a warm-up with
            the weight of that epoch. It has this name also where the objective is another one; then
            `objective` reads better.
        validation_elbo: likewise on the validation data; empty without them.
        metrics: averages over each epoch of further metrics that the objective returns, by name.
        quantity: what the value is, such as `"ELBO"`.
        learning_rate: of each epoch, of the optimizer's first group.
        seconds: wall time of each epoch.
        best_epoch: the epoch (from one) whose weights the pair has.
        stopped: why it ended: `"completed"`, `"early"` or `"interrupted"`.
        device: where it ran.
        observed: the variables that were given.
        precision: what was computed in.
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
        """Average training value of each epoch: the curve `elbo`, whatever was maximized."""
        return self.elbo

    def last_epoch(self, num_data: int) -> str:
        """The last epoch in a line, for a progress bar."""
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
    """The curves of a result as a record."""
    return {name: value for name, value in vars(result).items() if name != "pair"}


def set_progress(result: FitResult, progress: Mapping[str, Any]) -> None:
    """Put what `progress_of` returned back.

    Raises:
        ValueError: curves that are no lists of numbers, one an epoch, or another odd value.
    """
    check_progress(progress)
    known = {part.name for part in fields(FitResult)} - {"pair"}
    for name, value in progress.items():
        if name in known:
            setattr(result, name, tuple(value) if name == "observed" else value)
    result.stopped = "completed"


CURVES = ("elbo", "validation_elbo", "learning_rate", "seconds")


def check_progress(progress: Mapping[str, Any]) -> None:
    """What `progress_of` returned, read from a file, has the types of a result's attributes.

    Raises:
        ValueError: it has not.
    """
    if not isinstance(progress, Mapping) or not isinstance(progress.get("elbo"), list):
        raise ValueError("The learning curves are missing.")
    epochs = len(progress["elbo"])
    for name in CURVES:
        curve = progress.get(name)
        if name not in progress:
            continue
        if not isinstance(curve, list) or any(type(value) not in (int, float) for value in curve):
            raise ValueError(f"The curve {name} is no list of numbers.")
        if len(curve) != epochs and not (name == "validation_elbo" and not curve):
            raise ValueError(f"The curve {name} has {len(curve)} values for {epochs} epochs.")
    metrics = progress.get("metrics", {})
    if not isinstance(metrics, dict) or not all(isinstance(name, str) for name in metrics):
        raise ValueError("The metrics are no curves by name.")
    for name, curve in metrics.items():
        if not isinstance(curve, list) or any(type(value) not in (int, float) for value in curve):
            raise ValueError(f"The metric {name} is no list of numbers.")
        if len(curve) != epochs:
            raise ValueError(f"The metric {name} has {len(curve)} values for {epochs} epochs.")
    if not isinstance(progress.get("quantity", ""), str):
        raise ValueError("The name of the training's value is no text.")
    best, observed = progress.get("best_epoch", 0), progress.get("observed", ())
    if type(best) is not int or not 0 <= best <= epochs:
        raise ValueError(f"The best epoch is {best!r}, but there are {epochs}.")
    if progress.get("stopped", "completed") not in ("completed", "early", "interrupted"):
        raise ValueError(f"The run stopped by {progress['stopped']!r}, which is no way to stop.")
    if not isinstance(progress.get("device", ""), str) or not isinstance(observed, (list, tuple)):
        raise ValueError("The device or the observed variables are no text.")
    if any(not isinstance(name, str) for name in observed):
        raise ValueError("The observed variables are no text.")


def go_on_from(result: FitResult, progress: Mapping[str, Any]) -> None:
    """Likewise, where training goes on, on whatever device that is now."""
    device = result.device
    set_progress(result, progress)
    result.device = device
