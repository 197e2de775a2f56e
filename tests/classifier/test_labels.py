"""Labels on the way in: different ones stay different, and none becomes another class or unknown."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import probgen as pg

RNG = np.random.default_rng(0)


def table(path: Path, labels: list[str]) -> pg.Dataset:
    """The labels of a file with a row for each, in their order."""
    path.write_text("a,k\n" + "".join(f"{i}.5,{k}\n" for i, k in enumerate(labels)))
    data = pg.load(path, labels="k", split=(0, 0)).train
    return data.subset(data["x"][:, 0].argsort())


TEXTS: dict[str, tuple[list[str], list[Any]]] = {
    "leading zeros": (["007", "7", "007", "8"], ["007", "7", "8"]),
    "leading zeros alone": (["007", "008", "007", "010"], ["007", "008", "010"]),
    "exponents": (["1e5", "100000", "1e5", "7"], ["100000", "1e5", "7"]),
    "decimals": (["1.0", "1", "1.0", "2"], ["1", "1.0", "2"]),
    "beyond floats": ([str(2**53), str(2**53 + 1)], [2**53, 2**53 + 1]),
    "beyond integers": ([str(2**63), str(2**63 + 1), "1e300"], ["1e300", str(2**63), str(2**63 + 1)]),
    "negative zero": (["-0", "0", "1"], ["-0", "0", "1"]),
    "infinity is text among text": (["inf", "low", "inf"], ["inf", "low"]),
    "whole": (["3", "10", "3", "-2"], [-2, 3, 10]),
    "written as floats": (["1.0", "2.0", "1.0"], [1, 2]),
    "written by NumPy": (["0.000e+00", "1.000e+00", "nan"], [0, 1]),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_a_class_by_its_characters(name: str, tmp_path: Path) -> None:
    texts, kinds = TEXTS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = table(tmp_path / "t.csv", texts)
    listed = data.classes.get("y", [0, 1])
    assert sorted(map(str, listed)) == sorted(map(str, kinds))
    assert [type(kind) for kind in listed] == [type(kind) for kind in kinds]
    known = (data.observed or {}).get("y", torch.ones(len(texts), dtype=torch.bool))
    for text, code, there in zip(texts, data["y"].tolist(), known.tolist(), strict=True):
        assert there == (text != "nan")
        kind = listed[code]
        assert (
            not there
            or text == kind
            or ((isinstance(kind, int) and int(float(text)) == kind) or kind > 2**52)
        )


def test_what_may_have_been_meant_otherwise_is_said(tmp_path: Path) -> None:
    for labels, words in (
        (["1", "1.0", "2"], "'1' and '1.0' of t.csv are the same number"),
        (["1", "2", "NA"], "'NA' is a class among the labels"),
    ):
        with pytest.warns(UserWarning, match=words):
            table(tmp_path / "t.csv", labels)
    np.savez(tmp_path / "t.npz", x=np.ones((3, 2)), y=np.array(["a", "a ", "b"]))
    with pytest.warns(UserWarning, match="differ only in spaces"):
        pg.load(tmp_path / "t.npz", split=(0, 0))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([0, 1, np.inf]), "hold inf, which cannot be a class"),
        (np.array([0, 1, 1e300]), r"hold 1e\+300, where float64 cannot represent"),
        (np.array([0, 1, 2**24], np.float32), "where float32 cannot represent"),
        (np.array([0, 1j, 2]), "must be whole numbers or text"),
        (np.array(["0", "1", "inf"]), "hold 'inf', which cannot be a class"),
        (np.array([b"a", b"b", b"\xff"]), "not ASCII text"),
        (np.zeros(3, [("a", int)]), "must be whole numbers or text"),
    ],
)
def test_labels_of_a_file_that_are_no_classes(y: Any, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.ones((3, 2)), y=y)
    with pytest.raises(ValueError, match=message):
        pg.load(tmp_path / "t.npz", split=(0, 0))


def test_large_integers_of_a_file_keep_their_class(tmp_path: Path) -> None:
    kinds = [0, 2**53, 2**53 + 1, 2**63, 2**63 + 1]
    np.savez(tmp_path / "t.npz", x=np.ones((5, 2)), y=np.array(kinds, np.uint64))
    data = pg.load(tmp_path / "t.npz", split=(0, 0)).train
    assert data.classes["y"] == kinds and sorted(data["y"].tolist()) == [0, 1, 2, 3, 4]


def learned(y: Any, unlabelled: Any = -1) -> list[Any]:
    """The classes that a classifier finds."""
    found = pg.SemiSupervisedClassifier(
        "m2", unlabelled=unlabelled, num_epochs=1, hidden=(2,), latents=1, device="cpu"
    ).fit(RNG.normal(size=(len(y), 2)), y)
    return list(found.classes_.tolist())


@pytest.mark.parametrize(
    ("y", "unlabelled", "kinds"),
    [
        ([2**53, 2**53 + 1, -1.0, 2**53], -1, [2**53, 2**53 + 1]),
        ([2**63, 2**63 + 1, -1, 2**63], -1, [2**63, 2**63 + 1]),
        (pd.array([2**53, 2**53 + 1, None], dtype="Int64"), None, [2**53, 2**53 + 1]),
        (["007", "7", "1e5", "100000", ""], "", ["007", "100000", "1e5", "7"]),
    ],
)
def test_the_classifier_keeps_classes_apart(y: Any, unlabelled: Any, kinds: list[Any]) -> None:
    assert learned(y, unlabelled) == kinds


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1e300, 1.0, -1.0, 0.0], "1e\\+300, which is no class"),
        ([np.inf, 1.0, -1.0, 0.0], "y holds inf, which is no class"),
        (np.array([2**24, 3, -1, 2**24], np.float32), "float32 cannot represent all integers"),
        ([True, 1, 0, -1], "mix booleans and numbers"),
        (["a", "a\x00", "b", "b"], "would become 'a'"),
        ([[0], [1, 2], [1]], "one label per row"),
        (np.ma.array([0, 1, 2, -1], mask=[False, False, True, False]), "masked array with 1 masked labels"),
    ],
)  # fmt: skip
def test_labels_that_would_change_are_refused(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learned(y)
