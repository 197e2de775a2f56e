"""The command line: options and help. What a command does stands in `commands.py`.

Only typer is imported here, so that help and completion answer at once.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from probgen.basics.text import printable

MODELS = ("vae", "ppca", "factor-analysis", "cvae", "m2", "m1+m2", "adgm")

app = typer.Typer(
    name="probgen",
    help="Declare, train and score latent-variable models.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Errors end with status 2 and one message; PROBGEN_DEBUG=1 shows the traceback.",
)


def _complete_model(incomplete: str) -> list[str]:
    return [name for name in MODELS if name.startswith(incomplete)]


def _complete_run(incomplete: str) -> list[str]:
    base = Path(incomplete if incomplete.endswith("/") else os.path.dirname(incomplete) or ".")
    if not base.is_dir():
        return []
    return [str(p) for p in sorted(base.iterdir()) if p.is_dir() and str(p).startswith(incomplete)]


def _complete_data(incomplete: str) -> list[str]:
    files = [p.name for end in ("npy", "npz", "csv") for p in Path(".").glob(f"*.{end}")]
    return [name for name in ("digits", "mnist", *sorted(files)) if name.startswith(incomplete)]


RunFolder = Annotated[
    Path, typer.Argument(help="A run directory.", metavar="RUN", autocompletion=_complete_run)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Seed = Annotated[int, typer.Option(help="Of everything random; same seed, same numbers.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data", "-d", help="digits, mnist, or a .npy, .npz or .csv file.",
        autocompletion=_complete_data,
    ),
]  # fmt: skip
Binarize = Annotated[
    str | None,
    typer.Option(help="Grey values to zeros and ones: dynamic (anew each batch) or static."),
]
Dequantize = Annotated[bool, typer.Option("--dequantize", help="Add uniform noise to grey levels.")]
Standardize = Annotated[
    bool, typer.Option("--standardize", help="Each element to mean 0 and scale 1 of the training data.")
]  # fmt: skip
Levels = Annotated[
    int | None, typer.Option(help="How many grey levels a file has (256 for bytes).")
]
Split = Annotated[
    str | None, typer.Option(help="Validation and test data of a file, counts or shares: 0.1,0.2.")
]
Labels = Annotated[
    str | None, typer.Option("--labels-column", help="Column (or array of an .npz) with labels.")
]
Columns = Annotated[str | None, typer.Option(help="Columns of a .csv that make up x: a,b,c.")]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header", help="Whether a .csv file's first line names its columns."
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust-code", help="Run the Python file that RUN names as its model. Read it first.")
]  # fmt: skip
Pair = Annotated[
    str | None, typer.Option("--pair", help="The model, where it is code of yours: my_model.py:build.")
]  # fmt: skip


Precision = Annotated[
    str, typer.Option(help="float32; bf16 (coarse matrix products, only where they are faster; bf16-forced: anyhow); float64.")
]  # fmt: skip
Compile = Annotated[
    bool | None, typer.Option("--compile/--no-compile", help="Machine code of a step; by default where it pays.")
]  # fmt: skip


@app.command(epilog="Example: probgen train vae --data digits --var z=normal:16 --epochs 200")
def train(
    model: Annotated[
        str | None,
        typer.Argument(
            help="vae, ppca, factor-analysis, or my_model.py:build; or leave it out and give --p.",
            autocompletion=_complete_model,
        ),
    ] = None,
    data: Data = None,
    p: Annotated[
        str | None, typer.Option("--p", help='How data come about: "p(z) p(x | z)".')
    ] = None,
    q: Annotated[
        str | None, typer.Option("--q", help='How latents are inferred: "q(z | x)".')
    ] = None,
    var: Annotated[
        list[str] | None,
        typer.Option(
            help="A variable, again for each: z=normal:8, x=normal:4:shared, x=bernoulli, "
            "y=categorical:10. Without a shape it is that of the data."
        ),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="One guide q(z) for all data of a formula is meant.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="What to call a formula's model.")] = None,
    hidden: Annotated[
        str | None, typer.Option(help="Widths of hidden layers: 500,500; none is a linear map.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Of the networks: Tanh, ReLU, SiLU, ...")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 100,
    batch_size: Annotated[
        int | None, typer.Option(help="Data a step (128, or all where there are fewer).")
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    schedule: Annotated[
        str, typer.Option(help="Of the learning rate: constant, or cosine (to a hundredth).")
    ] = "constant",
    objective: Annotated[str, typer.Option(help="elbo or analytic-kl.")] = "elbo",
    particles: Annotated[int, typer.Option(help="Draws of the guide a datum.")] = 1,
    warmup: Annotated[int, typer.Option(help="Epochs in which the KL's weight grows to 1.")] = 0,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better validation.")
    ] = None,
    precision: Precision = "float32",
    compile: Compile = None,
    device: Device = "auto",
    devices: Annotated[
        int, typer.Option(help="GPUs, or processes of a CPU, that share each step.")
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
        Path | None, typer.Option(help="Folder of the run; a new one in runs/ by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --run-dir.")
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
    samples: Annotated[int, typer.Option(help="Importance samples a datum.")] = 1000,
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    method: Annotated[
        str, typer.Option(help="importance, or exact where there is a closed form.")
    ] = "importance",
    draws: Annotated[
        str, typer.Option(help="iid, or rqmc: scrambled Sobol points, for few Gaussian latents.")
    ] = "iid",
    data: Data = None,
    limit: Annotated[int | None, typer.Option(help="Score only the first so many data.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Annotated[
        int, typer.Option(help="GPUs, or processes of a CPU, that share the data.")
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
        typer.Option(
            help="Training rows that keep their label, all classes alike; by default all."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="m1, m2, m1+m2 or adgm; auto goes by the number of rows.")
    ] = "auto",
    seeds: Annotated[int, typer.Option(help="Draws of the labelled rows: seeds 0, 1, ...")] = 5,
    epochs: Annotated[int | None, typer.Option(help="Passes over the rows, of each stage.")] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Weight of the classifier's own term.")
    ] = None,
    latents: Annotated[
        int | None, typer.Option(help="Size of the latent beside the class.")
    ] = None,
    hidden: Annotated[str | None, typer.Option(help="Widths of hidden layers: 500,500.")] = None,
    class_prior: Annotated[
        str,
        typer.Option(help="Shares of the classes: learned, uniform, or numbers such as 0.9,0.1."),
    ] = "learned",
    likelihood: Annotated[
        str, typer.Option(help="bernoulli, normal, or auto by the values.")
    ] = "auto",
    precision: Precision = "float32",
    device: Device = "auto",
    labels_column: Labels = None,
    columns: Columns = None,
    header: Header = None,
    split: Split = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for runs and figures; a new one in runs/ by default."),
    ] = None,
    figures: Annotated[
        bool, typer.Option(help="Draw pictures, for which two more models train.")
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
        list[str] | None, typer.Option(help="Hold a class fixed: y=3; again for others.")
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
    """Say what a run is: its command, model, data, curves and scores."""
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
    """Print what a command says: as text, or as one JSON object."""
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


class _Signals:
    """What the process was told while a command ran; Ctrl-C may be swallowed on its way, by a fit that
    keeps its run or an import that makes another error of it."""

    def __init__(self) -> None:
        self.interrupted = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ((signal.SIGINT, self.stop), (signal.SIGTERM, self.end)):
                self.before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def stop(self, number: int, frame: Any) -> None:
        self.interrupted = True
        raise KeyboardInterrupt

    def end(self, number: int, frame: Any) -> None:
        sys.exit(128 + number)  # runs keep their last whole epoch


def main() -> None:
    """The `probgen` command: bad input ends with one message and status 2, Ctrl-C with 130."""
    with _Signals() as signals:
        try:
            _run()
        except BaseException:
            if not signals.interrupted or os.environ.get("PROBGEN_DEBUG"):
                raise
        if signals.interrupted:
            sys.exit(130)


def _run() -> None:
    try:
        app(prog_name="probgen")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # the reader went away, as in `probgen list | head`
    except (ValueError, TypeError, OSError, MemoryError, FloatingPointError) as error:
        if os.environ.get("PROBGEN_DEBUG"):
            raise
        _refuse(_words(error))
    except (ArithmeticError, RuntimeError, LookupError, AttributeError) as error:
        if os.environ.get("PROBGEN_DEBUG"):
            raise
        text = str(error).strip().split("\n")[0]
        _refuse(f"{type(error).__name__}: {text}\nPROBGEN_DEBUG=1 shows where it comes from.")


def _words(error: Exception) -> str:
    """What an error says; of one that came from the system as it is, the file and the way out."""
    if not isinstance(error, OSError) or not error.errno or not error.strerror:
        return str(error) or type(error).__name__
    what = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{what}{error.strerror}. Free some space; what was written before is whole."
    return f"{what}{error.strerror}. Check that it is there and that you may use it."


def _refuse(message: str) -> None:
    typer.secho("Error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(printable(message), err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
