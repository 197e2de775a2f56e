"""The commands with their options and help; `commands.py` has what they do.

Only typer is imported here, so that help and completion answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from probgen.basics.text import printable
from probgen.cli.options import (
    COMPUTE_PANEL,
    DATA_PANEL,
    ESTIMATE_PANEL,
    MODEL_PANEL,
    OUTPUT_PANEL,
    RUN_PANEL,
    TRAINING_PANEL,
    Binarize,
    Columns,
    Compile,
    Data,
    Dequantize,
    Device,
    Header,
    Hidden,
    Json,
    Labels,
    Levels,
    Pair,
    Precision,
    Quiet,
    RunFolder,
    Samples,
    Seed,
    Split,
    Standardize,
    Trust,
    complete_model,
    option,
)  # fmt: skip
from probgen.families import FAMILIES
from probgen.models import MODELS

app = typer.Typer(
    name="probgen",
    help="Declare, train and score latent-variable models.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Errors end with status 2 and one message; PROBGEN_DEBUG=1 shows the traceback.",
)


@app.command(epilog="Example: probgen train vae --data digits --var z=normal:16 --epochs 200")
def train(
    model: Annotated[
        str | None,
        typer.Argument(
            help=f"{', '.join(MODELS.names())}, or my_model.py:build; or leave it out and give --p.",
            autocompletion=complete_model,
        ),
    ] = None,
    data: Data = None,
    p: Annotated[str | None, option(MODEL_PANEL, "--p", help='The model: "p(z) p(x | z)".')] = None,
    q: Annotated[
        str | None, option(MODEL_PANEL, "--q", help='The guide, which infers latents: "q(z | x)".')
    ] = None,
    var: Annotated[
        list[str] | None,
        option(
            MODEL_PANEL,
            help="A variable, again for each: z=normal:8, x=normal:4:shared, x=bernoulli, "
            "y=categorical:10. Without a shape it is that of the data. Families: "
            f"{', '.join(FAMILIES.names())}.",
        ),
    ] = None,
    local: Annotated[
        bool,
        option(MODEL_PANEL, "--local", help="One guide q(z) for all data of a formula is meant."),
    ] = False,
    name: Annotated[str | None, option(MODEL_PANEL, help="Name of a formula's model.")] = None,
    hidden: Hidden = None,
    activation: Annotated[
        str | None, option(MODEL_PANEL, help="Nonlinearity of the networks: Tanh, ReLU, SiLU, ...")
    ] = None,
    epochs: Annotated[
        int,
        option(
            TRAINING_PANEL, "--epochs", "--num-epochs", help="Passes over the data (num_epochs)."
        ),
    ] = 100,
    batch_size: Annotated[
        int | None,
        option(TRAINING_PANEL, help="Data per step (128, or all where there are fewer)."),
    ] = None,
    learning_rate: Annotated[float, option(TRAINING_PANEL, help="Learning rate of Adam.")] = 1e-3,
    schedule: Annotated[
        str,
        option(
            TRAINING_PANEL,
            "--schedule",
            "--scheduler",
            help="Of the learning rate: constant, or cosine, to a hundredth (scheduler).",
        ),
    ] = "constant",
    objective: Annotated[str, option(TRAINING_PANEL, help="elbo or analytic-kl.")] = "elbo",
    particles: Annotated[
        int,
        option(
            TRAINING_PANEL,
            "--particles",
            "--num-particles",
            help="Draws of the guide per datum (pg.ELBO: num_particles).",
        ),
    ] = 1,
    warmup: Annotated[
        int,
        option(
            TRAINING_PANEL,
            "--warmup",
            "--warmup-epochs",
            help="Epochs in which the weight of the KL grows to 1 (pg.ELBO: warmup_epochs).",
        ),
    ] = 0,
    patience: Annotated[
        int | None,
        option(TRAINING_PANEL, help="Stop after so many epochs without a better validation ELBO."),
    ] = None,
    precision: Precision = "float32",
    compile: Compile = None,
    device: Device = "auto",
    devices: Annotated[
        int, option(COMPUTE_PANEL, help="GPUs, or processes on a CPU, that share each step.")
    ] = 1,
    seed: Seed = 0,
    binarize: Binarize = None,
    dequantize: Dequantize = False,
    standardize: Standardize = False,
    levels: Levels = None,
    split: Split = None,
    labels_column: Labels = None,
    columns: Columns = None,
    header: Header = None,
    run_dir: Annotated[
        Path | None, option(RUN_PANEL, help="Folder of the run; a new one in runs/ by default.")
    ] = None,
    resume: Annotated[
        bool, option(RUN_PANEL, "--resume", help="Continue the run in --run-dir.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a model on data, into a run directory that survives a crash."""
    from probgen.cli import commands

    options = {key: value for key, value in locals().items() if key not in ("commands", "json")}
    _show(commands.train(**options), json)


