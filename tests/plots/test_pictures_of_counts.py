"""Pictures of counts, of tables with a square number of columns, of exact scores and of ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import probgen as pg
from probgen.plots.images import limits_of


class Poisson(pg.Variable):
    discrete = True

    def distribution(self, log_rate: Tensor) -> Any:
        return dist.Poisson(log_rate.exp())


def counts() -> pg.LatentVariableModel:
    return pg.declare("p(z) p(x | z)", "q(z | x)", hidden=(4,), z=pg.Normal(2), x=Poisson(3))


def test_counts_are_drawn_on_their_scale() -> None:
    pair, x = counts(), torch.poisson(torch.tensor([3.0, 8.0, 15.0]).repeat(50, 1))
    ax = pg.plots.elements(pair, x)
    points = np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])
    means = pg.reconstruct(pair, x)["x"]
    assert points.shape == (150, 2) and np.allclose(np.sort(points[:, 0]), np.sort(x.flatten()))
    assert np.allclose(np.sort(points[:, 1]), np.sort(means.flatten()), atol=1e-6)
    assert ax.get_xlim()[1] > 10 and "count" in ax.get_ylabel() and "ones" not in ax.get_xlabel()
    assert limits_of(pair, "x") is None
    binary = pg.models.VAE(x=pg.Bernoulli(3), z=pg.Normal(2), hidden=(4,))
    assert limits_of(binary, "x") == (0.0, 1.0)
    assert "share of ones" in pg.plots.elements(binary, (x > 5).float()).get_xlabel()


def test_a_table_of_sixty_four_columns_is_no_image() -> None:
    pair = pg.models.VAE(x=pg.Normal(64), z=pg.Normal(2), hidden=(4,))
    x = torch.randn(10, 64)
    assert pg.plots.traversals(pair, x, are_images=False).get_images() == []
    assert len(pg.plots.traversals(pair, x).get_images()) == 1


def score(khat: Any) -> pg.Score:
    n = len(khat)
    return pg.Score(
        log_prob=np.zeros(n), standard_error=np.full(n, 0.1), bias=np.zeros(n),
        ess=np.full(n, 300.0), khat=np.asarray(khat), num_samples=1000, measure="density of x",
        transformation="none", data_hash="0",
    )  # fmt: skip


def test_exact_scores_say_why_there_are_no_weights() -> None:
    data = pg.Dataset({"x": torch.zeros(4, 1)})
    ax = pg.plots.importance_weights(pg.Score.closed_form(np.zeros(4), data))
    assert "a closed form.\nThere are no weights" in ax.texts[0].get_text()
    assert "K = 0" not in ax.get_title()
    equal = pg.plots.importance_weights(score([-np.inf] * 4)).texts[0].get_text()
    assert "all weights of a datum are equal" in equal


def test_infinite_khat_is_seen_and_numbers_stand_apart() -> None:
    ax = pg.plots.importance_weights(score([0.1, np.inf, 0.2, np.inf, np.inf]), worst=3)
    assert np.isfinite(np.asarray(ax.collections[0].get_offsets())).all()
    assert any("inf" in t.get_text() for t in ax.texts)
    numbers: list[Any] = [t for t in ax.texts if t.get_text() in ("1", "2", "3")]
    assert len({t.xyann for t in numbers}) == 3  # of three points in one place


@pytest.mark.parametrize("classes", [3, 30])
def test_names_of_many_classes_are_upright(classes: int) -> None:
    names = [f"class {index}" for index in range(classes)]
    ax = pg.plots.confusion(np.eye(classes, dtype=int), names)
    assert {t.get_rotation() for t in ax.get_xticklabels()} == {0.0 if classes == 3 else 90.0}
