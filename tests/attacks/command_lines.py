"""Command lines at random: right ones, and wrong ones of every kind, against prepared runs and files."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

import probgen as pg
from probgen.cli import main as cli
from probgen.models import MODELS
from tests.attacks import Outcome

SECONDS = 30
"""The most that one command may take."""

MOST_LINES = 14
"""Of a message, typer's frame and its usage included."""

ODD = [
    "", " ", "-1", "0", "1", "2", "0.5", "1e400", "nan", "-inf", "10000000000000000000000000", "abc",
    "x=", "=3", "x=y=z", "y=3", "z=normal:2", "x=bernoulli", "x=normal::shared", "z=normal:-1", "z=normal:0",
    "z=magic:3", "y=categorical:1", "z=normal:1x2x3", "a=normal:2", "ünïcödé", "日本語", "\u202ereversed",
    "nul\0inside", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "line\nbreak", "--", "-", "--epochs", "-q",
    "nothing.npy", "folder", "file", "/proc/nothing/x", "/dev/null/x", "a" * 300, "broken.npz", "bad.csv",
    "data.npy", "data.csv", "binary.npy", "digits", "dynamic", "static", "8", "4,4", "none", "0.1,0.1", "p(z)",
    "p(z) p(x | z)", "q(z | x)", "p(x | ", "p(z) p(z)", "iid", "rqmc", "bf16", "float64", "cpu", "cuda:99",
    "png", "run", "none.py:build", "bad.py:build", "model.py:build",
]  # fmt: skip
MEANT: dict[str, list[str]] = {
    "--data": ["digits", "data.npy", "data.csv", "binary.npy", "broken.npz", "nothing.csv"],
    "--var": ["z=normal:2", "x=normal:4", "z=normal:2x2", "y=categorical:3"],
    "--p": ["p(z) p(x | z)", "p(y) p(x | y)"], "--q": ["q(z | x)", ""],
    "--hidden": ["4", "none", "2,2"], "--binarize": ["static", "dynamic"], "--split": ["0.1,0.1", "3,3"],
    "--labels-column": ["y"], "--columns": ["a,b", "a"], "--part": ["train", "test"],
    "--out": ["made.npz", "made.csv", "made"], "--run-dir": ["made", "run"], "--given": ["y=1"],
    "--method": ["importance", "exact", "m2"], "--draws": ["iid", "rqmc"], "--precision": ["float64", "bf16"],
    "--device": ["cpu"], "--format": ["png", "svg"], "--activation": ["tanh"], "-n": ["3"],
}  # fmt: skip
LAST: dict[str, list[str]] = {
    "train": ["--epochs", "1", "--quiet"],
    "evaluate": ["--samples", "2", "--limit", "2", "--quiet"],
    "classify": ["--seeds", "1", "--epochs", "1", "--no-figures", "--quiet"],
    "sample": ["-n", "3"],
}
"""Budgets, so that what is right is quick."""

MODEL_WORDS = [*MODELS.names(), "model.py:build", "bad.py:build", "nothing.py:build", "vea", ""]
LEFT_OUT = {
    "--help",
    "-h",
    "--devices",
    "--epochs",
    "--samples",
    "--seeds",
    "--compile",
    "--figures",
}


class TooLongError(BaseException):
    """A command that takes too long; no error of the command line's own, which would refuse it."""


def attack(count: int, seed: int) -> Outcome:
    """So many command lines: success, or a short message and status 1 or 2; nothing written elsewhere."""
    found, draw = Outcome(), random.Random(seed)
    options = _options()
    with tempfile.TemporaryDirectory() as outer, _elsewhere(outer) as folder:
        _prepare(folder)
        for _ in range(count):
            words = _line(draw, options)
            found.count += 1
            status, out, err = _run(words)
            found.refused += status != 0
            reason = _wrong(status, out, err, Path(outer))
            if reason:
                found.wrong.append(f"{words!r}: {reason}")
    return found


