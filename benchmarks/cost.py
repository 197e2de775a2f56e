"""Start-up time and peak memory, each measured in a new process.

python -m benchmarks.cost
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.blocks import write

IMPORTS = {
    "import torch, pyro": "import torch, pyro",
    "import probgen": "import probgen",
    "import probgen; probgen.fit": "import probgen; probgen.fit",
    "everything public": "import probgen; [getattr(probgen, name) for name in probgen.__all__]",
}
SETUP = """
import resource, sys, warnings
import torch, probgen as pg
warnings.simplefilter("ignore")
vae = pg.models.VAE(x=pg.Bernoulli(784), z=pg.Normal(20), hidden=(500,))
pg.fit(vae, torch.zeros(8, 784), num_epochs=1, device="cpu", progress=False)
pg.log_marginal_likelihood(vae, torch.zeros(2, 784), num_samples=50, device="cpu")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
before = peak()
n, batch, samples = map(int, sys.argv[1:])
x = torch.zeros(n, 784)
if batch:
    pg.fit(vae, x, num_epochs=1, batch_size=batch, device="cpu", progress=False)
if samples:
    pg.log_marginal_likelihood(vae, x, num_samples=samples, device="cpu")
print(peak() - before)
"""
FITS = [
    (10_000, 128),
    (100_000, 128),
    (500_000, 128),
    (100_000, 1024),
    (100_000, 8192),
    (100_000, 32_768),
]
SCORES = [(1, 1000), (100, 1000), (1, 100_000), (1, 1_000_000), (1, 10_000_000), (10, 100_000)]


def python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def seconds(code: str) -> float:
    start = time.perf_counter()
    python(code)
    return time.perf_counter() - start


def main() -> None:
    record: dict[str, Any] = {"seconds": {}, "megabytes": []}
    for code in IMPORTS.values():
        seconds(code)
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(7):
        for name, code in IMPORTS.items():
            times[name].append(seconds(code))
    lines = ["| start-up | seconds | ratio (lower is better) |", "|---|---|---|"]
    reference = np.array(times["import torch, pyro"])
    for name, values in times.items():
        ratio = float(np.median(np.array(values) / reference))
        record["seconds"][name] = {"median": float(np.median(values)), "ratio": ratio}
        lines.append(f"| `{name}` | {np.median(values):.2f} | {ratio:.2f} |")
    lines += [
        "",
        "| peak memory of | data | batch | K | data alone (MB) | in addition to start-up (MB) |",
    ]
    lines.append("|---|---|---|---|---|---|")
    runs = [("fit, one epoch", n, batch, 0) for n, batch in FITS]
    runs += [("log_marginal_likelihood", n, 0, samples) for n, samples in SCORES]
    for what, n, batch, samples in runs:
        used = float(python(SETUP, n, batch, samples))
        record["megabytes"].append([what, n, batch, samples, used])
        alone = n * 784 * 4 / 2**20
        lines.append(
            f"| {what} | {n:,} | {batch or '-'} | {f'{samples:,}' if samples else '-'} | "
            f"{alone:.0f} | {used:.0f} |"
        )
        print(lines[-1], flush=True)
    write(
        "cost",
        "Start-up time, median of 7, and peak resident memory of a process, float32.",
        lines,
        record,
    )


if __name__ == "__main__":
    main()
