"""M2: a class and a style generate a row; an unknown class is summed out."""

from __future__ import annotations

import torch

from probgen.basics.randomness import fixed_seed
from probgen.classifier.method import MANY_ROWS, Method, TrainedModel, TrainingSettings
from probgen.classifier.training import float64_copy, hidden_width, train_with_labels
from probgen.data.dataset import Dataset
from probgen.models.m2 import M2
from probgen.pair import LatentVariableModel
from probgen.variables import Categorical, Normal, Variable


class M2Method(Method):
    """Train an M2 on the rows themselves."""

    def train(
        self, x: Variable, y: Categorical, data: Dataset, settings: TrainingSettings
    ) -> TrainedModel:
        with fixed_seed(settings.seed, torch.device("cpu")):
            pair = M2(
                x, y, Normal(style_size(x, settings)), hidden=settings.hidden or [hidden_width(len(data))],
                class_prior=settings.class_prior,
            )  # fmt: skip
        return trained_on_rows("m2", pair, "z", data, settings, latent_needs_class=True)


def style_size(x: Variable, settings: TrainingSettings) -> int:
    """Size of the latent beside the class: by default 50, or the size of x where that is smaller."""
    return settings.latents or min(50, x.event_shape.numel())


def trained_on_rows(
    stage: str, pair: LatentVariableModel, latent: str, data: Dataset, settings: TrainingSettings,
    *, latent_needs_class: bool = False,
) -> TrainedModel:  # fmt: skip
    """Train a model with classes on the rows themselves, in one training stage.

    Args:
        stage: its name.
        pair: what to train.
        latent: the latent whose posterior means are features, all of its elements.
        data: x, and class codes y with a mask.
        settings: how to train.
        latent_needs_class: the guide infers the latent given the class.
    """
    result, errors = train_with_labels(
        stage, pair, data, settings, learning_rate=1e-3,
        max_batch_size=500 if len(data) >= MANY_ROWS else 200, min_epochs=30,
    )  # fmt: skip
    columns = torch.arange(pair.variables[latent].event_shape.numel())
    return TrainedModel(
        float64_copy(pair), latent, columns, {stage: result.elbo}, {stage: sum(result.seconds)},
        errors, latent_needs_class=latent_needs_class,
    )  # fmt: skip
