"""ADGM: an M2 whose guide has an auxiliary latent."""

from __future__ import annotations

import torch

from probgen.basics.randomness import fixed_seed
from probgen.classifier.method import Method, TrainedModel, TrainingSettings
from probgen.classifier.methods.m2 import style_size, trained_on_rows
from probgen.classifier.training import hidden_width
from probgen.data.dataset import Dataset
from probgen.models.adgm import ADGM
from probgen.variables import Categorical, Normal, Variable


class ADGMMethod(Method):
    """Train an ADGM on the rows themselves; its features are the means of the auxiliary latent a."""

    def train(
        self, x: Variable, y: Categorical, data: Dataset, settings: TrainingSettings
    ) -> TrainedModel:
        latent = Normal(style_size(x, settings))
        with fixed_seed(settings.seed, torch.device("cpu")):
            pair = ADGM(
                x, y, latent, latent, hidden=settings.hidden or [hidden_width(len(data))] * 2,
                class_prior=settings.class_prior,
            )  # fmt: skip
        return trained_on_rows("adgm", pair, "a", data, settings)
