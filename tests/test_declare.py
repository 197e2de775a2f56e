"""declare: the formula, its errors, and the source it writes."""

from __future__ import annotations

import copy
import gc
import itertools
import linecache
import os
import pickle
import traceback
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import probgen as pg
from probgen.formula import FormulaError, parse
from probgen.storage.pair_json import pair_from_json, pair_to_json
from tests.pairs import HIDDEN, binary

VARIABLES: dict[str, Any] = {"y": pg.Categorical(3), "z": pg.Normal(2), "x": pg.Bernoulli(6)}


@pytest.mark.parametrize(
    ("p", "q", "caret", "message"),
    [
        ("p(x, y)", "", 3, "one variable on its left"),
        ("p(z) p(x | z) and", "", 14, "Expected 'p' to begin a factor"),
        ("p(z) p(x | z) q(z)", "", 14, "Expected 'p'"),
        ("p(if)", "", 2, "'if' is a reserved word"),
        ("p(data)", "", 2, "'data' is a reserved word"),
        ("p(p_x)", "", 2, "reserved"),
        ("p(x | x)", "", 6, "depends on itself"),
        ("p(x | z, z)", "", 9, "names 'z' twice"),
        ("p(z) p(x | z) p(x)", "", 16, "'x' has two factors"),
        ("p(z | x) p(x | z)", "", 2, "cycle through z, x"),
        ("p(x", "", 3, "Expected ')' to close p(x, but the formula ends"),
        ("p x", "", 2, "Expected '(' after p"),
        ("p(1)", "", 2, "Expected the name of a variable"),
        ("p(x |)", "", 5, "Expected the name of a variable"),
        ("p()", "", 2, "Expected the name of a variable"),
        ("", "", 0, "no factor"),
        ("p(z) p(w | z)", "q(z | w)", 7, "'w' has no family"),
        ("p(z) p(x | z)", "q(z | v)", 6, "'v' has no family"),
        ("p(z) p(x | z)", "q(z | y)", 6, "'y' is in the guide but not in the model"),
        ("p(x | y)", "q(y | x)", 2, "no factor for"),
        ("p(z) p(x | z)", "", 2, "Nothing infers 'z', a Normal(2)"),
        ("p(z) p(x | z)", "q(z | x", 7, "but the formula ends"),
    ],
)
def test_errors_point_at_the_place(p: str, q: str, caret: int, message: str) -> None:
    names = {n: v for n, v in VARIABLES.items() if n in p + q}
    with pytest.raises(FormulaError) as error:
        pg.declare(p, q, **names)
    text = str(error.value).splitlines()
    assert message in text[0]
    assert text[1].strip() in (p, q)
    assert text[2] == " " * (4 + caret) + "^"
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (("p(z) p(x | z)", "q(z | x)"), {"w": pg.Normal(1)}, "w=Normal.* is in no factor"),
        (("p(z) p(x | z)", "q(z | x)"), {"x": 784}, "x must be a variable such as"),
        (("p(z) p(x | z)", "q(z | x)"), {"p_w": nn.Linear(1, 1)}, "p_w= belongs to no factor"),
        (("p(z) p(x | z)", "q(z | x)"), {"q_x": nn.Linear(1, 1)}, "q_x= belongs to no factor"),
        (("p(z) p(x | z)", "q(z | x)"), {"p_x": pg.Conditional(pg.Normal(6), {"z": pg.Normal(2)})},
         "p_x is a Conditional of Normal"),
        (("p(z) p(x | z)", "q(z | x)"), {"p_x": pg.Conditional(pg.Bernoulli(6), {"y": pg.Normal(2)})},
         "p_x has parents"),
        ((3, ""), {}, "must be text"),
        (("p(x)", None), {}, "must be text"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: Any, variables: Any, message: str) -> None:
    names = {"z": pg.Normal(2), "x": pg.Bernoulli(6), **variables}
    if arguments[0] == "p(x)":
        names.pop("z")
    with pytest.raises((ValueError, TypeError), match=message):
        pg.declare(*arguments, **names)


