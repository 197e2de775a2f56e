"""The settings of a fit as one record, which is checked once and sent to every process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from probgen.basics.checks import as_count, as_seed
from probgen.inference.compute.capture import check_compile
from probgen.inference.compute.devices import FORCED
from probgen.inference.compute.processes import Group
from probgen.inference.training.descriptions import described

RESUMABLE_WITH = ("num_epochs", "patience", "device", "compile")
"""Settings that may differ when a run is resumed."""


@dataclass(frozen=True)
class Settings:
    """All arguments of `fit` except the model and the data; `fit` describes them.

    `Settings.checked` makes this record from the user's arguments.
    """

    num_epochs: int
    device: torch.device
    batch_size: int | None = None
    learning_rate: float = 1e-3
    objective: Any = "elbo"
    optimizer: Any = None
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
    validation: Any = "auto"
    patience: int | None = None
    precision: str = "float32"
    compile: bool | str = "auto"
    devices: int = 1
    seed: int = 0
    run_dir: str | os.PathLike[str] | None = None
    resume: bool = False
    progress: bool = True
    callback: Callable[[Any], Any] | None = None

    @classmethod
    def checked(cls, **given: Any) -> Settings:
        """Check the user's arguments and make the record.

        Raises:
            ValueError: a setting is out of range, or `resume` is given without a run directory.
            TypeError: the seed is not an int.
        """
        settings = cls(**given)
        batch_size, patience = settings.batch_size, settings.patience
        if settings.resume and settings.run_dir is None:
            raise ValueError("fit: resume=True needs run_dir=..., the folder of the run to resume.")
        check_compile(settings.compile, "fit")
        return replace(
            settings,
            num_epochs=as_count(settings.num_epochs, "num_epochs", "fit"),
            devices=as_count(settings.devices, "devices", "fit"),
            seed=as_seed(settings.seed, "fit"),
            batch_size=None if batch_size is None else as_count(batch_size, "batch_size", "fit"),
            patience=None if patience is None else as_count(patience, "patience", "fit"),
        )

    def for_processes(self) -> Settings:
        """The settings for each of several processes on this machine.

        Raises:
            ValueError: there is a callback, which other processes could not call.
        """
        if self.callback is not None:
            raise ValueError(
                "fit: callback= is for one device, because several devices train in other processes. "
                "Use devices=1, or no callback."
            )
        # The precision is decided already, so the processes must not decide again.
        precision = FORCED if self.precision == "bf16" else self.precision
        return replace(self, devices=1, precision=precision)

    def record(self, batch_size: int | None, captured: bool, group: Group | None) -> dict[str, Any]:
        """The settings as the configuration of a run directory records them.

        Args:
            batch_size: the batch size in use; `None` for an iterable of batches.
            captured: whether steps are captured.
            group: the processes that share the work, or `None`.
        """
        return {
            "num_epochs": self.num_epochs,
            "batch_size": batch_size,
            "learning_rate": float(self.learning_rate),
            "objective": described(self.objective),
            "optimizer": described(self.optimizer),
            "scheduler": described(self.scheduler),
            "patience": self.patience,
            "precision": self.precision,
            "compile": self.compile,
            "captured": captured,
            "device": str(self.device),
            "seed": self.seed,
            "devices": 1 if group is None else group.size,
        }
