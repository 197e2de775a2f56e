"""Tables as text: every line is data or names, and what may be either is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import probgen as pg
from probgen.cli import main as cli


def whole(path: Path, content: str, **settings: Any) -> pg.Dataset:
    """All of a table, in the order of its lines."""
    path.write_text(content)
    data = pg.load(path, split=(0, 0), **settings).train
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(data)))
    return data.subset(order.argsort())


def test_a_line_of_names_and_a_line_of_numbers(tmp_path: Path) -> None:
    named = whole(tmp_path / "a.csv", "a,b\n1,2.5\n3,4.5\n")
    assert named["x"].tolist() == [[1, 2.5], [3, 4.5]]
    plain = whole(tmp_path / "b.csv", "1,2.5\n3,4.5\n")
    assert plain["x"].tolist() == [[1, 2.5], [3, 4.5]]
    # What a data frame without names writes: numbers of columns beside a name.
    numbered = whole(tmp_path / "c.csv", "0,1,2,3,kind\n5,6,7,8,b\n6,7,8,9,a\n", labels="kind")
    assert numbered["x"].tolist() == [[5, 6, 7, 8], [6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ("1.5,2.5,low\n3.5,4.5,high\n", None),
        ("1.5,unknown\n3.5,4.5\n", None),
        ("country,1990,1991\n1,2.5,3.5\n", None),
        ("1990,1991,1992\n0.5,2.5,3.5\n", None),
        ("1990,1995,2000\n0.5,2.5,3.5\n", None),
        ("1990,2000\n0.5,2.5\n", None),
        ("1990,2000\n5,7\n", None),
        ("2002,2001,2000\n5,7,9\n", None),
        ("1990\n0.5\n2.5\n", None),
        ("0,2,5\n0.5,2.5,3.5\n", None),
        ("0,1\n0.5,2.5\n", None),
        ("0\n0.5\n2.5\n", None),
        ("NA,US\n0.5,2.5\n", None),
        ('"1990","1991"\n0.5,2.5\n', None),
    ],
)
def test_a_first_line_that_may_be_either_is_refused(
    content: str, labels: str | None, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"may be names of columns or data.*header=True or header=False"
    ):
        whole(tmp_path / "t.csv", content, labels=labels)


@pytest.mark.parametrize(
    "content",
    ["1990,2005\n1991,2006\n", "5,5\n0.5,2.5\n", "3,7\n2,9\n", "7\n0.5\n", "1990,1990\n0.5,2.5\n"],
)
def test_numbers_that_name_no_columns_are_data(content: str, tmp_path: Path) -> None:
    assert len(whole(tmp_path / "t.csv", content)) == 2


def test_the_answer_is_taken_and_kept(tmp_path: Path) -> None:
    years = "1990,1991\n" + "".join(f"{i},{2 * i}\n" for i in range(9))
    assert len(whole(tmp_path / "t.csv", years, header=True)) == 9
    assert len(whole(tmp_path / "t.csv", years, header=False)) == 10
    first = pg.load(tmp_path / "t.csv", header=True, columns=["1991"])
    assert first.source is not None and first.source["header"] is True
    again = pg.load(**{**first.source, "split": None})
    assert torch.equal(again.train["x"], first.train["x"])
    pair = pg.models.PPCA(x=pg.Normal(1), z=pg.Normal(1))
    pg.fit(pair, first, num_epochs=1, run_dir=tmp_path / "run", progress=False, device="cpu")
    loaded = pg.load_run(tmp_path / "run").load_data()
    assert torch.equal(loaded.train["x"], first.train["x"])
    text = whole(tmp_path / "u.csv", "1.5,low\n2.5,high\n", labels="1", header=False)
    assert text["x"].tolist() == [[1.5], [2.5]] and text["y"].tolist() == [1, 0]
    with pytest.raises(ValueError, match="header must be True, False or None"):
        pg.load(tmp_path / "t.csv", header="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="are for files"):
        pg.load("digits", header=True)


@pytest.mark.parametrize("word", ["NA", "?", "n/a", "null", "-"])
def test_a_missing_value_in_the_first_line_is_a_datum(word: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 1\)|first in line 1\."):
        whole(tmp_path / "t.csv", f"1.5,{word}\n3.5,4.5\n5.5,6.5\n")
    data = whole(tmp_path / "t.csv", f"1.5,{word}\n3.5,4.5\n5.5,6.5\n", columns=["0"])
    assert data["x"].flatten().tolist() == [1.5, 3.5, 5.5]


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("a,a\n1,2\n", {}, "have the same name, 'a'; rename one"),
        ("a, a\n1,2\n", {}, "have the same name, 'a'; rename one"),
        ("a,b,a\n1,2,3\n", {"columns": ["a"]}, "have the same name, 'a'; rename one"),
        ("low,low\n1,2\n", {"labels": "low"}, "header=False"),
        (",a\n0,1.5\n1,2.5\n", {}, "column 1 of t.csv has no name"),
        ("a,b\n1,2\n3,4\n", {"columns": ["a", "a"]}, "columns names 'a' twice"),
        ("a,b\n1,2\n3,inf\n", {}, "1 infinite cells, the first in line 3"),
        ("1.5,2.5\n3.5,4.5,5.5\n", {}, "table"),
    ],
)
def test_columns_that_cannot_be_told_apart(
    content: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as error:
        whole(tmp_path / "t.csv", content, **settings)
    assert message in str(error.value)


def test_unused_columns_may_be_nameless_or_share_a_name(tmp_path: Path) -> None:
    data = whole(tmp_path / "t.csv", ",a,b,b\n0,1.5,x,y\n1,2.5,x,y\n", columns=["a"])
    assert data["x"].flatten().tolist() == [1.5, 2.5]


def test_the_command_line_takes_the_answer(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1990,1991\n" + "".join(f"{i},{i * i}\n" for i in range(9)))
    words = [
        "train", "ppca", "--data", str(tmp_path / "t.csv"), "--var", "z=normal:1", "--epochs", "1",
        "--device", "cpu", "--quiet", "--run-dir", str(tmp_path / "run"),
    ]  # fmt: skip
    asked = CliRunner().invoke(cli.app, words)
    assert isinstance(asked.exception, ValueError) and "--no-header" in str(asked.exception)
    said = CliRunner().invoke(cli.app, [*words, "--header"])
    assert said.exit_code == 0 and not said.exception
    source = pg.load_run(tmp_path / "run").config["data"]["source"]
    assert source["header"] is True and source["columns"] == ["1990", "1991"]


def test_many_columns_are_found_by_name_in_one_look(tmp_path: Path) -> None:
    """Names in a list of 20,000 took two hundred million comparisons: count those that are made."""

    class Name(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return str.__eq__(self, other)

    names = [f"c{i}" for i in range(2_000)]
    row = ",".join(["0.5"] * len(names))
    path = tmp_path / "wide.csv"
    path.write_text(",".join(names) + f"\n{row}\n{row}\n")
    data = pg.load(path, columns=[Name(name) for name in names[::-1]], split=(0, 0))
    assert data.train["x"].shape == (2, 2_000)
    assert Name.compared < 20 * len(names)
