"""Make the frozen run directories anew, by the version of probgen that is installed.

    python -m tests.frozen_runs.make FOLDER

What is committed was made by version 0.1.0, and shows that later versions read, score and resume it.
Make it anew only for a kind of run that there was not before: copy that folder and its numbers.
The numbers in `expected.json` were computed by the version that made the runs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from sklearn.datasets import load_digits
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

import probgen as pg

HERE = Path(__file__).parent
CSV_SETTINGS: Any = {"transform": "standardize", "labels": "kind", "split": (0.1, 0.2)}
CSV_COMMAND = (
    "train vae --data {data} --labels-column kind --standardize --split 0.1,0.2 --var z=normal:2 "
    "--hidden 8 --epochs 3 --batch-size 16 --no-compile --quiet --run-dir {folder}"
)


@dataclass
class Case:
    """A pair, its data, and how it is trained."""

    pair: pg.LatentVariableModel
    data: Any
    settings: dict[str, Any] = field(default_factory=dict)
    method: Any = "importance"

    def fit(self, folder: Path, **more: Any) -> pg.FitResult:
        plain = {"num_epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "device": "cpu"}
        settings: dict[str, Any] = {**plain, "progress": False, "compile": False}
        return pg.fit(self.pair, self.data, **{**settings, **self.settings, **more}, run_dir=folder)

    @property
    def scored(self) -> Any:
        """The data that the recorded numbers are of."""
        if isinstance(self.data, pg.Splits):
            assert self.data.test is not None
            return self.data.test.only("x").subset(slice(0, 8))
        return self.data.only("x").subset(slice(0, 8))


def rows(observed: bool = False) -> pg.Dataset:
    """Binary x with classes y, of which a third are known where `observed` is true."""
    with np.load(HERE / "rows.npz") as file:
        values = {"x": file["x"].astype(np.float32), "y": file["y"].astype(np.int64)}
        mask = {"y": torch.from_numpy(file["known"])} if observed else None
    return pg.Dataset(values, observed=mask)


def declared() -> Case:
    """Classes that are summed out."""
    pair = pg.declare(
        "p(y) p(z) p(x | y, z)", "q(y | x) q(z | x, y)", hidden=(8,),
        y=pg.Categorical(3), z=pg.Normal(2), x=pg.Bernoulli(10),
    )  # fmt: skip
    return Case(pair, rows().only("x"))


def images() -> Case:
    """A convolutional VAE of images that are binarized anew in every epoch, with validation data."""
    pair = pg.models.VAE(
        x=pg.Bernoulli((1, 8, 8)), z=pg.Normal(3),
        encoder=partial(pg.ConvEncoder, channels=(2, 4)),
        decoder=partial(pg.ConvDecoder, channels=(4, 2)),
    )  # fmt: skip
    data = pg.load("digits", transform="dynamic", flat=False)
    return Case(pair, data, {"batch_size": 128, "patience": 2})


def few_labels() -> Case:
    """M2 with a learned p(y), of which some labels are known."""
    pair = pg.models.M2(
        pg.Bernoulli(10), pg.Categorical(3), pg.Normal(2), hidden=(8,), class_prior="learned"
    )
    goal = pg.SemiSupervised(alpha=0.5, labelled_batch=4, analytic_kl=True)
    return Case(pair, rows(observed=True), {"objective": goal})


def linear() -> Case:
    """Factor analysis in float64, which has an exact score."""
    with np.load(HERE / "rows.npz") as file:
        data = pg.Dataset({"x": file["numbers"]})
    pair = pg.models.FactorAnalysis(x=pg.Normal(6), z=pg.Normal(2))
    settings = {"precision": "float64", "objective": "analytic-kl"}
    return Case(pair, data, settings, method="exact")


def user_file(file: Path | None = None) -> Case:
    """A pair from a Python file."""
    return Case(pg.load_pair(f"{file or HERE / 'own_pair.py'}:build"), rows().only("x"))


def interrupted() -> Case:
    """Stopped after 2 of 4 epochs: the default Adam, a scheduler, a warm-up, validation data."""
    pair = pg.models.VAE(x=pg.Bernoulli(64), z=pg.Normal(2), hidden=(8,))
    data = pg.load("digits", transform="dynamic")
    settings = {
        "num_epochs": 4, "batch_size": 128, "objective": pg.ELBO(2, warmup_epochs=3),
        "scheduler": partial(CosineAnnealingLR, T_max=4), "seed": 3,
    }  # fmt: skip
    return Case(pair, data, settings)


def interrupted_labels() -> Case:
    """Likewise, with classes, batches by labels, and no validation data."""
    case = few_labels()
    case.settings |= {"num_epochs": 4, "scheduler": partial(StepLR, step_size=2, gamma=0.5)}
    return case


CASES = {
    made.__name__: made
    for made in (declared, images, few_labels, linear, user_file, interrupted, interrupted_labels)
}
INTERRUPTED = ("interrupted", "interrupted_labels")


def case(name: str, **arguments: Any) -> Case:
    """One of the cases, with the weights that its training began with."""
    torch.manual_seed(7)
    return CASES[name](**arguments)


def csv_data(path: Path = HERE / "table.csv") -> pg.Splits:
    """The table of the run `csv`, prepared as there."""
    return pg.load(path, **CSV_SETTINGS)


def classifier(folder: Path) -> tuple[pg.SemiSupervisedClassifier, Any]:
    """M1+M2 of some digits with a run directory a stage, and the probabilities of eight other rows."""
    x, y = load_digits(return_X_y=True)
    known = np.where(np.arange(300) % 5 == 0, y[:300], -1)
    made = pg.SemiSupervisedClassifier(
        "m1+m2", hidden=(8,), latents=2, num_epochs=20, learning_rate=1e-2, batch_size=50,
        random_state=0, run_dir=folder, device="cpu",
    )  # fmt: skip
    made.fit(x[:300], known, validation=(x[300:350], y[300:350]))
    return made, made.predict_proba(x[350:358])


def numbers(pair: pg.LatentVariableModel, data: Any, method: Any = "importance") -> list[float]:
    """log p(x) of each datum, in nats, with 50 draws where it is not exact."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.UnreliableEstimateWarning)
        score = pg.log_marginal_likelihood(
            pair, data, num_samples=50, method=method, seed=1, device="cpu", compile=False
        )
    return [float(value) for value in score.log_prob]


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of weights, by name and to the bit."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return found.hexdigest()