def test_factors_come_in_any_order() -> None:
    p, q = ["p(y)", "p(z)", "p(x | y, z)"], ["q(y | x)", "q(z | x, y)"]
    seen = set()
    for p_order, q_order in itertools.product(itertools.permutations(p), itertools.permutations(q)):
        pair = pg.declare(" ".join(p_order), " ".join(q_order), hidden=HIDDEN, **VARIABLES)
        assert pg.ELBO()(pair, {"x": binary(4)}).isfinite().all()
        body = pair.source
        assert body.index('pyro.sample("y", self.p_y') < body.index('pyro.sample("x", self.p_x')
        assert body.index('pyro.sample("y", self.q_y') < body.index('pyro.sample("z", self.q_z')
        seen.add(tuple(sorted(pair.factors("p"))))
    assert seen == {("x", "y", "z")}


def test_spaces_are_free() -> None:
    a, b = parse("p( z )p(x|y ,z)", "p"), parse("p(z) p(x | y, z)", "p")
    assert [(f.name, f.parents) for f in a] == [(f.name, f.parents) for f in b]


def test_source_is_a_file_one_can_take_over() -> None:
    """Saved to a file and run, the source is the same model: equal seed, equal weights."""
    torch.manual_seed(2)
    declared = pg.declare(
        "p(y) p(z) p(x | y, z)", "q(y | x) q(z | x, y)", hidden=HIDDEN, **VARIABLES
    )
    namespace: dict[str, Any] = {"__name__": "taken_over"}
    exec(declared.source, namespace)
    torch.manual_seed(2)
    written = namespace["DeclaredPair"]()
    assert repr(written) == repr(declared)
    torch.manual_seed(3)
    a = pg.ELBO()(declared, {"x": (x := binary(4))})
    torch.manual_seed(3)
    binary(4)
    assert torch.equal(a, pg.ELBO()(written, {"x": x}))


def test_settings_appear_in_the_source() -> None:
    pair = pg.declare("p(z) p(x | z)", "q(z | x)", hidden=(7, 3), activation=nn.SiLU,
                      z=pg.Normal(2, scale=2.0), x=pg.Normal((1, 2, 2), scale="shared"))  # fmt: skip
    assert "hidden=(7, 3), activation=torch.nn.SiLU" in pair.source
    assert "z = pg.Normal(2, scale=2.0)" in pair.source
    assert "x = pg.Normal((1, 2, 2), scale='shared')" in pair.source
    assert isinstance(pair.p_x.network.activation, nn.SiLU)
    assert pair.q_z.variable.scale == "network"
    assert pair.p_z().stddev.tolist() == [2.0, 2.0]
    leaky = lambda: nn.LeakyReLU(0.2)  # noqa: E731
    pair = pg.declare("p(z) p(x | z)", "q(z | x)", hidden=(3,), activation=leaky,
                      z=pg.Normal(2), x=pg.Normal(2))  # fmt: skip
    assert "def __init__(self, activation, hidden=(3,))" in pair.source


def test_a_traceback_shows_the_generated_line() -> None:
    pair = pg.declare("p(z) p(x | z)", "q(z | x)", hidden=HIDDEN, z=pg.Normal(2), x=pg.Bernoulli(6))
    try:
        pair.guide(x=torch.zeros(4, 5))
    except ValueError:
        text = traceback.format_exc()
    assert 'z = pyro.sample("z", self.q_z(x=x))' in text
    assert "<probgen pair" in text
    linecache.checkcache()
    assert any(name.startswith("<probgen pair") for name in linecache.cache)


def test_own_networks_factories_and_conditionals() -> None:
    x, z = pg.Bernoulli((1, 4, 4)), pg.Normal(2)
    mine = pg.Conditional(x, {"z": z}, pg.ConvDecoder)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    pair = pg.declare("p(z) p(x | z)", "q(z | x)", x=x, z=z, p_x=mine, q_z=encoder)
    assert pair.p_x is mine and pair.q_z.network is encoder
    assert "def __init__(self, p_x, q_z)" in pair.source
    namespace: dict[str, Any] = {"__name__": "taken_over"}
    exec(pair.source, namespace)
    written = namespace["DeclaredPair"](p_x=mine, q_z=encoder)
    assert repr(written) == repr(pair) and written.q_z.network is encoder
    assert pg.ELBO(3)(pair, {"x": torch.ones(5, 1, 4, 4)}).shape == (5,)


