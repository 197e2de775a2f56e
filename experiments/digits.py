"""Handwritten digits: a VAE compared with probabilistic PCA and a Gaussian mixture on the same data.

    python -m experiments.digits --out out/digits

The data are the 1,797 digits of scikit-learn, dequantized by one stored draw of uniform noise. The number of
components of the mixture, the number of latents of PPCA and the epoch of the VAE are chosen on the
validation data; the table has the scores on the test data. The script writes the table, the scores as
JSON, and the figures.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from functools import partial
from pathlib import Path

import torch
from sklearn.mixture import GaussianMixture

import probgen as pg
from probgen.inference.scoring.scores import Score
from probgen.inference.training.results import FitResult


def fit_vae(data: pg.Splits, epochs: int, seed: int) -> tuple[pg.models.VAE, FitResult]:
    """A VAE with a Gaussian likelihood, whose mean and scale are outputs of the network, trained by SVI."""
    torch.manual_seed(seed)
    vae = pg.models.VAE(x=pg.Normal(64), z=pg.Normal(16), hidden=(200,), activation=torch.nn.SiLU)
    decay = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs)
    result = pg.fit(
        vae, data, num_epochs=epochs, batch_size=32, learning_rate=2e-3, scheduler=decay, seed=seed
    )
    return vae, result


def fit_ppca(data: pg.Splits) -> pg.models.PPCA:
    """PPCA by Tipping and Bishop's closed form; the number of latents is chosen on validation data."""
    assert data.validation is not None
    candidates = [
        pg.models.PPCA(x=pg.Normal(64), z=pg.Normal(n)).set_maximum_likelihood(data.train["x"])
        for n in (2, 4, 8, 16, 24, 32, 40, 48, 52, 56, 60, 63)
    ]
    validation = data.validation["x"]
    return max(candidates, key=lambda pair: pair.log_prob(validation).mean().item())


def fit_mixture(data: pg.Splits, seed: int) -> GaussianMixture:
    """A mixture by scikit-learn's EM; its settings are chosen on validation data."""
    assert data.validation is not None
    settings = [("full", n) for n in (1, 3, 5, 10)] + [("diag", n) for n in (10, 20, 40, 60, 80)]
    candidates = [
        GaussianMixture(n, covariance_type=kind, reg_covar=floor, random_state=seed)
        for kind, n in settings
        for floor in (1e-5, 1e-4, 1e-3)
    ]
    x, validation = data.train["x"].numpy(), data.validation["x"].numpy()
    return max((c.fit(x) for c in candidates), key=lambda mixture: mixture.score(validation))


def figures(out: Path, data: pg.Splits, vae: pg.models.VAE, result: FitResult) -> list[Path]:
    """Draw four pictures, each into its own file, and all four into one more file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    assert data.test is not None
    x, y = data.test["x"], data.test["y"]
    draw = {
        "learning_curve": lambda ax: pg.plots.learning_curve(result, ax=ax),
        "latent_scatter": lambda ax: pg.plots.latent_scatter(vae, x, y, ax=ax),
        "reconstructions": lambda ax: pg.plots.reconstructions(vae, x[:30], ax=ax),
        "prior_samples": lambda ax: pg.plots.samples(vae, n=60, columns=10, limits=(0, 1), ax=ax),
    }
    paths = []
    for name, function in draw.items():
        figure, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
        function(ax)
        paths.append(out / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
        plt.close(figure)
    figure, axes = plt.subplots(2, 2, figsize=(12.8, 8.4), layout="constrained")
    for ax, function in zip(axes.flat, draw.values(), strict=True):
        function(ax)
    paths.append(out / "overview.png")
    figure.savefig(paths[-1], dpi=100)
    plt.close(figure)
    return paths


def record(scores: dict[str, Score]) -> str:
    """The scores as JSON: averages, their errors, and a description of the data."""
    rows = {
        name: {
            "log_prob": score.mean,
            "monte_carlo_error": score.monte_carlo_error,
            "sampling_error": score.sampling_error,
            "bias": score.mean_bias,
            "num_samples": score.num_samples,
            "measure": score.measure,
            "transformation": score.transformation,
            "data_hash": score.data_hash,
        }
        for name, score in scores.items()
    }
    return json.dumps(rows, indent=2) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/digits"), help="folder to write to")
    parser.add_argument("--epochs", type=int, default=300, help="epochs of the VAE (default 300)")
    parser.add_argument("--samples", type=int, default=5000, help="importance samples per datum")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    data = pg.load("digits", seed=arguments.seed)
    assert data.test is not None
    print(data, end="\n\n")
    vae, result = fit_vae(data, arguments.epochs, arguments.seed)
    print(vae, result, sep="\n", end="\n\n")
    ppca, mixture = fit_ppca(data), fit_mixture(data, arguments.seed)
    num_latents = ppca.loadings.shape[1]
    kind, components = mixture.covariance_type, mixture.n_components

    with warnings.catch_warnings():
        # The printed score contains the same warning.
        warnings.simplefilter("ignore", pg.UnreliableEstimateWarning)
        estimate = pg.log_marginal_likelihood(
            vae, data.test, num_samples=arguments.samples, seed=arguments.seed, progress=True
        )
    scores = {
        "VAE, 16 latents": estimate,
        f"PPCA, {num_latents} latents": pg.log_marginal_likelihood(ppca, data.test, method="exact"),
        f"Gaussian mixture, {components} {kind}": Score.closed_form(
            mixture.score_samples(data.test["x"].numpy()), data.test, model="GaussianMixture"
        ),
    }
    print(estimate, end="\n\n")
    table = pg.table(scores)
    print(table, end="\n\n")
    (out / "table.txt").write_text(table + "\n")
    (out / "scores.json").write_text(record(scores))
    paths = [out / "table.txt", out / "scores.json", *figures(out, data, vae, result)]
    print(f"Done in {time.perf_counter() - start:.0f} s. Written:")
    print("\n".join(f"  {path}" for path in paths))


if __name__ == "__main__":
    main()
