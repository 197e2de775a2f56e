"""What the commands do: text to arguments, and one call of a public function each.

Every command returns the text to print and the same as a record for `--json`.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import probgen as pg
from probgen.basics.memory import enough_memory
from probgen.basics.randomness import fixed_seed
from probgen.basics.text import aligned, printable
from probgen.cli.parsing import (
    assignments,
    check_local,
    make_pair,
    shares,
    transform,
    two_numbers,
    widths,
)
from probgen.inference.inputs import known_part
from probgen.inference.scoring.scores import Score
from probgen.runs.listing import runs_below
from probgen.runs.pairs import UntrustedCodeError
from probgen.runs.run import code_of_run, look_at_run
from probgen.storage.files import absolute, make_folder, write_atomically

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
    """`pg.fit` of a model made of text."""
    if data is None:
        raise ValueError("Name the data: --data digits, --data mnist, or --data FILE.")
    if resume and run_dir is None:
        raise ValueError("--resume needs --run-dir, the folder of the run to go on with.")
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
    few = enough_memory("train", "the sizes in --var, or --hidden")
    with few, fixed_seed(seed, torch.device("cpu")):
        pair = make_pair(model, p, q, var or [], hidden, activation, splits.train, local, name)
    words = {"elbo": False, "analytic-kl": True}
    if objective not in words:
        raise ValueError(f"--objective must be elbo or analytic-kl, got {objective!r}.")
    scheduler: Any = None
    if schedule == "cosine":
        scheduler = functools.partial(
            torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs, eta_min=learning_rate / 100
        )
    elif schedule != "constant":
        raise ValueError(f"--schedule must be constant or cosine, got {schedule!r}.")
    known = list(known_part(pair, splits.train).values)
    if p is not None:
        check_local(pair, known)
    result = pg.fit(
        pair,
        splits,
        num_epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        objective=pg.ELBO(particles, analytic_kl=words[objective], warmup_epochs=warmup),
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
        "variables": known,
        "epochs": len(result.elbo),
        "stopped": result.stopped,
        "elbo": result.elbo[-1] if result.elbo else None,
        "validation_elbo": (
            result.validation_elbo[result.best_epoch - 1]
            if result.best_epoch and result.validation_elbo
            else None
        ),
        "best_epoch": result.best_epoch,
        "seconds": sum(result.seconds),
    }
    left = [name for name in splits.train.values if name not in known]
    text = [repr(splits), repr(pair), repr(result)]
    if left:
        text.append(f"Left aside, since the model has no such variable: {', '.join(left)}")
    if result.stopped == "interrupted":
        text.append(f"Stopped. To go on: the same command with --run-dir {folder} --resume")
    again = "" if model is None or ":" not in model else f" --pair {model}"
    text.append(
        f"Written to {folder}. Next: probgen evaluate {folder}{again}; probgen plot {folder}{again}"
    )
    return "\n".join(text), record


def evaluate(
    *, run: Path, samples: int, part: str, method: Any, draws: Any, data: str | None,
    limit: int | None, seed: int, device: str, devices: int, precision: str, compile: bool | None,
    pair: str | None, trust_code: bool, quiet: bool,
) -> Answer:  # fmt: skip
    """`pg.log_marginal_likelihood` of a run's pair."""
    import warnings

    found = _load(run, pair, trust_code)
    splits = found.load_data() if data is None else found.load_other(data)
    if data is not None and "test" not in splits.parts:
        part = "train"  # all of a file
    if part not in splits.parts:
        raise ValueError(f"--part must be one of {', '.join(splits.parts)}, got {part!r}.")
    chosen = splits.parts[part]
    chosen = known_part(found.pair, chosen).stored(seed=seed)
    if limit is not None:
        if limit < 1:
            raise ValueError(f"--limit must be at least 1, got {limit}.")
        chosen = chosen.subset(slice(0, limit))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.UnreliableEstimateWarning)  # the text says it
        score = pg.log_marginal_likelihood(
            found.pair,
            chosen,
            num_samples=samples,
            method=method,
            draws=draws,
            seed=seed,
            device=device,
            devices=devices,
            precision=precision,
            compile="auto" if compile is None else compile,
            progress=not quiet,
        )
    of = part if data is None or "test" in splits.parts else f"{Path(data).stem}-{score.data_hash}"
    name = f"{of}-{'exact' if method == 'exact' else f'K{samples}'}"
    name += f"-first{limit}" if limit is not None else ""
    name += f"-seed{seed}" if seed and method != "exact" else ""
    name += f"-{draws}" if draws != "iid" and method != "exact" else ""
    name += f"-{score.precision}" if score.precision not in (None, "float32") else ""
    path = found.save_score(score, name)
    return f"{score!r}\nWritten to {path}", {"run": run, "name": name, **score_record(score)}


