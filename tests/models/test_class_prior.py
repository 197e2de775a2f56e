"""p(y) of models with classes: learned from all rows, uniform, or given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

import probgen as pg
from probgen.pair import LatentVariableModel
from tests.classifiers import quick

KINDS: Any = {
    "m2": lambda **how: pg.models.M2(
        pg.Normal(3), pg.Categorical(3), pg.Normal(2), hidden=(4,), **how
    ),
    "m1+m2": lambda **how: pg.models.M1M2(
        pg.Normal(3), pg.Categorical(3), pg.Normal(2), pg.Normal(2), hidden=(4,), hidden_class=(4,),
        **how,
    ),
    "adgm": lambda **how: pg.models.ADGM(
        pg.Normal(3), pg.Categorical(3), pg.Normal(2), pg.Normal(2), hidden=(4,), **how
    ),
}  # fmt: skip


def shares(pair: LatentVariableModel) -> Any:
    with torch.no_grad():
        return pair.factors("p")["y"]().probs.reshape(-1).double().numpy()


@pytest.fixture(scope="module")
def unbalanced() -> Any:
    """180 rows of one class and 20 of another, four of each labelled: N(±1.6, 1) in two columns."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [180, 20])
    x = rng.normal(size=(200, 2)) + np.where(y == 1, 1.6, -1.6)[:, None]
    known = np.full(200, -1)
    for kind in (0, 1):
        known[rng.choice(np.flatnonzero(y == kind), 4, replace=False)] = kind
    return x, y, known


@pytest.mark.parametrize("method", ["m2", "adgm", "m1+m2"])
def test_balanced_labels_of_unbalanced_rows(method: str, unbalanced: Any) -> None:
    """The shares are those of the rows, not those of the labels.

    The best rule of all has an accuracy known in closed form, from one Gaussian projection.
    """
    x, y, known = unbalanced
    settings: dict[str, Any] = {"num_epochs": 300, "hidden": (16,), "latents": 2}
    made = quick(method, **settings).fit(x, known)
    assert shares(made.pair_) == pytest.approx([0.9, 0.1], abs=0.04)
    apart = 1.6 * np.sqrt(2)  # half the distance of the means
    cut = np.log(9) / (2 * apart)
    best = 0.9 * norm.cdf(apart + cut) + 0.1 * norm.cdf(apart - cut)
    assert made.score(x, y) > max(best - 0.03, np.mean(y == 0))


