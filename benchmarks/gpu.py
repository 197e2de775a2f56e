"""Training steps and evaluation on a GPU, in one command of about five minutes.

python -m benchmarks.gpu
python -m benchmarks.gpu --device cpu --images 1024 --rounds 1 --samples 50   # a trial without a GPU

Writes `results/gpu.md` and `results/gpu.json`; on a CPU it only prints.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from typing import Any

import torch
from torch import Tensor, nn

import probgen as pg
from benchmarks.blocks import Block, in_turn, write
from benchmarks.hand_written import HandWrittenVAE
from benchmarks.peers import numpyro_block, pyro_blocks
from benchmarks.training import by_hand, copy_weights, images, ours, vae

BATCHES = (128, 1024, 8192)
REFERENCE = "hand-written, one CUDA graph"


def graphed(model: nn.Module, x: Tensor, batch: int, compiled: bool) -> Block:
    """A fast hand-written step: rows, loss, gradients and a fused Adam in one CUDA graph."""
    model.to(x.device)
    on_gpu = x.is_cuda
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=on_gpu)
    loss_of = torch.compile(model) if compiled else model
    rows = torch.arange(batch, device=x.device)
    total = torch.zeros((), device=x.device)

    def step() -> None:
        optimizer.zero_grad()
        loss = loss_of(x.index_select(0, rows))
        loss.backward()
        optimizer.step()
        total.add_(loss.detach())

    replay = step
    if on_gpu:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        replay = graph.replay

    def run() -> tuple[float, float]:
        start = time.perf_counter()
        total.zero_()
        for part in torch.randperm(len(x), device=x.device).split(batch):
            rows.copy_(part)
            replay()
        bound = -float(total) * batch / len(x)
        return (time.perf_counter() - start) / (len(x) // batch), bound

    return run


def programs(x: Tensor, batch: int) -> dict[str, Block]:
    """All programs by name; NumPyro only if JAX uses the same kind of device."""
    blocks: dict[str, Block] = {}
    for label, compiled in ((REFERENCE, False), ("hand-written, compiled, one CUDA graph", True)):
        torch.manual_seed(0)
        blocks[label] = graphed(HandWrittenVAE(), x, batch, compiled)
    torch.manual_seed(0)
    blocks["hand-written, eager, default Adam"] = by_hand(HandWrittenVAE(), x, batch, "eager")
    for precision in ("float32", "bf16"):
        for capture in (False, True):
            torch.manual_seed(0)
            pair, label = vae(), f"probgen, {'replayed' if capture else 'as written'}, {precision}"
            copy_weights(pair, HandWrittenVAE())
            blocks[label] = ours(pair, x, batch, precision, capture)
    torch.manual_seed(0)
    blocks |= pyro_blocks(x, batch)
    if numpyro_sees(x.device):
        blocks["NumPyro, fori_loop"] = numpyro_block(x, batch)
    return blocks


def numpyro_sees(device: torch.device) -> bool:
    """Whether NumPyro is installed, and JAX uses this kind of device."""
    try:
        import jax
        import numpyro  # noqa: F401
    except ImportError:
        return False
    return jax.default_backend() == ("gpu" if device.type == "cuda" else "cpu")


def evaluation(x: Tensor, num_samples: int) -> dict[str, dict[str, float]]:
    """Seconds to score all images, and the share that the decoder's matrix products alone would take."""
    torch.manual_seed(0)
    pair = vae()
    pg.fit(pair, x, num_epochs=3, batch_size=min(128, len(x)), device=x.device, progress=False)
    found: dict[str, dict[str, float]] = {}
    for precision, compile in itertools.product(("float32", "bf16"), (False, True)):
        settings: dict[str, Any] = {
            "num_samples": num_samples, "precision": precision, "device": x.device, "compile": compile,
        }  # fmt: skip
        # The first call compiles; the second finds the machine code on disk.
        pg.log_marginal_likelihood(pair, x, **settings)
        start = time.perf_counter()
        score = pg.log_marginal_likelihood(pair, x, **settings)
        seconds = time.perf_counter() - start
        least = len(x) * num_samples * seconds_a_row(x.device, precision)
        assert score.chunk is not None
        found[f"{precision}, {'captured' if compile else 'as written'}"] = {
            "seconds": seconds, "least": least, "share": least / seconds, "nats": score.mean,
            "data": score.chunk[0], "draws": score.chunk[1],
        }  # fmt: skip
    return found


