"""Few labels: the objective against sums by hand, batches of fixed composition, the classifier."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from torch import Tensor

import probgen as pg
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import quiet_pyro
from probgen.inference.compute.processes import Group
from probgen.inference.training.batches import Stratified
from tests.fitting import QUICK, structured
from tests.pairs import CASES, HandM2, binary, labels

CPU = torch.device("cpu")


def gradients(pair: Any, value: Tensor) -> list[Tensor]:
    parameters = list(pair.parameters())
    found = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def same(pair: Any, found: Tensor, expected: Tensor) -> None:
    """Value and gradient."""
    assert torch.allclose(found, expected, rtol=1e-10)
    for a, b in zip(gradients(pair, found), gradients(pair, expected), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-12)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No noise: every Gaussian is at its mean, so that sums by hand see what the guide drew."""
    monkeypatch.setattr(
        torch.distributions.normal, "_standard_normal",
        lambda shape, dtype, device: torch.zeros(shape, dtype=dtype, device=device),
    )  # fmt: skip


def m2() -> tuple[HandM2, dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    return HandM2().double(), {"x": binary(9).double(), "y": labels(9)}, torch.arange(9) % 4 == 0


def labelled_bound(pair: HandM2, x: Tensor, y: Tensor) -> Tensor:
    """log p(y) + log p(z) + log p(x | y, z) - log q(z | x, y), at the mean of q(z | x, y)."""
    q = pair.q_z(x=x, y=y)
    z = q.mean
    log_p = pair.p_y().log_prob(y) + pair.p_z().log_prob(z)
    out: Tensor = log_p + pair.p_x(y=y, z=z).log_prob(x) - q.log_prob(z)
    return out


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("alpha", [0, 0.1, 3])
@pytest.mark.parametrize("share", [None, 0.05])
def test_the_objective_is_the_sum_by_hand(alpha: float, share: float | None) -> None:
    """L where y is known, the sum over classes where not, the classifier; value and gradient."""
    pair, data, known = m2()
    x, y = data["x"], data["y"]
    log_q = torch.stack([pair.q_y(x=x).log_prob(torch.full((9,), c)) for c in range(3)])
    each = torch.stack([labelled_bound(pair, x, torch.full((9,), c)) for c in range(3)])
    unlabelled = (log_q.exp() * (each - log_q)).sum(0)
    labelled, own = each[y, torch.arange(9)], log_q[y, torch.arange(9)]
    weight = float(known.double().mean()) if share is None else share
    expected = weight * labelled[known].mean() + (1 - weight) * unlabelled[~known].mean()
    expected = expected + alpha * own[known].mean()
    settings = {} if share is None else {"labelled_share": torch.tensor(share, dtype=torch.float64)}
    goal = pg.SemiSupervised(alpha=alpha, labelled_batch=3)
    same(pair, goal(pair, data, observed={"y": known}, **settings).mean(), expected)
    if share is None:
        by_chance = pg.SemiSupervised(alpha=alpha)
        same(pair, by_chance(pair, data, observed={"y": known}).mean(), expected)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.label == "y"])
def test_without_a_classifiers_term_it_is_the_elbo(name: str) -> None:
    """For any pair with a class: α = 0 and the batch's own share, all known, none, or some."""
    torch.manual_seed(0)
    case = CASES[name]
    pair = case.build().double()
    data = {n: v.double() if v.is_floating_point() else v for n, v in case.data(6).items()}
    for known in (torch.ones(6, dtype=torch.bool), torch.arange(6) % 3 == 0, torch.zeros(6) > 1):
        both = []
        for goal in (pg.SemiSupervised(alpha=0, num_particles=2), pg.ELBO(2)):
            with fixed_seed(1, CPU), quiet_pyro():
                both.append(goal(pair, data, observed={"y": known}).mean())
        same(pair, *both)


