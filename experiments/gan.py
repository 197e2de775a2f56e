"""A generative adversarial network (GAN) trained on digits, and a second one that collapses.

    python -m experiments.gan --out out/gan

The first run has settings that work: Adam with β₁ = 0.5 and the gradient penalty R1. The second run has the
minimax loss, no penalty and a large learning rate. Its critic wins after a few epochs, its generator makes nearly the
same image for every z, and `pg.fit` warns of both. The pictures show samples, and D(x) and D(G(z)) over epochs.
"""

from __future__ import annotations

import argparse
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import probgen as pg
from probgen.plots.style import save

RUNS: dict[str, dict[str, Any]] = {
    "works": {
        "objective": {"r1": 0.2}, "learning_rate": 2e-3, "betas": (0.5, 0.99), "epochs": 400,
    },
    "collapses": {
        "objective": {"loss": "minimax"}, "learning_rate": 5e-3, "betas": (0.9, 0.999), "epochs": 60,
    },
}  # fmt: skip
"""Settings of the two runs."""


def trained(settings: dict[str, Any], x: Tensor, epochs: int | None, seed: int) -> pg.FitResult:
    """A GAN whose generator and critic have two hidden layers of 128 units each."""
    torch.manual_seed(seed)
    model = pg.models.GAN(x=pg.Bernoulli(64), z=pg.Normal(16))
    return pg.fit(
        model, {"x": x}, objective=pg.Adversarial(**settings["objective"]),
        num_epochs=epochs or settings["epochs"], batch_size=64,
        learning_rate=settings["learning_rate"],
        optimizer=partial(torch.optim.Adam, betas=settings["betas"]), seed=seed, device="cpu",
        progress=False,
    )  # fmt: skip


def describe(result: pg.FitResult, train: pg.Dataset, test: pg.Dataset) -> None:
    """Print the metrics of some epochs, and a comparison of 1,000 samples with the data."""
    print(result)
    chosen = sorted({0, 9, len(result.elbo) // 2 - 1, len(result.elbo) - 1} - {-1})
    print("epoch   D(x)  D(G(z))  spread")
    for epoch in [epoch for epoch in chosen if epoch < len(result.elbo)]:
        row = [result.metrics[name][epoch] for name in ("D(x)", "D(G(z))", "spread")]
        print(f"{epoch + 1:5d}  {row[0]:5.2f}  {row[1]:7.2f}  {row[2]:6.2f}")
    samples = result.pair.sample(1000, seed=0)["x"]
    classes = KNeighborsClassifier(3).fit(train["x"], train["y"]).predict(samples)
    counts = torch.bincount(torch.as_tensor(classes), minlength=10).tolist()
    print(f"samples per class, classified by 3 nearest neighbours: {', '.join(map(str, counts))}")

    def distance(a: Tensor, b: Tensor) -> float:
        return float(torch.cdist(a, b).min(1).values.mean())

    print(
        "average distance to the nearest neighbour: "
        f"samples to training data {distance(samples, train['x']):.2f}, "
        f"test data to samples {distance(test['x'], samples):.2f}, "
        f"test data to training data {distance(test['x'], train['x']):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/gan"))
    parser.add_argument("--epochs", type=int, help="number of epochs of both runs")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    began, written = time.perf_counter(), []
    data = pg.load("digits")
    assert data.test is not None
    for name, settings in RUNS.items():
        print(f"\n{name}: {settings}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = trained(settings, data.train["x"], arguments.epochs, arguments.seed)
        if name == "works":
            print(result.pair)
        describe(result, data.train, data.test)
        for warning in caught:
            print(f"{warning.category.__name__}: {warning.message}")
        pictures = {
            "samples": partial(pg.plots.samples, result.pair, n=100, limits=(0, 1)),
            "metrics": partial(pg.plots.metric_curves, result),
        }
        for kind, draw in pictures.items():
            path = arguments.out / f"{name}_{kind}.png"
            save(path, draw)
            written.append(str(path))
    print(f"\n{time.perf_counter() - began:.0f} s. Written: {' '.join(written)}")


if __name__ == "__main__":
    main()
