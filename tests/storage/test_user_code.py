"""Pairs from a Python file, and variables as text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import probgen as pg
from probgen.variables import read_variable, variable_text

GOOD = """
import probgen as pg

class Mine(pg.models.VAE):
    def __init__(self):
        super().__init__(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,))

def build():
    return Mine()

def needs(n):
    return Mine()

def fails():
    return 1 / 0

def wrong():
    return "pair"

ready = Mine()
number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_model.py"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize("builder", ["build", "Mine", "ready"])
def test_a_function_a_class_or_a_pair(file: Path, builder: str) -> None:
    pair = pg.load_pair(f"{file}:{builder}")
    assert pair.name == "Mine" and "class Mine" in pair.source
    assert pair.sample(2)["x"].shape == (2, 6)


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        ("biuld", "has no builder 'biuld'; it defines Mine, build, needs, fails, wrong"),
        ("needs", "must be callable without arguments: missing a required argument: 'n'"),
        ("fails", "failed: ZeroDivisionError: division by zero (line 15 of my_model.py)"),
        ("wrong", "returned str, expected a pair"),
        ("number", "is 3, not a function"),
    ],
)
def test_builders_that_do_not_build(file: Path, builder: str, message: str) -> None:
    before = list(sys.path)
    with pytest.raises(ValueError) as error:
        pg.load_pair(f"{file}:{builder}")
    assert message in str(error.value) and sys.path == before


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def build(:\n", "failed: SyntaxError: .*line 1 of my_model.py"),
        ("import nothing_there\n", "failed: ModuleNotFoundError: No module named 'nothing_there'"),
        ("x = 1\nraise RuntimeError('oh')\n", "failed: RuntimeError: oh .line 2 of my_model.py"),
    ],
)
def test_files_that_fail(file: Path, code: str, message: str) -> None:
    file.write_text(code)
    with pytest.raises(ValueError, match=message):
        pg.load_pair(f"{file}:build")


def test_names_that_are_no_builders(tmp_path: Path) -> None:
    for spec in ("my_model.py", "my_model:build", "vae", "a.py:b-c", ":", "a.py:"):
        with pytest.raises(ValueError, match=r"written file:builder, such as my_model\.py:build"):
            pg.load_pair(spec)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        pg.load_pair(f"{tmp_path}/none.py:build")


@pytest.mark.parametrize(
    "variable",
    [
        pg.Normal(8), pg.Normal((1, 4, 5), "shared"), pg.Normal(3, "isotropic"), pg.Normal(2, 0.1),
        pg.Normal(()), pg.Bernoulli(784), pg.Bernoulli(()), pg.Categorical(10), pg.Categorical(3, (2, 2)),
    ],
)  # fmt: skip
def test_variables_as_text_and_back(variable: pg.Variable) -> None:
    assert read_variable(variable_text(variable)) == variable  # type: ignore[arg-type]


def test_shapes_from_data() -> None:
    assert read_variable("normal::shared", torch.zeros(5, 1, 2, 3)) == pg.Normal(
        (1, 2, 3), "shared"
    )
    assert read_variable("bernoulli", torch.zeros(5, 4)) == pg.Bernoulli(4)
    assert read_variable("categorical", torch.tensor([0, 2])) == pg.Categorical(3)
    assert read_variable("Normal:4", torch.zeros(5, 3)) == pg.Normal(4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gauss:3", "unknown family 'gauss', known are bernoulli, categorical, normal, poisson"),
        ("", "unknown family ''"),
        ("normal", "needs its shape, such as normal:8"),
        ("categorical", "needs its number of classes"),
        ("normal:0", "'0' is not a size"),
        ("normal:-3", "'-3' is not a size"),
        ("normal:3x", "'' is not a size"),
        ("normal:²", "is not a size"),
        ("normal:8:big", "neither network, shared, isotropic nor a number"),
        ("normal:8:-1", "finite and above 0"),
        ("normal:8:nan", "finite and above 0"),
        ("normal:8:shared:9", "'9' is one part too many"),
        ("bernoulli:8:shared", "one part too many"),
        ("categorical:1", "at least 2"),
    ],
)
def test_variables_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        read_variable(text)
    assert message in str(error.value)