@pytest.mark.usefixtures("still")
def test_labels_given_for_all_are_labels_known_for_all() -> None:
    pair, data, _ = m2()
    everywhere = {"y": torch.ones(9, dtype=torch.bool)}
    goal = pg.SemiSupervised()
    same(pair, goal(pair, data).mean(), goal(pair, data, observed=everywhere).mean())
    expected = (
        labelled_bound(pair, **data).mean() + 0.1 * pair.q_y(x=data["x"]).log_prob(data["y"]).mean()
    )
    same(pair, goal(pair, data).mean(), expected)


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize(("labelled", "others"), [(1, 3), (2, 2), (2, 5)])
def test_the_composition_of_batches_changes_no_expectation(labelled: int, others: int) -> None:
    """The average over every batch of so many labelled and unlabelled data is the whole data's value."""
    pair, data, known = m2()
    goal = pg.SemiSupervised(alpha=0.7, labelled_batch=labelled)
    share = torch.tensor(3 / 9, dtype=torch.float64)
    rows = [torch.arange(9)[mask].tolist() for mask in (known, ~known)]
    values = []
    for some in itertools.combinations(rows[0], labelled):
        for rest in itertools.combinations(rows[1], others):
            batch = {name: value[[*some, *rest]] for name, value in data.items()}
            mask = {"y": known[[*some, *rest]]}
            values.append(goal(pair, batch, observed=mask, labelled_share=share).mean())
    same(pair, torch.stack(values).mean(), goal(pair, data, observed={"y": known}).mean())


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("size", [1, 2, 4])
def test_batches_by_chance_change_no_expectation(size: int) -> None:
    """Over every batch of a size, also those without a label."""
    pair, data, known = m2()
    goal, share = pg.SemiSupervised(alpha=0.7), torch.tensor(3 / 9, dtype=torch.float64)
    values = []
    for rows in map(list, itertools.combinations(range(9), size)):
        batch = {name: value[rows] for name, value in data.items()}
        values.append(goal(pair, batch, observed={"y": known[rows]}, labelled_share=share).mean())
    same(pair, torch.stack(values).mean(), goal(pair, data, observed={"y": known}).mean())


class TwoClasses(pg.LatentVariableModel):
    """p(w) p(y) p(x | w, y), q(w | x) q(y | w, x)"""

    def __init__(self) -> None:
        super().__init__()
        w, y, x = pg.Categorical(2), pg.Categorical(3), pg.Bernoulli(6)
        self.p_w, self.p_y = pg.Conditional(w), pg.Conditional(y)
        self.p_x = pg.Conditional(x, {"w": w, "y": y}, hidden=(8,))
        self.q_w = pg.Conditional(w, {"x": x}, hidden=(8,))
        self.q_y = pg.Conditional(y, {"w": w, "x": x}, hidden=(8,))

    def model(self, x: Any = None, w: Any = None, y: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, w=w, y=y), dim=-1):
            w = pyro.sample("w", self.p_w(), obs=w)
            y = pyro.sample("y", self.p_y(), obs=y)
            pyro.sample("x", self.p_x(w=w, y=y), obs=x)

    def guide(self, x: Any = None, w: Any = None, y: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, w=w, y=y), dim=-1):
            if w is None:
                w = pyro.sample("w", self.q_w(x=x))
            if y is None:
                pyro.sample("y", self.q_y(w=w, x=x))


@pytest.mark.parametrize("garbage", [0, 1, -1])
def test_another_class_before_this_one_is_averaged_by_its_q(garbage: int) -> None:
    """Or is the one that is known; what stands where it is not known is not looked at."""
    torch.manual_seed(0)
    pair = TwoClasses().double()
    x, y = binary(4).double(), labels(4)
    w, known = torch.tensor([1, 0, garbage, garbage]), torch.tensor([True, True, False, False])
    data = pg.Dataset({"x": x, "w": w}, observed={"w": known})
    q_w = torch.where(
        known[:, None], torch.nn.functional.one_hot(w.clamp(min=0), 2).double(), pair.q_w(x=x).probs
    )
    q_y = torch.stack([pair.q_y(w=torch.full((4,), c), x=x).probs for c in range(2)])
    expected = (q_w.T[..., None] * q_y).sum(0)
    assert torch.allclose(pg.class_probabilities(pair, data, device="cpu"), expected.detach())
    log_q = (q_w.T * q_y.log()[:, torch.arange(4), y]).sum(0)
    values, masks = {"x": x, "w": w, "y": y}, {"w": known, "y": torch.ones(4) > 0}
    with fixed_seed(0, CPU), quiet_pyro():
        both = [pg.SemiSupervised(alpha=a)(pair, values, observed=masks) for a in (1, 0)]
    same(pair, (both[0] - both[1]).sum(), log_q.sum())


def test_what_stands_before_the_class_is_drawn() -> None:
    """The classifier's term of a stack is the average of log q(y | z1) over q(z1 | x)."""
    torch.manual_seed(0)
    pair = CASES["M1M2"].build().double()
    x, y = binary(1).double(), labels(1)
    few = {"x": x.expand(20_000, -1), "y": y.expand(20_000)}
    with torch.no_grad():
        z1 = pair.q_z1(x=few["x"]).sample()
        by_hand = pair.q_y(z1=z1).log_prob(few["y"])
        term = pg.SemiSupervised(alpha=1e6, num_particles=20_000)(pair, {"x": x, "y": y}) / 1e6
    error = float(by_hand.std()) * (2 / 20_000) ** 0.5
    assert (
        abs(float(term) - float(by_hand.mean())) < 5 * error + 1e-4
    )  # bounds of some 10 nats in 1e6


# ------------------------------------------------------------------ batches


