"""M1: a VAE finds latent features of all rows, and a classifier of features learns the labels."""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
from torch import nn

from probgen.basics.randomness import fixed_seed
from probgen.classifier.feature_classifier import FeatureClassifier
from probgen.classifier.method import Method, TrainedModel, TrainingSettings
from probgen.classifier.training import default_epochs, float64_copy, hidden_width, train_stage
from probgen.data.dataset import Dataset
from probgen.inference.objectives.elbo import ELBO
from probgen.inference.queries.features import features
from probgen.inference.training.results import FitResult
from probgen.models.vae import VAE
from probgen.pair import LatentVariableModel
from probgen.variables import Categorical, Normal, Variable

ACTIVE = 0.1
"""Smallest standard deviation over the rows of the posterior mean of an active latent."""


class M1Method(Method):
    """Train a VAE, then a scikit-learn classifier of its active latents."""

    has_classes: ClassVar[bool] = False
    takes_encoder: ClassVar[bool] = True
    takes_classifier: ClassVar[bool] = True

    def train(
        self, x: Variable, y: Categorical, data: Dataset, settings: TrainingSettings
    ) -> TrainedModel:
        vae, curves, seconds = encoder_and_curves(x, data, settings, settings.latents)
        pair = float64_copy(vae)
        means = features(pair, data, device=settings.device)["x"]
        columns = active_columns(means)
        classifier = FeatureClassifier(settings.classifier).fit(means[:, columns], data)
        trained = TrainedModel(
            pair, "z", columns, curves, seconds, [], encoder=pair, feature_classifier=classifier
        )
        if settings.validation is not None:
            error = _error(trained, settings.validation, settings)
            trained.validation_errors = [(len(curves.get("m1", [])), error)]
        return trained


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
            hidden=settings.hidden or [hidden_width(data)] * 2, activation=nn.Softplus,
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


def active_columns(means: torch.Tensor) -> torch.Tensor:
    """Indices of the active latents of a VAE; of all latents, with a warning, where none is active.

    Args:
        means: posterior means of all rows, shape `(rows, latents)`.
    """
    deviation = means.std(0, correction=0)
    active = (deviation > ACTIVE).nonzero().squeeze(1)
    if len(active):
        return active
    warnings.warn(
        f"M1 has no active latent: the largest standard deviation of a posterior mean over the rows is "
        f"{float(deviation.max()):.2g}, not above {ACTIVE:g}. All latents are used, but they say little "
        "about the rows; train for more epochs.",
        stacklevel=2,
    )
    return torch.arange(len(deviation))


def _error(trained: TrainedModel, validation: Dataset, settings: TrainingSettings) -> float:
    """The share of misclassified validation rows."""
    probabilities = trained.class_probabilities(
        validation.only("x"), num_samples=settings.num_samples, seed=settings.seed,
        device=settings.device,
    )  # fmt: skip
    return 1 - float((probabilities.argmax(1) == validation["y"].numpy()).mean())
