"""Options and help of the commands that train models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probgen.cli.app import app, print_result
from probgen.cli.options import (
    COMPUTE_PANEL,
    DATA_PANEL,
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
    Precision,
    Quiet,
    Seed,
    Split,
    Standardize,
    complete_model,
    option,
)  # fmt: skip
from probgen.families import FAMILIES
from probgen.inference.objectives import OBJECTIVES
from probgen.models import MODELS


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
            help="A variable; repeat the option for each: z=normal:8, x=normal:4:shared, x=bernoulli, "
            "y=categorical:10. Without a shape it is that of the data. Families: "
            f"{', '.join(FAMILIES.names())}.",
        ),
    ] = None,
    local: Annotated[
        bool,
        option(MODEL_PANEL, "--local", help="Allow a formula with one guide q(z) for all data."),
    ] = False,
    name: Annotated[
        str | None, option(MODEL_PANEL, help="Name of the model that a formula defines.")
    ] = None,
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
        option(TRAINING_PANEL, help="Data per step (128, or all if there are fewer)."),
    ] = None,
    learning_rate: Annotated[float, option(TRAINING_PANEL, help="Learning rate of Adam.")] = 1e-3,
    schedule: Annotated[
        str,
        option(
            TRAINING_PANEL,
            "--schedule",
            "--scheduler",
            help="Schedule of the learning rate: constant, or cosine down to a hundredth (scheduler).",
        ),
    ] = "constant",
    objective: Annotated[
        str,
        option(
            TRAINING_PANEL,
            help=f"{', '.join(OBJECTIVES.names())}; auto is that of the model, usually elbo.",
        ),
    ] = "auto",
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
        option(
            TRAINING_PANEL, help="Stop after this many epochs without a better validation value."
        ),
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
    """Train a model on data, into a run directory from which it can be resumed."""
    from probgen.cli import fit_commands

    options = {key: value for key, value in locals().items() if key not in ("fit_commands", "json")}
    print_result(fit_commands.train(**options), json)


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
        int | None, option(MODEL_PANEL, help="Size of the latent in addition to the class.")
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
        str, option(MODEL_PANEL, help="bernoulli, normal, or auto, which decides by the values.")
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
    """Learn classes from few labels, for several draws of the labels, and test the classifiers."""
    from probgen.cli import fit_commands

    options = {
        name: value for name, value in locals().items() if name not in ("fit_commands", "json")
    }
    print_result(fit_commands.classify(**options), json)
