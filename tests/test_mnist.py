"""Real handwriting: a short run against simpler models of the same stored binarization."""

from __future__ import annotations

import pytest
import torch

import probgen as pg


@pytest.mark.mnist
def test_canonical_files() -> None:
    data = pg.load("mnist", transform="none")
    assert data.validation is not None and data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (50_000, 10_000, 10_000)
    assert data.test["y"][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


@pytest.mark.mnist
@pytest.mark.long
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")
def test_a_short_run_of_the_vae_beats_simpler_models() -> None:
    """784-200-200-50 against independent pixels and PPCA, on the same stored binarization.

    PPCA is a density, so it scores the bits dequantized to x + u; its average log-density there
    bounds the log-probability that it gives the bits (Theis et al., 2016, eq. 3).
    """
    data = pg.load("mnist", transform="static")
    assert data.test is not None
    test = data.test.subset(slice(0, 500))
    independent = pg.declare(
        "p(x)", x=pg.Bernoulli(784), p_x=pg.Conditional(pg.Bernoulli(784), learned=True)
    )
    with torch.no_grad():
        rate = data.train["x"].mean(0).clamp(1e-3, 1 - 1e-3)
        independent.p_x.outputs.copy_(rate.logit())
    torch.manual_seed(0)
    vae = pg.models.VAE(x=pg.Bernoulli(784), z=pg.Normal(50), hidden=(200, 200))
    pg.fit(vae, data, num_epochs=6, progress=False, validation=None)
    ours = pg.log_marginal_likelihood(vae, test, num_samples=200)
    pixels = pg.log_marginal_likelihood(independent, test)

    real_train, real_test = (part.dequantized(levels=2) for part in (data.train, test))
    ppca = pg.models.PPCA(x=pg.Normal(784), z=pg.Normal(50))
    ppca.set_maximum_likelihood(real_train["x"])
    density = pg.log_marginal_likelihood(ppca, real_test, method="exact", precision="float64")
    linear = density.mean + density.log_jacobian  # of x + u instead of (x + u) / 2

    bits = test["x"]
    by_hand = (bits * rate.log() + (1 - bits) * (1 - rate).log()).sum(1).mean().item()
    assert pixels.is_exact and pixels.mean == pytest.approx(by_hand, abs=1e-3)
    assert ours.measure == pixels.measure == "probability mass of x"
    assert ours.mean > pixels.mean + 80
    assert ours.mean > linear + 80
    with pytest.raises(ValueError, match="different measures"):
        pg.table({"VAE": ours, "PPCA": density})
    print(f"VAE {ours.mean:.1f}, independent pixels {pixels.mean:.1f}, PPCA of x + u {linear:.1f}")


@pytest.mark.mnist
@pytest.mark.long
@pytest.mark.slow
def test_images_without_labels_help_a_hundred_labels() -> None:
    """M1 on 12,000 images for half a minute, against the nearest of the 100 labelled ones."""
    from sklearn.neighbors import KNeighborsClassifier

    data = pg.load("mnist", transform="none")
    assert data.test is not None
    train = data.train.subset(slice(0, 12_000)).keep_labels(10, seed=0)
    test = data.test.subset(slice(0, 2_000))
    assert train.observed is not None
    rows, known = train["x"].numpy(), train.observed["y"].numpy()
    nearest = KNeighborsClassifier(1).fit(rows[known], train["y"].numpy()[known])
    alone = 1 - nearest.score(test["x"].numpy(), test["y"].numpy())
    splits = pg.Splits(train, None, test)
    found = pg.few_labels(
        splits, "m1", seeds=1, num_epochs=30, device="cpu", progress=False
    )  # all the labels that there are
    assert found.labels == 100 and found.errors[0] < alone - 0.05
    print(f"M1 {found.errors[0]:.3f}, nearest neighbour {alone:.3f}")
