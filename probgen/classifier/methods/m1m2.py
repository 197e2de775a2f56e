"""M1+M2: an M2 of the latents of a VAE, which are drawn anew in every step."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from probgen.basics.randomness import fixed_seed
from probgen.classifier.method import Method, TrainedModel, TrainingSettings
from probgen.classifier.methods.m1 import active_columns
from probgen.classifier.training import (
    encoder_and_curves,
    float64_copy,
    hidden_width,
    train_with_labels,
)
from probgen.data.dataset import Dataset
from probgen.inference.queries.features import features
from probgen.models.m1m2 import M1M2
from probgen.models.m2 import M2
from probgen.variables import Categorical, Normal, Variable


class M1M2Method(Method):
    """Train a VAE, encode the rows once, and train an M2 on the standardized active latents."""

    registered_name: ClassVar[str] = "m1+m2"
    takes_encoder: ClassVar[bool] = True

    def train(
        self, x: Variable, y: Categorical, data: Dataset, settings: TrainingSettings
    ) -> TrainedModel:
        vae, curves, seconds = encoder_and_curves(x, data, settings)
        encoded = features(vae, data, redraw=True, device=settings.device)
        columns = active_columns(encoded["x"])
        encoded = encoded.columns(columns)
        means = encoded["x"].double()
        moments: dict[str, Any] = {"mean": means.mean(0), "scale": means.std(0, correction=0)}
        with fixed_seed(settings.seed + 1, torch.device("cpu")):
            m2 = M2(
                Normal(len(columns)), y, Normal(settings.latents or 10),
                hidden=settings.hidden or [hidden_width(len(data))], class_prior=settings.class_prior,
            )  # fmt: skip
        encoder = float64_copy(vae)

        def both_stages(m2: Any) -> M1M2:
            return M1M2.stacked(encoder, float64_copy(m2), columns=columns, **moments)

        result, errors = train_with_labels(
            "m2", m2, encoded.standardized(**moments), settings, learning_rate=3e-3,
            max_batch_size=1000, min_epochs=100, spread=True, neighbours=encoded,
            predictor=both_stages,
        )  # fmt: skip
        return TrainedModel(
            both_stages(m2), "z1", columns, {**curves, "m2": result.elbo},
            {**seconds, "m2": sum(result.seconds)}, errors, encoder=encoder,
        )  # fmt: skip
