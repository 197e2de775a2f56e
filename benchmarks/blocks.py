"""Run several programs in shuffled rounds of short blocks of work, and compare their times within a round.

A slow change in the speed of the machine then has little effect on the ratios.
"""

from __future__ import annotations

import json
import math
import os
import platform
import random
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("probgen", "torch", "pyro-ppl", "numpyro", "jax", "pythae", "numpy")

Block = Callable[[], tuple[float, float]]
"""Runs a block of work, and returns the seconds per unit (a step or an image) and the average ELBO in nats."""


def in_turn(blocks: Mapping[str, Block], rounds: int, reference: str) -> dict[str, dict[str, Any]]:
    """For each program: the median time, the median ratio to the reference in the same round, and the last ELBO."""
    for block in blocks.values():
        block()
        block()
    seconds: dict[str, list[float]] = {name: [] for name in blocks}
    bounds: dict[str, float] = {}
    for index in range(rounds):
        for name in random.Random(index).sample(list(blocks), len(blocks)):
            took, bounds[name] = blocks[name]()
            seconds[name].append(took)
    found = {}
    for name, times in seconds.items():
        ratios = np.array(times) / np.array(seconds[reference])
        found[name] = {
            "seconds": float(np.median(times)),
            "ratio": float(np.median(ratios)),
            "low": float(np.quantile(ratios, 0.1)),
            "high": float(np.quantile(ratios, 0.9)),
        }
        if not math.isnan(bounds[name]):
            found[name]["nats"] = bounds[name]
    return found


def machine() -> dict[str, str]:
    """The processor, the number of threads, and versions of packages."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    found = {
        "processor": model,
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    found["python"] = platform.python_version()
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write(name: str, title: str, lines: list[str], record: dict[str, Any]) -> None:
    """Write the table as Markdown and all measurements as JSON, and print the table."""
    about = machine()
    words = ", ".join(f"{key} {value}" for key, value in about.items())
    text = "\n".join([title, "", *lines, "", f"{words}.", ""])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    content = json.dumps({**record, "machine": about}, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(content)
    print(text, flush=True)