@app.command(epilog="Example: probgen evaluate runs/vae-digits-1 --samples 5000")
def evaluate(
    run: RunFolder,
    samples: Samples = 1000,
    part: Annotated[str, option(DATA_PANEL, help="train, validation or test.")] = "test",
    method: Annotated[
        str, option(ESTIMATE_PANEL, help="importance, or exact where there is a closed form.")
    ] = "importance",
    draws: Annotated[
        str,
        option(
            ESTIMATE_PANEL, help="iid, or rqmc: scrambled Sobol points, for few Gaussian latents."
        ),
    ] = "iid",
    data: Data = None,
    limit: Annotated[
        int | None, option(DATA_PANEL, help="Score only the first so many data.")
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
    from probgen.cli import commands

    options = {name: value for name, value in locals().items() if name not in ("commands", "json")}
    _show(commands.evaluate(**options), json)


@app.command(epilog="Example: probgen classify --data digits --labels 100 --method m2 --seeds 3")
def classify(
    data: Data = None,
    labels: Annotated[
        int | None,
        option(
            DATA_PANEL,
            help="Training rows that keep their label, equally many of each class; by default all.",
        ),
    ] = None,
    method: Annotated[
        str, option(MODEL_PANEL, help="m1, m2, m1+m2 or adgm; auto chooses by the number of rows.")
    ] = "auto",
    seeds: Annotated[
        int, option(TRAINING_PANEL, help="Draws of the labelled rows: seeds 0, 1, ...")
    ] = 5,
    epochs: Annotated[
        int | None,
        option(
            TRAINING_PANEL,
            "--epochs",
            "--num-epochs",
            help="Passes over the rows in each of a method's fits (num_epochs).",
        ),
    ] = None,
    alpha: Annotated[
        float | None, option(TRAINING_PANEL, help="Weight of the classifier's own term.")
    ] = None,
    latents: Annotated[
        int | None, option(MODEL_PANEL, help="Size of the latent beside the class.")
    ] = None,
    hidden: Hidden = None,
    class_prior: Annotated[
        str,
        option(
            MODEL_PANEL,
            help="Probabilities of the classes: learned, uniform, or numbers such as 0.9,0.1.",
        ),
    ] = "learned",
    likelihood: Annotated[
        str, option(MODEL_PANEL, help="bernoulli, normal, or auto by the values.")
    ] = "auto",
    precision: Precision = "float32",
    device: Device = "auto",
    labels_column: Labels = None,
    columns: Columns = None,
    header: Header = None,
    split: Split = None,
    out: Annotated[
        Path | None,
        option(
            RUN_PANEL,
            "--out",
            "--folder",
            help="Folder for runs and figures; a new one in runs/ by default (folder).",
        ),
    ] = None,
    figures: Annotated[
        bool, option(OUTPUT_PANEL, help="Draw pictures, for which two more models are trained.")
    ] = True,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Learn classes from few labels, for several draws of them, and test what was learned."""
    from probgen.cli import commands

    options = {name: value for name, value in locals().items() if name not in ("commands", "json")}
    _show(commands.classify(**options), json)


@app.command(epilog="Example: probgen sample runs/vae-digits-1 -n 1000 --out draws.npz")
def sample(
    run: RunFolder,
    n: Annotated[int, typer.Option("-n", help="How many draws.")] = 100,
    given: Annotated[
        list[str] | None, typer.Option(help="Fix a class: y=3; again for others.")
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
    from probgen.cli import commands

    _show(commands.sample(run, n, given or [], out, seed, pair, trust_code), json)


@app.command(epilog="Example: probgen plot runs/vae-digits-1 --format pdf --page")
def plot(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; RUN/figures by default.")
    ] = None,
    format: Annotated[str, typer.Option(help="png, pdf or svg.")] = "png",
    page: Annotated[bool, typer.Option("--page", help="In the style of a printed page.")] = False,
    data: Data = None,
    pair: Pair = None,
    trust_code: Trust = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Draw every picture that a run's model and data allow."""
    from probgen.cli import commands

    _show(commands.plot(run, out, format, page, data, pair, trust_code, quiet), json)


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
    from probgen.cli import commands

    _show(commands.show(run, source, pair, trust_code), json)


@app.command("list", epilog="Example: probgen list runs")
def list_(
    folder: Annotated[Path, typer.Argument(help="Where to look for runs.")] = Path("runs"),
    json: Json = False,
) -> None:
    """List the runs below a folder."""
    from probgen.cli import commands

    _show(commands.list_runs(folder), json)


def _show(result: tuple[str, dict[str, Any]], as_json: bool) -> None:
    """Print the result of a command, as text or as one JSON object."""
    text, record = result
    if not as_json:
        typer.echo(printable(text))
        return
    import json

    typer.echo(json.dumps(_plain(record), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null and words."""
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _version(wanted: bool) -> None:
    if wanted:
        from probgen import __version__

        typer.echo(f"probgen {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print it and stop."),
    ] = False,
) -> None:
    pass