def test_sampling_given_what_depends_on_what_is_drawn_is_refused() -> None:
    pair = pg.declare("p(y) p(z) p(x | y, z)", "q(y | x) q(z | x, y)", hidden=HIDDEN, **VARIABLES)
    with pytest.raises(ValueError, match="x is given but depends on"):
        pair.sample(2, x=binary(3))
    with pytest.raises(TypeError, match="unknown variable 'w'"):
        pair.sample(2, w=binary(3))
    with pytest.raises(ValueError, match="n must be"):
        pair.sample(0)
    assert pair.sample(2, y=torch.tensor([0, 1, 2]))["x"].shape == (2, 3, 6)
    assert pair.sample(2, y=[0, 1])["x"].shape == (2, 2, 6)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"y has values outside its support.*0\.\.2"):
        pair.sample(2, y=torch.tensor([3]))
    with pytest.raises(ValueError, match=r"expects \(data\)"):
        pair.sample(2, y=torch.tensor(1))
    cvae = pg.declare("p(z) p(x | y, z)", "q(z | x, y)", hidden=HIDDEN, **VARIABLES)
    with pytest.raises(ValueError, match="y has no distribution in this model"):
        cvae.sample(2)


def test_formulas_may_run_over_lines() -> None:
    pair = pg.declare("""p(z)
        p(x | z)""", "q(z | x)", hidden=HIDDEN, z=pg.Normal(2), x=pg.Bernoulli(6))  # fmt: skip
    assert pair.factorization("p") == "p(z) p(x | z)"
    with pytest.raises(FormulaError) as error:
        pg.declare("p(z)\np(x | v)", "q(z | x)", z=pg.Normal(2), x=pg.Bernoulli(6))
    _, shown, caret = str(error.value).splitlines()
    assert shown[caret.index("^")] == "v"


@pytest.mark.parametrize("name", ["list", "chr", "model", "guide", "p", "q", "x_", "dist", "print"])
def test_names_of_builtins_are_names(name: str) -> None:
    variables: Any = {name: pg.Normal(2), "x": pg.Bernoulli(6)}
    pair = pg.declare(f"p({name}) p(x | {name})", f"q({name} | x)", hidden=HIDDEN, **variables)
    assert pg.ELBO(2)(pair, {"x": binary(3)}).shape == (3,)


@pytest.mark.parametrize("name", ["super", "fn", "_INPUT", "self", "torch", "pg", "lambda"])
def test_names_that_the_source_needs_are_refused(name: str) -> None:
    with pytest.raises(FormulaError, match="reserved"):
        pg.declare(f"p({name})")


def test_numpys_numbers_stay_out_of_the_source() -> None:
    import numpy as np

    pair = pg.declare("p(z) p(x | z)", "q(z | x)", hidden=[np.int64(3)], z=pg.Normal(2),  # type: ignore[list-item]
                      x=pg.Normal(2, scale=np.float64(0.5)))  # fmt: skip
    assert "np." not in pair.source and pg.ELBO()(pair, {"x": torch.zeros(3, 2)}).shape == (3,)


RAN = "PROBGEN_TEST_RAN"
CODE = f"[__import__('os').environ.update({RAN}='yes'), 3][1]"
"""A number, and a mark that it was run."""


class Hostile:
    """A text of its own: as a size, a scale, a name or a family it would be code in the source."""

    def __repr__(self) -> str:
        return CODE

    __str__ = __repr__

    def __format__(self, how: str) -> str:
        return CODE


class HostileInt(Hostile, int):
    pass


class HostileFloat(Hostile, float):
    pass


class HostileText(Hostile, str):
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def replace(self, *_: Any) -> str:
        return CODE


class HostileNormal(Hostile, pg.Normal):
    pass


HostileNormal.__module__ = pg.Normal.__module__


