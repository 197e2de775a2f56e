"""Anything at all: formulas, configurations, arrays, command lines. It works, or says why not."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import probgen as pg
from probgen.cli.parsing import make_pair
from probgen.formula import FormulaError
from probgen.storage.files import read_record, write_record
from probgen.variables import read_variable
from tests.fitting import QUICK, structured

QUIET: Any = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
NAMES = st.sampled_from(["x", "y", "z", "w", "if", "data", "p_x", "x1", "", "é", "0"])
PIECES = st.sampled_from(
    [*"pq()|, ", "p(", "q(", "x", "y", "z", "\n", "p(x)", "p(z) ", "p(x | z)", "\x00"]
)
VARIABLES: dict[str, Any] = {
    "x": pg.Bernoulli(3), "y": pg.Categorical(2), "z": pg.Normal(2), "w": pg.Normal(1, "shared"),
}  # fmt: skip


def says_why(error: BaseException) -> None:
    """The two kinds that users are promised, with words in them."""
    assert isinstance(error, (ValueError, TypeError)), repr(error)
    assert len(str(error)) > 15, repr(error)


@st.composite
def formulas(draw: Any, letter: str) -> str:
    """Products of factors, most of them nearly right."""
    factors = []
    for _ in range(draw(st.integers(0, 4))):
        parents = draw(st.lists(NAMES, max_size=3))
        factors.append(
            f"{letter}({draw(NAMES)}" + (f" | {', '.join(parents)}" if parents else "") + ")"
        )
    return draw(st.sampled_from([" ", "", "  "])).join(factors)


@pytest.mark.filterwarnings("ignore:declare")
@settings(max_examples=200, **QUIET)  # tests/attacks/formulas.py tries 5,000
@given(
    st.one_of(formulas("p"), st.lists(PIECES, max_size=12).map("".join), st.text(max_size=20)),
    st.one_of(formulas("q"), st.lists(PIECES, max_size=8).map("".join)),
    st.sets(st.sampled_from(list(VARIABLES))),
)
def test_formulas(p: str, q: str, names: set[str]) -> None:
    used = {name: VARIABLES[name] for name in names if name in p + q}
    try:
        pair = pg.declare(p, q, hidden=(2,), **used)
    except (ValueError, TypeError) as error:
        says_why(error)
        if isinstance(error, FormulaError):
            lines = str(error).split("\n")
            assert lines[-1].strip() == "^" and 4 <= lines[-1].index("^") <= 4 + max(len(p), len(q))
        return
    given_names = {n: torch.zeros(1, *VARIABLES[n].event_shape) for n in pair.input_names}
    drawn = pair.sample(2, seed=0, **given_names)
    assert set(drawn) == set(pair.factors("p"))
    compile(pair.source, "pair", "exec")


@settings(max_examples=1000, **QUIET)
@given(st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from(["normal", "bernoulli", "categorical", ":", "x", "8", "0", "-1", "1e9",
                              "shared", "nan", "scalar", "99999999999999999999"]), max_size=6).map("".join),
))  # fmt: skip
def test_variables_as_text(text: str) -> None:
    assume(not any(len(part) > 4 and part.isdigit() for part in text.replace("x", ":").split(":")))
    try:
        variable = read_variable(text)
    except (ValueError, TypeError) as error:
        says_why(error)
    else:
        assert isinstance(variable, pg.Variable)


@settings(max_examples=300, **QUIET)
@given(
    st.one_of(st.none(), st.sampled_from(["vae", "ppca", "factor-analysis", "vea", "a.py:b", "vae:b"]), st.text(max_size=6)),
    st.one_of(st.none(), formulas("p")),
    st.lists(st.sampled_from(["x=normal", "z=normal:2", "x=bernoulli", "z", "y=categorical", "=", "z=normal:0"]), max_size=3),
    st.one_of(st.none(), st.sampled_from(["4", "4,4", "none", "", "x", "-1", "4,"])),
    st.one_of(st.none(), st.sampled_from(["tanh", "ReLU", "no", ""])),
)  # fmt: skip
def test_models_of_the_command_line(
    model: str | None, p: str | None, var: list[str], hidden: str | None, activation: str | None
) -> None:
    try:
        pair = make_pair(
            model, p, "q(z | x)", var, hidden, activation, pg.Dataset({"x": structured(8)})
        )
    except (ValueError, TypeError, FileNotFoundError) as error:
        assert len(str(error)) > 15
    else:
        assert isinstance(pair, pg.LatentVariableModel)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    pair = pg.declare("p(z) p(x | z)", "q(z | x)", z=pg.Normal(2), x=pg.Bernoulli(6), hidden=(3,))
    pg.fit(pair, structured(20), num_epochs=1, run_dir=folder, **QUICK)
    return folder


@settings(max_examples=100, **QUIET)
@given(data=st.data())
def test_configurations(run: Path, data: Any) -> None:
    """Anything in the place of anything, with a checksum that fits: refused, or as it was."""
    config = read_record(run / "config.json")
    changed = copy.deepcopy(config)
    place: Any = changed
    while True:
        key = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
        )
        deeper = isinstance(place[key], (dict, list)) and place[key]
        if not deeper or data.draw(st.booleans()):
            break
        place = place[key]
    if isinstance(place, dict) and data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(JSON)
    with tempfile.TemporaryDirectory() as folder:
        for path in run.glob("*.*"):
            if path.is_file():
                (Path(folder) / path.name).write_bytes(path.read_bytes())
        write_record(Path(folder) / "config.json", changed)
        try:
            found = pg.load_run(folder)
            repr(found.pair)
        except pg.RunError as error:
            says_why(error)
        else:
            whole = pg.load_run(run)
            assert found.result.elbo == whole.result.elbo
            assert repr(found.pair) == repr(whole.pair)
            state = whole.pair.state_dict()
            assert all(
                torch.equal(t.to(state[n]), state[n]) for n, t in found.pair.state_dict().items()
            )


ARRAYS = hnp.arrays(
    dtype=st.sampled_from(
        [np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_, np.complex64]
    ),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6),
    elements=None,
)


@settings(max_examples=150, **QUIET)
@given(
    ARRAYS,
    st.sampled_from([pg.Bernoulli(6), pg.Normal(6), pg.Normal((2, 3)), pg.Categorical(3, 4)]),
)
def test_arrays_into_fit_and_scores(x: Any, variable: pg.Variable) -> None:
    pair = pg.models.VAE(x=variable, z=pg.Normal(1), hidden=())
    for use in (
        lambda: pg.fit(pair, x, num_epochs=1, **QUICK),
        lambda: pg.log_marginal_likelihood(pair, x, num_samples=2, device="cpu"),
        lambda: pg.encode(pair, x, device="cpu"),
        lambda: pg.Dataset({"x": x}).split(test=0.3).train.binarized("static"),
    ):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                use()
        except FloatingPointError as error:
            assert "not finite" in str(error) or "log-weights" in str(error)  # values near overflow
        except (ValueError, TypeError) as error:
            says_why(error)


@settings(max_examples=150, **QUIET)
@given(
    st.sampled_from([".npy", ".npz", ".csv"]),
    st.one_of(st.binary(max_size=40), st.text(alphabet="0123456789.,-e\n\"ab ", max_size=60).map(str.encode)),
    st.one_of(st.none(), st.sampled_from(["a", "0", "y"])),
)  # fmt: skip
def test_files_of_any_bytes(suffix: str, content: bytes, labels: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data{suffix}"
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = pg.load(path, labels=labels, split=(0, 0))
        except (ValueError, TypeError) as error:
            says_why(error)
        else:
            assert len(data.train) >= 1