def command_line(text: str) -> Any:
    """What a command prints with `--json`."""
    words = ["python", "-m", "probgen", *text.split(), "--json"]
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, executable=sys.executable
    )
    return json.loads(done.stdout)


class _StopError(Exception):
    pass


def _stop(result: pg.FitResult) -> None:
    if len(result.elbo) == 2:
        raise _StopError


def _make_data(folder: Path) -> None:
    generator = np.random.default_rng(0)
    y = np.arange(60) % 3
    shares = np.array([[0.8] * 5 + [0.2] * 5, [0.2] * 5 + [0.8] * 5, [0.8, 0.2] * 5])
    x = (generator.random((60, 10)) < shares[y]).astype(np.uint8)
    mixed = generator.normal(size=(60, 2)) @ generator.normal(size=(2, 6))
    table = 3 + mixed + 0.3 * generator.normal(size=(60, 6))
    known = np.arange(60) % 7 < 2
    np.savez_compressed(folder / "rows.npz", x=x, y=y.astype(np.uint8), known=known, numbers=table)
    kinds = np.array(["ash", "birch", "cedar"])[y]
    lines = ["a,b,c,d,e,f,kind"]
    lines += [
        ",".join([*(f"{v:.4f}" for v in row), kind]) for row, kind in zip(table, kinds, strict=True)
    ]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    if not (HERE / "rows.npz").exists():
        _make_data(HERE)
    expected: dict[str, Any] = {}
    shutil.copy(HERE / "table.csv", "table.csv")
    shutil.copy(HERE / "own_pair.py", "own_pair.py")
    for name in CASES:
        made = case(name, file=Path("own_pair.py")) if name == "user_file" else case(name)
        result = (
            made.fit(folder / name) if name not in INTERRUPTED else made.fit(Path("whole", name))
        )
        expected[name] = {"elbo": result.elbo, "best_epoch": result.best_epoch}
        expected[name]["log_prob"] = numbers(made.pair, made.scored, made.method)
        if name in INTERRUPTED:
            weights = made.pair.state_dict()
            safetensors.torch.save_file(weights, folder / f"{name}_finished.safetensors")
            expected[name]["sha256"] = digest(weights)
            try:
                case(name).fit(folder / name, callback=_stop)
            except _StopError:
                run = pg.load_run(folder / name)
                expected[name]["before"] = numbers(run.pair, made.scored)
    run = pg.load_run(folder / "linear")
    exact = pg.log_marginal_likelihood(
        run.pair, case("linear").data, method="exact", precision="float64"
    )
    run.save_score(exact, "all-exact")
    command_line(CSV_COMMAND.format(data="table.csv", folder=folder / "csv"))
    run = pg.load_run(folder / "csv")
    test = csv_data().test
    assert test is not None
    expected["csv"] = {"elbo": run.result.elbo, "best_epoch": run.result.best_epoch}
    expected["csv"]["log_prob"] = numbers(run.pair, test.only("x").subset(slice(0, 8)))
    scores = {"linear/all-exact": exact.mean}
    for name, more in (("csv", ""), ("images", " --limit 40")):
        score = command_line(f"evaluate {folder / name} --samples 50 --no-compile --quiet{more}")
        scores[f"{name}/{score['name']}"] = score["log_prob"]
    made_by, probabilities = classifier(folder / "classifier")
    expected["classifier"] = {
        "probabilities": probabilities.tolist(), "curves": made_by.curves_,
        "validation_errors": made_by.validation_errors_,
    }  # fmt: skip
    for picture in folder.rglob("figures"):
        shutil.rmtree(picture)
    content = {"runs": expected, "scores": scores}
    (folder / "expected.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
