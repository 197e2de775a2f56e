"""Options that several commands share: their names, help and completion.

Where an option's name differs from the Python argument that it sets, the help names the argument in
brackets; the Python name is accepted as well, as in `--num-epochs` for `--epochs`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from probgen.data.sources import SOURCES
from probgen.models import MODELS

MODEL_PANEL = "Model"
DATA_PANEL = "Data"
TRAINING_PANEL = "Training"
ESTIMATE_PANEL = "Estimate"
COMPUTE_PANEL = "Computation"
RUN_PANEL = "Run directory"
OUTPUT_PANEL = "Output"


def complete_model(incomplete: str) -> list[str]:
    return [name for name in MODELS.names() if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    base = Path(incomplete if incomplete.endswith("/") else os.path.dirname(incomplete) or ".")
    if not base.is_dir():
        return []
    return [str(p) for p in sorted(base.iterdir()) if p.is_dir() and str(p).startswith(incomplete)]


def complete_data(incomplete: str) -> list[str]:
    files = [p.name for end in ("npy", "npz", "csv") for p in Path(".").glob(f"*.{end}")]
    return [name for name in (*SOURCES.names(), *sorted(files)) if name.startswith(incomplete)]


def option(panel: str, *names: str, help: str, **settings: Any) -> Any:
    """An option in a panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


RunFolder = Annotated[
    Path, typer.Argument(help="A run directory.", metavar="RUN", autocompletion=complete_run)
]

# ---------------------------------------------------------------- data

Data = Annotated[
    str | None,
    option(
        DATA_PANEL, "--data", "-d", help=f"{', '.join(SOURCES.names())}, or a .npy, .npz or .csv file.",
        autocompletion=complete_data,
    ),
]  # fmt: skip
Binarize = Annotated[
    str | None,
    option(
        DATA_PANEL,
        help="Grey values to zeros and ones: dynamic (drawn again for each batch) or static.",
    ),
]
Dequantize = Annotated[
    bool, option(DATA_PANEL, "--dequantize", help="Add uniform noise to grey levels.")
]
Standardize = Annotated[
    bool,
    option(
        DATA_PANEL, "--standardize",
        help="Scale each element to mean 0 and standard deviation 1 of the training data.",
    ),
]  # fmt: skip
Levels = Annotated[
    int | None, option(DATA_PANEL, help="How many grey levels a file has (256 for bytes).")
]
Split = Annotated[
    str | None,
    option(DATA_PANEL, help="Validation and test data of a file, counts or shares: 0.1,0.2."),
]
Labels = Annotated[
    str | None,
    option(
        DATA_PANEL, "--labels-column",
        help="Column (or array of an .npz) with labels (pg.load: labels).",
    ),
]  # fmt: skip
Columns = Annotated[str | None, option(DATA_PANEL, help="Columns of a .csv that make up x: a,b,c.")]
Header = Annotated[
    bool | None,
    option(
        DATA_PANEL, "--header/--no-header",
        help="Whether the first line of a .csv file names its columns.",
    ),
]  # fmt: skip

# ---------------------------------------------------------------- models

Pair = Annotated[
    str | None,
    option(MODEL_PANEL, "--pair", help="The model, if it is your own code: my_model.py:build."),
]
Trust = Annotated[
    bool,
    option(
        MODEL_PANEL, "--trust-code",
        help="Run the Python file that RUN names as its model. Read it first.",
    ),
]  # fmt: skip
Hidden = Annotated[
    str | None,
    option(MODEL_PANEL, help="Widths of hidden layers: 500,500; none is a linear map."),
]

# ---------------------------------------------------------------- training and scoring

Samples = Annotated[
    int,
    option(
        ESTIMATE_PANEL, "--samples", "--num-samples",
        help="Importance samples per datum (num_samples).",
    ),
]  # fmt: skip
Seed = Annotated[
    int, option(COMPUTE_PANEL, help="Seed of all random numbers; the same seed, the same results.")
]
Device = Annotated[str, option(COMPUTE_PANEL, help="auto, cpu, cuda, cuda:1, ...")]
Precision = Annotated[
    str,
    option(
        COMPUTE_PANEL,
        help="float32; float64; bf16 (matrix products of lower precision, only where they are faster) or "
        "bf16-forced (everywhere).",
    ),
]
Compile = Annotated[
    bool | None,
    option(
        COMPUTE_PANEL, "--compile/--no-compile",
        help="Compile a step to machine code; by default if that saves time.",
    ),
]  # fmt: skip

# ---------------------------------------------------------------- output

Quiet = Annotated[bool, option(OUTPUT_PANEL, "--quiet", "-q", help="No progress bar.")]
Json = Annotated[
    bool, option(OUTPUT_PANEL, "--json", help="Print one JSON object and nothing else.")
]
