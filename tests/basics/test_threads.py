"""Calls from several threads give what they give one after the other; nothing waits for ever."""

from __future__ import annotations

import _thread
import copy
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyro
import pytest
import torch
from sklearn.model_selection import cross_val_score

import probgen as pg
from tests.attacks import threaded_fits, threaded_predictions

PATIENCE = 60.0
"""Seconds after which a thread or process is taken to wait for ever."""


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(0)
    return pg.models.VAE(x=pg.Bernoulli(4), z=pg.Normal(2), hidden=(4,))


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return (torch.rand(24, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def in_time(work: Callable[[], Any]) -> Any:
    """The result of a function in a thread of its own, if it comes."""
    found: list[Any] = []

    def note() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert found, "it waits for ever"
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def trained(pair: Any, data: Any, **settings: Any) -> list[Any]:
    """The curve and the weights of a fit of a copy."""
    result = pg.fit(copy.deepcopy(pair), data, **{"num_epochs": 2, "progress": False,
                    "device": "cpu", **settings})  # fmt: skip
    return [result.elbo, torch.cat([p.flatten() for p in result.pair.parameters()]).tolist()]


@pytest.mark.parametrize(("attack", "count"), [(threaded_fits, 8), (threaded_predictions, 48)])
def test_calls_in_threads_are_those_one_after_the_other(attack: Any, count: int) -> None:
    found = attack.attack(count, seed=0)
    assert found.count == count and not found.wrong


@pytest.mark.filterwarnings("ignore:.*supervised learning")
def test_folds_in_threads_are_those_one_after_the_other(iris: Any) -> None:
    rows, labels, _ = iris
    made = pg.SemiSupervisedClassifier("m2", hidden=(4,), num_epochs=2, start=None, random_state=0)
    settings: Any = {"cv": 3, "error_score": "raise"}
    alone = cross_val_score(made, rows, labels, **settings)
    with joblib.parallel_backend("threading", n_jobs=3):
        together = cross_val_score(made, rows, labels, **settings)
    assert np.array_equal(alone, together)


def test_new_pairs_leave_a_fit_alone(vae: Any, x: torch.Tensor) -> None:
    """Weights of new networks come from the generator that a fit in another thread draws from."""
    alone = trained(vae, x, num_epochs=10, batch_size=4)
    over = threading.Event()

    def build() -> None:
        while not over.is_set():
            pg.models.VAE(x=pg.Bernoulli(4), z=pg.Normal(2), hidden=(4,))

    builder = threading.Thread(target=build, daemon=True)
    builder.start()
    try:
        assert trained(vae, x, num_epochs=10, batch_size=4) == alone
    finally:
        over.set()
        builder.join()


# ---------------------------------------------------------------- functions of the user's


def test_a_callback_may_wait_for_a_thread(vae: Any, x: torch.Tensor) -> None:
    """A thread that the callback waits for fits, scores and encodes; the fit stays as it was."""
    scores = []

    def score(pair: Any) -> None:
        trained(vae, x, num_epochs=1, seed=5)
        scores.append(float(pg.encode(pair, x, seed=1, device="cpu")["z"].sum()))

    def callback(result: Any) -> None:
        thread = threading.Thread(target=score, args=(result.pair,), daemon=True)
        thread.start()
        thread.join()

    found = in_time(lambda: trained(vae, x, callback=callback))
    assert found == trained(vae, x) and len(scores) == 2


def test_batches_may_come_from_threads(vae: Any, x: torch.Tensor) -> None:
    """The workers of an iterable call probgen; the fit is that on the same batches from a list."""

    class Encoded:
        def __iter__(self) -> Iterator[Any]:
            def made(rows: torch.Tensor) -> Any:
                return (pg.reconstruct(vae, rows, seed=0, device="cpu")["x"] > 0.5).float()

            with ThreadPoolExecutor(2) as pool:
                yield from pool.map(made, x.split(8))

    batches = list(Encoded())
    assert in_time(lambda: trained(vae, Encoded())) == trained(vae, batches)


def test_a_callback_that_does_not_wait_is_alone(vae: Any, x: torch.Tensor) -> None:
    """What a callback draws is not disturbed by a call of another thread, which waits its turn."""
    draws, order = [], []
    begun = threading.Event()

    def callback(result: Any) -> None:
        begun.set()
        torch.manual_seed(1)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            draws.append(float(torch.rand(())))
        order.append("callback")

    def other() -> None:
        begun.wait(PATIENCE)
        for _ in range(3):
            vae.sample(2, seed=3)
        order.append("other")

    with torch.random.fork_rng(devices=[]):
        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        trained(vae, x, num_epochs=1, callback=callback)
        thread.join(PATIENCE)
        torch.manual_seed(1)
        assert draws == [float(torch.rand(())) for _ in draws]
    assert order == ["callback", "other"]


def test_errors_and_interrupts_leave_the_lock_free(vae: Any, x: torch.Tensor) -> None:
    with pytest.raises(TypeError):
        pg.encode(vae, object(), device="cpu")
    in_time(lambda: vae.sample(2, seed=0))
    holds, free = threading.Event(), threading.Event()

    def callback(result: Any) -> None:
        holds.set()
        while not free.is_set():  # busy, so that nobody takes it for waiting
            sum(range(100))

    holder = threading.Thread(
        target=trained, args=(vae, x), kwargs={"num_epochs": 1, "callback": callback}, daemon=True
    )
    holder.start()
    assert holds.wait(PATIENCE)
    threading.Timer(0.2, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        vae.sample(2, seed=0)
    free.set()
    holder.join(PATIENCE)
    in_time(lambda: vae.sample(2, seed=0))


def test_a_warning_names_the_line_that_called(vae: Any, x: torch.Tensor) -> None:
    with pytest.warns(pg.UnreliableEstimateWarning) as found:
        pg.log_marginal_likelihood(vae, x, num_samples=2, device="cpu")
    assert found[0].filename == __file__
    rows = x[:20].numpy()
    for y in (np.arange(20) % 2, np.arange(20) % 2 * 2 - 1):  # all known; -1 and 1 only
        with pytest.warns(
            UserWarning, match="every row has a label|y holds -1 and 1 only"
        ) as found:
            pg.SemiSupervisedClassifier("m2", num_epochs=1, device="cpu").fit(rows, y)
        assert found[0].filename == __file__


def test_what_is_a_threads_own_stays_so(vae: Any, x: torch.Tensor) -> None:
    """Gradients are switched off for a thread, not for the fit of another."""

    def without_gradients() -> list[Any]:
        with torch.no_grad():
            return trained(vae, x, num_epochs=1)

    assert in_time(without_gradients) == trained(vae, x, num_epochs=1)


# ---------------------------------------------------------------- forks


def _in_child(vae: Any, x: torch.Tensor, expected: Any, settings: Any) -> None:
    """What a forked process does: exits with 0 where all is as it is alone."""
    torch.set_num_threads(1)  # threads of torch's own do not survive a fork
    before = {name: pyro.settings.get(name) for name in settings}
    found = trained(vae, x, num_epochs=1)
    sampled = vae.sample(2, seed=1)["x"]
    os._exit(int(before != settings) + 2 * (found != expected[0])
             + 4 * (not torch.equal(sampled, expected[1])))  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_during_a_call_of_another_thread(vae: Any, x: torch.Tensor) -> None:
    """The child finds the lock free, validation as outside, and no handler of the other thread's."""
    names = threaded_fits.SETTINGS
    settings = {name: pyro.settings.get(name) for name in names}
    expected = (trained(vae, x, num_epochs=1), vae.sample(2, seed=1)["x"])
    over = threading.Event()

    def keep_fitting() -> None:
        while not over.is_set():
            trained(vae, x, num_epochs=5)

    thread = threading.Thread(target=keep_fitting, daemon=True)
    thread.start()
    context = multiprocessing.get_context("fork")
    codes = []
    try:
        for _ in range(6):
            time.sleep(0.011)
            child = context.Process(target=_in_child, args=(vae, x, expected, settings))
            child.start()
            child.join(PATIENCE)
            if child.is_alive():
                child.kill()
            codes.append(child.exitcode)
    finally:
        over.set()
        thread.join(PATIENCE)
    assert codes == [0] * 6


# ---------------------------------------------------------------- every public name

QUICK: Any = {"num_epochs": 1, "progress": False, "device": "cpu"}

PLAIN = {
    # what runs no pair
    "Bernoulli", "Categorical", "Normal", "Poisson", "Variable", "Conditional", "MLP", "ConvDecoder",
    "ConvEncoder", "Dataset", "Splits", "FitResult", "FewLabels", "FormulaError", "RunError", "Run",
    "Score", "CaptureWarning", "UnreliableEstimateWarning", "PrecisionWarning", "calibration_error", "table", "load",
    "declare", "load_pair", "register_family", "register_model", "register_objective", "Objective", "Player", "PointMass", "ImplicitModel",
    "Adversarial", "Reconstruction", "plots.metric_curves", "Field", "Source", "register_source",
    "models", "plots", "plots.confusion", "plots.errors", "plots.images",
    "plots.learning_curve", "plots.page_style", "plots.reliability", "plots.importance_weights",
}  # fmt: skip


def calls(vae: Any, m2: Any, x: torch.Tensor, iris: Any, folder: Path) -> dict[str, Any]:
    """A call of every public name that runs a pair."""
    y = torch.arange(len(x)) % 3
    rows, labels, known = iris
    made = pg.SemiSupervisedClassifier(
        "m2", hidden=(4,), num_epochs=1, start=None, random_state=0, device="cpu"
    )
    both = pg.Dataset({"x": x, "y": y})
    splits = pg.Splits(pg.Dataset({"x": rows, "y": labels}), None,
                       pg.Dataset({"x": rows, "y": labels}))  # fmt: skip

    def classifier() -> None:
        made.fit(rows, known)
        made.predict_proba(rows)
        made.transform(rows)
        made.sample(2, y=1, means=True)

    def load_run() -> None:
        pg.fit(copy.deepcopy(vae), x, run_dir=folder / "run", resume=True, **QUICK)
        pg.load_run(folder / "run").pair.sample(2)

    def report() -> None:
        pg.plots.report(pg.load_run(folder / "run"), data=pg.Splits(pg.Dataset({"x": x})),
                        folder=folder, format="svg")  # fmt: skip

    few: Any = {"start": None, "hidden": (4,), "num_epochs": 1, "progress": False}
    plots = pg.plots
    return {
        "fit": lambda: pg.fit(copy.deepcopy(vae), x, **QUICK),
        "log_marginal_likelihood": lambda: pg.log_marginal_likelihood(
            vae, x, num_samples=4, device="cpu"
        ),
        "encode": lambda: pg.encode(vae, x, device="cpu"),
        "reconstruct": lambda: pg.reconstruct(vae, x, device="cpu"),
        "features": lambda: pg.features(vae, pg.Dataset({"x": x}), device="cpu"),
        "active_units": lambda: pg.active_units(vae, pg.Dataset({"x": x}), threshold=0),
        "class_probabilities": lambda: pg.class_probabilities(m2, x, device="cpu"),
        "LatentVariableModel": lambda: vae.sample(2),
        "ELBO": lambda: pg.ELBO()(vae, {"x": x}),
        "SemiSupervised": lambda: pg.SemiSupervised()(m2, {"x": x, "y": y}),
        "SemiSupervisedClassifier": classifier,
        "few_labels": lambda: pg.few_labels(splits, "m2", labels=6, seeds=1, **few),
        "load_run": load_run,
        "plots.report": report,
        "plots.analogies": lambda: plots.analogies(m2, both.subset(slice(0, 3))),
        "plots.denoising": lambda: plots.denoising(
            {"a": vae}, pg.Dataset({"x": x[:3]}), x[:3], y[:3]
        ),
        "plots.reconstructions": lambda: plots.reconstructions(vae, x),
        "plots.samples": lambda: plots.samples(vae, n=4),
        "plots.latent_scatter": lambda: plots.latent_scatter(vae, x),
        "plots.manifold": lambda: plots.manifold(vae, n=2),
        "plots.traversals": lambda: plots.traversals(vae, x),
        "plots.draws": lambda: plots.draws(vae, pg.Dataset({"x": x})),
        "plots.elements": lambda: plots.elements(vae, pg.Dataset({"x": x})),
    }


@pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")
def test_every_public_call_that_runs_a_pair_holds_the_lock(
    vae: Any, x: torch.Tensor, iris: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probgen.basics.locking import LOCK

    m2 = pg.models.M2(x=pg.Bernoulli(4), y=pg.Categorical(3), z=pg.Normal(2), hidden=(4,))
    of_name = calls(vae, m2, x, iris, tmp_path)
    names = {*pg.__all__, *(f"plots.{name}" for name in pg.plots.__all__)}
    unknown = names - PLAIN - of_name.keys()
    assert not unknown, f"say for {unknown} whether they run a pair"
    seen: list[bool] = []
    forward = pg.Conditional.forward

    def noted(self: Any, *given: Any, **named: Any) -> Any:
        seen.append(LOCK.held)
        return forward(self, *given, **named)

    monkeypatch.setattr(pg.Conditional, "forward", noted)
    for name, call in of_name.items():
        seen.clear()
        call()
        assert seen, f"{name} runs no pair"
        assert all(seen), f"{name} runs a pair without the lock"
    assert not LOCK.held
