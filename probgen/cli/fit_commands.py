"""The commands that train: each converts text to arguments and calls one public function.

Every command returns the text to print, and the same content as a record for `--json`.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import probgen as pg
from probgen.basics.memory import enough_memory
from probgen.basics.randomness import fixed_seed
from probgen.basics.text import printable
from probgen.cli.parsing import (
    check_local,
    make_pair,
    shares,
    transform,
    two_numbers,
    widths,
)
from probgen.data.sources import SOURCES
from probgen.inference.inputs import known_part
from probgen.inference.objectives import OBJECTIVES
from probgen.inference.objectives.registry import as_objective, resolved
from probgen.storage.files import write_atomically

Answer = tuple[str, dict[str, Any]]


def train(
    *,
    model: str | None, data: str | None, p: str | None, q: str | None, var: Sequence[str] | None,
    local: bool, name: str | None, hidden: str | None, activation: str | None, epochs: int, batch_size: int | None,
    learning_rate: float, schedule: str, objective: str, particles: int, warmup: int,
    patience: int | None, precision: str, compile: bool | None, device: str, devices: int,
    seed: int, binarize: str | None,
    dequantize: bool, standardize: bool, levels: int | None, split: str | None,
    labels_column: str | None, columns: str | None, header: bool | None, run_dir: Path | None, resume: bool,
    quiet: bool,
) -> Answer:  # fmt: skip
    """Call `pg.fit` with a model that is described by text."""
    if data is None:
        names = ", ".join(f"--data {name}" for name in SOURCES.names())
        raise ValueError(f"Name the data: {names}, or --data FILE.")
    if resume and run_dir is None:
        raise ValueError("--resume needs --run-dir, the folder of the run to continue.")
    splits = pg.load(
        data,
        transform=transform(binarize, dequantize, standardize),
        seed=seed,
        labels=labels_column,
        columns=None if columns is None else [c.strip() for c in columns.split(",")],
        header=header,
        split=None if split is None else two_numbers(split),
        levels=levels,
    )
    memory_error = enough_memory("train", "the sizes in --var, or --hidden")
    with memory_error, fixed_seed(seed, torch.device("cpu")):
        pair = make_pair(model, p, q, var or [], hidden, activation, splits.train, local, name)
    maximized = _objective(objective, pair, particles, warmup)
    scheduler: Any = None
    if schedule == "cosine":
        scheduler = functools.partial(
            torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs, eta_min=learning_rate / 100
        )
    elif schedule != "constant":
        raise ValueError(f"--schedule must be constant or cosine, got {schedule!r}.")
    used_variables = list(known_part(pair, splits.train).values)
    if p is not None:
        check_local(pair, used_variables)
    result = pg.fit(
        pair,
        splits,
        num_epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        objective=maximized,
        scheduler=scheduler,
        patience=patience,
        precision=precision,
        compile="auto" if compile is None else compile,
        device=device,
        devices=devices,
        seed=seed,
        run_dir=(folder := run_dir or _new_folder(pair.name, splits.train.name)),
        resume=resume,
        progress=not quiet,
    )
    record = {
        "run": folder,
        "model": pair.name,
        "data": splits.train.name,
        "variables": used_variables,
        "epochs": len(result.elbo),
        "stopped": result.stopped,
        "quantity": result.quantity,
        "elbo": result.elbo[-1] if result.elbo else None,
        "validation_elbo": (
            result.validation_elbo[result.best_epoch - 1]
            if result.best_epoch and result.validation_elbo
            else None
        ),
        "best_epoch": result.best_epoch,
        "seconds": sum(result.seconds),
    }
    ignored = [name for name in splits.train.values if name not in used_variables]
    text = [repr(splits), repr(pair), repr(result)]
    if ignored:
        text.append(f"Not used, since the model has no such variable: {', '.join(ignored)}")
    if result.stopped == "interrupted":
        text.append(f"Stopped. To continue: the same command with --run-dir {folder} --resume")
    pair_option = "" if model is None or ":" not in model else f" --pair {model}"
    commands = ["evaluate", "plot"] if as_objective(maximized).is_bound else ["plot"]
    next_steps = "; ".join(f"probgen {command} {folder}{pair_option}" for command in commands)
    text.append(f"Written to {folder}. Next: {next_steps}")
    return "\n".join(text), record


def _objective(name: str, pair: Any, particles: int, warmup: int) -> Any:
    """The objective with a name; `auto` is the model's own objective."""
    name = resolved(name, pair)
    if name in ("elbo", "analytic-kl"):
        return pg.ELBO(particles, analytic_kl=name == "analytic-kl", warmup_epochs=warmup)
    if name not in OBJECTIVES:
        raise ValueError(
            f"--objective must be {', '.join(OBJECTIVES.names())} or auto, got {name!r}."
        )
    if particles != 1 or warmup:
        raise ValueError(
            f"--particles and --warmup are settings of the ELBO, but {pair.name} is trained with the "
            f"objective {name!r}. Leave them out."
        )
    return name


def classify(
    *, data: str | None, labels: int | None, method: str, seeds: int, epochs: int | None,
    alpha: float | None, latents: int | None, hidden: str | None, class_prior: str, likelihood: Any,
    precision: Any, device: str, labels_column: str | None, columns: str | None, header: bool | None,
    split: str | None, out: Path | None,
    figures: bool, quiet: bool,
) -> Answer:  # fmt: skip
    """Call `pg.few_labels`, and draw its pictures."""
    from probgen.reports.few_labels import few_labels_report

    if data is None:
        names = ", ".join(f"--data {name}" for name in SOURCES.names())
        raise ValueError(f"Name the data: {names}, or --data FILE.")
    splits = pg.load(
        data,
        transform="none",
        labels=labels_column,
        columns=None if columns is None else [c.strip() for c in columns.split(",")],
        header=header,
        split=None if split is None else two_numbers(split),
    )
    folder = out or _new_folder(f"classify-{method.replace('+', '')}", splits.train.name)
    with _saying_how_to_continue(folder):
        results = pg.few_labels(
            splits, method, labels=labels, seeds=seeds, folder=folder, progress=not quiet,
            num_epochs=epochs, alpha=alpha, latents=latents,
            hidden=None if hidden is None else widths(hidden),
            class_prior=shares(class_prior),
            likelihood=likelihood, precision=precision, device=device,
        )  # fmt: skip
        record = {"out": folder, **results.record()}
        content = json.dumps({**record, "out": str(folder)}, indent=2)
        write_atomically(folder / "results.json", f"{content}\n".encode())
        pictures = None
        if figures:
            pictures = few_labels_report(results, splits, folder / "figures", progress=not quiet)
    text = [repr(splits), repr(results)]
    if pictures is not None:
        record["figures"] = pictures
        text.append(
            f"Figures in {folder / 'figures'}: {', '.join(p.name for p in pictures.values())}"
        )
    text.append(
        f"Written to {folder}. The same command with --out {folder} continues or adds seeds."
    )
    return "\n".join(text), record


@contextmanager
def _saying_how_to_continue(folder: Path) -> Iterator[None]:
    """If Ctrl-C ends a command of several fits, print how to continue it."""
    try:
        yield
    except KeyboardInterrupt:
        state = f"{folder} keeps what was trained" if folder.is_dir() else "Nothing was trained yet"
        message = f"Stopped. {state}. To continue: the same command with --out {folder}"
        print(printable(message), file=sys.stderr)
        raise


def _new_folder(model: str, data: str) -> Path:
    """The first free `runs/model-data-1`, -2, ..."""
    stem = f"{model}-{data}".lower().replace(" ", "-")
    number = 1
    while (folder := Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return folder
