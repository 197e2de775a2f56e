"""MNIST from few labels: M1+M2 in two stages, beside classifiers of the labelled images alone.

    python -m experiments.few_labels --out out/few_labels

M1, a VAE, sees 50,000 images without their labels. M2 is trained on its latents, drawn anew in every
batch, and on the labels that a seed chooses, as many of each class. Everything is kept in the folder;
a killed run goes on when the same command is given again.

After Kingma, Rezende, Mohamed and Welling, 2014, "Semi-supervised learning with deep generative models":
M1 of 784-500-500-50 with softplus, two stages, redrawn features, inactive latents dropped. Other than
there: standardized features, 10 latents in M2, alpha of 1, a learning rate that falls.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from torch.optim.lr_scheduler import CosineAnnealingLR

import probgen as pg
from probgen.plots.style import axes, save

PUBLISHED = {100: 3.33, 600: 2.59, 1000: 2.40, 3000: 2.18}
"""Test error of M1+M2 in percent, Kingma et al., 2014, table 1."""


def first_stage(out: Path, data: pg.Splits, epochs: int) -> pg.LatentVariableModel:
    """M1, trained once for all seeds."""
    torch.manual_seed(0)
    vae = pg.models.VAE(
        x=pg.Bernoulli(784), z=pg.Normal(50), hidden=(500, 500), activation=torch.nn.Softplus
    )
    decay = partial(CosineAnnealingLR, T_max=epochs, eta_min=1e-5)
    result = pg.fit(
        vae, data.train.only("x"), num_epochs=epochs, batch_size=200, objective="analytic-kl",
        scheduler=decay, compile=True, run_dir=out / "m1", resume=True,
    )  # fmt: skip
    if result.stopped == "interrupted":
        raise SystemExit("Stopped. The same command goes on.")
    print(f"M1: ELBO {result.elbo[-1]:.2f}, {sum(result.seconds) / 60:.1f} minutes", flush=True)
    return vae


def features(vae: pg.LatentVariableModel, data: pg.Splits, labelled: pg.Dataset) -> pg.Splits:
    """Active latents, standardized by the training data; drawn anew in training."""
    assert data.validation is not None and data.test is not None
    columns = pg.active_units(vae, data.train)
    train = pg.features(vae, labelled, columns=columns, redraw=True)
    mean, scale = train["x"].double().mean(0), train["x"].double().std(0, correction=0)
    held = (pg.features(vae, part, columns=columns) for part in (data.validation, data.test))
    validation, test = (part.standardized(mean=mean, scale=scale) for part in held)
    return pg.Splits(train.standardized(mean=mean, scale=scale), validation, test)


def second_stage(found: pg.Splits, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """M2 on features; errors after every tenth of the epochs."""
    torch.manual_seed(seed)
    m2 = pg.models.M2(
        x=pg.Normal(found.train["x"].shape[1]), y=pg.Categorical(10),
        z=pg.Normal(arguments.latents), hidden=(500,),
    )  # fmt: skip
    known = int(found.train.observed["y"].sum())  # type: ignore[index]
    goal = pg.SemiSupervised(
        alpha=arguments.alpha, labelled_batch=min(100, known), analytic_kl=True
    )
    decay = partial(CosineAnnealingLR, T_max=arguments.epochs, eta_min=1e-5)
    folder, curve = arguments.out / f"m2-{known}-{seed}", []
    step = max(1, arguments.epochs // 10)
    for end in [*range(step, arguments.epochs, step), arguments.epochs]:
        result = pg.fit(
            m2, found.train, num_epochs=end, batch_size=1000, learning_rate=arguments.learning_rate,
            objective=goal, scheduler=decay, seed=seed, compile=True, run_dir=folder, resume=True,
        )  # fmt: skip
        if result.stopped == "interrupted":
            raise SystemExit("Stopped. The same command goes on.")
        minutes = sum(result.seconds) / 60
        errors = [error(m2, part) for part in (found.validation, found.test)]
        curve.append((end, minutes, *errors))
        print(f"M2, {known} labels, seed {seed}, epoch {end}: {minutes:.1f} min, "
              f"validation {errors[0]:.2f} %, test {errors[1]:.2f} %", flush=True)  # fmt: skip
    return {"curve": curve, "M1+M2": curve[-1][3], "M1+M2, validation": curve[-1][2]}


def error(pair: pg.LatentVariableModel, data: pg.Dataset | None) -> float:
    """Percent of the data whose most probable class is wrong."""
    assert data is not None
    found = pg.class_probabilities(pair, data).argmax(1)
    return 100 * float((found != data["y"]).double().mean())


def supervised(images: pg.Splits, found: pg.Splits, labelled: pg.Dataset) -> dict[str, float]:
    """Test errors of classifiers of the labelled data alone: their pixels, or M1's means of them."""
    assert images.test is not None and found.test is not None and labelled.observed is not None
    rows = labelled.observed["y"]
    y, truth = labelled["y"][rows].numpy(), images.test["y"].numpy()
    contestants: dict[str, tuple[ClassifierMixin, pg.Splits]] = {
        "k-NN on pixels": (KNeighborsClassifier(1), images),
        "SVM on pixels": (SVC(C=10), images),
        "MLP on pixels": (MLPClassifier((500,), max_iter=300, random_state=0), images),
        "M1 + logistic regression": (LogisticRegression(max_iter=2000), found),
        "M1 + SVM": (SVC(C=10), found),
    }
    errors = {}
    for name, (classifier, data) in contestants.items():
        assert data.test is not None
        made: Any = classifier
        made.fit(data.train["x"][rows].numpy(), y)
        errors[name] = 100 * float((made.predict(data.test["x"].numpy()) != truth).mean())
    return errors


