"""All pictures of a classifier that learned from few labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from probgen.basics.locking import one_at_a_time
from probgen.classifier.estimator import SemiSupervisedClassifier
from probgen.classifier.repeat import FewLabels, known_rows
from probgen.data.dataset import Dataset, Splits
from probgen.models.cvae import CVAE
from probgen.models.vae import VAE
from probgen.pair import LatentVariableModel
from probgen.plots.classes import analogies, confusion, denoising, errors, reliability
from probgen.plots.latents import latent_scatter, manifold
from probgen.plots.style import save
from probgen.runs.fit import fit
from probgen.storage.files import make_folder
from probgen.variables import Bernoulli, Categorical, Normal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS, STEPS, SHOWN = 10_000, 3_000, 1_000
"""Rows and steps of the small models of two latents, and rows in a picture of latents."""


@one_at_a_time
def few_labels_report(
    found: FewLabels, data: Splits, folder: Path, *, seed: int = 0, progress: bool = True
) -> dict[str, Path]:
    """Draw the errors along the way, the confusion matrix and the calibration; of images also
    analogies, and styles, latent spaces and denoising by a VAE and a CVAE of two latents.

    The two small models are trained here, the CVAE on the classes that the classifier predicts.

    Args:
        found: what `pg.few_labels` returned.
        data: what it was given.
        folder: where to write.
        seed: of the small models and the noise.
        progress: show progress bars.

    Returns:
        The files by name.

    Raises:
        KeyboardInterrupt: Ctrl-C while the small models are trained.
    """
    make_folder(folder)
    made, test = found.classifier, data.test
    assert made is not None and test is not None
    known = np.isin(test["y"].numpy(), made.classes_) & known_rows(test)
    shown = np.flatnonzero(known)[:SHOWN]
    rows, labels, names = (
        test["x"].flatten(1).numpy()[shown],
        test["y"].numpy()[shown],
        found.classes,
    )
    pictures: dict[str, Any] = {}
    curves = {f"seed {s}": c for s, c in zip(found.seeds, found.curves, strict=True) if c}
    if curves:
        pictures["errors"] = partial(errors, curves)
    pictures["confusion"] = partial(confusion, found.confusion, names)
    codes = np.searchsorted(made.classes_, labels)
    pictures["reliability"] = partial(reliability, made.predict_proba(rows), codes)
    if test.fields["x"].is_images:
        _, first = np.unique(codes, return_index=True)  # one of each class
        if made.method_ != "m1":
            pictures["analogies"] = partial(
                analogies,
                made.pair_,
                made.to_x(rows[first]),
                names=names,
                pixels=made.from_x,
                seed=seed,
            )
        pictures |= _of_two_latents(made, data, rows, codes, first, names, seed, progress)
    return {name: save(folder / f"{name}.png", draw) for name, draw in pictures.items()}


def _of_two_latents(
    made: SemiSupervisedClassifier, data: Splits, rows: Any, codes: Any, first: Any,
    names: list[Any], seed: int, progress: bool,
) -> dict[str, Any]:  # fmt: skip
    pixels = data.train["x"].flatten(1)[:ROWS]
    classes = torch.from_numpy(np.searchsorted(made.classes_, made.predict(pixels.numpy())))
    top = float(pixels.max())
    redrawn = ("x",) if made.to_x(rows[:1]).redrawn else ()
    family = Bernoulli if redrawn else partial(Normal, scale="isotropic")
    variable, kinds = family(pixels.shape[1]), Categorical(len(made.classes_))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = VAE(variable, Normal(2), hidden=(500,))
        cvae = CVAE(variable, kinds, Normal(2), hidden=(500,))
    given: dict[str, Any] = {
        "num_epochs": max(1, round(STEPS / -(-len(pixels) // 128))),
        "objective": "analytic-kl", "seed": seed, "progress": progress,
    }  # fmt: skip
    train = Dataset({"x": pixels / top, "y": classes}, redrawn=redrawn)
    for pair, seen in ((vae, train.only("x")), (cvae, train)):
        if fit(pair, seen, **given).stopped == "interrupted":
            raise KeyboardInterrupt  # no pictures of a half-trained model
    test = Dataset({"x": torch.from_numpy(rows) / top, "y": codes}, redrawn=redrawn)
    few, shown = test.subset(torch.from_numpy(first)), [names[c] for c in codes]
    both = {"VAE, 2 latents": vae, "CVAE, 2 latents": cvae}
    return {
        **{
            f"styles_of_class_{k}": partial(manifold, cvae, y=torch.tensor([k]), n=12)
            for k in (0, len(names) - 1)
        },
        "latent_spaces": partial(_latent_spaces, vae, cvae, test, shown),
        "denoising": partial(denoising, both, _noisy(few, seed), few["x"], few["y"]),
    }


def _latent_spaces(
    vae: LatentVariableModel,
    cvae: LatentVariableModel,
    test: Dataset,
    shown: list[Any],
    *,
    ax: Axes,
) -> Axes:
    """The VAE's latents are ordered by class, the CVAE's are not: the class is known already."""
    figure = ax.figure
    ax.remove()
    left, right = figure.subplots(1, 2)
    latent_scatter(vae, test.only("x"), shown, ax=left)
    latent_scatter(cvae, test, shown, ax=right)
    left.get_legend().remove()
    left.set_title("VAE")
    right.set_title("CVAE: the class is given")
    return right


def _noisy(x: Dataset, seed: int) -> Dataset:
    """A tenth of binary pixels turned around, or Gaussian noise of a quarter of the largest value."""
    draws = torch.Generator().manual_seed(seed)
    values = x["x"].float()
    if x.redrawn:
        turned = torch.rand(values.shape, generator=draws) < 0.1
        values = torch.where(turned, 1 - values, values)
    else:
        values = values + 0.25 * torch.randn(values.shape, generator=draws)
    return Dataset({"x": values}, redrawn=x.redrawn)