def _wrong(status: Any, out: str, err: str, outer: Path) -> str:
    if status not in (0, 1, 2):
        return f"ended with {status!r}"
    if "Traceback" in out + err:
        return "a traceback"
    if any(ord(c) < 32 and c not in "\n\t\r" for c in out + err):
        return f"control characters reach the terminal: {err[:200]!r}"
    if status and not err.strip():
        return "no message"
    if status and len(err.strip().splitlines()) > MOST_LINES:
        return f"{len(err.splitlines())} lines of message"
    beside = sorted(path.name for path in outer.iterdir())
    return "" if beside == ["here"] else f"files outside: {beside}"


def _options() -> dict[str, list[tuple[str, bool]]]:
    """By command: options, and whether each takes a value."""
    group: Any = typer.main.get_command(cli.app)
    return {
        name: [
            (option, not getattr(parameter, "is_flag", False))
            for parameter in command.params
            for option in parameter.opts
            if option.startswith("-") and option not in LEFT_OUT
        ]
        for name, command in group.commands.items()
    }


def _line(draw: random.Random, options: dict[str, list[tuple[str, bool]]]) -> list[str]:
    name = draw.choice([*options, "train", "evaluate"])
    words: list[str] = []
    if name == "train":
        words += draw.choice(
            [[draw.choice(MODEL_WORDS)], ["--p", draw.choice(MEANT["--p"])], [draw.choice(ODD)]]
        )
        words += draw.choice([["--data", draw.choice(MEANT["--data"])]] * 3 + [[]])
    elif name not in ("classify", "list"):
        words.append(draw.choice(["run", "run", "run", "damaged", "folder", draw.choice(ODD)]))
    for _ in range(draw.choice([0, 1, 1, 2, 3])):
        option, valued = draw.choice(options[name])
        meant = MEANT.get(option, ODD)
        words.append(option)
        if valued == (draw.random() < 0.95):
            words.append(draw.choice(draw.choice([meant, ODD])))
    words += LAST.get(name, [])
    if draw.random() < 0.1:
        draw.shuffle(words)
    command = draw.choice([name] * 20 + [name[:-1], name.upper(), "\x1b[2J", ""])
    return [command, *words]


def _run(words: list[str]) -> tuple[Any, str, str]:
    """In this process: the exit status, or the exception that came through, and what was printed."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    status: Any = 0
    signal.alarm(SECONDS)
    try:
        sys.argv = ["probgen", *words]
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            cli.main()
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException as error:  # whatever comes through is what the attack is after
        status = error
    finally:
        signal.alarm(0)
        sys.argv = before
    return status, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def _elsewhere(outer: str) -> Iterator[Path]:
    def too_long(*_: Any) -> None:
        raise TooLongError(f"took more than {SECONDS} s")

    before, folder = os.getcwd(), Path(outer) / "here"
    handler = signal.signal(signal.SIGALRM, too_long)
    folder.mkdir()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        signal.signal(signal.SIGALRM, handler)


def _prepare(folder: Path) -> None:
    """Files that are right and wrong, a run, and a damaged one."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 4)).astype(np.float32)
    np.save("data.npy", x)
    np.save("binary.npy", x > 0)
    Path("data.csv").write_text(
        "a,b,y\n" + "".join(f"{r[0]:.3f},{r[1]:.3f},{i % 3}\n" for i, r in enumerate(x))
    )
    Path("bad.csv").write_text("a,b\n1\n2,3,4\n")
    Path("broken.npz").write_bytes(b"PK\3\4 no archive")
    Path("file").write_text("")
    Path("folder").mkdir()
    Path("bad.py").write_text("1 / 0\n")
    Path("model.py").write_text(
        "import probgen as pg\n\ndef build():\n    return pg.models.VAE(x=pg.Normal(4), z=pg.Normal(2))\n"
    )
    for name in ("run", "damaged"):
        torch.manual_seed(0)
        pair = pg.models.VAE(x=pg.Normal(4), z=pg.Normal(2), hidden=(4,))
        pg.fit(pair, pg.load(folder / "data.npy"), num_epochs=1, run_dir=name, progress=False)
    Path("damaged/weights.safetensors").write_bytes(b"short")
