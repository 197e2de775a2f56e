"""What each way of learning from few labels trains: M1, M2, M1+M2, ADGM."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from probgen.basics.randomness import fixed_seed
from probgen.classifier.error_curve import Errors
from probgen.classifier.spreading import spread_labels
from probgen.data.dataset import Dataset
from probgen.inference.objectives.class_shares import LearnedClassShares
from probgen.inference.objectives.elbo import ELBO
from probgen.inference.objectives.semisupervised import SemiSupervised
from probgen.inference.queries.features import features
from probgen.inference.training.results import FitResult
from probgen.models.adgm import ADGM
from probgen.models.class_prior import ClassPrior
from probgen.models.m1m2 import M1M2
from probgen.models.m2 import M2
from probgen.models.vae import VAE
from probgen.pair import LatentVariableModel
from probgen.runs.fit import fit
from probgen.variables import Categorical, Normal, Variable

METHODS = ("m1", "m2", "m1+m2", "adgm")
ACTIVE = 0.1
"""Least standard deviation of a latent's posterior mean, over the data, of an active latent."""
STEPS = 1500
"""Steps that a small data set gets, in a stage."""

MANY = 10_000
"""Rows from which on there are enough for wide networks and for M1."""

DENSE = 1_000
"""Rows from which on neighbours among the data themselves are near enough to tell the class."""


def chosen_method(method: str, rows: int) -> str:
    """The method that `"auto"` means."""
    return ("m1+m2" if rows >= MANY else "m2") if method == "auto" else method


@dataclass(frozen=True)
class Plan:
    """How stages are trained; `None` is what fits the data.

    Attributes:
        method: one of `METHODS`.
        latents: of M2 and ADGM, or of M1 where it is alone.
        hidden: widths of hidden layers.
        alpha: weight of the classifier's term.
        num_epochs: passes over the data.
        batch_size: data in a step.
        learning_rate: of Adam at the start; it falls along a cosine.
        precision: of matrix products.
        device: where.
        seed: of weights, batches and noise.
        run_dir: a folder with a run directory a stage, from which a killed fit goes on.
        progress: show bars.
        validation: further rows with their classes, whose error is noted along the way.
        class_prior: p(y) of models with classes: `"learned"`, `"uniform"`, or probabilities.
        start: `"spread"` begins models with classes with labels spread among neighbours; `None` at
            random; `"auto"` spreads over M1's features, and over data from `DENSE` rows on.
        num_samples: draws of latents that a prediction is averaged over.
        stage: what a stage is called, where it is not the method's only one.
    """

    method: str
    latents: int | None = None
    hidden: Sequence[int] | None = None
    alpha: float | None = None
    num_epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    precision: str = "float32"
    device: str | torch.device = "auto"
    seed: int = 0
    run_dir: Path | None = None
    progress: bool = False
    validation: Dataset | None = None
    start: str | None = "auto"
    class_prior: ClassPrior = "learned"
    num_samples: int = 32
    stage: str | None = None

    @property
    def last_stage(self) -> str:
        """The stage that learns the labels."""
        return "m2" if self.method == "m1+m2" else self.method


@dataclass
class Trained:
    """What training leaves.

    Attributes:
        pair: the model, in float64 on the CPU; of M1+M2 both stages as one.
        latent: the latent whose means are features.
        columns: elements of it that are active.
        curves: the ELBO or objective after each epoch of each stage, nats a datum.
        errors: pairs of an epoch of the last stage and the share of wrong validation rows then.
        encoder: the VAE, where there is one.
        seconds: of training, of each stage.
    """

    pair: LatentVariableModel
    latent: str
    columns: torch.Tensor
    curves: dict[str, list[float]]
    errors: list[tuple[int, float]]
    seconds: dict[str, float]
    encoder: LatentVariableModel | None = None


