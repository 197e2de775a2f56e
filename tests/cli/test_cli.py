"""The command line: what it prints and writes, that bad input ends with one message and status 2."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg
from probgen.cli import main as cli
from probgen.cli import options
from probgen.families import FAMILIES
from probgen.models import MODELS

pytestmark = pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")


class Answer:
    """What a command printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def probgen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Run a command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROBGEN_DEBUG", raising=False)

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["probgen", *arguments])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return run


TRAIN = ("train", "vae", "--data", "digits", "--epochs", "2", "--hidden", "16", "--quiet")


def test_from_training_to_pictures(probgen: Any) -> None:
    done = probgen(*TRAIN, "--var", "z=normal:2", "--seed", "3")
    assert done.status == 0, done.err
    assert "Written to runs/vae-digits-1" in done.out and "z         Normal(2)" in done.out
    run = pg.load_run("runs/vae-digits-1")
    assert run.config["settings"]["seed"] == 3 and run.pair.variables["x"] == pg.Normal(64)
    scored = probgen("evaluate", "runs/vae-digits-1", "--samples", "40", "--quiet")
    assert scored.status == 0 and "log p(x) >= " in scored.out and "360 data, K=40" in scored.out
    assert run.scores["test-K40"].num_samples == 40
    limited = probgen("evaluate", "runs/vae-digits-1", "--samples", "40", "--part", "train",
                      "--limit", "10", "--json", "-q")  # fmt: skip
    assert json.loads(limited.out)["num_data"] == 10
    drawn = probgen("sample", "runs/vae-digits-1", "-n", "7", "--out", "deep/draws.npz")
    assert drawn.status == 0 and np.load("deep/draws.npz")["x"].shape == (7, 64)
    probgen("sample", "runs/vae-digits-1", "-n", "7", "--out", "draws.csv")
    table = np.loadtxt("draws.csv", delimiter=",", skiprows=1)
    assert table.shape == (7, 66)
    assert np.allclose(table[:, 2:], np.load("deep/draws.npz")["x"], rtol=1e-6)
    pictures = probgen("plot", "runs/vae-digits-1", "--quiet")
    names = sorted(p.name for p in Path("runs/vae-digits-1/figures").iterdir())
    assert pictures.status == 0 and names == [
        "importance_weights.png", "latent_scatter.png", "learning_curve.png", "manifold.png",
        "reconstructions.png", "samples.png", "traversals.png",
    ]  # fmt: skip
    assert all(f"Written runs/vae-digits-1/figures/{name}" in pictures.out for name in names)
    shown = probgen("show", "runs/vae-digits-1")
    assert "score     test-K40: log p(x)" in shown.out and "p(z) p(x | z)" in shown.out
    assert "class VAE" in probgen("show", "runs/vae-digits-1", "--source").out
    again = probgen(*TRAIN)
    assert "runs/vae-digits-2" in again.out
    listed = probgen("list").out.splitlines()
    assert listed[0].split() == ["run", "model", "data", "epochs", "ELBO", "validation", "status"]
    assert (
        len(listed) == 3 and listed[1].startswith("runs/vae-digits-1") and "completed" in listed[1]
    )


def test_the_list_of_runs_names_what_they_maximized(probgen: Any) -> None:
    x = torch.arange(32.0).reshape(16, 2) / 32
    quiet: Any = {"num_epochs": 1, "progress": False, "device": "cpu"}
    labelled = pg.Dataset({"x": x, "y": torch.arange(16) % 2}).keep_labels(2)
    m2 = pg.models.M2(x=pg.Normal(2), y=pg.Categorical(2), z=pg.Normal(1), hidden=(4,))
    pg.fit(m2, labelled, objective=pg.SemiSupervised("y"), run_dir="m2/1", **quiet)
    gan = pg.models.GAN(x=pg.Normal(2), z=pg.Normal(1), hidden=(4,))
    pg.fit(gan, x, run_dir="gan/1", **quiet)
    vae = pg.models.VAE(x=pg.Normal(2), z=pg.Normal(1), hidden=(4,))
    pg.fit(vae, x, run_dir="vae/1", **quiet)
    for folder, quantity in (("m2", "objective"), ("gan", "critic value"), ("vae", "ELBO")):
        header, _ = probgen("list", folder).out.splitlines()
        assert re.split("  +", header)[3:6] == ["epochs", quantity, "validation"]
    header, *rows = [re.split("  +", line) for line in probgen("list", ".").out.splitlines()]
    assert header[3:6] == ["epochs", "quantity", "value"]
    assert [row[4] for row in rows] == ["critic value", "objective", "ELBO"]
    listed = json.loads(probgen("list", ".", "--json").out)["runs"]
    assert [run["quantity"] for run in listed] == ["critic value", "objective", "ELBO"]


