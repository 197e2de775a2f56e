"""MNIST from few labels: M1, M2 and M1+M2 compared with classifiers without latent variables.

    python -m experiments.few_labels --out out/few_labels

Each cell of the table is the mean over five draws of the labelled images, the same number of each class,
among 50,000 training images; errors are those on the 10,000 test images. The settings were chosen on the
validation images, with other draws of the labels than those of the recorded results. `--rows`, `--labels`
and `--seeds` choose a part of the table. Results in the folder are not computed again, and a killed run
resumes when the same command is given again. `--report` only prints and draws the results in the folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from torch import nn

import probgen as pg
from probgen.basics.text import aligned
from probgen.plots.style import axes, save

Array = NDArray[Any]

PUBLISHED: dict[str, dict[int, str]] = {
    "M1": {100: "11.82", 600: "5.72", 1000: "4.24", 3000: "3.49"},  # M1+TSVM
    "M2": {100: "11.97", 600: "4.94", 1000: "3.60", 3000: "3.92"},
    "M1+M2": {100: "3.33", 600: "2.59", 1000: "2.40", 3000: "2.18"},
}
"""Test errors in percent, Kingma, Rezende, Mohamed and Welling, 2014, table 1."""

SETTINGS: dict[str, dict[str, Any]] = {
    "M1": {"method": "m1"},
    "M2": {"method": "m2", "precision": "bf16", "class_prior": "uniform"},
    "M1+M2": {"method": "m1+m2", "class_prior": "uniform"},
    "M1+M2, random start": {
        "method": "m1+m2", "start": None, "num_epochs": 30, "class_prior": "uniform",
    },
}  # fmt: skip
"""Arguments of `pg.few_labels` that differ from its defaults. The classes of MNIST are about equally
frequent, hence the uniform class prior."""


class Baselines:
    """Classifiers of pixels; neighbours and principal components are computed once."""

    def __init__(self, data: pg.Splits) -> None:
        assert data.test is not None
        self.x, self.x_test = data.train["x"].numpy(), data.test["x"].numpy()
        self.pca = PCA(50, random_state=0).fit(self.x)
        self._graphs: dict[int, Any] = {}
        self.rows: dict[str, Callable[[Array, int], Array]] = {
            "nearest neighbour": lambda y, seed: self._labelled(KNeighborsClassifier(1), y),
            "MLP": lambda y, seed: self._labelled(
                MLPClassifier((500,), max_iter=300, random_state=seed), y
            ),
            "CNN": self._cnn,
            "self-training": self._self_training,
            "label spreading": self._label_spreading,
        }

    def _labelled(self, classifier: Any, y: Array) -> Array:
        """Predictions of a classifier that is trained on the labelled images only."""
        predicted: Array = classifier.fit(self.x[y >= 0], y[y >= 0]).predict(self.x_test)
        return predicted

    def _self_training(self, y: Array, seed: int) -> Array:
        classifier = SelfTrainingClassifier(LogisticRegression(max_iter=300), threshold=0.95)
        classifier.fit(self.pca.transform(self.x), y)
        predicted: Array = classifier.predict(self.pca.transform(self.x_test))
        return predicted

    def _label_spreading(self, y: Array, seed: int) -> Array:
        classifier = LabelSpreading(self._graph, alpha=0.9, max_iter=100).fit(self.x, y)
        predicted: Array = classifier.predict(self.x_test)
        return predicted

    def _graph(self, left: Array, right: Array) -> Any:
        """Ten neighbours among the training rows, as a kernel; the same for every draw of labels."""
        if len(right) not in self._graphs:
            near = NearestNeighbors(n_neighbors=10).fit(left)
            self._graphs[len(right)] = csr_matrix(near.kneighbors_graph(right).T)
        return self._graphs[len(right)]

    def _cnn(self, y: Array, seed: int) -> Array:
        """Two convolutional layers, trained on the labelled images only."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = nn.Sequential(
                nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5),
                nn.Linear(1024, 10),
            )  # fmt: skip
            x, labels = torch.from_numpy(self.x[y >= 0]), torch.from_numpy(y[y >= 0])
            optimizer = torch.optim.Adam(net.parameters(), 1e-3)
            for _ in range(max(20, 1000 // -(-len(x) // 50))):
                for rows in torch.randperm(len(x)).split(50):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(net(x[rows]), labels[rows]).backward()
                    optimizer.step()
            net.eval()
            with torch.no_grad():
                parts = [net(part).argmax(1) for part in torch.from_numpy(self.x_test).split(1000)]
            return torch.cat(parts).numpy()


def baseline(
    name: str, data: pg.Splits, labels: int, seed: int, baselines: Baselines
) -> dict[str, Any]:
    """Error and time of a classifier without latent variables, for one draw of the labels."""
    assert data.test is not None
    few = data.train.keep_labels(labels // 10, seed=seed)
    assert few.observed is not None
    y = np.where(few.observed["y"].numpy(), few["y"].numpy().astype(int), -1)
    start = time.perf_counter()
    predicted = baselines.rows[name](y, seed)
    return {
        "error": float((predicted != data.test["y"].numpy()).mean()),
        "minutes": (time.perf_counter() - start) / 60,
    }


def ours(
    name: str, data: pg.Splits, labels: int, seed: int, out: Path, encoder: Any
) -> dict[str, Any]:
    """Error, time, calibration and curve of a method of probgen, for one draw of the labels."""
    folder = "".join(c if c.isalnum() else "-" for c in f"{name}-{labels}")
    if name != "M2":
        settings = {**SETTINGS[name], "encoder": encoder}
    else:
        settings = SETTINGS[name]
    result = pg.few_labels(data, labels=labels, seeds=[seed], folder=out / folder, **settings)
    return {
        "error": result.errors[0], "minutes": result.minutes[0],
        "calibration": result.calibration[0], "curve": result.curves[0],
    }  # fmt: skip


def first_stage(data: pg.Splits, out: Path) -> pg.LatentVariableModel:
    """The VAE of M1, which uses no labels: trained once for all draws and methods."""
    classifier = pg.SemiSupervisedClassifier(
        "m1", num_epochs=60, precision="bf16", run_dir=out, random_state=0, progress=True
    )
    return classifier.train_encoder(data.train["x"].numpy())


def table(cells: dict[str, dict[str, Any]]) -> str:
    """Mean ± standard deviation of the test error in percent, together with published errors."""
    counts = sorted({int(key.split("/")[1]) for key in cells})
    rows = [("test error, %", *(f"{count} labels" for count in counts))]
    for name in dict.fromkeys(key.split("/")[0] for key in cells):
        cell = [_cell(cells, name, count) for count in counts]
        rows.append((name, *cell))
        if name in PUBLISHED:
            words = {"M1": "M1+TSVM, published"}.get(name, f"{name}, published")
            rows.append((words, *(PUBLISHED[name].get(count, "") for count in counts)))
    return "\n".join(aligned(rows, left={0})[0])


def _errors(cells: dict[str, dict[str, Any]], name: str, count: int) -> Array:
    prefix = f"{name}/{count}/"
    return np.array([100 * c["error"] for key, c in cells.items() if key.startswith(prefix)])


def _cell(cells: dict[str, dict[str, Any]], name: str, count: int) -> str:
    errors = _errors(cells, name, count)
    if len(errors) < 2:
        return f"{errors[0]:.2f} (1)" if len(errors) else ""
    number = f" ({len(errors)})" * (len(errors) != 5)
    return f"{errors.mean():.2f} ± {errors.std(ddof=1):.2f}{number}"


def against_labels(cells: dict[str, dict[str, Any]], *, ax: Any = None) -> Any:
    """Test error against the number of labels, both axes logarithmic."""
    ax = axes(ax)
    names = list(dict.fromkeys(key.split("/")[0] for key in cells))
    for name in names:
        counts = sorted({int(key.split("/")[1]) for key in cells if key.startswith(f"{name}/")})
        errors = [_errors(cells, name, count) for count in counts]
        deviations = [e.std(ddof=1) if len(e) > 1 else 0 for e in errors]
        own = name in SETTINGS
        ax.errorbar(counts, [e.mean() for e in errors], deviations, fmt="o-" if own else "s--", ms=4,
                    linewidth=1.8 if own else 0.9, capsize=2, label=name)  # fmt: skip
    marks = zip(PUBLISHED["M1+M2"], PUBLISHED["M1+M2"].values(), strict=True)
    for count, text in marks:
        label = "M1+M2, published" if count == 100 else None
        ax.plot(count, float(text), "*", color="black", ms=8, label=label)
    ax.set(xscale="log", yscale="log", xlabel="labels", ylabel="test error in percent")
    ax.set_xticks([100, 600, 1000, 3000], ["100", "600", "1000", "3000"])
    ax.set_yticks([2, 3, 5, 10, 20, 30], ["2", "3", "5", "10", "20", "30"])
    ax.minorticks_off()
    ax.set_title("MNIST: 50,000 training images, few of them labelled")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def along_the_way(cells: dict[str, dict[str, Any]], *, ax: Any = None) -> Any:
    """Validation error of probgen's methods with 100 labels, against epochs."""
    ax = axes(ax)
    colours = {
        "M2": "tab:orange", "M1+M2, random start": "tab:green", "M1+M2": "tab:blue",
    }  # fmt: skip
    for name, colour in colours.items():
        curves = [
            c["curve"] for k, c in cells.items() if k.startswith(f"{name}/100/") and c.get("curve")
        ]
        for index, curve in enumerate(curves):
            epochs, shares = zip(*curve, strict=True)
            ax.plot(epochs, [100 * share for share in shares], color=colour, linewidth=1,
                    label=f"{name}, {len(curves)} draws of the labels" if index == 0 else None)  # fmt: skip
    ax.axvline(
        15, color="grey", linewidth=0.8, linestyle=":"
    )  # until here the model trains on spread labels
    ax.set(xlabel="epoch", ylabel="validation error in percent", ylim=(0, None), xlim=(0, None))
    ax.set_title("100 labels")
    ax.legend(frameon=False)
    return ax


def report(out: Path) -> None:
    """Print and draw the results in the folder."""
    cells = _read(out)
    print(f"\n{table(cells)}\n\nmean ± standard deviation over draws of the labelled images\n")
    for name in dict.fromkeys(key.split("/")[0] for key in cells):
        minutes = [c["minutes"] for key, c in cells.items() if key.startswith(f"{name}/")]
        print(f"{name:18s} {np.median(minutes):5.1f} minutes per draw (at most {max(minutes):.1f})")
    save(out / "few_labels.png", against_labels, cells)
    if any(cell.get("curve") for cell in cells.values()):
        save(out / "few_labels_curves.png", along_the_way, cells)


def _read(out: Path) -> dict[str, dict[str, Any]]:
    cells: dict[str, dict[str, Any]] = {}
    for path in sorted(out.glob("cells*.json")):
        cells |= json.loads(path.read_text())
    order = list(SETTINGS)

    def sort_key(key: str) -> tuple[int, str, int, int]:
        name, count, seed = key.split("/")
        return (order.index(name) if name in order else len(order), name, int(count), int(seed))

    return {key: cells[key] for key in sorted(cells, key=sort_key)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/few_labels"))
    parser.add_argument("--rows", nargs="*", help="rows of the table; all by default")
    parser.add_argument("--labels", type=int, nargs="*", default=[100, 600, 1000, 3000])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--part", default="", help="a name for this process, if there are several")
    parser.add_argument(
        "--report", action="store_true", help="only print and draw the results in the folder"
    )
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if arguments.report:
        return report(out)
    data, baselines, encoder = pg.load("mnist", transform="none"), None, None
    path = out / f"cells{arguments.part}.json"
    for labels in arguments.labels:
        for name in arguments.rows or [*SETTINGS, "nearest neighbour", "MLP", "CNN", "self-training",
                                       "label spreading"]:  # fmt: skip
            for seed in arguments.seeds:
                key = f"{name}/{labels}/{seed}"
                if key in _read(out):
                    continue
                if name in SETTINGS:
                    if encoder is None and name != "M2":
                        encoder = first_stage(data, out)
                    cell = ours(name, data, labels, seed, out, encoder)
                else:
                    baselines = baselines or Baselines(data)
                    cell = baseline(name, data, labels, seed, baselines)
                cells = json.loads(path.read_text()) if path.exists() else {}
                path.write_text(json.dumps({**cells, key: cell}, indent=1) + "\n")
                print(f"{key}: {100 * cell['error']:.2f} %, {cell['minutes']:.1f} min", flush=True)
    report(out)


if __name__ == "__main__":
    main()
