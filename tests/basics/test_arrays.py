"""Arrays of every kind: the numbers that were given, or an error that names the way out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import probgen as pg

WHOLE = np.random.default_rng(0).integers(0, 9, (6, 2))
PLAIN = WHOLE.astype(np.float32)


def inference() -> torch.Tensor:
    with torch.inference_mode():
        return torch.from_numpy(PLAIN) + 0


WORKS: dict[str, Callable[[], Any]] = {
    "lists": PLAIN.tolist,
    "list of tensors": lambda: list(torch.from_numpy(PLAIN)),
    "float64": lambda: PLAIN.astype(np.float64),
    "float16": lambda: PLAIN.astype(np.float16),
    "longdouble": lambda: PLAIN.astype(np.longdouble),
    "big-endian": lambda: PLAIN.astype(">f8"),
    "big-endian integers": lambda: WHOLE.astype(">u2"),
    "reversed": lambda: PLAIN[::-1, ::-1].copy()[::-1, ::-1],
    "transposed": lambda: PLAIN.T.copy().T,
    "strided": lambda: np.repeat(PLAIN, 3, 1)[:, ::3],
    "read-only": lambda: np.broadcast_to(PLAIN, (6, 2)),
    "memory-mapped": lambda: np.asarray(PLAIN).view(np.memmap),
    "matrix": lambda: np.asmatrix(PLAIN),
    "mask without cells": lambda: np.ma.array(PLAIN, mask=False),
    "frame": lambda: pd.DataFrame(PLAIN),
    "frame of several types": lambda: pd.DataFrame({"a": PLAIN[:, 0], "b": list(map(int, PLAIN[:, 1]))},
                                                   dtype=object),
    "frame of nullable integers": lambda: pd.DataFrame(WHOLE).astype("Int64"),
    **{f"numpy {kind}": partial(WHOLE.astype, kind) for kind in
       ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")},
    **{f"torch {kind}": partial(torch.from_numpy(WHOLE).to, getattr(torch, kind)) for kind in
       ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "bfloat16",
        "float32", "float64", "float8_e4m3fn", "float8_e5m2")},
    "requires gradients": lambda: torch.from_numpy(PLAIN).requires_grad_(),
    "result of a graph": lambda: torch.from_numpy(PLAIN).requires_grad_() * 1,
    "parameter": lambda: torch.nn.Parameter(torch.from_numpy(PLAIN)),
    "inference": inference,
    "expanded": lambda: torch.from_numpy(PLAIN)[:, :, None].expand(6, 2, 3)[:, :, 1],
    "lazily negated": lambda: torch.complex(torch.zeros(6, 2), -torch.from_numpy(PLAIN)).conj().imag,
}  # fmt: skip

MASKED: Any = np.ma.array(PLAIN, mask=np.eye(6, 2, dtype=bool))
X = torch.from_numpy(PLAIN)

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "masked": (lambda: MASKED, "masked array with 2 masked cells"),
    "sparse": (lambda: X.to_sparse(), r"is a sparse tensor; give a plain one, as by \.to_dense"),
    "sparse rows": (lambda: X.to_sparse_csr(), "is a sparse tensor"),
    "meta": (lambda: X.to("meta"), "is a meta tensor; give a plain one that has values"),
    "quantized": (lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.qint8), "is a quantized tensor"),
    "nested": (lambda: torch.nested.nested_tensor([X[0], X[1, :1]]), "is a nested tensor"),
    "masked tensor": (lambda: torch.masked.masked_tensor(X, X > 3), "is a masked tensor"),
    "complex": (lambda: X + 1j, "must be a real array"),
    "complex array": (lambda: PLAIN + 1j, "real and imaginary parts"),
    "large": (lambda: np.full((6, 2), 2**63, np.uint64), "end at 2\\*\\*63 - 1"),
    "large tensor": (lambda: torch.full((6, 2), 2**63, dtype=torch.uint64), "end at 2\\*\\*63 - 1"),
    "objects": (lambda: np.array([[1, None]] * 6, object), "an array of object"),
    "huge objects": (lambda: np.array([[1, 2**60 + 1]] * 6, object), "an array of object"),
    "text": (lambda: np.array([["a", "b"]] * 6), "code text as numbers"),
    "dates": (lambda: np.array([["2020", "2021"]] * 6, "M8[D]"), "count days or seconds"),
    "durations": (lambda: np.ones((6, 2), "m8[s]"), "divide by a unit"),
    "fields": (lambda: np.ones(6, [("a", float), ("b", float)]), "it has fields"),
    "categories": (lambda: pd.DataFrame({"a": list("abcabc"), "b": 1.0}), "an array of object"),
    "missing": (lambda: pd.DataFrame({"a": [1, None] * 3, "b": 1}, dtype=object), "array of object"),
}  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> Any:
    torch.manual_seed(0)
    return pg.models.FactorAnalysis(x=pg.Normal(2), z=pg.Normal(1))


def exact(pair: Any, x: Any) -> Any:
    return pg.log_marginal_likelihood(pair, x, method="exact", device="cpu", precision="float64")


@pytest.mark.parametrize("name", WORKS)
def test_the_values_are_those_that_were_given(name: str, pair: Any) -> None:
    """log N(x | mean, W Wᵀ + D) of the values, whatever holds them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        value = WORKS[name]()
    held = pg.Dataset({"x": value})["x"]
    assert torch.equal(held.double(), X.double()) and not held.requires_grad
    score = exact(pair, {"x": value})
    assert np.array_equal(score.log_prob, exact(pair, X).log_prob)
    result = pg.fit(pair, pg.Dataset({"x": value}), num_epochs=1, batch_size=3, progress=False,
                    device="cpu", compile=False)  # fmt: skip
    assert np.isfinite(result.elbo[0])


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_plain_numbers_is_refused(name: str, pair: Any) -> None:
    make, message = REFUSED[name]
    value = make()
    for use in (
        lambda: pg.Dataset({"x": value}),
        lambda: pg.fit(pair, {"x": value}, num_epochs=1, progress=False, device="cpu"),
        lambda: exact(pair, {"x": value}),
        lambda: pg.encode(pair, {"x": value}, device="cpu"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            use()


def test_ragged_lists_and_objects_that_raise() -> None:
    class Broken:
        def __array__(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no array of mine")

    with pytest.raises(
        ValueError, match=r"x \(list\) cannot be converted to an array.*rows of one length"
    ):
        pg.Dataset({"x": [[1.0], [2.0, 3.0]]})
    with pytest.raises(TypeError, match="cannot be converted to an array: no array of mine"):
        pg.Dataset({"x": Broken()})
    with pytest.raises(TypeError, match=r"a single torch\.float64 of shape \(\)"):
        pg.Dataset({"x": 3.0})


def test_masks_are_never_dropped_without_a_word(pair: Any) -> None:
    """Masked cells hold any numbers at all; they must not be learned from, scored or predicted."""
    refused = pytest.raises(ValueError, match=r"masked array with [12] masked cells")
    with refused:
        pg.fit(pair, MASKED, num_epochs=1, progress=False, device="cpu")
    with refused:
        exact(pair, MASKED)
    with refused:
        pg.Dataset({"x": [MASKED[0], MASKED[1]]})
    with refused:
        pg.Dataset({"x": [[MASKED[0]], (MASKED[1],)]})
    with refused:
        pg.Dataset({"x": [[1.0, np.ma.masked], [2.0, 3.0]]})
    with refused:
        pg.Dataset({"y": np.ma.array([0, 1], mask=[False, True])})
    m2 = pg.models.M2(x=pg.Normal(2), y=pg.Categorical(2), z=pg.Normal(1), hidden=(2,))
    with refused:
        m2.sample(2, y=np.ma.array([0, 1], mask=[False, True]))  # type: ignore[arg-type]
    with refused:
        pg.models.PPCA(x=pg.Normal(2), z=pg.Normal(1)).set_maximum_likelihood(MASKED)
    made = pg.SemiSupervisedClassifier("m2", num_epochs=1, hidden=(2,), latents=1, device="cpu")
    y = [0, 1, -1, -1, 0, 1]
    with refused:
        made.fit(MASKED, y)
    made.fit(PLAIN, y)
    for use in (made.predict, made.predict_proba, made.transform, made.to_x, made.from_x):
        with refused:
            use(MASKED)
    with refused:
        made.score(MASKED, y)
    with refused:
        pg.Score.closed_form(
            np.ma.array(np.zeros(6), mask=[True] + 5 * [False]), pg.Dataset({"x": X})
        )
    with refused:
        pg.calibration_error(np.ma.array(np.eye(2), mask=np.eye(2, dtype=bool)), [0, 1])


def test_moments_may_be_arrays() -> None:
    data = pg.Dataset({"x": PLAIN}).standardized(mean=[1.0, 2.0], scale=np.array([2.0, 4.0]))  # type: ignore[arg-type]
    assert torch.equal(data["x"], (X - torch.tensor([1.0, 2.0])) / torch.tensor([2.0, 4.0]))


@pytest.mark.parametrize("kind", ["uint16", "uint64", ">i4", "longdouble"])
def test_files_of_odd_numbers(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", WHOLE.astype(kind))
    data = pg.load(tmp_path / "x.npy", split=(0, 0)).train
    assert sorted(map(tuple, data["x"].tolist())) == sorted(map(tuple, WHOLE.tolist()))
