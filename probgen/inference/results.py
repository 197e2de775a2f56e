"""What a fit did: its curves, and why it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from probgen.pair import LatentVariableModel


@dataclass
class FitResult:
    """What `fit` did.

    Attributes:
        pair: the pair, with the weights kept.
        elbo: average training bound of each epoch, nats a datum; in a warm-up with the weight of
            that epoch.
        validation_elbo: likewise on the validation data; empty without them.
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

    def __repr__(self) -> str:
        if not self.elbo:
            return f"FitResult({self.pair.name}: {self.stopped} before the end of the first epoch)"
        text = (
            f"FitResult({self.pair.name}: {self.stopped} after {len(self.elbo)} epochs in "
            f"{sum(self.seconds):.1f} s on {self.device}; training ELBO {self.elbo[-1]:.2f}"
        )
        if self.validation_elbo:
            best = self.validation_elbo[self.best_epoch - 1] if self.best_epoch else float("nan")
            text += f", best validation ELBO {best:.2f} in epoch {self.best_epoch}"
        return f"{text} nats a datum; observed {', '.join(self.observed)})"


def progress_of(result: FitResult) -> dict[str, Any]:
    """The curves of a result as a record."""
    return {name: value for name, value in vars(result).items() if name != "pair"}


def set_progress(result: FitResult, progress: Mapping[str, Any]) -> None:
    """Put what `progress_of` returned back."""
    for name, value in progress.items():
        setattr(result, name, tuple(value) if name == "observed" else value)
    result.stopped = "completed"


def go_on_from(result: FitResult, progress: Mapping[str, Any]) -> None:
    """Likewise, where training goes on, on whatever device that is now."""
    device = result.device
    set_progress(result, progress)
    result.device = device
