"""M1: a VAE finds latent features of all rows, and a classifier of features learns the labels."""

from __future__ import annotations

from typing import ClassVar

import torch

from probgen.basics.user_warnings import warn
from probgen.classifier.feature_classifier import FeatureClassifier
from probgen.classifier.method import Method, TrainedModel, TrainingSettings
from probgen.classifier.training import encoder_and_curves, float64_copy
from probgen.data.dataset import Dataset
from probgen.inference.queries.features import features
from probgen.variables import Categorical, Variable

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
        encoded = features(pair, data, device=settings.device)
        columns = active_columns(encoded["x"])
        classifier = FeatureClassifier(settings.classifier).fit(encoded.columns(columns))
        trained = TrainedModel(
            pair, "z", columns, curves, seconds, [], encoder=pair, feature_classifier=classifier
        )
        if settings.validation is not None:
            error = _error(trained, settings.validation, settings)
            trained.validation_errors = [(len(curves.get("m1", [])), error)]
        return trained


def active_columns(means: torch.Tensor) -> torch.Tensor:
    """Indices of the active latents of a VAE; of all latents, with a warning, where none is active.

    Args:
        means: posterior means of all rows, shape `(rows, latents)`.
    """
    deviation = means.std(0, correction=0)
    active = (deviation > ACTIVE).nonzero().squeeze(1)
    if len(active):
        return active
    warn(
        f"M1 has no active latent: the largest standard deviation of a posterior mean over the rows is "
        f"{float(deviation.max()):.2g}, not above {ACTIVE:g}. All latents are used, but they say little "
        "about the rows; train for more epochs."
    )
    return torch.arange(len(deviation))


def _error(trained: TrainedModel, validation: Dataset, settings: TrainingSettings) -> float:
    """The share of misclassified validation rows."""
    probabilities = trained.class_probabilities(
        validation.only("x"), num_samples=settings.num_samples, seed=settings.seed,
        device=settings.device,
    )  # fmt: skip
    return 1 - float((probabilities.argmax(1) == validation["y"].numpy()).mean())
