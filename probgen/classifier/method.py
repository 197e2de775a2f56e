"""What a method of learning from few labels is given, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from probgen.basics.registry import Registry
from probgen.classifier.feature_classifier import FeatureClassifier
from probgen.classifier.scaling import Array
from probgen.data.dataset import Dataset
from probgen.inference.queries.classification import class_probabilities
from probgen.inference.queries.features import features
from probgen.inference.queries.posterior import encode
from probgen.models.class_prior import ClassPrior
from probgen.pair import LatentVariableModel
from probgen.variables import Categorical, Variable

MANY_ROWS = 10_000
"""Number of rows from which on M1+M2 is the default method, and hidden layers are wide."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a method trains its models; `None` means a default that depends on the data.

    Attributes:
        latents: size of the latent of M2 and ADGM; of M1's, where M1 is the method.
        hidden: widths of the hidden layers.
        alpha: weight of the classification term of the objective.
        num_epochs: passes over the data in each training stage.
        batch_size: rows in a batch.
        learning_rate: of Adam at the start; it decreases along a cosine.
        precision: of matrix products.
        device: where to train.
        seed: of weights, batches and noise.
        run_dir: a folder with one run directory for each training stage, from which a fit resumes.
        progress: show progress bars.
        start: how models with classes start: `"spread"`, `None` or `"auto"`.
        class_prior: p(y) of models with classes: `"learned"`, `"uniform"`, or probabilities.
        num_samples: draws of latents over which a prediction is averaged.
        encoder: a trained VAE, which M1 and M1+M2 then do not train.
        classifier: the scikit-learn classifier of M1; `None` is label spreading.
        validation: further rows with their classes, on which the error is recorded.
    """

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
    start: str | None = "auto"
    class_prior: ClassPrior = "learned"
    num_samples: int = 32
    encoder: LatentVariableModel | None = None
    classifier: Any = None
    validation: Dataset | None = None


@dataclass
class TrainedModel:
    """What a method returns: a trained pair, and what predicts with it.

    Attributes:
        pair: the model, in float64 on the CPU; of M1+M2 both training stages as one pair.
        latent: the latent whose posterior means are features.
        columns: indices of the active elements of that latent.
        curves: for each training stage, the ELBO or objective after each epoch, in nats per datum.
        seconds: for each training stage, the time that it took.
        validation_errors: pairs of an epoch of the last training stage and the error then.
        encoder: the VAE, of methods that have one.
        feature_classifier: what classifies the features, where the pair itself does not classify.
        latent_needs_class: the guide infers the latent given the class; its features are averages
            over the class.
    """

    pair: LatentVariableModel
    latent: str
    columns: torch.Tensor
    curves: dict[str, list[float]]
    seconds: dict[str, float]
    validation_errors: list[tuple[int, float]]
    encoder: LatentVariableModel | None = None
    feature_classifier: FeatureClassifier | None = None
    latent_needs_class: bool = False

    def class_probabilities(
        self, data: Dataset, *, num_samples: int, seed: int, device: str | torch.device
    ) -> Array:
        """Probabilities of the classes, averaged over draws of latents, shape `(rows, classes)`."""
        if self.feature_classifier is None:
            probabilities = class_probabilities(
                self.pair, data, num_samples=num_samples, draws="rqmc", seed=seed, device=device
            )
            return np.asarray(probabilities.double().numpy())
        encoded = features(self.pair, data, columns=self.columns, redraw=True, device=device)
        return self.feature_classifier.class_probabilities(encoded, num_samples, seed)

    def features(self, data: Dataset, *, seed: int, device: str | torch.device) -> Array:
        """Posterior means of the active elements of the latent, shape `(rows, elements)`."""
        if self.latent_needs_class:
            means = encode(self.pair, data, seed=seed, device=device)[self.latent]
        else:
            means = features(self.pair, data, latent=self.latent, device=device)["x"]
        return np.asarray(means[:, self.columns].double().numpy())


class Method(ABC):
    """A way to learn classes from rows of which few have labels.

    Every file of `probgen/classifier/methods` that defines a subclass is a method. Its name is the
    file's, or what the class gives as `registered_name`.
    """

    has_classes: ClassVar[bool] = True
    """Whether the model of the rows has a class y, so that rows of a class can be drawn from it."""
    takes_encoder: ClassVar[bool] = False
    """Whether it trains a VAE, and takes a trained one in its place."""
    takes_classifier: ClassVar[bool] = False
    """Whether a scikit-learn classifier of latent features learns the labels."""

    @abstractmethod
    def train(
        self, x: Variable, y: Categorical, data: Dataset, settings: TrainingSettings
    ) -> TrainedModel:
        """Train the models of the method.

        Args:
            x: family and shape of a row.
            y: the class.
            data: rows x, and class codes y with a mask that says which are known.
            settings: how to train.
        """


METHODS = Registry("method", "probgen.classifier.methods", bases=["Method"])
"""All methods by name."""


def chosen_method(method: str, num_rows: int) -> str:
    """The name of the method that `"auto"` means for so many rows; every other name stays."""
    return ("m1+m2" if num_rows >= MANY_ROWS else "m2") if method == "auto" else method
