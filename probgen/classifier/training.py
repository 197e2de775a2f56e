"""Training stages that the methods share: one fit, and one fit with partly known classes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from probgen.basics.randomness import fixed_seed
from probgen.classifier.label_spreading import spread_labels
from probgen.classifier.method import MANY_ROWS, TrainingSettings
from probgen.classifier.validation_errors import ValidationErrors
from probgen.data.dataset import Dataset
from probgen.inference.objectives.class_shares import LearnedClassShares
from probgen.inference.objectives.elbo import ELBO
from probgen.inference.objectives.semisupervised import SemiSupervised
from probgen.inference.training.results import FitResult
from probgen.models.vae import VAE
from probgen.pair import LatentVariableModel
from probgen.runs.fit import fit
from probgen.variables import Normal, Variable

NUM_STEPS = 1500
"""Optimizer steps of a training stage on small data."""

DENSE_ROWS = 1_000
"""Number of rows from which on nearest neighbours among the data predict the class well enough."""

ValidationCurve = list[tuple[int, float]]
"""Pairs of an epoch and the share of misclassified validation rows after it."""


def hidden_width(num_rows: int) -> int:
    """Default width of a hidden layer: as published for MNIST, and fewer units for small data."""
    return 500 if num_rows >= MANY_ROWS else 128


def default_epochs(steps_per_epoch: int, at_least: int) -> int:
    """Default number of epochs: `NUM_STEPS` optimizer steps in all, but no fewer epochs than given."""
    return max(at_least, round(NUM_STEPS / steps_per_epoch))


def float64_copy(pair: LatentVariableModel) -> Any:
    """A copy in float64 on the CPU, whose predictions for a row do not depend on the other rows."""
    return copy.deepcopy(pair).to(device="cpu", dtype=torch.float64).eval()


def train_stage(
    stage: str, pair: LatentVariableModel, data: Dataset, objective: ELBO,
    settings: TrainingSettings, *, num_epochs: int, batch_size: int, learning_rate: float,
    callback: Callable[[FitResult], None] | None = None,
) -> FitResult:  # fmt: skip
    """Fit a pair in a run directory of its own.

    Args:
        stage: name of the training stage and of its run directory.
        pair: what to train.
        data: what to train on.
        objective: what to maximize.
        settings: how to train; a learning rate given there replaces `learning_rate`.
        num_epochs: passes over the data.
        batch_size: rows in a batch.
        learning_rate: default learning rate.
        callback: called after every epoch.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the epoch's weights have been stored.
    """
    learning_rate = settings.learning_rate or learning_rate
    result = fit(
        pair, data, num_epochs=num_epochs, batch_size=batch_size, learning_rate=learning_rate,
        objective=objective,
        scheduler=partial(CosineAnnealingLR, T_max=num_epochs, eta_min=learning_rate / 100),
        precision=settings.precision, device=settings.device, seed=settings.seed,
        run_dir=None if settings.run_dir is None else settings.run_dir / stage,
        resume=settings.run_dir is not None, progress=settings.progress, callback=callback,
    )  # fmt: skip
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    return result


def encoder_and_curves(
    x: Variable, data: Dataset, settings: TrainingSettings, latents: int | None = None
) -> tuple[LatentVariableModel, dict[str, list[float]], dict[str, float]]:
    """The VAE that was given, or a trained one with its curve and time, each by training stage."""
    if settings.encoder is not None:
        return settings.encoder, {}, {}
    vae, result = train_vae(x, data, settings, latents)
    return vae, {"m1": result.elbo}, {"m1": sum(result.seconds)}


def train_vae(
    x: Variable, data: Dataset, settings: TrainingSettings, latents: int | None = None
) -> tuple[VAE, FitResult]:
    """Train a VAE on all rows, whatever their labels.

    Args:
        x: family and shape of a row.
        data: the rows.
        settings: how to train.
        latents: size of the latent; by default 50, or the size of x where that is smaller.
    """
    with fixed_seed(settings.seed, torch.device("cpu")):
        vae = VAE(
            x, Normal(latents or min(50, x.event_shape.numel())),
            hidden=settings.hidden or [hidden_width(len(data))] * 2, activation=nn.Softplus,
        )  # fmt: skip
    batch_size = settings.batch_size or min(len(data), 200)
    num_epochs = settings.num_epochs or default_epochs(-(-len(data) // batch_size), 60)
    # Without a warm-up of the KL divergence many latents become inactive early and stay so.
    objective = ELBO(analytic_kl=True, warmup_epochs=num_epochs // 3)
    result = train_stage(
        "m1", vae, data.only("x"), objective, settings,
        num_epochs=num_epochs, batch_size=batch_size, learning_rate=1e-3,
    )  # fmt: skip
    return vae, result


def train_with_labels(
    stage: str, pair: LatentVariableModel, data: Dataset, settings: TrainingSettings, *,
    learning_rate: float, max_batch_size: int, min_epochs: int, spread: bool | None = None,
    neighbours: Dataset | None = None,
    predictor: Callable[[Any], LatentVariableModel] = float64_copy,
) -> tuple[FitResult, ValidationCurve]:  # fmt: skip
    """Train a model with classes on all rows and the labels that some have.

    Training starts from random weights; or it starts with labels that are spread to all rows over their
    nearest neighbours, and continues with the labels that are known in small steps.

    Args:
        stage: name of the training stage.
        pair: what to train.
        data: x, and class codes y with a mask.
        settings: how to train.
        learning_rate: default learning rate.
        max_batch_size: largest default batch size.
        min_epochs: smallest default number of epochs.
        spread: whether `start="auto"` spreads labels; by default from `DENSE_ROWS` rows on.
        neighbours: rows among which neighbours are searched for; by default the data.
        predictor: returns the model that predicts, given the pair in its present state.
    """
    if settings.start == "auto":
        spread = len(data) >= DENSE_ROWS if spread is None else spread
    else:
        spread = settings.start == "spread"
    train = partial(_train_once, pair=pair, learning_rate=learning_rate, predictor=predictor)
    if not spread or data.fields["y"].known.all():
        return train(stage, data, settings, max_batch_size=max_batch_size, min_epochs=min_epochs)
    y = spread_labels(data if neighbours is None else neighbours)
    all_labelled = data.with_values({"y": y}).with_observed({"y": None})
    max_batch_size = min(max_batch_size, 500)
    start, start_errors = train(
        f"{stage}-start", all_labelled, settings, max_batch_size=max_batch_size, min_epochs=8
    )
    started = len(start.elbo)
    small_steps = replace(
        settings,
        num_epochs=max(1, started // 4),
        learning_rate=(settings.learning_rate or learning_rate) / 30,
    )
    result, errors = train(stage, data, small_steps, max_batch_size=max_batch_size, min_epochs=1)
    result.elbo, result.seconds = start.elbo + result.elbo, start.seconds + result.seconds
    return result, start_errors + [(started + epoch, error) for epoch, error in errors]


def _train_once(
    stage: str, data: Dataset, settings: TrainingSettings, *, pair: LatentVariableModel,
    learning_rate: float, max_batch_size: int, min_epochs: int,
    predictor: Callable[[Any], LatentVariableModel],
) -> tuple[FitResult, ValidationCurve]:  # fmt: skip
    """One fit of a model with classes, and the errors on the validation rows along the way."""
    num_rows = len(data)
    batch_size = settings.batch_size or min(num_rows, max_batch_size)
    labelled_batch, steps = _batch_composition(
        num_rows, int(data.fields["y"].known.sum()), batch_size
    )
    num_epochs = settings.num_epochs or default_epochs(steps, min_epochs)
    path = None if settings.run_dir is None else settings.run_dir / f"{stage}-errors.json"
    errors = ValidationErrors(
        pair, settings.validation, num_epochs, path, settings.device, predictor,
        settings.num_samples, settings.seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        # The classifier has warned already that all labels are known.
        warnings.filterwarnings("ignore", "SemiSupervised: y is known for all")
        result = train_stage(
            stage, pair, data, _objective(num_rows, labelled_batch, settings), settings,
            num_epochs=num_epochs, batch_size=batch_size, learning_rate=learning_rate,
            callback=errors,
        )  # fmt: skip
    return result, errors.complete()


def _objective(
    num_rows: int, labelled_batch: int | None, settings: TrainingSettings
) -> SemiSupervised:
    """The semi-supervised objective; with a Dirichlet prior where the class shares are learned."""
    alpha = 1.0 if settings.alpha is None else settings.alpha
    options: Any = {"alpha": alpha, "labelled_batch": labelled_batch, "analytic_kl": True}
    if settings.class_prior == "learned":
        return LearnedClassShares(num_rows, **options)
    return SemiSupervised(**options)


def _batch_composition(num_rows: int, num_labelled: int, batch_size: int) -> tuple[int | None, int]:
    """How many rows of a batch are labelled ones (`None`: as chance has it), and batches per epoch."""
    labelled = min(num_labelled, batch_size // 2, 100)
    num_unlabelled = num_rows - num_labelled
    enough_by_chance = not labelled or batch_size * num_labelled >= num_rows * labelled
    if enough_by_chance or num_unlabelled < batch_size - labelled:
        return None, -(-num_rows // batch_size)
    return labelled, -(-num_unlabelled // (batch_size - labelled))
