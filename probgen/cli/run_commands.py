"""The commands on a run directory: each converts text to arguments and calls one public function.

Every command returns the text to print, and the same content as a record for `--json`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import probgen as pg
from probgen.basics.text import aligned, printable
from probgen.cli.parsing import (
    assignments,
)
from probgen.inference.inputs import known_part
from probgen.inference.scoring.scores import Score
from probgen.runs.listing import runs_below
from probgen.runs.pairs import UntrustedCodeError
from probgen.runs.reading import code_of_run, look_at_run
from probgen.storage.files import absolute, make_folder, write_atomically

Answer = tuple[str, dict[str, Any]]


def evaluate(
    *, run: Path, samples: int, part: str, method: Any, draws: Any, data: str | None,
    limit: int | None, seed: int, device: str, devices: int, precision: str, compile: bool | None,
    pair: str | None, trust_code: bool, quiet: bool,
) -> Answer:  # fmt: skip
    """Call `pg.log_marginal_likelihood` for a run's pair."""
    import warnings

    loaded = _load(run, pair, trust_code)
    splits = loaded.load_data() if data is None else loaded.load_other(data)
    if data is not None and "test" not in splits.parts:
        part = "train"  # the whole file
    if part not in splits.parts:
        raise ValueError(f"--part must be one of {', '.join(splits.parts)}, got {part!r}.")
    dataset = known_part(loaded.pair, splits.parts[part]).stored(seed=seed)
    if limit is not None:
        if limit < 1:
            raise ValueError(f"--limit must be at least 1, got {limit}.")
        dataset = dataset.subset(slice(0, limit))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.UnreliableEstimateWarning)  # it is in the text
        score = pg.log_marginal_likelihood(
            loaded.pair,
            dataset,
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
    whole_file = data is not None and "test" not in splits.parts
    scored = f"{Path(data or '').stem}-{score.data_hash}" if whole_file else part
    name = f"{scored}-{'exact' if method == 'exact' else f'K{samples}'}"
    name += f"-first{limit}" if limit is not None else ""
    name += f"-seed{seed}" if seed and method != "exact" else ""
    name += f"-{draws}" if draws != "iid" and method != "exact" else ""
    name += f"-{score.precision}" if score.precision not in (None, "float32") else ""
    path = loaded.save_score(score, name)
    return f"{score!r}\nWritten to {path}", {"run": run, "name": name, **score_record(score)}


def score_record(score: Score) -> dict[str, Any]:
    """The averages of a score with their errors, and a description of what was scored."""
    return {
        "quantity": score.quantity,
        "log_prob": score.mean,
        "is_lower_bound": score.is_lower_bound,
        "monte_carlo_error": score.monte_carlo_error,
        "sampling_error": score.sampling_error,
        "bias": score.mean_bias,
        "num_data": len(score.log_prob),
        "method": score.method,
        "num_samples": score.num_samples,
        "decoder_passes": score.decoder_passes,
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


def sample(
    run: Path, n: int, given: Sequence[str], out: Path | None, seed: int, pair: str | None,
    trust_code: bool,
) -> Answer:  # fmt: skip
    """Write draws of `pair.sample` into a file."""
    import io

    loaded = _load(run, pair, trust_code)
    fixed = {}
    for name, text in assignments(given, "--given").items():
        try:
            fixed[name] = torch.tensor([int(text)])
        except ValueError:
            raise ValueError(
                f"--given {name}={text}: give the number of a class, as in y=3."
            ) from None
    drawn = {
        name: (value[:, 0] if fixed else value).cpu().numpy()
        for name, value in loaded.pair.sample(n, seed=seed, **fixed).items()
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
    """Call `pg.plots.report`."""
    loaded = _load(run, pair, trust_code)
    splits = None if data is None else loaded.load_other(data)
    report = pg.plots.report(
        loaded, data=splits, folder=out, format=format, page=page, progress=not quiet
    )
    lines = [f"Written {path}" for path in report.written.values()]
    lines += [f"Skipped {name}: {reason}" for name, reason in report.skipped.items()]
    return "\n".join(lines), {"written": report.written, "skipped": report.skipped}


def show(run: Path, source: bool, pair: str | None, trust_code: bool) -> Answer:
    """Call `pg.load_run`; if the model's code is not trusted, show everything else."""
    try:
        loaded = _load(run, pair, trust_code)
    except UntrustedCodeError as error:
        loaded = look_at_run(run, str(error))
    try:
        code: str | None = loaded.pair.source
    except (pg.RunError, OSError):
        if source:
            raise
        code = None
    record = {
        **loaded.config,
        "curves": {k: v for k, v in vars(loaded.result).items() if k != "pair"},
        "scores": {
            name: {"error": str(score)} if isinstance(score, pg.RunError) else score_record(score)
            for name, score in loaded.read_scores().items()
        },
        "source": code,
    }
    return (code or "" if source else repr(loaded)), record


def list_runs(folder: Path) -> Answer:
    """An aligned table of the runs below a folder; for a damaged run the reason."""
    if not absolute(folder).is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}; name a folder that has runs in it: probgen list FOLDER."
        )
    runs = runs_below(folder)
    if not runs:
        return f"No runs below {folder}.", {"runs": []}
    return "\n".join(_table(runs)), {"runs": runs}


def _table(runs: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of a table of runs.

    The column of training values has the name of the quantity if all runs maximized the same one;
    otherwise a further column names the quantity of each run.
    """
    quantities = {about["quantity"] for about in runs if about.get("epochs")}
    mixed = len(quantities) > 1
    (header,) = quantities if len(quantities) == 1 else ("value",)
    rows = [["run", "model", "data", "epochs", _cell(header), "validation", "status"]]
    for about in runs:
        numbers = [about.get(key) for key in ("elbo", "validation_elbo")]
        values = ["-" if number is None else f"{number:.2f}" for number in numbers]
        cells = (
            about["run"], about.get("model", "-"), about.get("data", "-"),
            str(about.get("epochs", "-")), *values, about["status"],
        )  # fmt: skip
        rows.append([_cell(cell) for cell in cells])
    if mixed:
        names = [_cell(about["quantity"]) if about.get("epochs") else "-" for about in runs]
        for row, name in zip(rows, ["quantity", *names], strict=True):
            row.insert(4, name)
    return aligned(rows, left={0, 1, 2, 4, 7} if mixed else {0, 1, 2, 6})[0]


def _cell(text: str) -> str:
    """A text in one line of bounded width, since it may come from a file of unknown origin."""
    shown = printable(text, lines=False)
    return shown if len(shown) <= 500 else f"{shown[:497]}..."


def _load(run: Path, pair: str | None, trust_code: bool) -> pg.Run:
    """Load a run; if `--trust-code` allows its code, print which code is run."""
    if pair is None and trust_code and (code := code_of_run(run)) is not None:
        file, _ = code.unchanged_file()
        print(
            printable(f"Running {file}:{code.builder} (SHA-256 {code.sha256}), which {run} names."),
            file=sys.stderr,
        )
    given = None if pair is None else pg.load_pair(pair)
    return pg.load_run(run, pair=given, trust_code=trust_code)
