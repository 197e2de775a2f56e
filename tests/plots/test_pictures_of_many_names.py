"""Pictures of many classes and of columns with long names: nothing written overlaps, all can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import probgen as pg
from probgen.plots.diagnostics import _number


def names(n: int) -> list[str]:
    return [f"a rather long name of number {index} of all" for index in range(n)]


def drawn(draw: Any) -> Any:
    """Axes with a layout, of the size that reports are drawn in."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    ax = draw(ax=figure.subplots())
    figure.canvas.draw()
    return ax


def apart(texts: Sequence[Any]) -> bool:
    """Whether no two texts that follow one another touch."""
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return len(boxes) > 1 and not any(one.overlaps(other) for one, other in pairwise(boxes))


def legible(ax: Any) -> None:
    """Tick labels apart, and the axes as well as the legend inside a picture not eaten by words."""
    assert apart(ax.get_xticklabels()) and apart(ax.get_yticklabels() or ax.get_xticklabels())
    whole, inner = ax.figure.bbox, ax.get_window_extent()
    assert inner.width > 0.35 * whole.width and ax.get_tightbbox().x1 <= whole.x1 + 1


CLASSES = [(10, False), (10, True), (20, False), (20, True), (100, True)]


@pytest.mark.parametrize(("n", "long"), CLASSES)
def test_confusion_of_many_classes(n: int, long: bool) -> None:
    counts = np.full((n, n), 12) + 12_345 * np.eye(n, dtype=int)
    ax = drawn(partial(pg.plots.confusion, counts, names(n) if long else None))
    assert apart(ax.get_xticklabels()) and apart(ax.get_yticklabels())
    assert ax.get_window_extent().width > 0.35 * ax.figure.bbox.width
    assert not ax.texts or apart(ax.texts)
    assert len({text.get_text() for text in ax.get_xticklabels()}) == len(ax.get_xticklabels())


@pytest.mark.parametrize(("n", "long"), CLASSES)
def test_analogies_of_many_classes(n: int, long: bool) -> None:
    pair = pg.models.M2(pg.Normal(9), pg.Categorical(n), pg.Normal(2), hidden=(4,))
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    ax = drawn(partial(pg.plots.analogies, pair, x, names=names(n) if long else None))
    assert apart(ax.get_xticklabels())
    assert ax.get_window_extent().width > 0.8 * ax.figure.bbox.width


@pytest.mark.parametrize(("n", "long"), [*CLASSES[:4], (50, True)])
def test_latents_of_many_classes(n: int, long: bool) -> None:
    pair = pg.models.VAE(pg.Normal(9), pg.Normal(2), hidden=(4,))
    x = torch.randn(n, 9, generator=torch.Generator().manual_seed(0))
    labels = names(n) if long else list(range(n))
    ax = drawn(partial(pg.plots.latent_scatter, pair, x, labels))
    legible(ax)
    legend = ax.get_legend().get_texts()
    assert len({text.get_text() for text in legend}) == n and apart(legend)
    assert ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.x1 + 1


@pytest.mark.parametrize("columns", [64, 120])
def test_tables_of_many_columns(columns: int) -> None:
    pair = pg.models.VAE(pg.Normal(columns), pg.Normal(2), hidden=(4,))
    x = torch.randn(12, columns, generator=torch.Generator().manual_seed(0))
    for draw in (
        partial(pg.plots.elements, pair, x),
        partial(pg.plots.traversals, pair, x, are_images=False),
    ):
        ax = drawn(partial(draw, labels=names(columns)))
        legible(ax)
        assert ax.get_images() == []
        assert len({text.get_text() for text in ax.get_legend().get_texts()}) == 10


def test_errors_of_many_seeds() -> None:
    curves = {f"seed {seed}": [(1, 0.4), (2, 0.3)] for seed in range(40)}
    ax = drawn(partial(pg.plots.errors, curves))
    legible(ax)
    box = ax.get_legend().get_window_extent()
    assert box.y0 >= 0 and box.y1 <= ax.figure.bbox.y1 and box.x0 >= ax.get_window_extent().x1


def test_numbers_stand_on_no_other_point() -> None:
    figure = Figure(figsize=(4, 4))
    ax = figure.subplots()
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_autoscale_on(False)
    x, y = (
        np.array([0.5, 0.53]),
        np.array([0.5, 0.51]),
    )  # the second where the number of the first was
    _number(ax, x, y, "red")
    points = ax.transData.transform(np.stack([x, y], 1)) * 72 / figure.dpi
    texts: list[Any] = list(ax.texts)
    places = [points[index] + np.asarray(text.xyann) for index, text in enumerate(texts)]
    for place in places:
        assert all(max(abs(place - point)) > 5 for point in points)
