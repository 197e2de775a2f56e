"""fit(): bad input, each with one readable message."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import probgen as pg
from tests.fitting import QUICK, bad, structured, vae, weights
from tests.pairs import CASES, HandM2, binary, labels


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (
            bad(0.5),
            {},
            r"x has values outside its support \(min 0, max 1; first in row 5\), but x in VAE is Bernoulli\(6\), which takes only 0 and 1\. Binarize",
        ),
        (bad(float("nan")), {}, "NaN or infinite values in 1 of 32 data, the first in row 5"),
        (structured(32)[:, :5], {}, r"x has shape \(32, 5\), but VAE expects \(data, 6\)"),
        (structured(32)[0], {}, "For a single datum, add a first dim"),
        (structured(32)[:0], {}, "empty"),
        ({"w": structured(32)}, {}, "no variable w; its variables are x, z"),
        ({"z": torch.zeros(32, 2)}, {}, "VAE needs x, got z"),
        ({}, {}, "dict of arrays"),
        (structured(32), {"batch_size": 33}, "batch_size=33 is larger than the 32 data"),
        (structured(32), {"batch_size": 0}, "batch_size must be an int of at least 1"),
        (structured(32), {"num_epochs": 0}, "num_epochs must be an int of at least 1"),
        (structured(32), {"learning_rate": -1.0}, "learning_rate must be above 0"),
        (structured(32), {"objective": "iwae"}, "objective='iwae' is unknown"),
        (structured(32), {"objective": 3}, "objective must be"),
        (structured(32), {"optimizer": "adam"}, "optimizer must be a torch optimizer"),
        (structured(32), {"validation": "some"}, 'validation must be "auto", None or data'),
        (structured(32), {"patience": 3}, "needs validation data"),
        (DataLoader(TensorDataset(structured(8), labels(8))), {}, "let the loader yield dicts"),
        (structured(32), {"patience": 0}, "patience must be"),
        (structured(32), {"precision": "bf17"}, "precision='bf17'"),
        (structured(32), {"device": "cuda:77"}, "not available"),
        ("digits", {}, "str"),
        (None, {}, "NoneType"),
        ([], {}, "empty"),
        (iter([structured(32)]), {}, "iterator"),
        (np.array([["a"] * 6]), {}, "must hold numbers"),
        (torch.complex(structured(8), structured(8)), {}, "real array"),
    ],
)
def test_bad_input(data: Any, settings: Any, message: str) -> None:
    arguments = {"num_epochs": 1, "batch_size": 8, **QUICK, **settings}
    with pytest.raises((ValueError, TypeError), match=message):
        pg.fit(vae(), data, **arguments)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            labels(32) + 1,
            r"y has values outside its support \(min 1, max 3; first in row 2\).*0\.\.2",
        ),
        (labels(32) - 1, r"min -1"),
        (labels(32) + 0.5, "whole numbers"),
        (labels(31), "same first dim"),
        (labels(32)[:, None], r"y has shape \(32, 1\)"),
    ],
)
def test_bad_labels(y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pg.fit(HandM2(), {"x": binary(32), "y": y}, num_epochs=1, batch_size=8, **QUICK)


def test_labels_given_as_whole_floats_are_classes() -> None:
    a, b = HandM2(), HandM2()
    b.load_state_dict(a.state_dict())
    x = binary(16)
    pg.fit(a, {"x": x, "y": labels(16)}, num_epochs=1, batch_size=8, **QUICK)
    pg.fit(b, {"x": x, "y": labels(16).double()}, num_epochs=1, batch_size=8, **QUICK)
    assert torch.equal(weights(a), weights(b))


def test_an_input_must_be_given() -> None:
    with pytest.raises(ValueError, match="needs y"):
        pg.fit(CASES["CVAE"].build(), {"x": binary(8)}, num_epochs=1, batch_size=8, **QUICK)


def test_two_data_variables_need_names() -> None:
    with pytest.raises(ValueError, match="has the data variables"):
        pg.fit(CASES["CVAE"].build(), binary(8), num_epochs=1, batch_size=8, **QUICK)


def test_not_a_pair() -> None:
    with pytest.raises(TypeError, match="expected a pair"):
        pg.fit(torch.nn.Linear(2, 2), binary(8), num_epochs=1)


def returns(change: Any) -> Any:
    """An objective that does something to the values of the ELBO."""

    def objective(pair: Any, data: Any, **settings: Any) -> Any:
        return change(pg.ELBO()(pair, data, **settings))

    return objective


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.detach(), "returned values without a gradient, so nothing can be"),
        (lambda value: torch.ones(8, requires_grad=True), "depends on no learnable parameter of VAE"),
        (lambda value: value.mean(), r"shape \(8,\) for a batch of 8, got shape \(\)"),
        (lambda value: value[:, None], r"one value per datum.*got shape \(8, 1\)"),
        (lambda value: value.sum().item(), "tensor of floating-point numbers, one per datum, got float"),
        (lambda value: value > 0, r"got a tensor of torch\.bool"),
        (lambda value: value / (value < 0).logical_not(), "returned infinite for 8 of 8 data"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::probgen.inference.compute.capture.CaptureWarning")
def test_an_objective_of_ones_own_returns_a_value_a_datum(
    change: Any, message: str, compile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probgen.inference.compute.capture.has_compiler", lambda device: False)
    with pytest.raises((ValueError, TypeError, FloatingPointError), match=message):
        pg.fit(vae(), structured(16), num_epochs=1, batch_size=8, objective=returns(change),
               compile=compile, **QUICK)  # fmt: skip


def test_what_an_objective_returns_shows_before_a_run_begins(tmp_path: Any) -> None:
    for change in (lambda value: value.mean(), lambda value: value.detach(), lambda value: 1.0):
        with pytest.raises((ValueError, TypeError), match="the objective returns"):
            pg.fit(vae(), structured(16), num_epochs=1, objective=returns(change), run_dir=tmp_path,
                   **QUICK)  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_there_must_be_something_to_learn_by_gradients() -> None:
    x = structured(16)
    with pytest.raises(ValueError, match="all 8 parameters of VAE are frozen"):
        pg.fit(vae().requires_grad_(False), x, num_epochs=1, **QUICK)
    pair = vae()
    with torch.inference_mode():
        made_there, rows = vae(), structured(16)
        with pytest.raises(ValueError, match=r"inside torch\.inference_mode\(\).*Call it outside"):
            pg.fit(pair, x, num_epochs=1, **QUICK)
    with pytest.raises(ValueError, match="VAE was made inside"):
        pg.fit(made_there, x, num_epochs=1, **QUICK)
    found = []
    for data in (x, rows, [x, x], [rows, rows]):  # data that were made there are data
        pair = vae()
        with torch.no_grad():
            pg.fit(pair, data, num_epochs=1, **QUICK)
        found.append(weights(pair))
    assert torch.equal(found[0], found[1]) and torch.equal(found[2], found[3])


def test_support_is_checked_in_every_batch_of_a_stream() -> None:
    batches = [structured(8), structured(8), bad(2.0)]
    with pytest.raises(ValueError, match="outside its support"):
        pg.fit(vae(), batches, num_epochs=1, **QUICK)


def test_plain_lines_without_a_terminal(monkeypatch: Any, capsys: Any) -> None:
    from probgen.basics import progress

    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    pg.fit(vae(), structured(16), num_epochs=2, batch_size=8, device="cpu")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("fit VAE 1/2  ELBO -") and "data/s" in lines[0]


def test_a_run_that_showed_lines_shows_its_last(capsys: Any) -> None:
    from probgen.basics.progress import Progress

    with Progress("job", 9) as bar:
        bar._last -= 60
        bar.update(3, "a")
        bar.update(9, "b")
    assert capsys.readouterr().err.splitlines() == ["job 3/9  a", "job 9/9  b"]