def test_json_is_all_that_is_printed(probgen: Any) -> None:
    trained = json.loads(probgen(*TRAIN, "--json", "--run-dir", "r").out)
    assert trained["run"] == "r" and trained["epochs"] == 2
    assert isinstance(trained["elbo"], float)
    for command in (["evaluate", "r", "--samples", "10", "-q"], ["sample", "r"], ["plot", "r", "-q"],
                    ["show", "r"], ["list", "."]):  # fmt: skip
        done = probgen(*command, "--json")
        assert done.status == 0, done.err
        json.loads(done.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    shown = json.loads(probgen("show", "r", "--json").out)
    assert shown["settings"]["batch_size"] == 128 and "test-K10" in shown["scores"]
    assert shown["scores"]["test-K10"]["khat_median"] is None  # too few draws


def test_formulas_files_and_library_names(probgen: Any, tmp_path: Path) -> None:
    done = probgen(
        "train", "--p", "p(y) p(z) p(x|y,z)", "--q", "q(y|x) q(z|x,y)", "--var", "z=normal:2",
        "--var", "x=bernoulli", "--var", "y=categorical", "--data", "digits", "--binarize",
        "static", "--epochs", "1", "--hidden", "8,8", "--activation", "silu", "--run-dir", "m2", "-q",
    )  # fmt: skip
    assert done.status == 0, done.err
    pair = pg.load_run("m2").pair
    assert pair.variables["y"] == pg.Categorical(10) and pair.variables["x"] == pg.Bernoulli(64)
    assert probgen("sample", "m2", "-n", "4", "--given", "y=3").status == 0
    assert set(np.load("m2/samples.npz")) == {"z", "x"}
    (tmp_path / "mine.py").write_text(
        "import probgen as pg\ndef build():\n    return pg.models.VAE(x=pg.Normal(64), z=pg.Normal(2))\n"
    )
    done = probgen(
        "train", "mine.py:build", "--data", "digits", "--epochs", "1", "--run-dir", "f", "-q"
    )
    assert done.status == 0 and "probgen evaluate f --pair mine.py:build" in done.out, done.err
    assert probgen("evaluate", "f", "--samples", "5", "-q", "--pair", "mine.py:build").status == 0
    for name in ("ppca", "factor-analysis"):
        done = probgen("train", name, "--data", "digits", "--epochs", "1", "--run-dir", name, "-q")
        assert done.status == 0, done.err
        exact = probgen("evaluate", name, "--method", "exact", "-q")
        assert ", exact, " in exact.out, exact.err
    for name, variables in (("cvae", "yz"), ("m2", "yz"), ("adgm", "yza")):
        done = probgen("train", name, "--data", "digits", "--epochs", "1", "--run-dir", f"of-{name}",
                       "--hidden", "8", "-q")  # fmt: skip
        assert done.status == 0, done.err
        assert set(pg.load_run(f"of-{name}").pair.variables) == {"x", *variables}
    for name, written in (("gan", "samples"), ("autoencoder", "reconstructions")):
        done = probgen("train", name, "--data", "digits", "--epochs", "1", "--run-dir", name, "-q",
                       "--hidden", "8", "--no-compile")  # fmt: skip
        assert done.status == 0 and "probgen evaluate" not in done.out, done.err
        assert probgen("sample", name, "-n", "3").status == 0
        assert f"{written}.png" in probgen("plot", name, "-q").out
    refused = probgen("train", "gan", "--data", "digits", "--particles", "3", "--run-dir", "no")
    assert (
        refused.status == 2 and "--particles and --warmup are settings of the ELBO" in refused.err
    )
    help = probgen("train", "--help").out
    assert {"vae", "ppca", "factor-analysis", "cvae", "m2", "m1+m2", "adgm"} <= set(MODELS.names())
    assert all(name in help for name in (*MODELS.names(), *FAMILIES.names()))


def test_resuming_and_more_epochs(probgen: Any) -> None:
    assert probgen(*TRAIN, "--run-dir", "r", "--schedule", "cosine").status == 0
    refused = probgen(*TRAIN, "--run-dir", "r", "--schedule", "cosine")
    assert refused.status == 2 and "already holds a run" in refused.err
    assert probgen(*TRAIN, "--run-dir", "r", "--schedule", "cosine", "--resume").status == 0
    more = [*TRAIN, "--run-dir", "s"]
    assert probgen(*more).status == 0
    more[5] = "4"
    assert probgen(*more, "--resume").status == 0
    assert len(pg.load_run("s").result.elbo) == 4


def test_another_file_is_scored_whole(probgen: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save("a.npy", rng.normal(size=(40, 3)))
    np.save("b.npy", rng.normal(size=(9, 3)))
    assert probgen("train", "ppca", "--data", "a.npy", "--epochs", "1", "--run-dir", "r",
                   "--standardize", "-q").status == 0  # fmt: skip
    done = probgen("evaluate", "r", "--data", "b.npy", "--method", "exact", "-q", "--json")
    assert json.loads(done.out)["num_data"] == 9 and json.loads(done.out)["name"].startswith("b-")
    assert json.loads(done.out)["log_jacobian"] != 0
    assert (
        probgen("plot", "r", "--data", "b.npy", "-q", "--out", "pics", "--format", "pdf").status
        == 0
    )
    assert Path("pics/samples.pdf").read_bytes()[:4] == b"%PDF"


BAD: list[tuple[str, str]] = [
    ("train vae", "Name the data: --data digits"),
    ("train --data digits", f"Give one model: a name ({', '.join(MODELS.names())})"),
    ("train vae --p p(x) --data digits", "Give one model"),
    ("train vea --data digits", f"Unknown model 'vea'; known are {', '.join(MODELS.names())}, did you mean vae?"),
    ("train vae --data digit", 'did you mean "digits"?'),
    ("train vae --data none.csv", "there is no file"),
    ("train vae --data digits --var z", "--var must be name=value, such as z=normal:8; got 'z'"),
    ("train vae --data digits --var z=gauss:3", "unknown family 'gauss'"),
    ("train vae --data digits --var z=normal", "needs its shape"),
    ("train vae --data digits --var z=normal:2 --var z=normal:3", "--var names z twice"),
    ("train vae --data digits --var w=normal:2", "has the variables x and z, got w"),
    ("train vae --data digits --var x=bernoulli", "x has values outside its support"),
    ("train vae --data digits --var x=normal:63", "x has shape (1257, 64), but VAE expects (data, 63)"),
    ("train ppca --data digits --hidden 5", "ppca takes no --hidden"),
    ("train --p p(z)p(x|z --data digits", "Expected ')' to close p(x, but the formula ends.\n    p(z)p(x|z\n             ^"),
    ("train --p p(z)p(x|z) --q q(w|x) --var z=normal:2 --var x=normal --data digits", "q(w) infers a variable that the model has no factor for"),
    ("train --p p(z)p(x|z) --var z=normal:2 --var x=normal --data digits", "Nothing infers 'z'"),
    ("train --p p(z|x)p(x|z) --var z=normal:2 --var x=normal --data digits", "form a cycle"),
    ("train --p p(x)p(x) --var x=normal --data digits", "'x' has two factors"),
    ("train --p p(x) --var x=normal --var w=normal:2 --data digits", "w=Normal(2) is in no factor"),
    ("train my.py:build --data digits", "There is no file"),
    ("train my.py --data digits", "written file:builder"),
    ("train vae --data digits --epochs 0", "num_epochs must be an int of at least 1, got 0"),
    ("train vae --data digits --epochs x", "Invalid value for '--epochs'"),
    ("train vae --data digits --batch-size 9999", "batch_size=9999 is larger than the 1257 data"),
    ("train vae --data digits --learning-rate -1", "learning_rate must be above 0"),
    ("train vae --data digits --objective loss", "--objective must be adversarial, analytic-kl, elbo, reconstruction, semisupervised or auto"),
    ("train vae --data digits --schedule linear", "--schedule must be constant or cosine"),
    ("train vae --data digits --particles 0", "num_particles must be an int of at least 1"),
    ("train vae --data digits --precision half", "precision='half' is unknown"),
    ("train vae --data digits --device tpu", "device='tpu' is not available"),
    ("train vae --data digits --device cuda:99", "device='cuda:99' is not available"),
    ("train vae --data digits --seed -1", "seed must be from 0"),
    ("train vae --data digits --hidden 5,x", "--hidden must be widths such as 500,500"),
    ("train vae --data digits --hidden 0", "--hidden must be widths"),
    ("train vae --data digits --activation rleu", "did you mean"),
    ("train vae --data digits --binarize yes", "--binarize must be dynamic or static"),
    ("train vae --data digits --binarize static --dequantize", "exclude each other"),
    ("train vae --data digits --split 1", "--split must be two numbers"),
    ("train vae --data digits --split inf,0", "split must be counts, or fractions from 0 to 1"),
    ("train vae --data digits --split nan,0", "split must be counts, or fractions from 0 to 1"),
    ("train vae --data digits --particles 99999999999999999999", "Error: "),
    ("train vae --data digits --var z=normal:999999999x999999999x999999999", "out of memory"),
    ("train vae --data digits --hidden 99999999999999999999", "Error: "),
    ("sample run -n 99999999999999999999", "Error: "),
    ("evaluate run --data mnist", "whose preparation cannot be applied to mnist"),
    ("train vae --data digits --labels-column y", "labels, columns and levels are for files"),
    ("train vae --data digits --resume", "--resume needs --run-dir"),
    ("train vae --data digits --run-dir /proc/nothing", "/proc/nothing cannot be written"),
    ("train vae --data digits --run-dir file", "file cannot be written"),
    ("train vae --data digits --patience 3 --split 0,100", "patience=3 needs validation data"),
    ("train vae --data digits --foo", "No such option"),
    ("trian", "No such command 'trian'"),
    ("evaluate none", "There is no run in none: it does not exist"),
    ("evaluate .", "it has no config.json"),
    ("evaluate run --samples 1", "num_samples must be an int of at least 2"),
    ("evaluate run --part all", "--part must be one of train, validation, test, got 'all'"),
    ("evaluate run --method magic", 'method must be one of "exact", "importance", "auto"'),
    ("evaluate run --method exact", "has no closed form"),
    ("evaluate run --limit 0", "--limit must be at least 1"),
    ("evaluate run --data other.npy", "expects (data, 64)"),
    ("sample run -n 0", "n must be an int of at least 1"),
    ("sample run --out a.txt", "--out must end in .npz or .csv"),
    ("sample run --given y=3", "unknown variable 'y'"),
    ("sample run --given y=a", "give the number of a class"),
    ("sample run --out file/a.npz", "cannot be written"),
    ("plot run --format gif", "format must be one of png, pdf, svg, got 'gif'"),
    ("plot run --out file", "file cannot be written"),
    ("show none", "There is no run in none"),
    ("list none", "There is no folder none"),
]  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    vae = pg.models.VAE(x=pg.Normal(64), z=pg.Normal(2), hidden=(4,))
    pg.fit(vae, pg.load("digits"), num_epochs=1, run_dir=folder / "run", progress=False)
    return folder


@pytest.mark.parametrize(("command", "message"), BAD, ids=[command for command, _ in BAD])
def test_bad_input_ends_with_a_message(
    probgen: Any, small: Path, command: str, message: str
) -> None:
    os.symlink(small / "run", "run")
    Path("file").write_text("")
    np.save("other.npy", np.zeros((5, 3)))
    words = command.split()
    done = probgen(*words)
    assert done.status == 2
    assert message in " ".join(done.err.split()) or message in done.err, done.err
    assert "Traceback" not in done.err and not done.out


def test_damaged_runs_are_listed_with_their_reason(probgen: Any) -> None:
    probgen(*TRAIN, "--run-dir", "runs/a")
    probgen(*TRAIN, "--run-dir", "runs/b")
    Path("runs/a/config.json").write_text("{}")
    Path("runs/b/weights.safetensors").write_bytes(b"short")
    listed = probgen("list")
    assert listed.status == 0 and listed.out.count("  damaged: ") == 2
    assert probgen("show", "runs/a").status == 2
    Path("empty").mkdir()
    assert probgen("list", "empty").out == "No runs below empty.\n"


@pytest.mark.parametrize("command", ["", *["train", "evaluate", "sample", "plot", "show", "list"]])
def test_help_has_an_example(probgen: Any, command: str) -> None:
    done = probgen(*command.split(), "--help")
    assert done.status == 0
    if command:
        assert f"Example: probgen {command}" in done.out


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                          env={**os.environ, **environment})  # fmt: skip


def test_help_does_not_wait_for_pytorch() -> None:
    code = """
import sys
from probgen.cli import main as cli
from probgen.cli import options
sys.argv = ["probgen", "train", "--help"]
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code
heavy = {"torch", "pyro", "numpy", "matplotlib", "pandas", "sklearn"} & set(sys.modules)
assert not heavy, heavy
"""
    assert run_python(code).returncode == 0


def test_completion_knows_models_data_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_python("from probgen.cli.main import main; main()", _PROBGEN_COMPLETE="source_bash")
    assert "complete" in done.stdout
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("1\n")
    Path("runs/a").mkdir(parents=True)
    assert options.complete_model("p") == ["ppca"]
    assert options.complete_data("m") == ["mnist", "mine.csv"]
    assert options.complete_run("runs/") == ["runs/a"] and options.complete_run("nowhere/") == []


def test_the_installed_command(tmp_path: Path) -> None:
    """One run in a process of its own: lines instead of a bar, stdout for what was asked."""
    command = [sys.executable, "-m", "probgen", *TRAIN[:-1], "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == "runs/vae-digits-1"
    assert "\x1b[" not in done.stdout + done.stderr
    version = subprocess.run(
        [sys.executable, "-m", "probgen", "--version"], capture_output=True, text=True
    )
    assert version.stdout.strip() == f"probgen {pg.__version__}"


def test_debugging_shows_the_traceback(probgen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBGEN_DEBUG", "1")
    with pytest.raises(ValueError, match="Name the data"):
        probgen("train", "vae")


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_ctrl_c_keeps_the_run(tmp_path: Path) -> None:
    import signal

    command = [sys.executable, "-m", "probgen", *TRAIN, "--no-compile", "--run-dir", "r"]
    command[command.index("--epochs") + 1] = "100000"
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    metrics, deadline = tmp_path / "r" / "metrics.csv", time.monotonic() + 120
    while time.monotonic() < deadline:  # until the loop runs: a line for the names, one an epoch
        if metrics.exists() and len(metrics.read_text().splitlines()) > 2:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command with --run-dir r --resume" in out
    assert pg.load_run(tmp_path / "r").result.stopped == "interrupted"


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize(("signal", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("module", ["typer", "torch"])
def test_a_signal_while_modules_are_imported(
    tmp_path: Path, module: str, signal: str, status: int
) -> None:
    """No traceback; a module that is imported late and signals its own process stands in for a hand."""
    if (module, signal) == ("typer", "SIGTERM"):
        pytest.skip("ends by the signal itself")
    body = f"import os, signal; os.kill(os.getpid(), signal.{signal}); [0 for _ in range(10**7)]"
    (tmp_path / f"{module}.py").write_text(body)
    code = "import sys; from probgen.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "vae", "--data", "digits"], cwd=tmp_path,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr


def test_a_working_directory_that_is_gone(probgen: Any, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    done = probgen("list")
    assert done.status == 2 and "the working folder was deleted" in done.err


def test_names_do_not_steer_the_terminal(probgen: Any) -> None:
    done = probgen("show", "\x1b]0;title\x07\u202e")
    assert done.status == 2 and r"There is no run in \x1b]0;title\x07\u202e: it does" in done.err


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    command = f"{sys.executable} -m probgen train --help | true"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert not done.stderr


def test_a_formula_takes_from_the_data_what_it_can(probgen: Any) -> None:
    formula = ("train", "--p", "p(y) p(z) p(x | y, z)", "--q", "q(y | x) q(z | x, y)", "--data",
               "digits", "--epochs", "1", "--hidden", "4", "-q", "--run-dir", "r")  # fmt: skip
    done = probgen(*formula, "--var", "z=normal:8")
    assert done.status == 0, done.err
    assert pg.load_run("r").pair.variables == {
        "y": pg.Categorical(10), "z": pg.Normal(8), "x": pg.Normal(64)
    }  # fmt: skip
    without = probgen(*formula)
    assert without.status == 2 and "--var z=normal:8" in without.err and "pg." not in without.err


REGRESSION = ("train", "--p", "p(w) p(x | w)", "--q", "q(w)", "--data", "digits", "--var",
              "w=normal:2", "--epochs", "1", "--hidden", "4", "-q", "--run-dir", "r")  # fmt: skip


def test_one_guide_for_all_data_is_said_by_an_option(
    probgen: Any, recwarn: pytest.WarningsRecorder
) -> None:
    refused = probgen(*REGRESSION)
    assert refused.status == 2 and not Path("r").exists()
    assert "The guide of w depends on no data" in refused.err and "--local" in refused.err
    assert "declare" not in refused.err and "class" not in refused.err
    assert not [w for w in recwarn if "declare" in str(w.message)]
    done = probgen(*REGRESSION, "--local", "--name", "Mixture")
    assert done.status == 0, done.err
    run = pg.load_run("r")
    assert run.pair.local and run.pair.name == "Mixture" and "local = True" in (run.pair.source)


def test_a_name_is_for_a_formula(probgen: Any) -> None:
    for words in (["--local"], ["--name", "Mine"]):
        done = probgen(*TRAIN, *words)
        assert done.status == 2 and "--local and --name are for a formula" in done.err
    taken = probgen(*REGRESSION, "--var", "name=normal:2")
    assert taken.status == 2 and "--var name: this name is reserved" in taken.err
    odd = probgen(*REGRESSION, "--local", "--name", "my model")
    assert odd.status == 2 and "'my model'" in odd.err