def few_labels(n: int = 50, known: int = 7) -> pg.Dataset:
    x = structured(n)
    mask = torch.arange(n) < known
    return pg.Dataset({"x": x, "y": torch.arange(n) % 2}, observed={"y": mask})


def test_batches_hold_as_many_labels_as_asked_for() -> None:
    source = Stratified(few_labels(), 10, "y", 3)
    assert source.num_batches == 7  # of 43 unlabelled data, 7 a batch
    pieces = list(source.pieces(shuffle=True))
    assert [len(piece) for piece in pieces] == [10] * 6 + [4]
    known = torch.cat([piece[:3] for piece in pieces])
    unknown = torch.cat([piece[3:] for piece in pieces])
    assert sorted(unknown.tolist()) == list(range(7, 50))
    assert torch.bincount(known, minlength=7).tolist() == [3] * 7  # three rounds of seven
    values, masks = source.batch(pieces[0])
    assert masks["y"].tolist() == [True] * 3 + [False] * 7 and values["x"].shape == (10, 6)


def test_processes_share_batches_of_labelled_and_other_data() -> None:
    shares = []
    for rank in range(2):
        group = object.__new__(Group)
        group.rank, group.size = rank, 2
        with fixed_seed(3, CPU):
            shares.append(list(Stratified(few_labels(49), 10, "y", 3, group).pieces(shuffle=True)))
    one, other = shares
    assert len(one) == len(other) == 3
    assert sorted(torch.cat([p[3:] for p in one + other]).tolist()) == list(range(7, 49))
    for a, b in zip(one, other, strict=True):
        assert (a[:3] < 7).all() and (b[:3] < 7).all() and len(a) == len(b) == 10


