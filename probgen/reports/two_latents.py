"""Pictures of a VAE and a CVAE with two latents, which are trained for these pictures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probgen.classifier.estimator import SemiSupervisedClassifier
from probgen.data.dataset import Dataset
from probgen.models.cvae import CVAE
from probgen.models.vae import VAE
from probgen.pair import LatentVariableModel
from probgen.plots.classes import denoising
from probgen.plots.latents import latent_scatter
from probgen.plots.variation import manifold
from probgen.runs.fit import fit
from probgen.variables import Bernoulli, Categorical, Normal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS, STEPS, BATCH = 10_000, 3_000, 128
"""Rows that the models are trained on, about how many steps, and rows in a step."""

FLIPPED, NOISE_SCALE = 0.1, 0.25
"""Share of binary pixels that noise flips, and standard deviation of noise on grey values up to 1."""


def pictures_of_two_latents(
    classifier: SemiSupervisedClassifier, pixels: Tensor, rows: Tensor, codes: NDArray[Any],
    one_of_each: NDArray[Any], names: list[Any], *, seed: int, progress: bool,
) -> dict[str, Any]:  # fmt: skip
    """Train both models, the CVAE on the classes that a classifier predicts, and choose pictures.

    Args:
        classifier: predicts the classes of the training rows.
        pixels: training rows, shape `(rows, pixels)`.
        rows: test rows, shape `(rows, pixels)`.
        codes: classes 0, 1, ... of the test rows.
        one_of_each: an index of a test row of each class.
        names: names of the classes.
        seed: of the models and the noise.
        progress: show progress bars.

    Returns:
        Functions that draw on the axes `ax=`, by the picture's name.

    Raises:
        KeyboardInterrupt: Ctrl-C during the training.
    """
    pixels = pixels[:MOST_ROWS]
    classes = torch.from_numpy(
        np.searchsorted(classifier.classes_, classifier.predict(pixels.numpy()))
    )
    top = float(pixels.max())
    binarized = ("x",) if classifier.to_x(rows[:1].numpy()).redrawn else ()
    train = Dataset({"x": pixels / top, "y": classes}, redrawn=binarized)
    vae, cvae = _models(pixels.shape[1], len(classifier.classes_), bool(binarized), seed)
    settings: dict[str, Any] = {
        "num_epochs": max(1, round(STEPS / -(-len(pixels) // BATCH))),
        "objective": "analytic-kl", "seed": seed, "progress": progress,
    }  # fmt: skip
    for pair, given in ((vae, train.only("x")), (cvae, train)):
        if fit(pair, given, **settings).stopped == "interrupted":
            raise KeyboardInterrupt  # do not draw a model whose training was stopped
    test = Dataset({"x": rows / top, "y": codes}, redrawn=binarized)
    examples = test.subset(torch.from_numpy(one_of_each))
    models = {"VAE, 2 latents": vae, "CVAE, 2 latents": cvae}
    return {
        **{
            f"styles_of_class_{code}": partial(manifold, cvae, y=torch.tensor([code]), n=12)
            for code in (0, len(names) - 1)
        },
        "latent_spaces": partial(_latent_spaces, vae, cvae, test, [names[c] for c in codes]),
        "denoising": partial(
            denoising, models, _with_noise(examples, seed), examples["x"], examples["y"]
        ),
    }


def _models(num_pixels: int, num_classes: int, binary: bool, seed: int) -> tuple[VAE, CVAE]:
    family = Bernoulli if binary else partial(Normal, scale="isotropic")
    x, y = family(num_pixels), Categorical(num_classes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VAE(x, Normal(2), hidden=(500,)), CVAE(x, y, Normal(2), hidden=(500,))


def _latent_spaces(
    vae: LatentVariableModel, cvae: LatentVariableModel, test: Dataset, labels: list[Any], *,
    ax: Axes,
) -> Axes:  # fmt: skip
    """The VAE's latents are ordered by class; those of the CVAE, which is given the class, are not."""
    figure = ax.figure
    ax.remove()
    left, right = figure.subplots(1, 2)
    latent_scatter(vae, test.only("x"), labels, ax=left)
    latent_scatter(cvae, test, labels, ax=right)
    left.get_legend().remove()
    left.set_title("VAE")
    right.set_title("CVAE: the class is given")
    return right


def _with_noise(data: Dataset, seed: int) -> Dataset:
    """Some binary pixels flipped, or Gaussian noise added to grey values."""
    generator = torch.Generator().manual_seed(seed)
    values = data["x"].float()
    if data.redrawn:
        flipped = torch.rand(values.shape, generator=generator) < FLIPPED
        values = torch.where(flipped, 1 - values, values)
    else:
        values = values + NOISE_SCALE * torch.randn(values.shape, generator=generator)
    return Dataset({"x": values}, redrawn=data.redrawn)