def _set(variable: pg.Variable, **attributes: Any) -> pg.Variable:
    vars(variable).update(attributes)
    return variable


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": (HostileInt(3),)},
        {"z": pg.Normal(HostileInt(2))},
        {"z": pg.Normal((HostileInt(2), HostileInt(1)))},
        {"z": pg.Normal(2, scale=HostileFloat(0.5))},
        {"z": pg.Normal(2, scale=HostileText("shared"))},  # type: ignore[arg-type]
        {"z": HostileNormal(2)},
        {"z": _set(pg.Normal(2), arguments=lambda: {"event_shape": CODE})},
        {"z": _set(pg.Normal(2), event_shape=(HostileInt(2),))},
        {"z": _set(pg.Normal(2), scale=HostileText("shared"))},
        {"y": pg.Categorical(HostileInt(3))},
        {"y": pg.Categorical(3, (HostileInt(2),))},
        {"y": _set(pg.Categorical(3), num_classes=HostileInt(3))},
        {"x": pg.Bernoulli(HostileInt(4))},
        {HostileText("x"): pg.Bernoulli(4)},
        {HostileText("p_x"): nn.Linear(5, 4)},
        {"activation": HostileText("Tanh")},
    ],
)
def test_no_text_of_a_users_gets_into_the_source(change: dict[str, Any]) -> None:
    os.environ.pop(RAN, None)
    arguments: dict[str, Any] = {"y": pg.Categorical(3), "z": pg.Normal(2), "x": pg.Bernoulli(4)}
    for key, value in change.items():
        arguments.pop(str.__str__(key), None)
        arguments[key] = value
    try:
        pair = pg.declare("p(y) p(z) p(x | y, z)", "q(y | x) q(z | x, y)",
                          **{"hidden": (3,), **arguments})  # fmt: skip
    except (ValueError, TypeError):
        pair = None
    assert RAN not in os.environ
    assert pair is None or "__import__" not in pair.source


def test_a_formula_is_text_and_nothing_else() -> None:
    os.environ.pop(RAN, None)
    pair = pg.declare(HostileText("p(x)"), HostileText(""), x=pg.Bernoulli(2))
    assert pair.factorization("p") == "p(x)" and RAN not in os.environ