@pytest.mark.parametrize("compile", [False, True])
def test_two_labels_are_enough_for_two_kinds(
    compile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And captured steps are the steps, with the share as an input."""
    from probgen.inference.compute import capture

    monkeypatch.setattr(capture, "has_compiler", lambda device: False)
    torch.manual_seed(0)
    pair = pg.models.M2(x=pg.Bernoulli(6), y=pg.Categorical(2), z=pg.Normal(2), hidden=(8,))
    data = few_labels(60, 2)
    pg.fit(pair, data, num_epochs=60, batch_size=16, learning_rate=1e-2, compile=compile,
           objective=pg.SemiSupervised(alpha=1, labelled_batch=2), **QUICK)  # fmt: skip
    found = pg.class_probabilities(pair, data.only("x"), device="cpu").argmax(1)
    assert torch.equal(found, data["y"])


def test_a_run_goes_on(tmp_path: Any) -> None:
    settings: Any = {"batch_size": 16, "learning_rate": 1e-2, **QUICK,
                     "objective": pg.SemiSupervised(alpha=1, labelled_batch=2)}  # fmt: skip

    def run(epochs: int, **where: Any) -> list[float]:
        torch.manual_seed(0)
        pair = CASES["M2 of the library"].build()
        return pg.fit(pair, few_labels(60, 5), num_epochs=epochs, **settings, **where).elbo

    whole = run(6)
    run(3, run_dir=tmp_path)
    assert run(6, run_dir=tmp_path, resume=True) == whole
    assert "SemiSupervised('y', alpha=1" in str(
        pg.load_run(tmp_path).config["settings"]["objective"]
    )


# ------------------------------------------------------------------ the classifier


def test_class_probabilities_are_the_guides() -> None:
    pair, data, _ = m2()
    found = pg.class_probabilities(pair, data, device="cpu")
    expected = pair.q_y(x=data["x"]).probs.detach()
    assert torch.allclose(found, expected) and torch.allclose(found.sum(1), torch.ones(9).double())
    assert torch.equal(found, pg.class_probabilities(pair, data["x"], num_samples=1, device="cpu"))


def test_class_probabilities_average_over_what_is_drawn_before(monkeypatch: Any) -> None:
    from probgen.inference.queries import classification

    torch.manual_seed(0)
    pair = CASES["ADGM"].build().double()
    x = binary(5).double()
    found = pg.class_probabilities(pair, x, num_samples=4000, device="cpu")
    assert torch.equal(found, pg.class_probabilities(pair, x, num_samples=4000, device="cpu"))
    with torch.no_grad():
        a = pair.q_a(x=x).sample((4000,))
        draws = pair.q_y(a=a, x=x.expand(4000, 5, 6)).probs
    error = draws.std(0) / 4000**0.5
    assert ((found - draws.mean(0)).abs() < 5 * 2**0.5 * error + 1e-12).all()
    monkeypatch.setattr(classification, "ROWS", 8000)  # two data a pass
    again = pg.class_probabilities(pair, x, num_samples=4000, device="cpu")
    assert ((again - draws.mean(0)).abs() < 5 * 2**0.5 * error + 1e-12).all()


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -1}, "alpha must be a finite number of at least 0, got -1"),
        ({"alpha": np.inf}, "alpha must be a finite number"),
        ({"alpha": "much"}, "alpha must be a finite number"),
        ({"labelled_batch": 0}, "labelled_batch must be an int of at least 1, got 0"),
        ({"num_particles": 0}, "num_particles must be an int of at least 1"),
    ],
)
def test_settings(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pg.SemiSupervised(**settings)


def test_what_is_wrong_shows_before_a_run_begins(tmp_path: Any) -> None:
    goal = pg.SemiSupervised()
    settings: Any = {"num_epochs": 1, "batch_size": 10, "objective": goal, **QUICK}
    pair = CASES["M2 of the library"].build()
    with pytest.raises(ValueError, match="the validation data have no y"):
        pg.fit(pair, few_labels(), validation=structured(9), run_dir=tmp_path / "a", **settings)
    pair, known = CASES["mixture"].build(), {"y": torch.arange(50) < 9}
    data = pg.Dataset({"x": torch.randn(50, 6), "y": labels(50)}, observed=known)
    with pytest.raises(ValueError, match=r"the guide has no factor q\(y"):
        pg.fit(pair, data, run_dir=tmp_path / "b", **settings)
    assert not list(tmp_path.glob("*/config.json"))


@pytest.mark.parametrize("y", [pg.Normal(3), pg.Categorical(3, (2,)), "ten"])
def test_a_class_is_a_scalar_categorical(y: Any) -> None:
    builds: list[Any] = [pg.models.M2, pg.models.M1M2, pg.models.ADGM]
    for build in builds:
        names = {"M2": ["z"], "M1M2": ["z1", "z2"], "ADGM": ["z", "a"]}[build.__name__]
        with pytest.raises(TypeError, match=r"y must be a scalar pg\.Categorical"):
            build(x=pg.Bernoulli(6), y=y, **{name: pg.Normal(2) for name in names})


def fit_m2(data: Any, **settings: Any) -> Any:
    pair = pg.models.M2(x=pg.Bernoulli(6), y=pg.Categorical(2), z=pg.Normal(2), hidden=(8,))
    goal = pg.SemiSupervised(**settings)
    return pg.fit(pair, data, num_epochs=1, batch_size=10, objective=goal, **QUICK)


def test_data_without_what_it_takes() -> None:
    with pytest.raises(ValueError, match=r"the data have no y\. Give labels with a mask"):
        fit_m2(structured(20))
    with pytest.raises(
        ValueError, match="labelled_batch=10 leaves no unlabelled data in a batch of 10"
    ):
        fit_m2(few_labels(50, 20), labelled_batch=10)
    with pytest.raises(
        ValueError, match="labelled_batch=8, but y is known for 7 data; use labelled_batch=7"
    ):
        fit_m2(few_labels(), labelled_batch=8)
    with pytest.raises(ValueError, match=r"y is known for none of the data.*or use pg\.ELBO"):
        fit_m2(few_labels(50, 0), labelled_batch=3)
    with pytest.raises(ValueError, match="labelled_batch=None"):
        fit_m2([few_labels(10)] * 2, labelled_batch=3)
    with pytest.warns(UserWarning, match="y is known for all data, so this is supervised learning"):
        fit_m2(few_labels(50, 50), labelled_batch=3)
    pair = CASES["mixture"].build()
    with pytest.raises(ValueError, match=r"the guide has no factor q\(y \| ...\)"):
        pg.SemiSupervised()(pair, CASES["mixture"].data(4))
    with pytest.raises(ValueError, match=r"no guide factor q\(y \| ...\), so it does not classify"):
        pg.class_probabilities(pair, CASES["mixture"].data(4))
    with pytest.raises(ValueError, match=r"no guide factor q\(y \| ...\), so it does not classify"):
        pg.class_probabilities(CASES["CVAE of the library"].build(), CASES["CVAE"].data(4))
    with pytest.raises(ValueError, match="SemiSupervised: y is not given"):
        pg.SemiSupervised()(pair, {"x": torch.zeros(2, 6)})


def test_a_fit_of_data_drawn_anew_leaves_the_random_state() -> None:
    data = pg.Dataset(
        {"x": structured(32) * 0.9, "y": torch.arange(32) % 2},
        observed={"y": torch.arange(32) < 4}, redrawn=("x",),
    )  # fmt: skip
    before = torch.get_rng_state()
    pair = CASES["M2"].build()
    after_weights = torch.get_rng_state()
    pg.fit(pair, data, num_epochs=1, objective=pg.SemiSupervised(), **QUICK)
    assert torch.equal(after_weights, torch.get_rng_state())
    torch.set_rng_state(before)
