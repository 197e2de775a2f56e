"""Speed of a training step, compared with hand-written torch, Pyro, NumPyro and Pythae.

python -m benchmarks.training --rounds 21
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import probgen as pg
from benchmarks.blocks import Block, in_turn, write
from benchmarks.hand_written import HandWrittenConv, HandWrittenM2, HandWrittenVAE
from benchmarks.peers import numpyro_block, pyro_blocks, pythae_block
from probgen.basics.settings import quiet_pyro
from probgen.inference.compute.devices import as_dtype
from probgen.inference.training.batches import Resident
from probgen.inference.training.epochs import Training
from probgen.inference.training.feed import Feed
from probgen.inference.training.module import TrainingModule
from probgen.inference.training.settings import Settings
from probgen.variables import raw_from_scale

REFERENCE = "hand-written, eager, default Adam"


def images(n: int) -> Tensor:
    """MNIST binarized at 127 if its files are available, otherwise noise of the same shape."""
    try:
        x = pg.load("mnist", transform="none").train["x"][:n]
        return (x > 127 / 255).float()
    except FileNotFoundError:
        return torch.bernoulli(torch.full((n, 784), 0.13))


def vae() -> pg.LatentVariableModel:
    return pg.models.VAE(x=pg.Bernoulli(784), z=pg.Normal(20), hidden=(500,))


def m2() -> pg.LatentVariableModel:
    return pg.declare(
        "p(y) p(z) p(x | y, z)", "q(y | x) q(z | x, y)", hidden=(500,),
        y=pg.Categorical(10), z=pg.Normal(50), x=pg.Bernoulli(784),
    )  # fmt: skip


def convolutional() -> pg.LatentVariableModel:
    return pg.models.VAE(
        x=pg.Bernoulli((1, 28, 28)), z=pg.Normal(20), encoder=pg.ConvEncoder, decoder=pg.ConvDecoder
    )


def copy_weights(pair: pg.LatentVariableModel, model: nn.Module) -> None:
    """Copy the hand-written model's weights into the pair, with the same initial scales of the guide."""
    own = [p for name, p in pair.named_parameters() if name.startswith("q_")]
    own += [p for name, p in pair.named_parameters() if name.startswith("p_")]
    with torch.no_grad():
        for mine, theirs in zip(own, model.parameters(), strict=True):
            mine.copy_(theirs)
        bias = list(pair.get_submodule("q_z").parameters())[-1]
        scale = nn.functional.softplus(bias[len(bias) // 2 :])
        bias[len(bias) // 2 :] = raw_from_scale(scale)


def ours(pair: Any, x: Tensor, batch: int, precision: str, capture: bool) -> Block:
    """An epoch of `fit`: shuffling, steps, the check of every loss, and the copy of the weights."""
    source = Resident(pg.Dataset({"x": x}), batch)
    goal, device = pg.ELBO(analytic_kl=True), x.device
    pair.to(device).train()
    settings = Settings(1, device, precision=precision)
    module = TrainingModule(pair, goal, 0, device, as_dtype(precision))
    feed = Feed(source, None, goal, {}, {}, None)
    training = Training(module, feed, goal, settings, capture)
    count = 0

    def run() -> tuple[float, float]:
        nonlocal count
        count += 1
        start = time.perf_counter()
        with quiet_pyro(), torch.enable_grad():
            bound, _ = training.epoch(count, 1.0).numbers()
        return (time.perf_counter() - start) / (len(x) // batch), bound

    return run


def by_hand(model: nn.Module, x: Tensor, batch: int, how: str) -> Block:
    """An epoch of a hand-written training loop: `how` is eager, fused, compiled or bf16."""
    model.to(x.device)
    fused = None if how == "eager" else True
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    loss_of: Callable[[Tensor], Tensor] = model
    if how in ("compiled", "bf16"):
        loss_of = torch.compile(model)

    def run() -> tuple[float, float]:
        start, total = time.perf_counter(), torch.zeros((), device=x.device)
        order = torch.randperm(len(x), device=x.device)
        for first in range(0, len(x), batch):
            rows = x[order[first : first + batch]]
            optimizer.zero_grad()
            with torch.autocast(x.device.type, torch.bfloat16, enabled=how == "bf16"):
                loss = loss_of(rows)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        bound = -float(total) * batch / len(x)  # on a GPU this waits for the last step
        return (time.perf_counter() - start) / (len(x) // batch), bound

    return run


CASES: dict[str, dict[str, Any]] = {
    "VAE, batch 128": {"pair": vae, "hand": HandWrittenVAE, "batch": 128, "steps": 30},
    "VAE, batch 1024": {"pair": vae, "hand": HandWrittenVAE, "batch": 1024, "steps": 6},
    "M2, ten classes summed, batch 128": {"pair": m2, "hand": HandWrittenM2, "batch": 128, "steps": 5},
    "convolutional VAE, batch 128": {
        "pair": convolutional, "hand": HandWrittenConv, "batch": 128, "steps": 6,
    },
}  # fmt: skip


def programs(name: str) -> dict[str, Block]:
    case = CASES[name]
    batch = case["batch"]
    x = images(batch * case["steps"])
    if case["pair"] is convolutional:
        x = x.reshape(-1, 1, 28, 28)
    blocks: dict[str, Block] = {}
    for label, how in (
        (REFERENCE, "eager"),
        ("hand-written, eager, fused Adam", "fused"),
        ("hand-written, compiled, fused Adam", "compiled"),
        ("hand-written, compiled, fused, bf16", "bf16"),
    ):
        torch.manual_seed(0)
        blocks[label] = by_hand(case["hand"](), x, batch, how)
    for precision in ("float32", "bf16"):
        for capture in (False, True):
            torch.manual_seed(0)
            label = f"probgen, {'captured' if capture else 'as written'}, {precision}"
            pair = case["pair"]()
            copy_weights(pair, case["hand"]())
            blocks[label] = ours(pair, x, batch, precision, capture)
    if name.startswith("VAE"):
        torch.manual_seed(0)
        blocks |= pyro_blocks(x, batch)
        blocks["Pythae"] = pythae_block(x, batch)
        blocks["NumPyro, fori_loop"] = numpyro_block(x, batch)
    return blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=21, help="number of rounds (default 21)")
    parser.add_argument("--only", choices=CASES, nargs="*", default=list(CASES), help="networks")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    validation = torch.distributions.Distribution._validate_args
    lines = [
        "| network | program | ms per step | ratio (lower is better) | 10 % to 90 % | ELBO, nats per datum |",
        "|---|---|---|---|---|---|",
    ]
    record: dict[str, Any] = {"rounds": rounds}
    for name in arguments.only:
        record[name] = in_turn(programs(name), rounds, REFERENCE)
        torch.distributions.Distribution.set_default_validate_args(validation)
        for label, row in record[name].items():
            lines.append(
                f"| {name} | {label} | {1e3 * row['seconds']:.2f} | {row['ratio']:.2f} | "
                f"{row['low']:.2f} to {row['high']:.2f} | {row['nats']:.2f} |"
            )
        print("\n".join(lines[-len(record[name]) :]), flush=True)
    title = (
        "The time of a training step, and the median of its ratios to the time of the hand-written step in each "
        f"of {rounds} shuffled rounds. The ELBO is that of the last of {rounds + 2} epochs over the images of a "
        "round, which are the same for all programs of a network."
    )
    if arguments.only == list(CASES):
        write("training", title, lines, record)


if __name__ == "__main__":
    main()
