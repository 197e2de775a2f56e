"""encode, reconstruct and the pictures: what they compute, and that they draw it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg
from tests.pairs import CASES, HandM2, binary, labels


def test_encode_is_the_exact_posterior_mean_of_ppca() -> None:
    x = torch.randn(1500, 5) @ torch.randn(5, 5)
    pair = pg.models.PPCA(x=pg.Normal(5), z=pg.Normal(2)).set_maximum_likelihood(x)
    assert torch.allclose(pg.encode(pair, x)["z"], pair.posterior(x).mean, atol=1e-4)


def test_reconstruct_is_the_orthogonal_projection_of_ppca() -> None:
    """As noise vanishes PPCA's reconstruction is PCA's: W M⁻¹ Wᵀ (x − b) / σ² + b."""
    x = torch.randn(300, 2) @ torch.randn(2, 5) + 1e-2 * torch.randn(300, 5)
    pair = pg.models.PPCA(x=pg.Normal(5), z=pg.Normal(2)).set_maximum_likelihood(x)
    centred = x - x.mean(0)
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    pca = x.mean(0) + centred @ directions.T @ directions
    assert torch.allclose(pg.reconstruct(pair, x)["x"], pca, atol=1e-2)


def test_encode_gives_class_probabilities() -> None:
    pair = pg.declare(
        "p(y) p(x | y)", "q(y | x)", hidden=(4,), y=pg.Categorical(3), x=pg.Bernoulli(6)
    )
    probabilities = pg.encode(pair, binary(7))["y"]
    assert probabilities.shape == (7, 3)
    assert torch.allclose(probabilities.sum(1), torch.ones(7))
    with pytest.raises(ValueError, match="y is a class"):
        pg.reconstruct(pair, binary(7))


def test_a_latent_under_an_unknown_class_is_averaged_over_it() -> None:
    pair, x = HandM2(), binary(5)
    found = pg.encode(pair, {"x": x})
    with torch.no_grad():
        chances = pair.q_y(x=x).probs
        means = [pair.q_z(x=x, y=torch.full((5,), y)).mean for y in range(3)]
    expected = sum(chances[:, y, None] * means[y] for y in range(3))
    assert torch.allclose(found["z"], expected, atol=1e-6)
    assert torch.allclose(found["y"], chances, atol=1e-6)
    mask = torch.tensor([True, False, False, False, True])
    partly = pg.encode(pair, pg.Dataset({"x": x, "y": labels(5)}, observed={"y": mask}))
    assert torch.equal(partly["y"][0], torch.tensor([1.0, 0.0, 0.0]))
    assert torch.allclose(partly["z"][0], means[0][0], atol=1e-6)
    assert torch.allclose(partly["z"][1], expected[1], atol=1e-6)
    with pytest.raises(ValueError, match="y is a class"):
        pg.reconstruct(pair, {"x": x})
    assert pg.encode(pair, {"x": x, "y": labels(5)})["z"].shape == (5, 2)
    assert pg.reconstruct(pair, {"x": x, "y": labels(5)})["x"].shape == (5, 6)


@pytest.mark.parametrize("name", ["VAE", "VAE of images", "hierarchical", "CVAE"])
def test_shapes_and_the_pair_stays_as_it_was(name: str) -> None:
    case = CASES[name]
    pair, data = case.build(), case.data(6)
    state = torch.get_rng_state()
    for latent, value in pg.encode(pair, data).items():
        assert value.shape == (6, *pair.variables[latent].event_shape)
    assert pg.reconstruct(pair, data)["x"].shape == data["x"].shape
    assert pair.training and torch.equal(state, torch.get_rng_state())


# ------------------------------------------------------------------ pictures


def canvas_of(ax: Any) -> Any:
    return ax.get_images()[0].get_array()


@pytest.fixture(scope="module")
def fitted() -> Any:
    torch.manual_seed(0)
    data = pg.load("digits")
    vae = pg.models.VAE(x=pg.Normal(64), z=pg.Normal(3), hidden=(20,))
    return data, vae, pg.fit(vae, data, num_epochs=6, progress=False)


def test_learning_curve(fitted: Any) -> None:
    _, _, result = fitted
    ax = pg.plots.learning_curve(result)
    training, validation, best = ax.get_lines()
    assert np.array_equal(training.get_ydata(), result.elbo)
    assert np.array_equal(validation.get_ydata(), result.validation_elbo)
    assert best.get_xdata() == [result.best_epoch]
    assert "nats" in ax.get_ylabel() and ax.get_title()
    low, high = ax.get_ylim()
    assert low < result.elbo[-1] < high


def test_metrics_are_drawn_apart_from_the_objective(fitted: Any) -> None:
    """Of an objective with another name and further metrics, as that of two players."""
    _, vae, _ = fitted
    curves: Any = SimpleNamespace(
        pair=vae, elbo=[-3.0, -2.0, -1.5], validation_elbo=[], best_epoch=3, quantity="objective",
        metrics={"D(x)": [0.9, 0.8, 0.6], "D(G(z))": [0.1, 0.3, 0.4], "loss": [2.0, 1.0, 0.5]},
    )  # fmt: skip
    ax = pg.plots.learning_curve(curves)
    assert ax.figure.axes == [ax] and ax.get_ylabel() == "objective (nats per datum)"
    ax = pg.plots.metric_curves(curves)
    drawn = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in ax.get_lines()[:2]}
    assert drawn == {name: curves.metrics[name] for name in ("D(x)", "D(G(z))")}
    assert ax.get_ylim() == (0, 1) and ax.get_lines()[2].get_ydata() == [0.5, 0.5]
    (line,) = pg.plots.metric_curves(curves, ["loss"]).get_lines()
    assert np.asarray(line.get_ydata()).tolist() == curves.metrics["loss"]
    with pytest.raises(ValueError, match=r"has no metric kl; it has D\(x\), D\(G\(z\)\), loss"):
        pg.plots.metric_curves(curves, ["kl"])


def test_latent_scatter(fitted: Any) -> None:
    data, vae, _ = fitted
    ax = pg.plots.latent_scatter(vae, data.test["x"], data.test["y"])
    assert len(ax.collections) == 10
    drawn = np.concatenate([c.get_offsets() for c in ax.collections])
    assert drawn.shape == (360, 2) and abs(drawn.mean(0)).max() < 1e-3
    assert drawn[:, 0].var() >= drawn[:, 1].var()
    assert "% of the variance" in ax.get_xlabel()
    for size in (1, 2):
        vae = pg.models.VAE(x=pg.Normal(64), z=pg.Normal(size), hidden=(4,))
        ax = pg.plots.latent_scatter(vae, data.test["x"], data.test["y"])
        assert ax.get_xlabel() == "z[0]"


def test_images_are_laid_out_row_by_row(fitted: Any) -> None:
    data, vae, _ = fitted
    ax = pg.plots.images(data.test["x"][:6], columns=3, title="six")
    canvas = canvas_of(ax)
    assert canvas.shape == (17, 26)
    assert np.allclose(canvas[9:17, 0:8], data.test["x"][3].reshape(8, 8))
    ax = pg.plots.reconstructions(vae, data.test["x"][:7], columns=5)
    canvas = canvas_of(ax)
    assert canvas.shape == (35, 44)
    means = pg.reconstruct(vae, data.test["x"][:7])["x"]
    assert np.allclose(canvas[9:17, 9:17], means[1].reshape(8, 8), atol=1e-6)
    assert np.allclose(canvas[27:35, 9:17], means[6].reshape(8, 8), atol=1e-6)
    a, b = (canvas_of(pg.plots.samples(vae, n=9, seed=s)) for s in (1, 2))
    assert a.shape == (26, 26) and not np.array_equal(a, b)
    with pytest.raises(ValueError, match="square images"):
        pg.plots.images(torch.rand(3, 7))


def test_every_picture_draws_on_the_axes_given(fitted: Any) -> None:
    import matplotlib.pyplot as plt

    data, vae, result = fitted
    x, y = data.test["x"][:20], data.test["y"][:20]
    _, axes = plt.subplots(2, 2)
    for draw, ax in zip(
        (
            lambda ax: pg.plots.learning_curve(result, ax=ax),
            lambda ax: pg.plots.latent_scatter(vae, x, y, ax=ax),
            lambda ax: pg.plots.reconstructions(vae, x, ax=ax),
            lambda ax: pg.plots.samples(vae, n=4, ax=ax),
        ),
        axes.flat,
        strict=True,
    ):
        assert draw(ax) is ax
        assert ax.get_title()
    assert len(plt.get_fignums()) == 1


def test_classes_have_no_mean() -> None:
    levels = pg.models.VAE(x=pg.Categorical(17, 16), z=pg.Normal(2), hidden=(4,))
    x = torch.randint(0, 17, (5, 16))
    with pytest.raises(ValueError, match="classes, which have no mean"):
        pg.reconstruct(levels, x)
    with pytest.raises(ValueError, match="classes, which have no mean"):
        pg.plots.samples(levels)
    latent = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Categorical(3, (4,)), hidden=(4,))
    with pytest.raises(ValueError, match="z is a vector of classes"):
        pg.encode(latent, binary(5))
    nested = pg.declare("p(a) p(b) p(x | a, b)", "q(a | x) q(b | x, a)", hidden=(4,),
                        a=pg.Categorical(3), b=pg.Categorical(2), x=pg.Bernoulli(6))  # fmt: skip
    x = binary(5)
    found = pg.encode(nested, x)
    with torch.no_grad():
        chances = nested.q_a(x=x).probs
        given = torch.stack([nested.q_b(x=x, a=torch.full((5,), a)).probs for a in range(3)], 1)
    assert torch.allclose(found["b"], (chances[..., None] * given).sum(1), atol=1e-6)


def test_reconstruct_draws_nothing_from_the_prior() -> None:
    pair = pg.declare("p(y) p(z) p(x | y, z)", "q(z | x)", hidden=(4,),
                      y=pg.Categorical(3), z=pg.Normal(2), x=pg.Bernoulli(6))  # fmt: skip
    with pytest.raises(ValueError, match="y is not given and the guide has no factor"):
        pg.reconstruct(pair, binary(5))
    assert pg.reconstruct(pair, {"x": binary(5), "y": labels(5)})["x"].shape == (5, 6)


def test_pictures_of_what_is_not_there(fitted: Any) -> None:
    data, vae, _ = fitted
    with pytest.raises(ValueError, match="one label per datum"):
        pg.plots.latent_scatter(vae, data.test["x"], data.test["y"][:-1])
    with pytest.raises(ValueError, match="no latent 'w'"):
        pg.plots.latent_scatter(vae, data.test["x"], data.test["y"], latent="w")
    with pytest.raises(ValueError, match="no variable 'w'"):
        pg.plots.samples(vae, name="w")


def test_pictures_of_conditional_pairs(fitted: Any) -> None:
    data, _, _ = fitted
    cvae = pg.declare("p(z) p(x | y, z)", "q(z | x, y)", hidden=(8,), y=pg.Categorical(10),
                      z=pg.Normal(2), x=pg.Normal(64))  # fmt: skip
    few = data.test.subset(slice(0, 12))
    assert canvas_of(pg.plots.reconstructions(cvae, few, columns=6)).shape == (35, 53)
    drawn = pg.plots.samples(cvae, n=3, columns=10, y=torch.arange(10))
    assert canvas_of(drawn).shape == (26, 89)
    ax = pg.plots.latent_scatter(cvae, few, few["y"])
    assert sum(len(np.asarray(c.get_offsets())) for c in ax.collections) == 12
    single = pg.fit(cvae, few, num_epochs=1, progress=False)
    assert pg.plots.learning_curve(single).get_lines()[0].get_marker() == "o"


def test_means_of_draws_are_those_of_the_factor_and_leave_the_random_state() -> None:
    from probgen.inference.queries.decode import decode_draws

    torch.manual_seed(0)
    m2 = pg.models.M2(x=pg.Bernoulli(6), y=pg.Categorical(3), z=pg.Normal(2), hidden=(4,))
    y, state = torch.arange(3), torch.get_rng_state()
    drawn = m2.sample(4, seed=5, y=y)
    means = decode_draws(m2, 4, seed=5, y=y)
    assert torch.equal(means, m2.p_x(y=y, z=drawn["z"]).mean) and means.shape == (4, 3, 6)
    free = m2.sample(4, seed=5)
    assert torch.equal(decode_draws(m2, 4, seed=5), m2.p_x(y=free["y"], z=free["z"]).mean)
    assert torch.equal(state, torch.get_rng_state())
