"""Speed of the importance-weighted log p(x) at K = 1000, compared with hand-written torch and NumPyro.

python -m benchmarks.evaluation --rounds 21
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import probgen as pg
from benchmarks.blocks import Block, in_turn, write
from benchmarks.hand_written import HandWrittenVAE
from benchmarks.peers import numpyro_vae
from benchmarks.training import images, vae
from probgen.basics.settings import evaluation
from probgen.inference.scoring.importance import ImportanceWeights

K, ROWS = 1000, 4
REFERENCE = "NumPyro, RenyiELBO, jit"
CPU = torch.device("cpu")


def per_image(run: Callable[[], Any], count: int) -> Block:
    def block() -> tuple[float, float]:
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) / count, float("nan")

    return block


def ours(pair: pg.LatentVariableModel, x: Tensor, precision: str, capture: bool) -> Block:
    """The log-weights of all images, four per pass, drawn as in `log_marginal_likelihood`."""
    weigh = ImportanceWeights(pair, CPU, precision, compile=capture)

    def run() -> None:
        with evaluation(pair):
            for rows in x.split(ROWS):
                weigh({"x": rows}, {}, 0, K, True).logsumexp(0)

    return per_image(run, len(x))


def by_hand(x: Tensor, compiled: bool) -> Block:
    model = HandWrittenVAE()
    weigh = torch.compile(model.weigh) if compiled else model.weigh

    @torch.no_grad()
    def run() -> None:
        for image in x:
            weigh(image, K)

    return per_image(run, len(x))


def numpyro_block(x: Tensor) -> Block:
    import jax
    import jax.numpy as jnp
    import numpyro

    model, guide = numpyro_vae()
    data = jnp.asarray(x.numpy())
    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(1e-3), numpyro.infer.Trace_ELBO())
    parameters = svi.get_params(svi.init(jax.random.PRNGKey(0), data[:2]))
    bound = numpyro.infer.RenyiELBO(alpha=0, num_particles=K)
    loss = jax.jit(lambda key, rows: bound.loss(key, parameters, model, guide, rows))

    def run() -> None:
        for index in range(len(data)):
            loss(jax.random.PRNGKey(index), data[index : index + 1]).block_until_ready()

    return per_image(run, len(x))


def agreement(pair: pg.LatentVariableModel, x: Tensor) -> dict[str, float]:
    """Average log p(x) with the same weights and noise, in each precision, captured and as written."""
    found = {}
    for precision in ("float64", "float32", "bf16"):
        for capture in (False, True):
            score = pg.log_marginal_likelihood(
                pair, x, num_samples=K, precision=precision, compile=capture, device="cpu"
            )
            found[f"{'captured' if capture else 'as written'}, {precision}"] = score.mean
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=21, help="number of rounds (default 21)")
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore", pg.UnreliableEstimateWarning)
    torch.manual_seed(0)
    pair, x = vae(), images(128 * 100)
    pg.fit(pair, x, num_epochs=5, device="cpu", progress=False)
    few = x[:16]
    blocks = {
        "hand-written, eager": by_hand(few, False),
        "hand-written, compiled": by_hand(few, True),
        REFERENCE: numpyro_block(few),
    }
    for precision in ("float32", "bf16"):
        for capture in (False, True):
            label = f"probgen, {'captured' if capture else 'as written'}, {precision}"
            blocks[label] = ours(pair, few, precision, capture)
    rows = in_turn(blocks, rounds, REFERENCE)
    lines = [
        "| program | images per second | speed relative to NumPyro (higher is better) | 10 % to 90 % |",
        "|---|---|---|---|",
    ]
    for label, row in rows.items():
        lines.append(
            f"| {label} | {1 / row['seconds']:.0f} | {1 / row['ratio']:.2f} | "
            f"{1 / row['high']:.2f} to {1 / row['low']:.2f} |"
        )
    found = agreement(pair, x[:200])
    lines += ["", "| same weights, same noise, 200 images | log p(x) |", "|---|---|"]
    lines += [f"| {label} | {value:.4f} |" for label, value in found.items()]
    title = (
        f"log p(x) of the 784-500-20-500-784 VAE at K = {K}: images per second, and the median of the ratios "
        f"to the speed of NumPyro in each of {rounds} shuffled rounds."
    )
    write("evaluation", title, lines, {"rounds": rounds, "rows": rows, "log_prob": found})


if __name__ == "__main__":
    main()