def score_record(score: Score) -> dict[str, Any]:
    """The averages of a score, their errors, and what they are of."""
    return {
        "quantity": score.quantity,
        "log_prob": score.mean,
        "is_lower_bound": score.is_lower_bound,
        "monte_carlo_error": score.monte_carlo_error,
        "sampling_error": score.sampling_error,
        "bias": score.mean_bias,
        "num_data": len(score.log_prob),
        "num_samples": score.num_samples,
        "ess_median": float(np.median(score.ess)),
        "khat_median": score.khat_median,
        "share_above_threshold": score.share_above_threshold,
        "measure": score.measure,
        "transformation": score.transformation,
        "log_jacobian": score.log_jacobian,
        "precision": score.precision,
        "data_hash": score.data_hash,
        "note": score.warning(),
    }


def classify(
    *, data: str | None, labels: int | None, method: str, seeds: int, epochs: int | None,
    alpha: float | None, latents: int | None, hidden: str | None, class_prior: str, likelihood: Any,
    precision: Any, device: str, labels_column: str | None, columns: str | None, header: bool | None,
    split: str | None, out: Path | None,
    figures: bool, quiet: bool,
) -> Answer:  # fmt: skip
    """`pg.few_labels`, and its pictures."""
    from probgen.reports.few_labels import few_labels_report

    if data is None:
        raise ValueError("Name the data: --data digits, --data mnist, or --data FILE.")
    splits = pg.load(
        data,
        transform="none",
        labels=labels_column,
        columns=None if columns is None else [c.strip() for c in columns.split(",")],
        header=header,
        split=None if split is None else two_numbers(split),
    )
    folder = out or _new_folder(f"classify-{method.replace('+', '')}", splits.train.name)
    with _says_how_to_go_on(folder):
        found = pg.few_labels(
            splits, method, labels=labels, seeds=seeds, folder=folder, progress=not quiet,
            num_epochs=epochs, alpha=alpha, latents=latents,
            hidden=None if hidden is None else widths(hidden),
            class_prior=shares(class_prior),
            likelihood=likelihood, precision=precision, device=device,
        )  # fmt: skip
        record = {"out": folder, **found.record()}
        plain = json.dumps({**record, "out": str(folder)}, indent=2)
        write_atomically(folder / "results.json", f"{plain}\n".encode())
        written = None
        if figures:
            written = few_labels_report(found, splits, folder / "figures", progress=not quiet)
    text = [repr(splits), repr(found)]
    if written is not None:
        record["figures"] = written
        text.append(
            f"Figures in {folder / 'figures'}: {', '.join(p.name for p in written.values())}"
        )
    text.append(f"Written to {folder}. The same command with --out {folder} goes on or adds seeds.")
    return "\n".join(text), record


