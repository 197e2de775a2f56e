"""Autoencoders of digits compared with principal components of the same size.

    python -m experiments.autoencoders --out out/autoencoders

For codes of 2, 5 and 20 numbers, this prints the squared error per pixel on the test images, for PCA and for a
linear, a deep and a convolutional `pg.models.Autoencoder`, and draws reconstructions. On the training
data no linear map has a smaller error than PCA, and the linear autoencoder should come close to it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

import probgen as pg
from probgen.basics.text import aligned
from probgen.plots.style import save

Array = NDArray[Any]

SIZES = (2, 5, 20)
"""The numbers of elements of a code."""
SCALE = 0.2
"""The fixed scale of p(x | z); it multiplies the squared error in the objective by a constant."""
KINDS: dict[str, dict[str, Any]] = {
    "linear": {"hidden": ()},
    "deep": {"hidden": (256, 128)},
    "convolutional": {"hidden": (), "encoder": pg.ConvEncoder, "decoder": pg.ConvDecoder},
}


def squared_error(x: Array, reconstruction: Array) -> float:
    """The average over data and pixels."""
    return float(np.square(x - reconstruction).mean())


def trained(kind: str, size: int, data: pg.Splits, epochs: int, seed: int) -> pg.FitResult:
    """An autoencoder with the weights of the epoch that has the best validation value."""
    torch.manual_seed(seed)
    model = pg.models.Autoencoder(
        x=pg.Normal((1, 8, 8), scale=SCALE), z=pg.Normal(size), **KINDS[kind]
    )
    return pg.fit(
        model, data, num_epochs=epochs, batch_size=64, learning_rate=2e-3, seed=seed, device="cpu",
        progress=False,
    )  # fmt: skip


def draw(rows: dict[str, Array]) -> Any:
    """Return a function that draws rows of images with their names on given axes."""

    def on(ax: Any) -> Any:
        pictures = np.concatenate(list(rows.values()))
        pg.plots.images(pictures, columns=len(next(iter(rows.values()))), limits=(0, 1), ax=ax)
        ax.set_title("Digits of the test data and their reconstructions")
        ax.set_yticks([9 * index + 4 for index in range(len(rows))], list(rows))
        ax.tick_params(left=False)
        return ax

    return on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/autoencoders"))
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    splits = pg.load("digits")

    def as_images(part: pg.Dataset) -> pg.Dataset:
        return pg.Dataset({"x": part["x"].reshape(-1, 1, 8, 8), "y": part["y"]}, part.name)

    data = pg.Splits(**{name: as_images(part) for name, part in splits.parts.items()})  # type: ignore[arg-type]
    assert data.test is not None
    train, test = (part["x"].flatten(1).numpy() for part in (data.train, data.test))
    # The first test image of each class.
    shown = [int((data.test["y"] == label).nonzero()[0]) for label in range(10)]
    rows = {"data": test[shown].reshape(-1, 8, 8)}
    table = [("numbers per code", "PCA", *KINDS)]
    for size in SIZES:
        pca = PCA(size, random_state=arguments.seed).fit(train)
        copies = pca.inverse_transform(pca.transform(test))
        errors = {"PCA": squared_error(test, copies)}
        rows[f"PCA, {size}"] = copies[shown].reshape(-1, 8, 8)
        for kind in KINDS:
            result = trained(kind, size, data, arguments.epochs, arguments.seed)
            copy: Tensor = pg.reconstruct(result.pair, data.test.only("x"), device="cpu")["x"]
            errors[kind] = squared_error(test, copy.flatten(1).numpy())
            if kind == "deep":
                rows[f"autoencoder, {size}"] = copy[shown].reshape(-1, 8, 8).numpy()
                last = result
            print(f"{kind}, {size}: {result!r}", flush=True)
        table.append((str(size), *(f"{error:.4f}" for error in errors.values())))
    print("\nSquared error per pixel on the test data")
    print(*aligned(table, left=set())[0], sep="\n")
    print(f"\n{last.pair!r}\n\nIts score:")
    try:
        pg.log_marginal_likelihood(last.pair, data.test.only("x"), device="cpu")
    except ValueError as error:
        print(error)
    path = arguments.out / "reconstructions.png"
    save(path, draw(rows))
    print(f"\n{time.perf_counter() - began:.0f} s. Written: {path}")


if __name__ == "__main__":
    main()
