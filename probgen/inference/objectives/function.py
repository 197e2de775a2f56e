"""The adapter that makes an objective from a function of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from probgen.data.dataset import Dataset
from probgen.inference.objectives.base import Objective, Value


class FunctionObjective(Objective):
    """A callable `f(pair, data, *, observed=None, **further)` as an objective of `fit`.

    A callable object may have `warmup_epochs`, `num_particles`, `constants(dataset)` and
    `for_validation()`, with the same meaning as in an `Objective`.
    """

    def __init__(self, function: Callable[..., Value]) -> None:
        self.function = function
        self.__qualname__ = getattr(function, "__qualname__", type(function).__qualname__)
        self.quantity = getattr(function, "quantity", "objective")
        self.warmup_epochs = getattr(function, "warmup_epochs", 0)
        self.num_particles = getattr(function, "num_particles", 1)

    def __repr__(self) -> str:
        return repr(self.function)

    def __call__(
        self,
        pair: Any,
        data: Mapping[str, Tensor],
        *,
        observed: Mapping[str, Tensor] | None = None,
        **further: Tensor,
    ) -> Value:
        """The result of the function."""
        return self.function(pair, data, observed=observed, **further)

    def constants(self, data: Dataset) -> Mapping[str, float]:
        """The result of the callable's own `constants`, if it has one."""
        own = getattr(self.function, "constants", None)
        return {} if own is None else dict(own(data))

    def for_validation(self) -> Objective:
        """The result of the callable's own `for_validation`, if it has one."""
        own = getattr(self.function, "for_validation", None)
        if own is None:
            return self
        other = own()
        return other if isinstance(other, Objective) else FunctionObjective(other)