@torch.no_grad()
def seconds_a_row(device: torch.device, precision: str) -> float:
    """Seconds per row of the decoder's two matrix products alone, for the fastest of some sizes."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    v, w = (torch.randn(size, device=device, dtype=dtype) for size in ((20, 500), (500, 784)))
    best = float("inf")
    for rows in (4_000, 40_000, 200_000) if device.type == "cuda" else (1_000, 4_000):
        z = torch.randn(rows, 20, device=device, dtype=dtype)
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(5):
                out = (z @ v) @ w
            float(out[0, 0])  # waits for the GPU
            best = min(best, (time.perf_counter() - start) / (5 * rows))
    return best


def profiled(x: Tensor) -> list[str]:
    """The operations of replayed steps with 128 rows on the GPU, those with the longest times first."""
    from torch.profiler import ProfilerActivity, profile

    block = ours(vae(), x, 128, "float32", True)
    block(), block()
    activity = ProfilerActivity.CUDA if x.is_cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as found:
        block()
    key = f"self_{'device' if x.is_cuda else 'cpu'}_time_total"
    rows = sorted(found.key_averages(), key=lambda row: -getattr(row, key))[:12]
    steps = len(x) // 128
    lines = [
        "| operation of a replayed step with 128 rows | µs per step | calls per step |",
        "|---|---|---|",
    ]
    return lines + [
        f"| `{row.key[:60]}` | {getattr(row, key) / steps:.2f} | {row.count / steps:.1f} |"
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", help="cpu tries the command")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--images", type=int, default=49_152)
    parser.add_argument("--samples", type=int, default=5000, help="draws per test image")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    warnings.simplefilter("ignore", pg.UnreliableEstimateWarning)
    x = images(arguments.images).to(device)
    lines = ["| batch | program | µs per step | ratio (lower is better) | 10 % to 90 % | ELBO, nats per datum |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    record: dict[str, Any] = {"rounds": arguments.rounds, "images": len(x)}
    validation = torch.distributions.Distribution._validate_args
    for batch in (size for size in BATCHES if size <= len(x)):
        record[str(batch)] = in_turn(programs(x, batch), arguments.rounds, REFERENCE)
        torch.distributions.Distribution.set_default_validate_args(validation)
        for label, row in record[str(batch)].items():
            lines.append(
                f"| {batch} | {label} | {1e6 * row['seconds']:.0f} | {row['ratio']:.2f} | "
                f"{row['low']:.2f} to {row['high']:.2f} | {row['nats']:.2f} |"
            )
        print("\n".join(lines[-len(record[str(batch)]) :]), flush=True)
    few = x[:10_000] if device.type == "cuda" else x[:64]
    record["evaluation"] = evaluation(few, arguments.samples)
    lines += ["", f"| log p(x), {len(few)} images, K = {arguments.samples} | seconds | seconds of products alone |"
              " share | data x draws per pass | nats per datum |", "|---|---|---|---|---|---|"]  # fmt: skip
    for precision, row in record["evaluation"].items():
        lines.append(
            f"| {precision} | {row['seconds']:.2f} | {row['least']:.2f} | {row['share']:.0%} | "
            f"{row['data']} x {row['draws']} | {row['nats']:.3f} |"
        )
    lines += ["", *profiled(x)]
    title = "Training steps of the VAE; medians of the ratios to the hand-written step in each of "
    title += f"{arguments.rounds} shuffled rounds. Float32 products at torch's default precision."
    if device.type == "cuda":
        write("gpu", title, lines, record)
    else:
        print("\n".join([title, "", *lines]))


if __name__ == "__main__":
    main()