def train(
    x: Variable, num_classes: int, data: Dataset, plan: Plan, encoder: LatentVariableModel | None
) -> Trained:
    """Train the model of a method.

    Args:
        x: the data's family and shape.
        num_classes: classes of y.
        data: x, and y with a mask.
        plan: the method, and how.
        encoder: a trained M1, which then is not trained again.
    """
    y, held = Categorical(num_classes), plan.validation
    curves: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}

    def note(stage: str, result: FitResult) -> None:
        curves[stage], seconds[stage] = result.elbo, sum(result.seconds)

    if plan.method in ("m2", "adgm"):
        pair = _of_data(x, y, data, plan)
        most = 500 if len(data) >= MANY else 200
        result, errors = _with_labels(pair, data, data, held, plan, rate=1e-3, most=most, many=30)
        note(plan.last_stage, result)
        latent = "z" if plan.method == "m2" else "a"  # what the classifier of ADGM sees beside x
        all_of_it = torch.arange(pair.variables[latent].event_shape.numel())
        return Trained(kept(pair), latent, all_of_it, curves, errors, seconds)
    if encoder is None:
        encoder, result = train_m1(x, data, plan)
        note("m1", result)
    found = features(encoder, data, redraw=True, device=plan.device)
    columns, m1 = _active(found["x"]), kept(encoder)
    if plan.method == "m1":
        return Trained(m1, "z", columns, curves, [], seconds, m1)
    raw = found.columns(columns)
    moments = _moments(raw["x"].double())
    found = raw.standardized(**moments)

    def stacked(m2: M2) -> M1M2:
        return M1M2.stacked(m1, kept(m2), columns=columns, **moments)

    with fixed_seed(plan.seed + 1, torch.device("cpu")):
        m2 = M2(
            Normal(len(columns)),
            y,
            Normal(plan.latents or 10),
            hidden=plan.hidden or [_width(data)],
            class_prior=plan.class_prior,
        )
    result, errors = _with_labels(
        m2, found, raw, held, plan, rate=3e-3, most=1000, many=100, predicting=stacked
    )
    note(plan.last_stage, result)
    return Trained(stacked(m2), "z1", columns, curves, errors, seconds, m1)