@contextmanager
def _says_how_to_go_on(folder: Path) -> Iterator[None]:
    """Of a command of several fits, that Ctrl-C ends."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"{folder} keeps what is trained" if folder.is_dir() else "Nothing was trained yet"
        again = f"Stopped. {kept}. To go on: the same command with --out {folder}"
        print(printable(again), file=sys.stderr)
        raise


def sample(
    run: Path, n: int, given: Sequence[str], out: Path | None, seed: int, pair: str | None,
    trust_code: bool,
) -> Answer:  # fmt: skip
    """`pair.sample` into a file."""
    import io

    found = _load(run, pair, trust_code)
    held = {}
    for name, text in assignments(given, "--given").items():
        try:
            held[name] = torch.tensor([int(text)])
        except ValueError:
            raise ValueError(
                f"--given {name}={text}: give the number of a class, as in y=3."
            ) from None
    drawn = {
        name: (value[:, 0] if held else value).cpu().numpy()
        for name, value in found.pair.sample(n, seed=seed, **held).items()
    }
    path = run / "samples.npz" if out is None else out
    if path.suffix not in (".npz", ".csv"):
        raise ValueError(f"--out must end in .npz or .csv, got {path}.")
    make_folder(path.parent)
    if path.suffix == ".npz":
        stream = io.BytesIO()
        np.savez(stream, **cast(Any, drawn))
        content = stream.getvalue()
    else:
        names = [f"{k}[{i}]" for k, v in drawn.items() for i in range(v.reshape(n, -1).shape[1])]
        rows = np.concatenate([v.reshape(n, -1) for v in drawn.values()], 1)
        lines = [",".join(names), *(",".join(f"{value:.9g}" for value in row) for row in rows)]
        content = ("\n".join(lines) + "\n").encode()
    write_atomically(path, content)
    shapes = {name: list(value.shape) for name, value in drawn.items()}
    text = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    return f"Drew {text} (seed {seed})\nWritten to {path}", {"out": path, "shapes": shapes}


def plot(
    run: Path, out: Path | None, format: str, page: bool, data: str | None, pair: str | None,
    trust_code: bool, quiet: bool,
) -> Answer:  # fmt: skip
    """`pg.plots.report`."""
    found = _load(run, pair, trust_code)
    splits = None if data is None else found.load_other(data)
    made = pg.plots.report(
        found, data=splits, folder=out, format=format, page=page, progress=not quiet
    )
    lines = [f"Written {path}" for path in made.written.values()]
    lines += [f"Left out {name}: {reason}" for name, reason in made.skipped.items()]
    return "\n".join(lines), {"written": made.written, "skipped": made.skipped}


def show(run: Path, source: bool, pair: str | None, trust_code: bool) -> Answer:
    """`pg.load_run`; of a model that is code, and not trusted, all that needs none of it."""
    try:
        found = _load(run, pair, trust_code)
    except UntrustedCodeError as error:
        found = look_at_run(run, str(error))
    try:
        code: str | None = found.pair.source
    except (pg.RunError, OSError):
        if source:
            raise
        code = None
    record = {
        **found.config,
        "curves": {k: v for k, v in vars(found.result).items() if k != "pair"},
        "scores": {
            name: {"error": str(score)} if isinstance(score, pg.RunError) else score_record(score)
            for name, score in found.read_scores().items()
        },
        "source": code,
    }
    return (code or "" if source else repr(found)), record


def list_runs(folder: Path) -> Answer:
    """An aligned table of the runs below a folder, damaged ones with the reason."""
    if not absolute(folder).is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}; name one that has runs in it: probgen list FOLDER."
        )
    runs = runs_below(folder)
    if not runs:
        return f"No runs below {folder}.", {"runs": []}
    rows: list[Sequence[str]] = [("run", "model", "data", "epochs", "ELBO", "validation", "status")]
    for found in runs:
        numbers = [found.get(key) for key in ("elbo", "validation_elbo")]
        shown = ["-" if number is None else f"{number:.2f}" for number in numbers]
        cells = (
            found["run"], found.get("model", "-"), found.get("data", "-"),
            str(found.get("epochs", "-")), *shown, found["status"],
        )  # fmt: skip
        rows.append([_cell(cell) for cell in cells])
    return "\n".join(aligned(rows, left={0, 1, 2, 6})[0]), {"runs": runs}


def _cell(text: str) -> str:
    """In one line, of bounded width, since it may come from anybody's file."""
    shown = printable(text, lines=False)
    return shown if len(shown) <= 500 else f"{shown[:497]}..."


def _load(run: Path, pair: str | None, trust_code: bool) -> pg.Run:
    """A run; says which code it runs where that is trusted because the run names it."""
    if pair is None and trust_code and (code := code_of_run(run)) is not None:
        file, _ = code.found()
        print(
            printable(f"Running {file}:{code.builder} (SHA-256 {code.sha256}), which {run} names."),
            file=sys.stderr,
        )
    given = None if pair is None else pg.load_pair(pair)
    return pg.load_run(run, pair=given, trust_code=trust_code)


def _new_folder(model: str, data: str) -> Path:
    """The first free `runs/model-data-1`, -2, ..."""
    stem = f"{model}-{data}".lower().replace(" ", "-")
    number = 1
    while (folder := Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return folder