def draw(records: list[dict[str, Any]], labels: int, *, ax: Any = None) -> Any:
    """Test error against minutes, a line a draw of the labels."""
    ax = axes(ax)
    for record in records:
        _, minutes, _, test = zip(*record["curve"], strict=True)
        ax.plot(minutes, test, "o-", ms=3, label=f"seed {record['seed']}")
    if labels in PUBLISHED:
        ax.axhline(PUBLISHED[labels], color="black", linewidth=0.8, linestyle="--")
        ax.annotate("published", (0, PUBLISHED[labels]), xytext=(0, 3), textcoords="offset points")
    ax.set(xlabel="minutes of M2", ylabel="test error in percent", ylim=(0, None), xlim=(0, None))
    ax.set_title(f"M1+M2 on MNIST, {labels} labels")
    ax.legend(frameon=False)
    return ax


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/few_labels"))
    parser.add_argument("--labels", type=int, default=100, help="in all, as many of each class")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--m1-epochs", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=100, help="of M2")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--latents", type=int, default=10, help="of M2")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data, start = pg.load("mnist"), time.perf_counter()
    vae = first_stage(arguments.out, data, arguments.m1_epochs)
    records = []
    for seed in arguments.seeds:
        labelled = data.train.keep_labels(arguments.labels // 10, seed=seed)
        found = features(vae, data, labelled)
        record = {"seed": seed, "latents": found.train["x"].shape[1]}
        record |= second_stage(found, seed, arguments) | supervised(data, found, labelled)
        records.append(record)
        path = arguments.out / f"few_labels_{arguments.labels}.json"
        path.write_text(json.dumps(records, indent=2) + "\n")
    print(f"\n{arguments.labels} labels, {len(records)} draws of them; {records[0]['latents']} active "
          f"latents; {(time.perf_counter() - start) / 60:.1f} minutes in all")  # fmt: skip
    print(f"\n{'test error, %':26s}  mean  standard deviation")
    for name in [key for key in records[0] if key not in ("seed", "latents", "curve")]:
        errors = np.array([record[name] for record in records])
        spread = errors.std(ddof=1) if len(errors) > 1 else float("nan")
        print(f"{name:26s}  {errors.mean():5.2f}  {spread:.2f}")
    save(arguments.out / f"few_labels_{arguments.labels}.png", draw, records, arguments.labels)


if __name__ == "__main__":
    main()
