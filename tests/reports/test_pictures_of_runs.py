"""Manifolds, traversals, tables, diagnostics, styles, and the report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import probgen as pg
from probgen.plots.style import save
from tests.data.test_data_files import write_csv
from tests.fitting import QUICK
from tests.pairs import CASES, HandMixture, binary, labels

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")


def vae_of_images(latents: int = 2) -> pg.LatentVariableModel:
    torch.manual_seed(0)
    return pg.models.VAE(x=pg.Bernoulli((1, 3, 4)), z=pg.Normal(latents), hidden=(5,))


def canvas_of(ax: Any) -> Any:
    return ax.get_images()[0].get_array()


def mean_at(pair: Any, z: Any) -> Any:
    with torch.no_grad():
        return pair.p_x(z=torch.as_tensor(z, dtype=torch.float32)).mean


def test_manifold_cells_are_means_at_the_quantiles() -> None:
    pair = vae_of_images()
    ax = pg.plots.manifold(pair, n=4)
    canvas = canvas_of(ax)
    assert canvas.shape == (4 * 4 - 1, 4 * 5 - 1)
    low, high = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor([0.125, 0.875])).tolist()
    assert np.allclose(canvas[:3, :4], mean_at(pair, [low, high])[0], atol=1e-6)  # top left
    assert np.allclose(canvas[12:, 15:], mean_at(pair, [high, low])[0], atol=1e-6)  # bottom right
    words = [text.get_text() for text in ax.get_xticklabels()]
    assert words[0] == f"{low:.1f}" and words[-1] == f"{high:.1f}" and ax.get_title()
    with pytest.raises(ValueError, match="needs a latent of two elements"):
        pg.plots.manifold(vae_of_images(3))
    cvae = CASES["CVAE"].build()
    with pytest.raises(ValueError, match="square images"):
        pg.plots.manifold(cvae, n=2, y=torch.tensor([1]))  # six pixels


def test_traversals_vary_one_element_at_a_time() -> None:
    pair = vae_of_images(3)
    x = torch.bernoulli(torch.full((20, 1, 3, 4), 0.5))
    z = pg.encode(pair, x)["z"]
    order = z.std(0).argsort(descending=True).tolist()
    ax = pg.plots.traversals(pair, x, rows=2, steps=3, span=2.0)
    canvas = canvas_of(ax)
    assert canvas.shape == (2 * 4 - 1, 3 * 5 - 1)
    for row, element in enumerate(order[:2]):
        for column, value in enumerate((-2.0, 0.0, 2.0)):
            moved = z[0].clone()
            moved[element] = value
            cell = canvas[4 * row : 4 * row + 3, 5 * column : 5 * column + 4]
            assert np.allclose(cell, mean_at(pair, moved)[0], atol=1e-6)
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"z[{e}]" for e in order[:2]]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["-2", "0", "2"]
    with pytest.raises(ValueError, match="no latent 'w'"):
        pg.plots.traversals(pair, x, latent="w")


def test_traversals_of_tables_are_lines() -> None:
    case = CASES["PPCA"]
    pair, data = case.build(), case.data(30)["x"]
    names = [f"column {i}" for i in range(6)]
    ax = pg.plots.traversals(pair, data, steps=5, labels=names)
    z = pg.encode(pair, data)["z"]
    element = int(z.std(0).argmax())
    moved = z[0].repeat(5, 1)
    moved[:, element] = torch.linspace(-3, 3, 5)
    expected = mean_at(pair, moved)
    assert len(ax.get_lines()) == 6 and ax.get_xlabel() == f"z[{element}]"
    for index, line in enumerate(ax.get_lines()):
        assert np.allclose(line.get_ydata(), expected[:, index], atol=1e-6)
        assert line.get_label() == names[index]


def test_a_class_that_is_given_stays_in_traversals() -> None:
    case = CASES["CVAE"]
    pair, data = case.build(), case.data(9)
    ax = pg.plots.traversals(pair, data, steps=5)
    moved = pg.encode(pair, data)["z"][0].repeat(5, 1)
    element = int(ax.get_xlabel()[2])
    moved[:, element] = torch.linspace(-3, 3, 5)
    with torch.no_grad():
        expected = pair.p_x(z=moved, y=data["y"][:1].expand(5)).mean
    drawn = np.stack([np.asarray(line.get_ydata()) for line in ax.get_lines()], 1)
    assert np.allclose(drawn, expected, atol=1e-6)


def test_elements_of_tables() -> None:
    case = CASES["PPCA"]
    pair, x = case.build(), case.data(30)["x"]
    ax = pg.plots.elements(pair, x, most=3)
    means = pg.reconstruct(pair, x)["x"]
    chosen = sorted(x.std(0).argsort(descending=True)[:3].tolist())
    for element, points in zip(chosen, ax.collections, strict=True):
        assert np.allclose(points.get_offsets(), torch.stack([x[:, element], means[:, element]], 1))
        assert points.get_label() == f"x[{element}]"
    binary_pair = CASES["VAE"].build()
    bits = binary(40)
    ax = pg.plots.elements(binary_pair, bits)
    expected = torch.stack([bits.mean(0), pg.reconstruct(binary_pair, bits)["x"].mean(0)], 1)
    assert np.allclose(ax.collections[0].get_offsets(), expected, atol=1e-6)
    assert "share of ones" in ax.get_xlabel()


def test_draws_beside_data() -> None:
    case = CASES["PPCA"]
    pair, x = case.build(), case.data(30)["x"]
    ax = pg.plots.draws(pair, x, seed=2)
    data, drawn = (np.asarray(points.get_offsets()) for points in ax.collections)
    assert data.shape == drawn.shape == (30, 2) and "% of the variance" in ax.get_xlabel()
    assert data[:, 0].var() >= data[:, 1].var() and abs(data.mean(0)).max() < 1e-6
    _, _, directions = np.linalg.svd((x - x.mean(0)).double().numpy())
    centred = (pair.sample(30, seed=2)["x"] - x.mean(0)).double().numpy()
    plane = centred @ np.asarray(directions)[:2].T
    assert np.allclose(abs(drawn), abs(plane), atol=1e-5)
    single = pg.models.VAE(x=pg.Normal(1), z=pg.Normal(1), hidden=(2,))
    assert pg.plots.draws(single, torch.randn(20, 1)).get_ylabel().startswith("density")


def test_importance_weights_number_the_worst() -> None:
    pair = vae_of_images()
    x = pg.Dataset({"x": torch.bernoulli(torch.full((30, 1, 3, 4), 0.5))})
    score = pg.log_marginal_likelihood(pair, x, num_samples=100)
    ax = pg.plots.importance_weights(score, x, worst=4)
    points = np.asarray(ax.collections[0].get_offsets())
    assert np.allclose(points, np.stack([score.ess, score.khat], 1))
    worst = np.argsort(-score.khat, kind="stable")[:4]
    assert np.allclose(ax.collections[1].get_offsets(), points[worst])
    assert ax.get_lines()[0].get_ydata()[0] == pytest.approx(score.khat_threshold)  # type: ignore[index]
    (side,) = ax.child_axes
    canvas = canvas_of(side)
    assert canvas.shape == (15, 4)
    for rank, datum in enumerate(worst):
        assert np.allclose(canvas[4 * rank : 4 * rank + 3], x["x"][int(datum), 0])
    assert [t.get_text() for t in side.get_yticklabels()] == [
        f"{rank}: row {datum}" for rank, datum in enumerate(worst, 1)
    ]
    text = " ".join(t.get_text() for t in pg.plots.importance_weights(score).texts)
    assert f"1: row {worst[0]}" in text and "threshold 0.50" in text
    with pytest.raises(ValueError, match="got 5 data for a score of 30"):
        pg.plots.importance_weights(score, x.subset(slice(0, 5)))


def test_importance_weights_without_a_tail() -> None:
    case = CASES["PPCA"]
    pair, x = case.build(), case.data(20)
    exact = pg.log_marginal_likelihood(pair, x, method="exact")
    assert "exact" in pg.plots.importance_weights(exact).texts[0].get_text()
    few = pg.log_marginal_likelihood(pair, x, num_samples=5)
    ax = pg.plots.importance_weights(few)
    assert "too few draws" in ax.get_title() and len(ax.patches) > 5


def test_scatter_without_labels_and_with_many() -> None:
    pair = CASES["VAE"].build()
    assert pg.plots.latent_scatter(pair, binary(10)).get_legend() is None
    ax = pg.plots.latent_scatter(pair, binary(24), torch.arange(24) % 12)
    points: list[Any] = list(ax.collections)
    looks = {(tuple(c.get_facecolor()[0]), len(c.get_paths()[0].vertices)) for c in points}
    assert len(looks) == 12


def test_page_style_is_gone_afterwards() -> None:
    before = dict(matplotlib.rcParams)
    with pg.plots.page_style(width=3.0):
        pg.plots.images(torch.rand(2, 16))
        assert plt.gcf().get_figwidth() == 3.0 and matplotlib.rcParams["font.size"] == 9
    with pytest.raises(RuntimeError, match="oh"), pg.plots.page_style():
        raise RuntimeError("oh")
    assert dict(matplotlib.rcParams) == before


def test_files_need_no_screen_and_leave_no_figure(tmp_path: Path) -> None:
    for ending, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        path = save(tmp_path / f"a.{ending}", pg.plots.images, torch.rand(2, 16))
        assert path.read_bytes().startswith(magic)
    assert not plt.get_fignums()


@pytest.mark.parametrize("name", CASES)
def test_the_report_of_every_pair(name: str, tmp_path: Path) -> None:
    """What applies is drawn, the rest is left out with a reason; nothing fails."""
    case = CASES[name]
    torch.manual_seed(0)
    data = pg.Dataset(case.data(60)).split(test=20)
    pg.fit(case.build(), data, num_epochs=1, run_dir=tmp_path / "run", **QUICK)
    made = pg.plots.report(pg.load_run(tmp_path / "run"), data=data, folder=tmp_path / "pictures")
    every = {
        "learning_curve", "reconstructions", "samples", "latent_scatter", "manifold", "traversals",
        "importance_weights",
    }  # fmt: skip
    assert made.written.keys() | made.skipped.keys() == every
    assert not made.written.keys() & made.skipped.keys()
    weighed = {"importance_weights"} if case.build().objective == "elbo" else set()
    assert {"learning_curve"} | weighed <= made.written.keys()
    assert all(path.stat().st_size > 1000 for path in made.written.values())
    assert all(len(reason) > 10 for reason in made.skipped.values())
    if name == "VAE of images":
        assert not made.skipped


def test_reports_that_cannot_be(tmp_path: Path) -> None:
    data = {"x": torch.randn(12, 6), "y": labels(12)}
    pg.fit(HandMixture(), data, num_epochs=1, run_dir=tmp_path / "run", **QUICK)
    run = pg.load_run(tmp_path / "run", pair=HandMixture())
    with pytest.raises(ValueError, match="format must be one of png, pdf, svg, got 'gif'"):
        pg.plots.report(run, format="gif")
    with pytest.raises(pg.RunError, match="trained on arrays"):
        pg.plots.report(run)


def test_classes_are_called_by_their_names(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "t.csv")
    data = pg.load(file, labels="kind", transform="standardize")
    assert data.train.classes == {"y": ["high", "low"]} and not data.train.only("x").classes
    ppca = pg.models.PPCA(x=pg.Normal(3, scale="isotropic"), z=pg.Normal(2))
    pg.fit(ppca, data, num_epochs=1, run_dir=tmp_path / "run", **QUICK)
    made = pg.plots.report(pg.load_run(tmp_path / "run"), format="svg")
    drawn = made.written["latent_scatter"].read_text()
    assert "<!-- high -->" in drawn and "<!-- low -->" in drawn