def test_numbers_of_any_class_are_numbers() -> None:
    import numpy as np

    two, half = np.int64(2), np.float32(0.5)
    assert repr(pg.Normal(two, scale=half)) == "Normal(2, scale=0.5)"  # type: ignore[arg-type]
    assert repr(pg.Categorical(HostileInt(3), (two,))) == "Categorical(3, (2,))"  # type: ignore[arg-type]
    for bad in (2.0, "2", b"2", True, None, (2.0,), (True,), [None]):
        with pytest.raises(TypeError, match="event_shape"):
            pg.Bernoulli(bad)  # type: ignore[arg-type]
    for bad in (2.0, "2", True, None):
        with pytest.raises(TypeError, match="num_classes"):
            pg.Categorical(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finite and above 0"):
        pg.Normal(2, scale=10**400)


@pytest.mark.parametrize("hidden", [5, (5.0,), (-5,), "500", None])
def test_bad_hidden(hidden: Any) -> None:
    for make in (
        lambda: pg.declare(
            "p(z) p(x | z)", "q(z | x)", hidden=hidden, z=pg.Normal(2), x=pg.Normal(2)
        ),
        lambda: pg.models.VAE(x=pg.Normal(2), z=pg.Normal(2), hidden=hidden),
        lambda: pg.MLP([(2,)], (3,), hidden=hidden),
    ):
        with pytest.raises((ValueError, TypeError), match="hidden"):
            make()


@pytest.mark.parametrize("activation", [nn.ReLU(), "relu", torch.tanh, None, 3, nn])
def test_bad_activation(activation: Any) -> None:
    with pytest.raises(TypeError, match="activation must be a class of modules"):
        pg.models.VAE(x=pg.Normal(2), z=pg.Normal(2), activation=activation)
    with pytest.raises(TypeError, match="activation must be a class of modules"):
        pg.declare("p(z) p(x | z)", "q(z | x)", x=pg.Normal(2), z=pg.Normal(2),
                   activation=activation)  # fmt: skip


# ---------------------------------------------------------------- a name of its own


def mixture(**settings: Any) -> pg.LatentVariableModel:
    torch.manual_seed(0)
    return pg.declare(
        "p(y) p(x | y)", "q(y | x)", hidden=(), y=pg.Categorical(2), x=pg.Normal(2), **settings
    )


def test_a_declared_pair_has_a_name_of_its_own(tmp_path: Path) -> None:
    pair = mixture(name="M2")
    assert pair.name == type(pair).__name__ == "M2"
    assert repr(pair).splitlines()[0] == "M2" and "class M2(pg.LatentVariableModel):" in pair.source
    assert pickle.loads(pickle.dumps(pair)).name == copy.deepcopy(pair).name == "M2"
    with pytest.raises(ValueError, match="M2 has no variable w"):
        pg.fit(pair, {"x": torch.zeros(3, 2), "w": torch.zeros(3)}, num_epochs=1, progress=False)
    score = pg.log_marginal_likelihood(pair, torch.zeros(3, 2), num_samples=2, device="cpu")
    assert score.name == "M2"
    quiet: Any = {"progress": False, "device": "cpu"}
    pg.fit(pair, torch.zeros(4, 2), num_epochs=1, run_dir=tmp_path / "run", **quiet)
    assert pg.load_run(tmp_path / "run").pair.name == "M2"
    assert mixture().name == "DeclaredPair"


def test_names_leave_the_numbers_alone() -> None:
    x = torch.randn(5, 2)
    assert torch.equal(pg.ELBO()(mixture(name="A"), {"x": x}), pg.ELBO()(mixture(), {"x": x}))
    assert type(mixture(name="A")) is not type(mixture(name="B"))


def test_recipes_without_a_name_are_what_they_were() -> None:
    """So that a run directory of before loads, and can be gone on with."""
    recipe = pair_to_json(mixture())
    assert "name" not in recipe and "local" not in recipe
    assert pair_from_json(recipe).name == "DeclaredPair"
    named = pair_to_json(mixture(name="M2"))
    assert named == {**recipe, "name": "M2"} and pair_from_json(named).name == "M2"
    for bad in (3, "a b", "import", ["M2"]):
        with pytest.raises(ValueError, match="name"):
            pair_from_json({**recipe, "name": bad})


@pytest.mark.parametrize(
    "name", ["", "a b", "2M", "_M", "M-2", "é", "M\n", "M: pass\nimport os", "class", "None", "pg",
             "torch", "super", "data"],
)  # fmt: skip
def test_names_that_no_class_can_bear(name: str) -> None:
    with pytest.raises(ValueError, match=r"declare: name=.* (class|reserved)"):
        mixture(name=name)


@pytest.mark.parametrize("word", ["name", "local"])
def test_words_of_declare_are_no_variables(word: str) -> None:
    with pytest.raises(TypeError, match=f"declare: {word} must be"):
        mixture(**{word: pg.Normal(2)})
    with pytest.raises(FormulaError, match="reserved"):
        pg.declare(f"p({word})")


# ---------------------------------------------------------------- what is forgotten again


def test_pairs_that_are_gone_leave_nothing_behind() -> None:
    """150 models of different sources: some hundred bytes each, not the 14 kB of class and lines."""

    def use(number: int) -> None:
        x, z = f"x{number}", f"z{number}"
        variables: Any = {x: pg.Normal(1), z: pg.Normal(1)}
        pg.declare(f"p({z}) p({x} | {z})", f"q({z} | {x})", hidden=(), **variables)

    def kept() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    lines = len(linecache.cache)
    for number in range(20):  # what Pyro and torch keep once
        use(number)
    tracemalloc.start()
    try:
        before = kept()
        for number in range(100, 250):
            use(number)
        assert (kept() - before) / 150 < 2000
    finally:
        tracemalloc.stop()
    assert len(linecache.cache) <= lines + 5


def test_equal_sources_share_a_class_while_it_is_there() -> None:
    one, two = mixture(name="Shared"), mixture(name="Shared")
    assert type(one) is type(two)
    stored = pickle.dumps(one)
    del one, two
    gc.collect()
    again = pickle.loads(stored)
    assert again.name == "Shared" and pg.ELBO()(again, {"x": torch.zeros(2, 2)}).shape == (2,)
    assert type(mixture(name="Shared")) is type(again)
    assert any("class Shared" in "".join(entry[2]) for entry in list(linecache.cache.values())
               if len(entry) > 1)  # fmt: skip


@pytest.mark.filterwarnings("ignore:declare")
@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="pq(xyz|, )ab1_", max_size=24), st.text(alphabet="q(xyz|, )", max_size=16))
def test_any_formula_works_or_is_refused_with_a_message(p: str, q: str) -> None:
    names: Any = {name: pg.Normal(1) for name in "xyzab" if name in p + q}
    message, pair = "", None
    try:
        pair = pg.declare(p, q, hidden=(), **names)
    except ValueError as error:
        message = str(error)
    assert (pair is None) == bool(message)
    if pair is not None:
        given: Any = {name: torch.zeros(1, 1) for name in pair.input_names}
        assert pair.sample(1, **given).keys() == pair.factors("p").keys()
