"""Options and help of the commands that use a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probgen.cli.app import app, print_result
from probgen.cli.options import (
    COMPUTE_PANEL,
    DATA_PANEL,
    ESTIMATE_PANEL,
    Compile,
    Data,
    Device,
    Json,
    Pair,
    Precision,
    Quiet,
    RunFolder,
    Samples,
    Seed,
    Trust,
    option,
)  # fmt: skip


@app.command(epilog="Example: probgen evaluate runs/vae-digits-1 --samples 5000")
def evaluate(
    run: RunFolder,
    samples: Samples = 1000,
    part: Annotated[str, option(DATA_PANEL, help="train, validation or test.")] = "test",
    method: Annotated[
        str, option(ESTIMATE_PANEL, help="importance, or exact if there is a closed form.")
    ] = "importance",
    draws: Annotated[
        str,
        option(
            ESTIMATE_PANEL, help="iid, or rqmc: scrambled Sobol points, for few Gaussian latents."
        ),
    ] = "iid",
    data: Data = None,
    limit: Annotated[
        int | None, option(DATA_PANEL, help="Score only this many data, the first ones.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Annotated[
        int, option(COMPUTE_PANEL, help="GPUs, or processes on a CPU, that share the data.")
    ] = 1,
    precision: Precision = "float32",
    compile: Compile = None,
    pair: Pair = None,
    trust_code: Trust = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Estimate log p(x) of data under a trained model, with its errors, and keep it in the run."""
    from probgen.cli import run_commands

    options = {
        name: value for name, value in locals().items() if name not in ("run_commands", "json")
    }
    print_result(run_commands.evaluate(**options), json)


@app.command(epilog="Example: probgen sample runs/vae-digits-1 -n 1000 --out draws.npz")
def sample(
    run: RunFolder,
    n: Annotated[int, typer.Option("-n", help="How many draws.")] = 100,
    given: Annotated[
        list[str] | None, typer.Option(help="Fix a class: y=3; repeat the option for others.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A .npz or .csv file; RUN/samples.npz by default.")
    ] = None,
    seed: Seed = 0,
    pair: Pair = None,
    trust_code: Trust = False,
    json: Json = False,
) -> None:
    """Draw data and latents from a trained model into a file."""
    from probgen.cli import run_commands

    print_result(run_commands.sample(run, n, given or [], out, seed, pair, trust_code), json)


@app.command(epilog="Example: probgen plot runs/vae-digits-1 --format pdf --page")
def plot(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; RUN/figures by default.")
    ] = None,
    format: Annotated[str, typer.Option(help="png, pdf or svg.")] = "png",
    page: Annotated[
        bool, typer.Option("--page", help="Draw in the style of a printed page.")
    ] = False,
    data: Data = None,
    pair: Pair = None,
    trust_code: Trust = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Draw every picture that a run's model and data allow."""
    from probgen.cli import run_commands

    print_result(run_commands.plot(run, out, format, page, data, pair, trust_code, quiet), json)


@app.command(epilog="Example: probgen show runs/vae-digits-1 --source")
def show(
    run: RunFolder,
    source: Annotated[
        bool, typer.Option("--source", help="Print the explicit Pyro pair as Python.")
    ] = False,
    pair: Pair = None,
    trust_code: Trust = False,
    json: Json = False,
) -> None:
    """Show a run: its command, model, data, curves and scores."""
    from probgen.cli import run_commands

    print_result(run_commands.show(run, source, pair, trust_code), json)


@app.command("list", epilog="Example: probgen list runs")
def list_(
    folder: Annotated[Path, typer.Argument(help="Where to look for runs.")] = Path("runs"),
    json: Json = False,
) -> None:
    """List the runs below a folder."""
    from probgen.cli import run_commands

    print_result(run_commands.list_runs(folder), json)
