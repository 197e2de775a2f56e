"""Pictures of classes: class and style of images, errors and calibration of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.data.dataset import Dataset
from probgen.inference.queries.classification import calibration_bins, calibration_error
from probgen.inference.queries.posterior import reconstruct
from probgen.inference.queries.variation import means_of_all_classes
from probgen.pair import LatentVariableModel
from probgen.plots.images import as_images, images, named_data
from probgen.plots.style import axes, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@one_at_a_time
def analogies(
    pair: LatentVariableModel,
    x: Any,
    y: Tensor | Sequence[int] | None = None,
    *,
    name: str = "x",
    label: str = "y",
    latent: str | None = None,
    names: Sequence[Any] | None = None,
    pixels: Callable[[Tensor], Any] | None = None,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Each row: an image, then the model's means of all classes in the style of that image.

    Args:
        pair: a pair with a class that the style does not depend on, such as M2, M1M2, ADGM or CVAE.
        x: the images, one per row.
        y: their classes; by default the most probable ones.
        name: the variable of the images.
        label: the variable of the class.
        latent: the style; by default the last latent of the guide.
        names: names of the classes.
        pixels: a function from x to images, if x is not images itself, such as a classifier's
            `from_x`.
        seed: of latents that are drawn before the style.
        ax: where to draw.

    Returns:
        The axes.

    Raises:
        ValueError: no scalar class, or a style that depends on it.

    References:
        Kingma, Rezende, Mohamed and Welling, 2014, "Semi-supervised learning with deep generative
        models", figure 1b.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> m2 = pg.models.M2(x=pg.Bernoulli(16), y=pg.Categorical(3), z=pg.Normal(2), hidden=(4,))
        >>> pg.plots.analogies(m2, torch.eye(16)[:2]).get_title()
        'All classes in the style of one image, M2'
    """
    data = named_data(x, name)
    means = means_of_all_classes(
        pair, data, y, name=name, label=label, latent=latent, seed=seed, owner="analogies"
    )
    to_pixels = pixels or (lambda values: values)
    originals = as_images(to_pixels(torch.as_tensor(data[name])))
    of_classes = as_images(to_pixels(means))
    of_classes = of_classes.reshape(len(originals), -1, *of_classes.shape[1:])
    ax = _draw_analogies(originals, of_classes, names, ax)
    ax.set_title(f"All classes in the style of one image, {pair.name}")
    return ax


def _draw_analogies(
    originals: NDArray[Any], of_classes: NDArray[Any], names: Sequence[Any] | None, ax: Axes | None
) -> Axes:
    """Each row: an image, a gap, then `of_classes`, shape `(rows, classes, height, width)`."""
    num_classes = of_classes.shape[1]
    columns = num_classes + 2
    blank = np.full_like(originals[:, None], np.nan)
    canvas = np.concatenate([originals[:, None], blank, of_classes], 1)
    limits = (float(originals.min()), float(originals.max()))
    ax = images(canvas.reshape(-1, *canvas.shape[2:]), columns=columns, limits=limits, ax=ax)
    width = canvas.shape[-1] + 1
    words = short_names(range(num_classes) if names is None else names, 16)
    step = 1 + (num_classes - 1) // 40  # more labels would overlap
    places = [column * width + width / 2 - 1 for column in (0, *range(2, columns, step))]
    upright = max(map(len, words)) * columns > 60
    ax.set_xticks(places, ["data", *words[::step]], rotation=90 if upright else 0)
    ax.tick_params(length=0, labelsize="medium" if num_classes <= 12 else "x-small")
    return ax


