"""Dynamically binarized MNIST: test log p(x) of the 784-200-200-50 tanh VAE of many papers.

    python -m experiments.mnist --out out/mnist

The training is divided into stages, and each stage resumes the run directory of the stage before. The weights at
the end are the same as without stages. A killed run resumes when the same command is given again. The
script reports the importance-weighted estimate of log p(x) with K samples on the test images, which are
binarized by one stored draw. The curve against minutes uses the first 2,000 test images.

The protocol follows Burda, Grosse and Salakhutdinov, 2016, "Importance weighted autoencoders": 400 of
the 60,000 training images are validation data, and the epoch with the best ELBO on them is used.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import probgen as pg
from probgen.plots.style import axes, save

CURVE_DATA, CURVE_SAMPLES = 2000, 1000


def make(seed: int, data: pg.Splits | None = None) -> pg.models.VAE:
    """The model of the protocol with its initial weights: Glorot's rule, and a last bias at the data's mean."""
    torch.manual_seed(seed)
    vae = pg.models.VAE(x=pg.Bernoulli(784), z=pg.Normal(50), hidden=(200, 200))
    for part in vae.modules():
        if isinstance(part, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(part.weight)
            torch.nn.init.zeros_(part.bias)
    if data is not None:
        rate = data.train["x"].mean(0).clamp(0.001, 0.999)
        decoder: Any = vae.p_x.network
        with torch.no_grad():
            decoder.layers[-1].bias.copy_(rate.logit())
    return vae


def train(arguments: argparse.Namespace, data: pg.Splits) -> pg.FitResult:
    """Train all stages, and keep the weights after each of them in the folder `stages`."""
    rate, epochs, run = arguments.learning_rate, arguments.epochs, arguments.out / "run"
    decay = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs, eta_min=rate / 100)
    pair = make(arguments.seed, data)
    if arguments.start is not None:
        pair.load_state_dict(pg.load_run(arguments.start).pair.state_dict())
    step = max(1, epochs // arguments.stages)
    ends = [*range(step, epochs - step + 1, step), epochs]
    for end in ends:
        kept = arguments.out / "stages" / f"{end:05d}.safetensors"
        if kept.exists() and end != epochs:
            continue
        result = pg.fit(
            pair, data, num_epochs=end, batch_size=arguments.batch_size, learning_rate=rate,
            scheduler=decay, seed=arguments.seed, compile=True, run_dir=run, resume=True,
        )  # fmt: skip
        if result.stopped == "interrupted":
            raise SystemExit("Stopped. To resume, give the same command again.")
        kept.parent.mkdir(exist_ok=True)
        shutil.copy(run / "weights.safetensors", kept)
        print(f"epoch {end}: {sum(result.seconds) / 60:.1f} min; {result!r}", flush=True)
    return result


def curve(out: Path, data: pg.Dataset) -> list[dict[str, float]]:
    """Test log p(x) of the weights after each stage, against minutes of training."""
    from probgen.storage.files import read_tensors

    few, rows = data.subset(slice(0, CURVE_DATA)), []
    for path in sorted((out / "stages").glob("*.safetensors")):
        tensors, record = read_tensors(path)
        pair = make(0)
        pair.load_state_dict({n.removeprefix("pair/"): t for n, t in tensors.items()})
        score = pg.log_marginal_likelihood(pair, few, num_samples=CURVE_SAMPLES)
        progress = record["progress"]
        rows.append(
            {
                "epoch": len(progress["elbo"]),
                "minutes": sum(progress["seconds"]) / 60,
                "elbo": progress["elbo"][-1],
                "log_prob": score.mean,
                "sampling_error": score.sampling_error,
            }
        )
    return rows


def draw(rows: list[dict[str, float]], target: float, *, ax: Any = None) -> Any:
    """Draw the ELBO and the test log p(x) against minutes of training."""
    ax = axes(ax)
    minutes = [row["minutes"] for row in rows]
    ax.plot(minutes, [row["elbo"] for row in rows], "o-", ms=3, label="ELBO, training data")
    label = f"log p(x) >=, K = {CURVE_SAMPLES}, {CURVE_DATA:,} test images"
    ax.plot(minutes, [row["log_prob"] for row in rows], "o-", ms=3, label=label)
    ax.axhline(target, color="black", linewidth=0.8, linestyle="--")
    ax.annotate(f"{target}", (minutes[0], target), xytext=(0, 3), textcoords="offset points")
    low = np.quantile([row["elbo"] for row in rows], 0.15)
    top = max(row["log_prob"] for row in rows)
    ax.set(
        xlabel="minutes of training", ylabel="nats per datum", ylim=(low, max(top, target) + 0.5)
    )
    ax.set_title("784-200-200-50 tanh VAE on dynamically binarized MNIST")
    ax.legend(frameon=False, loc="lower right")
    return ax


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/mnist"), help="folder to write to")
    parser.add_argument("--epochs", type=int, default=370)
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, default=1.8e-3, help="initial value")
    parser.add_argument("--stages", type=int, default=10, help="points of the curve")
    parser.add_argument("--samples", type=int, default=1000, help="importance samples per datum")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="start with the weights of this run")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", pg.UnreliableEstimateWarning)  # the printed score contains it
    start = time.perf_counter()
    data = pg.load("mnist", split=(400, 0), seed=arguments.seed)
    assert data.test is not None
    test = data.test.only("x")
    print(data, flush=True)
    result = train(arguments, data)
    run = pg.load_run(out / "run")
    score = pg.log_marginal_likelihood(run.pair, test, num_samples=arguments.samples, progress=True)
    minutes = (time.perf_counter() - start) / 60
    run.save_score(score, f"test-K{arguments.samples}")
    print(f"\n{score}\n\n{minutes:.1f} minutes in all, {sum(result.seconds) / 60:.1f} of training, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}")  # fmt: skip
    rows = curve(out, test)
    print("\nepoch  minutes  training ELBO  test log p(x) >=")
    for row in rows:
        print(
            f"{row['epoch']:5d}  {row['minutes']:7.1f}  {row['elbo']:13.2f}  {row['log_prob']:16.2f}"
        )
    (out / "curve.json").write_text(json.dumps(rows, indent=2) + "\n")
    save(out / "curve.png", draw, rows, -89.0)
    pg.plots.report(run)


if __name__ == "__main__":
    main()