def test_where_the_objective_is_largest() -> None:
    """At the shares of the classes among all rows, with one further row of each."""
    from probgen.inference.objectives.class_shares import LearnedClassShares

    torch.manual_seed(0)
    pair = KINDS["m2"](class_prior="learned").double()
    x, y = torch.randn(40, 3).double(), torch.arange(40) % 3
    known = torch.arange(40) < 12
    with torch.no_grad():
        q = pair.q_y(x=x).probs
    counts = torch.where(known[:, None], torch.eye(3).double()[y], q).sum(0)
    pi = (counts + 1) / (40 + 3)
    goal = LearnedClassShares(40, alpha=1.0, analytic_kl=True)
    outputs = pair.p_y.outputs

    def gradient(logits: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            outputs.fill_(1.0)
            scale = float(pair.p_y._outputs({})[0])
            outputs.copy_((logits / scale).reshape(outputs.shape))
        value = goal(pair, {"x": x, "y": y}, observed={"y": known}).mean()
        (found,) = torch.autograd.grad(value, outputs)
        return found / scale

    assert gradient(pi.log()).abs().max() < 1e-12
    # Anywhere else it is the difference of the shares, by hand.
    other = torch.tensor([0.2, 0.5, 0.3]).double()
    expected = (counts + 1) / 40 - (40 + 3) / 40 * other
    assert torch.allclose(gradient(other.log()).reshape(-1), expected, atol=1e-12)


def test_a_batch_of_the_labelled_counts_as_all_do() -> None:
    """Batches with more labels than chance brings move p(y) as the whole data do, on average."""
    from probgen.inference.objectives.class_shares import LearnedClassShares

    torch.manual_seed(0)
    pair = KINDS["m2"](class_prior="learned").double()
    x, y = torch.randn(40, 3).double(), torch.arange(40) % 3
    known = torch.arange(40) < 10

    def gradient(rows: torch.Tensor, **batch: Any) -> torch.Tensor:
        goal = LearnedClassShares(40, alpha=1.0, analytic_kl=True, **batch)
        value = goal(
            pair, {"x": x[rows], "y": y[rows]}, observed={"y": known[rows]},
            labelled_share=torch.tensor(0.25).double(),
        ).mean()  # fmt: skip
        return torch.autograd.grad(value, pair.p_y.outputs)[0]

    whole = gradient(torch.arange(40))
    # Ten labelled with each ten of the thirty others: every row as often as it should be.
    parts = [
        gradient(torch.cat([torch.arange(10), torch.arange(10 * i, 10 * i + 10)]), labelled_batch=10)
        for i in (1, 2, 3)
    ]  # fmt: skip
    assert torch.allclose(torch.stack(parts).mean(0), whole, atol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_uniform_learned_or_given(name: str) -> None:
    uniform, learned = KINDS[name](), KINDS[name](class_prior="learned")
    assert shares(uniform) == pytest.approx([1 / 3] * 3)
    assert shares(learned) == pytest.approx([1 / 3] * 3)
    assert "p_y.outputs" in learned.state_dict() and "p_y.outputs" not in uniform.state_dict()
    given = KINDS[name](class_prior=(0.7, 0.2, 0.1))
    assert shares(given) == pytest.approx([0.7, 0.2, 0.1], abs=1e-7)
    drawn = given.sample(20_000, seed=0)["y"].bincount() / 20_000
    assert np.allclose(drawn, [0.7, 0.2, 0.1], atol=0.015)


@pytest.mark.parametrize("how", ["learned", (0.7, 0.2, 0.1)])
def test_a_run_directory_builds_it_again(how: Any, tmp_path: Any) -> None:
    pair = KINDS["m2"](class_prior=how)
    data = {"x": torch.randn(20, 3), "y": torch.arange(20) // 8}
    pg.fit(pair, data, num_epochs=3, learning_rate=0.02, run_dir=tmp_path / "run", device="cpu",
           progress=False)  # fmt: skip
    again = pg.load_run(tmp_path / "run").pair
    assert np.array_equal(shares(again), shares(pair))
    assert (shares(pair) == pytest.approx([0.7, 0.2, 0.1], abs=1e-6)) == (how != "learned")


def test_a_classifier_with_shares_of_its_own(unbalanced: Any) -> None:
    x, _, known = unbalanced
    made = quick(num_epochs=3, class_prior=np.array([0.8, 0.2])).fit(x, known)
    assert shares(made.pair_) == pytest.approx([0.8, 0.2], abs=1e-7)
    assert made.get_params()["class_prior"] is made.class_prior
    even = quick(num_epochs=3, class_prior="uniform").fit(x, known)
    assert shares(even.pair_).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("even", r'class_prior must be "learned", "uniform", or the probability of each class'),
        (None, "class_prior must be"),
        (0.5, "class_prior must be"),
        ([0.5], "class_prior must be"),
        ([[0.5, 0.5]], "class_prior must be"),
        ([True, False], "class_prior must be"),
        ([0.5, 0.4], r"sum to one, got \[0.5, 0.4\] \(sum 0.9\)"),
        ([1.0, 0.0], "above 0 that sum to one"),
        ([1.5, -0.5], "above 0 that sum to one"),
        ([float("nan"), 0.5], "above 0 that sum to one"),
        ([0.5, 0.3, 0.2], "class_prior has 3 probabilities, but there are 2 classes"),
    ],
)
def test_shares_refused(prior: Any, message: str, unbalanced: Any) -> None:
    x, _, known = unbalanced
    with pytest.raises(ValueError, match=message):
        quick(num_epochs=1, class_prior=prior).fit(x, known)
    with pytest.raises(ValueError, match="M2: class_prior"):
        pg.models.M2(pg.Normal(2), pg.Categorical(2), pg.Normal(1), class_prior=prior)


def test_m1_has_no_shares(unbalanced: Any) -> None:
    with pytest.raises(ValueError, match='the method is "m1", whose model of the rows has none'):
        quick("m1", num_epochs=1, class_prior=[0.9, 0.1]).fit(unbalanced[0], unbalanced[2])
