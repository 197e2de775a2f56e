"""Pictures of classes: what is style and what is class, where a classifier errs, and how surely."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.data.dataset import Dataset
from probgen.inference.queries.classification import (
    calibration_bins,
    calibration_error,
    class_probabilities,
)
from probgen.inference.queries.posterior import encode, reconstruct
from probgen.pair import LatentVariableModel
from probgen.plots.images import as_images, by_name, images
from probgen.plots.latents import means_given
from probgen.plots.style import axes, short_names
from probgen.variables import Categorical

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
        x: the images, a row each.
        y: their classes; by default the most probable ones.
        name: the variable of the images.
        label: the variable of the class.
        latent: the style; by default the last latent of the guide.
        names: what the classes are called.
        pixels: from x to images, where x is not one, such as a classifier's `from_x`.
        seed: of what is drawn on the way to the style.
        ax: where to draw.

    Raises:
        ValueError: no scalar class, or a style that depends on it.

    References:
        Kingma, Rezende, Mohamed and Welling, 2014, "Semi-supervised learning with deep generative
        models", figure 1b.
    """
    variable = pair.variables.get(label)
    factors = pair.factors("p")
    if not isinstance(variable, Categorical) or variable.event_shape:
        raise ValueError(f"analogies: {pair.name} has no scalar class {label!r}, got {variable!r}.")
    kinds, data = variable.num_classes, by_name(x, name)
    rows = torch.as_tensor(data[name])
    if y is None:
        classes = class_probabilities(pair, data, label=label, seed=seed).argmax(1)
    else:
        classes = torch.as_tensor(y)
    both = data.only(name) if isinstance(data, Dataset) else Dataset({name: rows})
    found = encode(pair, both.with_values({label: classes}), seed=seed)
    roots = [n for n in found if n in factors and not factors[n].parents]
    style = latent or (roots[-1] if roots else "z")
    if style not in found or factors[style].parents:
        raise ValueError(
            f"analogies: the style must be a latent with a prior of its own, such as "
            f"{', '.join(roots) or 'z'}, got {style!r}."
        )
    held = {
        style: found[style].repeat_interleave(kinds, 0),
        label: torch.arange(kinds).repeat(len(rows)),
    }
    shown = pixels or (lambda values: values)
    means = as_images(shown(means_given(pair, name, held, seed, at_means=True)))
    means = means.reshape(len(rows), kinds, *means.shape[1:])
    original = as_images(shown(rows))[:, None]
    blank = np.full_like(original, np.nan)
    canvas = np.concatenate([original, blank, means], 1).reshape(-1, *means.shape[2:])
    limits = (float(original.min()), float(original.max()))
    ax = images(canvas, columns=kinds + 2, limits=limits, ax=ax)
    width = means.shape[-1] + 1
    words = short_names(range(kinds) if names is None else names, 16)
    step = 1 + (kinds - 1) // 40  # more would run into one another
    places = [column * width + width / 2 - 1 for column in (0, *range(2, kinds + 2, step))]
    upright = max(map(len, words)) * (kinds + 2) > 60
    ax.set_xticks(places, ["data", *words[::step]], rotation=90 if upright else 0)
    ax.tick_params(length=0, labelsize="medium" if kinds <= 12 else "x-small")
    ax.set_title(f"All classes in the style of one image, {pair.name}")
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
    """Images, the same with noise, and what models make of the noisy ones; a row each.

    Args:
        pairs: models of x by what they are called; one that conditions on y is given it.
        noisy: the images with noise, as x.
        clean: the images.
        y: their classes.
        seed: of what is drawn.
        ax: where to draw.
    """
    blocks, words = [as_images(clean), as_images(noisy["x"])], ["data", "with noise"]
    for words_of, pair in pairs.items():
        given = noisy.with_values({"y": y}) if "y" in pair.variables else noisy
        means = reconstruct(pair, given, seed=seed)["x"]
        error = float((means - clean).square().mean()) ** 0.5
        blocks.append(as_images(means))
        words.append(f"{words_of}\nRMSE {error:.3f}")
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
    """A confusion matrix: rows are true classes, columns what they were taken for.

    Args:
        counts: shape `(classes, classes)`.
        names: what the classes are called.
        ax: where to draw.

    Raises:
        ValueError: no square matrix of counts.
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
    # A figure is as wide as a cell; names take room from the cells.
    digits = max(len(f"{count:g}") for count in table.flat)
    size = min(7.0, (250 if longest < 6 else 190) / len(table) / (0.65 * digits))
    for (row, column), count in np.ndenumerate(table):
        dark = count > 0.5 * total[row, 0]
        if count and size >= 3.5:
            ax.text(column, row, f"{count:g}", ha="center", va="center", fontsize=size,
                    color="white" if dark else "black")  # fmt: skip
    most = 40 if longest < 6 else 24  # more would run into one another
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
    """Accuracy against confidence: on the diagonal a classifier knows how often it is right.

    Args:
        probabilities: shape `(data, classes)`.
        y: the true classes 0, 1, ...
        num_bins: bins of the confidence.
        ax: where to draw.
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
    """Classification errors along the way, in percent.

    Args:
        curves: pairs of a place (such as an epoch) and a share of wrong data, by what they are called.
        xlabel: what the places are.
        chance: an error to mark, such as a baseline's.
        ax: where to draw.
    """
    ax = axes(ax)
    for words, curve in curves.items():
        places, shares = zip(*curve, strict=True)
        ax.plot(places, [100 * share for share in shares], "o-", ms=3, linewidth=1.2, label=words)
    if chance is not None:
        ax.axhline(100 * chance, color="black", linewidth=0.8, linestyle="--")
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    ax.set(xlabel=xlabel, ylabel="error in percent", title="Error along the way")
    if len(curves) <= 10:
        ax.legend(frameon=False)
    else:
        ax.legend(
            frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize="x-small",
            ncols=1 + (len(curves) - 1) // 24,
        )  # fmt: skip
    return ax