@one_at_a_time
def denoising(
    pairs: Mapping[str, LatentVariableModel],
    noisy: Dataset,
    clean: Tensor,
    y: Tensor,
    *,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Images, the same images with noise, and reconstructions of the noisy images: one row each.

    Args:
        pairs: models of x by name; y is given to those that condition on it.
        noisy: the images with noise, as x.
        clean: the images without noise.
        y: their classes.
        seed: of what is drawn.
        ax: where to draw.

    Returns:
        The axes. Labels of the rows state the root mean squared error from the clean images.

    Raises:
        ValueError: data that do not fit a pair, or that are not images.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> clean = torch.eye(16)[:4]
        >>> vae = pg.models.VAE(x=pg.Normal(16), z=pg.Normal(2), hidden=(4,))
        >>> noisy = pg.Dataset({"x": clean + 0.1 * torch.randn(4, 16)})
        >>> ax = pg.plots.denoising({"VAE": vae}, noisy, clean, torch.arange(4))
        >>> [text.get_text().split()[0] for text in ax.get_yticklabels()]
        ['data', 'with', 'VAE']
    """
    blocks, words = [as_images(clean), as_images(noisy["x"])], ["data", "with noise"]
    for title, pair in pairs.items():
        given = noisy.with_values({"y": y}) if "y" in pair.variables else noisy
        means = reconstruct(pair, given, seed=seed)["x"]
        error = float((means - clean).square().mean()) ** 0.5
        blocks.append(as_images(means))
        words.append(f"{title}\nRMSE {error:.3f}")
    canvas = np.concatenate(blocks)
    ax = images(canvas, columns=len(clean), limits=(float(clean.min()), float(clean.max())), ax=ax)
    height = canvas.shape[1] + 1
    ax.set_yticks([row * height + height / 2 - 1 for row in range(len(blocks))], words)
    ax.tick_params(length=0)
    ax.set_title("Reconstructions of images with noise")
    return ax


@one_at_a_time
def confusion(
    counts: ArrayLike, names: Sequence[Any] | None = None, *, ax: Axes | None = None
) -> Axes:
    """A confusion matrix: rows are true classes, columns predicted classes.

    Args:
        counts: numbers of data, shape `(classes, classes)`.
        names: names of the classes.
        ax: where to draw.

    Returns:
        The axes; the title states the error in percent.

    Raises:
        ValueError: not a square matrix of counts.

    Example:
        >>> import probgen as pg
        >>> pg.plots.confusion([[9, 1], [0, 10]], ["cat", "dog"]).get_title()
        '5.00 % of 20 wrong'
    """
    table = np.asarray(counts)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or (table < 0).any():
        raise ValueError(f"confusion: needs counts (classes, classes), got shape {table.shape}.")
    ax = axes(ax)
    total = table.sum(1, keepdims=True)
    ax.imshow(table / np.maximum(total, 1), cmap="Blues", vmin=0, vmax=1)
    shown = short_names(range(len(table)) if names is None else names, 16)
    longest = max(map(len, shown))
    upright = sum(map(len, shown)) > 28
    # Numbers must be narrower than a cell, and long names make the cells smaller.
    digits = max(len(f"{count:g}") for count in table.flat)
    size = min(7.0, (250 if longest < 6 else 190) / len(table) / (0.65 * digits))
    for (row, column), count in np.ndenumerate(table):
        dark = count > 0.5 * total[row, 0]
        if count and size >= 3.5:
            ax.text(column, row, f"{count:g}", ha="center", va="center", fontsize=size,
                    color="white" if dark else "black")  # fmt: skip
    most = 40 if longest < 6 else 24  # more labels would overlap
    places = range(0, len(table), 1 + (len(table) - 1) // most)
    words = [shown[place] for place in places]
    ax.set_xticks(places, words, rotation=90 if upright else 0)
    ax.set_yticks(places, words)
    if len(table) > 12:
        ax.tick_params(labelsize="x-small")
    ax.tick_params(length=0)
    wrong = 1 - np.trace(table) / max(1, table.sum())
    ax.set(xlabel="predicted", ylabel="true", title=f"{100 * wrong:.2f} % of {table.sum():g} wrong")
    return ax


@one_at_a_time
def reliability(
    probabilities: ArrayLike, y: ArrayLike, *, num_bins: int = 15, ax: Axes | None = None
) -> Axes:
    """A reliability diagram: accuracy against confidence, equal for a calibrated classifier.

    Args:
        probabilities: shape `(data, classes)`.
        y: the true classes 0, 1, ..., shape `(data,)`.
        num_bins: number of bins of the confidence.
        ax: where to draw.

    Returns:
        The axes; the area of a point shows the number of data in its bin.

    Raises:
        ValueError: as `pg.calibration_error`.

    References:
        Guo, Pleiss, Sun and Weinberger, 2017, "On calibration of modern neural networks", figure 1.

    Example:
        >>> import probgen as pg
        >>> pg.plots.reliability([[0.9, 0.1], [0.9, 0.1]], [0, 1]).get_title()
        'Calibration error 0.400 (area: number of data)'
    """
    error = calibration_error(probabilities, y, num_bins=num_bins)
    bins = calibration_bins(probabilities, y, num_bins)
    counts, confidence, right = (part[bins[0] > 0] for part in bins)
    ax = axes(ax)
    ax.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    ax.scatter(confidence / counts, right / counts, s=8 + 150 * counts / counts.max())
    ax.set(
        xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02), aspect="equal"
    )
    ax.set_title(f"Calibration error {error:.3f} (area: number of data)")
    return ax


@one_at_a_time
def errors(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, xlabel: str = "epoch",
    chance: float | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Classification errors during training, in percent.

    Args:
        curves: points `(epoch, share of wrong data)` of each curve, by its name.
        xlabel: what the first number of each point is.
        chance: an error to mark by a line, such as that of a baseline.
        ax: where to draw.

    Returns:
        The axes.

    Example:
        >>> import probgen as pg
        >>> ax = pg.plots.errors({"seed 0": [(1, 0.5), (2, 0.25)]})
        >>> ax.lines[0].get_ydata().tolist()
        [50.0, 25.0]
    """
    ax = axes(ax)
    for words, curve in curves.items():
        places, shares = zip(*curve, strict=True)
        ax.plot(places, [100 * share for share in shares], "o-", ms=3, linewidth=1.2, label=words)
    if chance is not None:
        ax.axhline(100 * chance, color="black", linewidth=0.8, linestyle="--")
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    ax.set(xlabel=xlabel, ylabel="error in percent", title="Error during training")
    if len(curves) <= 10:
        ax.legend(frameon=False)
    else:
        ax.legend(
            frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize="x-small",
            ncols=1 + (len(curves) - 1) // 24,
        )  # fmt: skip
    return ax
