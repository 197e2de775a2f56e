"""fit(): stochastic variational inference of any pair."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from probgen.data import Splits
from probgen.inference.batches import Resident, Stream, is_stream
from probgen.inference.devices import as_device, as_dtype, evaluation, fixed_seed
from probgen.inference.inputs import prepare
from probgen.inference.nonfinite import explain
from probgen.inference.objectives import Objective, as_objective
from probgen.pair import LatentVariableModel, quiet_pyro
from probgen.progress import Progress



@dataclass
class FitResult:
    """What `fit` did.

    Attributes:
        pair: the pair, with the weights kept.
        elbo: average training bound of each epoch, nats a datum.
        validation_elbo: likewise on the validation data; empty without them.
        seconds: wall time of each epoch.
        best_epoch: the epoch (from one) whose weights the pair has.
        stopped: why it ended: `"completed"`, `"early"` or `"interrupted"`.
        device: where it ran.
    """

    pair: LatentVariableModel
    elbo: list[float] = field(default_factory=list)
    validation_elbo: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int = 0
    stopped: Literal["completed", "early", "interrupted"] = "completed"
    device: str = "cpu"

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
        return text + " nats a datum)"


def fit(
    pair: LatentVariableModel,
    data: Any,
    *,
    num_epochs: int,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    objective: str | Objective | Any = "elbo",
    optimizer: Any = None,
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    validation: Any = "auto",
    patience: int | None = None,
    precision: str = "float32",
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = True,
) -> FitResult:
    """Fit a pair to data by stochastic variational inference.

    The pair is moved to the device and stays there. Values are checked against every variable's
    support over all data before the first step; inside the loop validation is off and nothing
    waits for a GPU within an epoch. Same seed, machine, thread count: same weights to the bit on
    CPU.

    Args:
        pair: the pair; its weights are where training starts.
        data: `Splits` from `pg.load`, a `Dataset`, a dict of arrays by variable name, one array
            for a pair with one data variable, or an iterable of such batches (a DataLoader; it
            is iterated anew each epoch, and each batch is checked as it arrives).
        num_epochs: passes over the data.
        batch_size: data in a step; the last batch of an epoch may be smaller.
        learning_rate: of the default Adam, or of an optimizer class.
        objective: `"elbo"`, `"analytic-kl"`, `pg.ELBO(...)`, one of Pyro's ELBO objects, or a
            callable like them.
        optimizer: a torch optimizer over the pair's parameters, or a callable that makes one of
            them; by default one fused Adam.
        scheduler: a callable that makes a torch learning-rate scheduler of the optimizer; it
            steps once an epoch.
        validation: data for the validation ELBO, `None`, or `"auto"`: the validation part where
            `data` are `Splits`. With validation the weights of the best epoch are kept.
        patience: stop after so many epochs without a better validation ELBO.
        precision: `"float32"` or `"float64"`.
        device: `"auto"`, or a device as torch names it.
        seed: of batches, draws and validation; the global random state stays as it was.
        progress: show a progress bar.

    Returns:
        The curves, why it ended, and the pair. Ctrl-C ends the loop and returns what was learned.

    Raises:
        ValueError: data that do not fit the pair, or a setting out of range.
        TypeError: an argument of the wrong kind.
        FloatingPointError: the loss is not finite; names batch, site and quantity. The pair then
            has the last finite weights kept.

    References:
        Hoffman et al., 2013, "Stochastic variational inference".
        Kingma and Ba, 2015, "Adam: a method for stochastic optimization".

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
        >>> x = torch.randn(64, 1) @ torch.ones(1, 3) + 0.1 * torch.randn(64, 3)
        >>> result = pg.fit(ppca, x, num_epochs=5, batch_size=32, progress=False)
        >>> len(result.elbo), result.stopped
        (5, 'completed')
    """
    if not isinstance(pair, LatentVariableModel):
        raise TypeError(f"fit: expected a pair (pg.LatentVariableModel), got {pair!r}.")
    _check_counts(num_epochs=num_epochs, batch_size=batch_size)
    if patience is not None:
        _check_counts(patience=patience)
    target, dtype = as_device(device), as_dtype(precision)
    goal = as_objective(objective)
    pair.to(device=target, dtype=dtype)
    if isinstance(data, Splits):
        validation = data.validation if isinstance(validation, str) else validation
        data = data.train
    if isinstance(validation, str):
        if validation != "auto":
            raise ValueError(f'fit: validation must be "auto", None or data, got {validation!r}.')
        validation = None
    if patience is not None and validation is None:
        raise ValueError(
            f"fit: patience={patience} needs validation data; give validation=..., or Splits "
            "with a validation part (pg.Dataset.split)."
        )
    where: dict[str, Any] = {"device": target, "dtype": dtype}
    source: Resident | Stream
    if is_stream(data):
        source = Stream(pair, data, where)
    else:
        source = Resident(prepare(pair, data, owner="fit", **where), batch_size)
    held = None
    if validation is not None:
        held = Resident(prepare(pair, validation, owner="fit", **where), None)
    loop = _Loop(pair, source, held, goal, target, seed)
    loop.optimizer = _make_optimizer(pair, optimizer, learning_rate, target)
    loop.scheduler = scheduler(loop.optimizer) if scheduler is not None else None
    with quiet_pyro():
        return loop.run(num_epochs, patience, progress)


class _Loop:
    """The state of one call of fit."""

    optimizer: torch.optim.Optimizer
    scheduler: Any

    def __init__(
        self,
        pair: LatentVariableModel,
        source: Resident | Stream,
        held: Resident | None,
        objective: Objective,
        device: torch.device,
        seed: int,
    ) -> None:
        self.pair, self.source, self.held = pair, source, held
        self.objective, self.device, self.seed = objective, device, seed
        self.result = FitResult(pair, device=str(device))
        self.best: dict[str, Tensor] | None = None

    def run(self, num_epochs: int, patience: int | None, progress: bool) -> FitResult:
        result, warmup = self.result, getattr(self.objective, "warmup_epochs", 0)
        was_training = self.pair.training
        self.pair.train()
        try:
            with Progress(f"fit {self.pair.name}", num_epochs, progress) as bar:
                for epoch in range(num_epochs):
                    start = time.perf_counter()
                    weight = min(1.0, (epoch + 1) / warmup) if warmup else 1.0
                    elbo, num_data = self.epoch(epoch, weight)
                    result.elbo.append(elbo)
                    if self.held is not None:
                        result.validation_elbo.append(self.validate())
                    result.seconds.append(time.perf_counter() - start)
                    self.keep_best(epoch)
                    self.step_scheduler()
                    bar.update(epoch + 1, self.describe(num_data))
                    waited = epoch + 1 - max(result.best_epoch, warmup)
                    if patience is not None and waited >= patience:
                        result.stopped = "early"
                        break
        except KeyboardInterrupt:
            result.stopped = "interrupted"
        finally:
            self.pair.train(was_training)
        if self.best is not None:
            self.pair.load_state_dict(self.best)
        else:
            result.best_epoch = len(result.elbo)
        return result

    def epoch(self, epoch: int, weight: float) -> tuple[float, int]:
        """One pass; the average bound and the number of data."""
        # On a GPU reading the loss would wait for it, so a whole epoch runs unread and is repeated
        # with a look at every step only where it went wrong.
        look = self.device.type == "cpu" or not self.source.can_repeat
        before = _clone(self.pair.state_dict())
        optimizer_before = None if look else _clone(self.optimizer.state_dict())
        try:
            losses, counts = self.steps(epoch, weight, look)
            if not look and not bool(losses.isfinite().all()):
                assert optimizer_before is not None
                self.pair.load_state_dict(before)
                self.optimizer.load_state_dict(optimizer_before)
                losses, counts = self.steps(epoch, weight, look=True)
        except FloatingPointError:
            self.pair.load_state_dict(self.best if self.best is not None else before)
            raise
        sizes = torch.tensor(counts, dtype=torch.float64)
        return -float((losses.double().cpu() * sizes).sum() / sizes.sum()), sum(counts)

    def steps(self, epoch: int, weight: float, look: bool) -> tuple[Tensor, list[int]]:
        pair, losses, counts = self.pair, [], []
        kl_weight = None
        if weight < 1:
            kl_weight = torch.full((), weight, device=self.device)
        with fixed_seed(self.seed * 1_000_003 + epoch, self.device):
            for index, (values, masks) in enumerate(self.source.batches(shuffle=True)):
                state = torch.get_rng_state() if look else None
                bound = self.objective(pair, values, observed=masks, kl_weight=kl_weight)
                loss = -bound.mean()
                if look and not math.isfinite(loss.item()):
                    assert state is not None
                    raise FloatingPointError(
                        explain(pair, values, masks, state, epoch=epoch + 1, batch=index + 1)
                    )
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                losses.append(loss.detach())
                counts.append(len(next(iter(values.values()))))
        return torch.stack(losses), counts

    def validate(self) -> float:
        """The validation bound with full KL weight, on the same noise every epoch."""
        assert self.held is not None
        total, count = torch.zeros((), dtype=torch.float64, device=self.device), 0
        with evaluation(self.pair), fixed_seed(self.seed + 1, self.device):
            for values, masks in self.held.batches(shuffle=False):
                total += self.objective(self.pair, values, observed=masks).sum()
                count += len(next(iter(values.values())))
        return float(total) / count

    def keep_best(self, epoch: int) -> None:
        bounds = self.result.validation_elbo
        if bounds and (self.best is None or bounds[-1] > bounds[self.result.best_epoch - 1]):
            self.result.best_epoch = epoch + 1
            self.best = _clone(self.pair.state_dict())

    def step_scheduler(self) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            bounds = self.result.validation_elbo or self.result.elbo
            self.scheduler.step(-bounds[-1])
        elif self.scheduler is not None:
            self.scheduler.step()

    def describe(self, num_data: int) -> str:
        result = self.result
        text = f"ELBO {result.elbo[-1]:.2f}"
        if result.validation_elbo:
            text += f"  validation {result.validation_elbo[-1]:.2f}"
        return f"{text}  {num_data / result.seconds[-1]:,.0f} data/s"


def _make_optimizer(
    pair: LatentVariableModel, optimizer: Any, learning_rate: float, device: torch.device
) -> torch.optim.Optimizer:
    if not isinstance(learning_rate, (int, float)) or not 0 < learning_rate < float("inf"):
        raise ValueError(f"fit: learning_rate must be above 0, got {learning_rate!r}.")
    if isinstance(optimizer, torch.optim.Optimizer):
        return optimizer
    parameters = [p for p in pair.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"fit: {pair.name} has no learnable parameters; score it as it is.")
    if optimizer is None:
        fused = device.type in ("cpu", "cuda")
        return torch.optim.Adam(parameters, lr=learning_rate, fused=fused)
    if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer):
        return optimizer(parameters, lr=learning_rate)  # type: ignore[call-arg]
    made = optimizer(parameters) if callable(optimizer) else None
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(
            "fit: optimizer must be a torch optimizer or a callable that makes one of parameters, "
            f"such as torch.optim.SGD or functools.partial(torch.optim.SGD, lr=0.1); got {optimizer!r}."
        )
    return made


def _check_counts(**counts: Any) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"fit: {name} must be an int of at least 1, got {value!r}.")


def _clone(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: _clone(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_clone(value) for value in state)
    return state
