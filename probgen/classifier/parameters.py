"""Parameters of `SemiSupervisedClassifier`: which values are allowed, and how training takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probgen.basics.checks import as_count
from probgen.classifier.method import METHODS, Method, TrainingSettings
from probgen.data.dataset import Dataset
from probgen.models.class_prior import as_class_prior
from probgen.models.vae import VAE
from probgen.networks import as_widths


def check_parameters(classifier: Any, owner: str) -> None:
    """Refuse parameters that are wrong whatever the data.

    Args:
        classifier: the estimator whose attributes are checked.
        owner: its name, for messages.

    Raises:
        ValueError: a parameter out of its range; the message says what is allowed.
    """
    names = ("auto", *METHODS.names())
    if classifier.method not in names:
        listed = ", ".join(f'"{name}"' for name in names)
        raise ValueError(f"{owner}: method must be one of {listed}, got {classifier.method!r}.")
    for name in ("latents", "num_epochs", "batch_size"):
        if getattr(classifier, name) is not None:
            as_count(getattr(classifier, name), name, owner)
    as_count(classifier.num_samples, "num_samples", owner)
    rate, alpha = classifier.learning_rate, classifier.alpha
    if rate is not None and not 0 < rate < np.inf:
        raise ValueError(f"{owner}: learning_rate must be finite and above 0, got {rate!r}.")
    if alpha is not None and not 0 <= alpha < 1e9:
        raise ValueError(f"{owner}: alpha must be a finite number of at least 0, got {alpha!r}.")
    if classifier.hidden is not None and not isinstance(classifier.hidden, Sequence):
        raise ValueError(
            f"{owner}: hidden must be widths such as (500, 500), got {classifier.hidden!r}."
        )
    if classifier.start not in (None, "auto", "spread"):
        raise ValueError(
            f'{owner}: start must be "auto", "spread" or None, got {classifier.start!r}.'
        )
    as_class_prior(classifier.class_prior, owner)
    random_state = classifier.random_state
    if classifier.run_dir is not None and not isinstance(random_state, (int, np.integer)):
        raise ValueError(
            f"{owner}: a fit with a run_dir resumes with the seed that it started with, so random_state "
            f"must be an int, got {random_state!r}."
        )
    if classifier.encoder is not None and not isinstance(classifier.encoder, VAE):
        raise ValueError(
            f"{owner}: encoder must be a pg.models.VAE, such as another classifier's encoder_, got "
            f"{type(classifier.encoder).__name__}."
        )


def check_for_method(classifier: Any, name: str, owner: str) -> None:
    """Refuse parameters that the method does not use.

    Args:
        classifier: the estimator whose attributes are checked.
        name: the name of the method, `"auto"` resolved.
        owner: the estimator's name, for messages.

    Raises:
        ValueError: a classifier, an encoder or class probabilities for a method without them.
    """
    for parameter in ("classifier", "encoder"):
        methods = [m for m in METHODS.names() if getattr(METHODS.get(m), f"takes_{parameter}")]
        if getattr(classifier, parameter) is not None and name not in methods:
            raise ValueError(
                f"{owner}: {parameter} is for method {' and '.join(methods)}, but the method is {name!r}."
            )
    if not METHODS.get(name).has_classes and not isinstance(classifier.class_prior, str):
        raise ValueError(
            f"{owner}: class_prior={classifier.class_prior!r} is for models with classes, but the "
            f'method is "{name}", whose model of the rows has none. Leave it out.'
        )


def training_settings(
    classifier: Any,
    owner: str,
    *,
    seed: int,
    num_classes: int | None,
    validation: Dataset | None = None,
) -> TrainingSettings:
    """The parameters as a method's training takes them.

    Args:
        classifier: the estimator whose attributes are read.
        owner: its name, for messages.
        seed: of weights, batches and noise.
        num_classes: how many classes there are; `None` where no model with classes is trained.
        validation: further rows with their classes, on which the error is recorded.

    Raises:
        ValueError: class probabilities of another number than there are classes.
    """

    def optional_int(value: Any) -> int | None:
        return None if value is None else int(value)

    def optional_float(value: Any) -> float | None:
        return None if value is None else float(value)

    return TrainingSettings(
        latents=optional_int(classifier.latents),
        hidden=None if classifier.hidden is None else as_widths(classifier.hidden),
        alpha=optional_float(classifier.alpha),
        num_epochs=optional_int(classifier.num_epochs),
        batch_size=optional_int(classifier.batch_size),
        learning_rate=optional_float(classifier.learning_rate),
        precision=classifier.precision,
        device=classifier.device,
        seed=seed,
        run_dir=None if classifier.run_dir is None else Path(classifier.run_dir),
        progress=classifier.progress,
        start=classifier.start,
        class_prior=as_class_prior(classifier.class_prior, owner, num_classes),
        num_samples=int(classifier.num_samples),
        encoder=classifier.encoder,
        classifier=classifier.classifier,
        validation=validation,
    )


def method_named(name: str) -> Method:
    """The method of a name that `check_parameters` has accepted, `"auto"` resolved."""
    method: Method = METHODS.get(name)()
    return method