def train_m1(x: Variable, data: Dataset, plan: Plan) -> tuple[VAE, FitResult]:
    """A VAE of all rows, whatever their labels."""
    size, alone = x.event_shape.numel(), plan.latents if plan.method == "m1" else None
    with fixed_seed(plan.seed, torch.device("cpu")):
        vae = VAE(
            x, Normal(alone or min(50, size)), hidden=plan.hidden or [_width(data)] * 2,
            activation=nn.Softplus,
        )  # fmt: skip
    batch = plan.batch_size or min(len(data), 200)
    epochs = plan.num_epochs or _epochs(-(-len(data) // batch), 60)
    # Without a warm-up many latents are given up early and never come back.
    goal = ELBO(analytic_kl=True, warmup_epochs=epochs // 3)
    return vae, _fit("m1", vae, data.only("x"), goal, epochs, batch, 1e-3, plan)


def _of_data(x: Variable, y: Variable, data: Dataset, plan: Plan) -> LatentVariableModel:
    """M2 or ADGM, on the data themselves."""
    z, width = Normal(plan.latents or min(50, x.event_shape.numel())), _width(data)
    prior = plan.class_prior
    with fixed_seed(plan.seed, torch.device("cpu")):
        if plan.method == "m2":
            return M2(x, y, z, hidden=plan.hidden or [width], class_prior=prior)
        return ADGM(x, y, z, z, hidden=plan.hidden or [width] * 2, class_prior=prior)


def _moments(x: torch.Tensor) -> dict[str, Any]:
    return {"mean": x.mean(0), "scale": x.std(0, correction=0)}


def _with_labels(
    pair: LatentVariableModel, data: Dataset, near: Dataset, held: Dataset | None, plan: Plan, *,
    rate: float, most: int, many: int, predicting: Callable[[Any], LatentVariableModel] | None = None,
) -> tuple[FitResult, list[tuple[int, float]]]:  # fmt: skip
    """A model with classes: begun at random; or with labels spread among neighbours in `near`, and
    gone on with by its own objective in small steps."""
    assert data.observed is not None
    learn = partial(_labelled, pair, predicting=predicting or kept, rate=rate)
    spread = plan.start == "spread"
    if plan.start == "auto":
        spread = plan.method == "m1+m2" or len(data) >= DENSE
    if not spread or bool(data.observed["y"].all()):
        return learn(data, held, plan, most=most, many=many)
    guessed = data.with_values({"y": spread_labels(near)}).with_observed({"y": None})
    begun = replace(plan, stage=f"{plan.last_stage}-start")
    first, early = learn(guessed, held, begun, most=min(most, 500), many=8)
    epochs, rate = max(1, len(first.elbo) // 4), (plan.learning_rate or rate) / 30
    further = replace(plan, num_epochs=epochs, learning_rate=rate)
    last, late = learn(data, held, further, most=min(most, 500), many=epochs)
    last.elbo, last.seconds = first.elbo + last.elbo, first.seconds + last.seconds
    return last, early + [(len(first.elbo) + epoch, share) for epoch, share in late]


def _labelled(
    pair: LatentVariableModel, data: Dataset, held: Dataset | None, plan: Plan, *, rate: float,
    most: int, many: int, predicting: Callable[[Any], LatentVariableModel],
) -> tuple[FitResult, list[tuple[int, float]]]:  # fmt: skip
    """A model with classes, of all rows and the labels that some have."""
    mask = (data.observed or {}).get("y")
    rows = len(data)
    known = rows if mask is None else int(mask.sum())
    batch = plan.batch_size or min(rows, most)
    labelled: int | None = min(known, batch // 2, 100)
    steps = -(-rows // batch)
    if not labelled or batch * known >= rows * labelled or rows - known < batch - labelled:
        labelled = None  # chance brings enough, or few rows lack a label
    else:
        steps = -(-(rows - known) // (batch - labelled))
    alpha = 1.0 if plan.alpha is None else plan.alpha
    settings: Any = {"alpha": alpha, "labelled_batch": labelled, "analytic_kl": True}
    learned = plan.class_prior == "learned"
    goal = LearnedClassShares(rows, **settings) if learned else SemiSupervised(**settings)
    epochs = plan.num_epochs or _epochs(steps, many)
    stage = plan.stage or plan.last_stage
    path = None if plan.run_dir is None else plan.run_dir / f"{stage}-errors.json"
    errors = Errors(pair, held, epochs, path, plan.device, predicting, plan.num_samples, plan.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SemiSupervised: y is known for all")  # said before
        result = _fit(stage, pair, data, goal, epochs, batch, rate, plan, errors)
    return result, errors.at_the_end()


def _width(data: Dataset) -> int:
    """Of a hidden layer: as published for MNIST, fewer for small data."""
    return 500 if len(data) >= MANY else 128


def _epochs(steps: int, many: int) -> int:
    """As many as are usual for large data, or those of `STEPS` steps."""
    return max(many, round(STEPS / steps))


def _fit(
    stage: str, pair: LatentVariableModel, data: Dataset, goal: ELBO, epochs: int, batch: int,
    rate: float, plan: Plan, callback: Callable[[FitResult], None] | None = None,
) -> FitResult:  # fmt: skip
    rate = plan.learning_rate or rate
    result = fit(
        pair, data, num_epochs=epochs, batch_size=batch, learning_rate=rate, objective=goal,
        scheduler=partial(CosineAnnealingLR, T_max=epochs, eta_min=rate / 100),
        precision=plan.precision, device=plan.device, seed=plan.seed,
        run_dir=None if plan.run_dir is None else plan.run_dir / stage,
        resume=plan.run_dir is not None, progress=plan.progress, callback=callback,
    )  # fmt: skip
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    return result


def _active(means: torch.Tensor) -> torch.Tensor:
    """The active latents of M1; where there is none, all."""
    spread = means.std(0, correction=0)
    found = (spread > ACTIVE).nonzero().squeeze(1)
    if not len(found):
        warnings.warn(
            f"M1 has no active latent: no posterior mean has a standard deviation above {ACTIVE:g} over "
            "the rows (the largest is "
            f"{float(spread.max()):.2g}). All are used, but they say little; train for more epochs.",
            stacklevel=2,
        )
        return torch.arange(len(spread))
    return found


def kept(pair: LatentVariableModel) -> Any:
    """In float64 on the CPU: predictions of a row then do not depend on the rows beside it."""
    return copy.deepcopy(pair).to(device="cpu", dtype=torch.float64).eval()
