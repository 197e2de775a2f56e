"""All pictures of a classifier that learned from few labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probgen.basics.locking import one_at_a_time
from probgen.classifier.repeat import FewLabels, known_rows
from probgen.data.dataset import Splits
from probgen.plots.classes import analogies, confusion, errors, reliability
from probgen.plots.style import save
from probgen.reports.two_latents import pictures_of_two_latents
from probgen.storage.files import make_folder

MOST_ROWS = 1_000
"""Test rows in a picture of probabilities or latents."""


@one_at_a_time
def few_labels_report(
    found: FewLabels, data: Splits, folder: Path, *, seed: int = 0, progress: bool = True
) -> dict[str, Path]:
    """Draw the errors during training, the confusion matrix and the calibration; for images also
    analogies, and styles, latent spaces and denoising by a VAE and a CVAE with two latents.

    The two small models are trained here, the CVAE on the classes that the classifier predicts.

    Args:
        found: the result of `pg.few_labels`.
        data: the data it was given.
        folder: where to write.
        seed: of the small models and the noise.
        progress: show progress bars.

    Returns:
        The files by name.

    Raises:
        ValueError: there is no classifier, or there are no test data.
        KeyboardInterrupt: Ctrl-C while the small models are trained.
    """
    classifier, test = found.classifier, data.test
    if classifier is None or test is None:
        raise ValueError(
            "few_labels_report: needs a classifier and test data. Give what pg.few_labels returned "
            "and the same data."
        )
    make_folder(folder)
    labelled = np.isin(test["y"].numpy(), classifier.classes_) & known_rows(test)
    chosen = np.flatnonzero(labelled)[:MOST_ROWS]
    rows, labels = test["x"].flatten(1).numpy()[chosen], test["y"].numpy()[chosen]
    names, codes = found.classes, np.searchsorted(classifier.classes_, labels)
    pictures: dict[str, Any] = {}
    curves = {f"seed {s}": c for s, c in zip(found.seeds, found.curves, strict=True) if c}
    if curves:
        pictures["errors"] = partial(errors, curves)
    pictures["confusion"] = partial(confusion, found.confusion, names)
    pictures["reliability"] = partial(reliability, classifier.predict_proba(rows), codes)
    if test.fields["x"].is_images:
        _, one_of_each = np.unique(codes, return_index=True)
        if classifier.method_ != "m1":
            pictures["analogies"] = partial(
                analogies, classifier.pair_, classifier.to_x(rows[one_of_each]), names=names,
                pixels=classifier.from_x, seed=seed,
            )  # fmt: skip
        pictures |= pictures_of_two_latents(
            classifier, data.train["x"].flatten(1), torch.from_numpy(rows), codes, one_of_each,
            names, seed=seed, progress=progress,
        )  # fmt: skip
    return {name: save(folder / f"{name}.png", draw) for name, draw in pictures.items()}
