"""What is read off a pair: which latents data inform, what must be given, and what is said of it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import probgen as pg
from probgen.structure import uninformed
from tests.pairs import BY_HAND, CASES

QUIET: Any = {"progress": False, "device": "cpu"}


def regression(**settings: Any) -> pg.LatentVariableModel:
    torch.manual_seed(0)
    return pg.declare(
        "p(w) p(y | w, x)", "q(w)", hidden=(), w=pg.Normal(3), y=pg.Normal(1, scale=2.0),
        x=pg.Normal(2), **settings,
    )  # fmt: skip


def rows(n: int = 12) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    x = torch.randn(n, 2)
    return {"x": x, "y": x @ torch.tensor([[1.0], [-2.0]])}


# ---------------------------------------------------------------- latents that no datum informs


def test_one_guide_for_all_data_is_refused_unless_it_is_meant() -> None:
    with pytest.warns(UserWarning, match=r"w is drawn anew for each datum, and the guide q\(w\)"):
        pair = regression()
    assert "drawn anew for each datum, from one guide for all data" in repr(pair)
    with pytest.raises(
        ValueError, match=r"(?s)no data inform w .* one value for all data .* local=True"
    ):
        pg.fit(pair, rows(), num_epochs=1, **QUIET)
    # A stream of batches says so too.
    with pytest.raises(ValueError, match="no data inform w"):
        pg.fit(pair, [rows()], num_epochs=1, **QUIET)
    assert pg.fit(regression(local=True), rows(), num_epochs=1, **QUIET).elbo


@pytest.mark.filterwarnings("ignore:declare")
@pytest.mark.parametrize("local", [False, True])
def test_the_score_of_such_a_pair_is_right(local: bool) -> None:
    """y = a·w + b·x + c + noise with w ~ N(0, I) anew in each row: y ~ N(b·x + c, |a|² + σ²)."""
    pair, data = regression(local=local), rows()
    for_w, for_x = pair.p_y.network.layers[0].weight.detach().split([3, 2], -1)
    mean = data["x"] @ for_x.T + pair.p_y.network.layers[0].bias.detach()
    exact = dist.Normal(mean, (for_w.square().sum() + 4).sqrt()).log_prob(data["y"]).squeeze(-1)
    score = pg.log_marginal_likelihood(pair, data, num_samples=4000, device="cpu")
    assert (abs(score.log_prob - exact.numpy()) <= 4.5 * score.standard_error).all()


def test_that_it_is_meant_survives(tmp_path: Path) -> None:
    pair = regression(local=True)
    assert "    local = True" in pair.source
    for twin in (pickle.loads(pickle.dumps(pair)), copy.deepcopy(pair)):
        assert twin.local is True
        assert pg.fit(twin, rows(), num_epochs=1, **QUIET).elbo
    pg.fit(pair, rows(), num_epochs=1, run_dir=tmp_path / "run", **QUIET)
    kept = pg.load_run(tmp_path / "run").pair
    assert kept.local is True and kept.source == pair.source
    again = pg.fit(regression(local=True), rows(), num_epochs=2, run_dir=tmp_path / "run",
                   resume=True, **QUIET)  # fmt: skip
    assert len(again.elbo) == 2


@pytest.mark.parametrize(
    ("p", "q", "names"),
    [
        ("p(w) p(y | w, x)", "q(w | x)", ["w"]),  # an input tells nothing of it
        ("p(x) p(w) p(y | w, x)", "q(w | x)", ["w"]),  # nor does what is independent of it
        ("p(w) p(y | w, x)", "q(w | y, x)", []),
        ("p(g) p(u | g) p(x | u)", "q(u | g)", ["u"]),  # groups: p(u | g) knows g as well
        ("p(u | g) p(x | u)", "q(u | g)", ["u"]),
        ("p(u | g) p(x | u)", "q(u | g, x)", []),
        ("p(a) p(b | a) p(x | b)", "q(b) q(a | b)", ["b", "a"]),
        ("p(a) p(b | a) p(x | b)", "q(b | x) q(a | b)", []),
        ("p(a) p(b) p(x | a, b)", "q(a) q(b | x, a)", ["a"]),
        ("p(c) p(u | c) p(x | c) p(y | u)", "q(c | x) q(u | x)", []),  # by what both depend on
        ("p(z) p(x | z) p(a | x, z)", "q(a | x) q(z | a)", []),  # auxiliary
    ],
)
@pytest.mark.filterwarnings("ignore:declare")
def test_which_latents_no_data_inform(p: str, q: str, names: list[str]) -> None:
    variables: Any = {
        name: pg.Normal(1) for name in "abcguwxyz" if name in p[1:].replace("p(", "(")
    }
    pair = pg.declare(p, q, hidden=(), **variables)
    assert pair.uninformed_names() == names
    assert ("one guide for all data" in repr(pair)) == bool(names)
    data = {name: torch.randn(3, 1) for name in pair.data_names}
    if names:
        with pytest.raises(ValueError, match=f"no data inform {', '.join(names)}"):
            pg.fit(pair, data, num_epochs=1, **QUIET)
    else:
        pg.fit(pair, data, num_epochs=1, **QUIET)


def test_a_latent_is_informed_by_what_it_correlates_with() -> None:
    """Random linear-Gaussian models: what tells of a latent has a covariance with it."""
    generator = torch.Generator().manual_seed(0)
    counts = [0, 0]
    for _ in range(300):
        names = "abcdef"
        edges = (torch.rand(6, 6, generator=generator) < 0.3).tril(-1)  # later on earlier
        weights = edges * (torch.rand(6, 6, generator=generator, dtype=torch.float64) + 0.5)
        root = torch.linalg.inv(torch.eye(6, dtype=torch.float64) - weights)
        covariance, above = root @ root.T, root.abs() > 1e-12
        p = {n: [m for j, m in enumerate(names) if edges[i, j]] for i, n in enumerate(names)}
        latent = int(torch.randint(5, (), generator=generator))
        if not above[latent + 1 :, latent].any():
            continue  # nothing depends on it
        seen = [i for i in range(6) if i != latent and torch.rand((), generator=generator) < 0.4]
        q = {names[latent]: [names[i] for i in seen]}
        tells = [i for i in seen if abs(covariance[i, latent]) > 1e-12 and not above[latent, i]]
        assert uninformed(p, q) == ([] if tells else [names[latent]])
        counts[bool(tells)] += 1
    assert min(counts) > 50


def test_a_label_that_is_given_is_not_a_latent() -> None:
    """q(y) is one guess for all unlabelled data; where all have labels it does no harm."""
    with pytest.warns(UserWarning, match="y is drawn anew"):
        pair = pg.declare(
            "p(y) p(z) p(x | y, z)", "q(y) q(z | x, y)", hidden=(),
            y=pg.Categorical(2), z=pg.Normal(1), x=pg.Normal(2),
        )  # fmt: skip
    x, y = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    for observed in (None, {"y": torch.ones(4, dtype=torch.bool)}):
        pg.fit(pair, pg.Dataset({"x": x, "y": y}, observed=observed), num_epochs=1, **QUIET)
    some = {"y": torch.tensor([True, False, True, False])}
    for data in (pg.Dataset({"x": x}), pg.Dataset({"x": x, "y": y}, observed=some)):
        with pytest.raises(ValueError, match="no data inform y"):
            pg.fit(pair, data, num_epochs=1, **QUIET)


@pytest.mark.parametrize("name", CASES)
def test_the_usual_pairs_are_not_hit(name: str) -> None:
    pair = CASES[name].build()
    assert pair.uninformed_names() == [] and pair.local is False


class Regression(pg.LatentVariableModel):
    """p(w) p(y | w, x), q(w), without conditionals; `outside` puts w where only one is drawn."""

    outside = False

    def __init__(self) -> None:
        super().__init__()
        self.loc = torch.nn.Parameter(torch.zeros(2))
        self.raw = torch.nn.Parameter(torch.zeros(2))

    def model(self, x: Any = None, y: Any = None, w: Any = None) -> None:
        prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        if self.outside:
            w = pyro.sample("w", prior)
        with pyro.plate(
            "data", self.batch_size(x=x, y=y, w=w if not self.outside else None), dim=-1
        ):
            if not self.outside:
                w = pyro.sample("w", prior, obs=w)
            pyro.sample("y", dist.Normal((w * x).sum(-1, keepdim=True), 0.5).to_event(1), obs=y)

    def guide(self, x: Any = None, y: Any = None, w: Any = None) -> None:
        posterior = dist.Normal(self.loc, self.raw.exp()).to_event(1)
        if self.outside:
            pyro.sample("w", posterior)
            return
        with pyro.plate("data", self.batch_size(x=x, y=y, w=w), dim=-1):
            if w is None:
                pyro.sample("w", posterior)


class LocalRegression(Regression):
    local = True


def test_pairs_without_conditionals_are_read_by_their_sites() -> None:
    with pytest.raises(ValueError, match="no data inform w in Regression"):
        pg.fit(Regression(), rows(), num_epochs=1, **QUIET)
    for twin in (LocalRegression(), pickle.loads(pickle.dumps(LocalRegression()))):
        assert pg.fit(copy.deepcopy(twin), rows(), num_epochs=1, **QUIET).elbo


class Amortized(Regression):
    """q(w | x, y) whose network begins with zeros: equal for all data, and yet one a datum."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(3, 2)
        torch.nn.init.zeros_(self.net.weight)

    def guide(self, x: Any = None, y: Any = None, w: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y, w=w), dim=-1):
            if w is None:
                loc = self.net(torch.cat([x, y], -1))
                pyro.sample("w", dist.Normal(loc, self.raw.exp()).to_event(1))


class Flow(Amortized):
    """A fixed base distribution, moved by what the data say."""

    def guide(self, x: Any = None, y: Any = None, w: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y, w=w), dim=-1):
            if w is None:
                move = dist.transforms.AffineTransform(self.net(torch.cat([x, y], -1)), 1.0, 1)
                base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
                pyro.sample("w", dist.TransformedDistribution(base, [move]))


@pytest.mark.parametrize("kind", [Amortized, Flow])
def test_equal_is_not_the_same(kind: type[Regression]) -> None:
    assert pg.fit(kind(), rows(), num_epochs=1, **QUIET).elbo


def test_a_site_outside_the_plate_is_not_told_to_move_inside() -> None:
    pair = Regression()
    pair.outside = True
    with pytest.raises(ValueError, match="w is outside") as error:
        pg.fit(pair, rows(), num_epochs=1, **QUIET)
    text = str(error.value)
    assert (
        "one value for all data" in text
        and "Parameter" in text
        and "drawn anew for each datum" in text
    )
    assert "Move it inside" not in text


# ---------------------------------------------------------------- what cannot be read is not claimed


def _one(variable: pg.Variable, **parents: pg.Variable) -> pg.Conditional:
    """A linear conditional with weight one and no bias."""
    made = pg.Conditional(variable, parents, hidden=())
    network: Any = made.network
    layer = network.layers[0]
    torch.nn.init.eye_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    return made


class Chain(pg.LatentVariableModel):
    """z1 ~ N(0, 1), z2 ~ N(z1, 1), x ~ N(z2, 1), with p(z2 | z1) under the name `transition`."""

    def __init__(self) -> None:
        super().__init__()
        z1, z2, x = pg.Normal(1), pg.Normal(1, scale=1.0), pg.Normal(1, scale=1.0)
        self.p_z1 = pg.Conditional(z1)
        self.transition = _one(z2, z1=z1)
        self.p_x = _one(x, z2=z2)
        self.encoder = torch.nn.Linear(1, 1)
        self.q_z1 = _one(z1, z2=z2)
        with torch.no_grad():  # the means of the posterior, and more than its spread
            self.encoder.weight.fill_(2 / 3)
            self.encoder.bias.zero_()
            next(self.q_z1.parameters()).mul_(0.5)

    def prior_z2(self, z1: torch.Tensor) -> Any:
        return self.transition(z1=z1)

    def model(self, x: Any = None, z1: Any = None, z2: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, z1=z1, z2=z2), dim=-1):
            z1 = pyro.sample("z1", self.p_z1(), obs=z1)
            z2 = pyro.sample("z2", self.prior_z2(z1), obs=z2)
            pyro.sample("x", self.p_x(z2=z2), obs=x)

    def guide(self, x: Any = None, z1: Any = None, z2: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, z1=z1, z2=z2), dim=-1):
            if z2 is None:
                z2 = pyro.sample("z2", dist.Normal(self.encoder(x), 1.0).to_event(1))
            if z1 is None:
                pyro.sample("z1", self.q_z1(z2=z2))


class Walk(Chain):
    """The same with a transition that has no parameters and is no module."""

    def prior_z2(self, z1: torch.Tensor) -> Any:
        return dist.Normal(z1, 1.0).to_event(1)


@pytest.mark.parametrize("kind", [Chain, Walk])
def test_a_transition_of_another_name_is_no_input(kind: type[Chain]) -> None:
    """x = z1 + two steps of noise: N(0, 3), exactly."""
    torch.manual_seed(0)
    pair = kind()
    assert pair.input_names == [] and pair.data_names == ["x"]
    assert "an input" not in repr(pair) and repr(pair).count("sampled from the guide") == 2
    assert pair.sample(2)["z2"].shape == (2, 1)
    x = torch.linspace(-2, 2, 5).unsqueeze(-1)
    score = pg.log_marginal_likelihood(pair, x, num_samples=4000, device="cpu")
    exact = dist.Normal(0.0, 3**0.5).log_prob(x.squeeze(-1))
    assert (abs(score.log_prob - exact.numpy()) <= 4.5 * score.standard_error).all()
    assert pg.fit(pair, x, num_epochs=1, **QUIET).elbo


def test_asking_a_pair_leaves_no_trace() -> None:
    pair = Walk().train()
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    assert pair.data_names == ["x"]
    assert torch.equal(torch.rand(2), wanted) and pair.training
    assert copy.deepcopy(pair).data_names == pickle.loads(pickle.dumps(pair)).data_names == ["x"]


class EncoderOnly(Chain):
    """Only the model's conditionals bear their names; the class is summed."""

    def __init__(self) -> None:
        super().__init__()
        y, x = pg.Categorical(2), pg.Normal(1, scale=1.0)
        self.__delattr__("p_z1")
        self.__delattr__("q_z1")
        self.p_x = pg.Conditional(x, {"y": y}, hidden=())
        self.prior = torch.nn.Parameter(torch.zeros(2))

    def model(self, x: Any = None, y: Any = None) -> None:  # type: ignore[override]
        with pyro.plate("data", self.batch_size(x=x, y=y), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.prior), obs=y)
            pyro.sample("x", self.p_x(y=y), obs=x)

    def guide(self, x: Any = None, y: Any = None) -> None:  # type: ignore[override]
        """The class is summed in the model."""


def test_a_class_whose_prior_cannot_be_read_is_summed_all_the_same() -> None:
    """A mixture of two Gaussians; the mask of labels is taken as well."""
    pair = EncoderOnly()
    assert pair.data_names == ["x"] and pair.summed_names == ["y"]
    assert "summed out exactly over 2 classes, in the model" in repr(pair)
    x = torch.linspace(-1, 1, 4).unsqueeze(-1)
    means = pair.p_x(y=torch.tensor([[0], [1]])).mean.detach()  # (classes, 1, 1)
    exact = dist.Normal(means, 1.0).log_prob(x).squeeze(-1).logsumexp(0) - torch.tensor(2.0).log()
    assert torch.allclose(pg.ELBO()(pair, {"x": x}), exact)
    mask = torch.tensor([True, False, True, False])
    pg.fit(pair, pg.Dataset({"x": x, "y": torch.tensor([0, 1, 1, 0])}, observed={"y": mask}),
           num_epochs=1, **QUIET)  # fmt: skip


class Unread(Chain):
    """One latent, whose guide can be read and whose prior cannot."""

    def __init__(self) -> None:
        super().__init__()
        del self.p_z1, self.transition, self.encoder, self.q_z1
        self.q_z2 = _one(pg.Normal(1), x=pg.Normal(1))

    def model(self, x: Any = None, z2: Any = None) -> None:  # type: ignore[override]
        with pyro.plate("data", self.batch_size(x=x, z2=z2), dim=-1):
            prior = dist.Normal(torch.zeros(1), 2.0).to_event(1)
            pyro.sample("x", self.p_x(z2=pyro.sample("z2", prior, obs=z2)), obs=x)

    def guide(self, x: Any = None, z2: Any = None) -> None:  # type: ignore[override]
        with pyro.plate("data", self.batch_size(x=x, z2=z2), dim=-1):
            if z2 is None:
                pyro.sample("z2", self.q_z2(x=x))


def test_pictures_of_a_latent_whose_prior_cannot_be_read(tmp_path: Path) -> None:
    data = pg.Dataset({"x": torch.randn(40, 1)}).split(test=0.5)
    pg.fit(Unread(), data, num_epochs=1, run_dir=tmp_path / "run", **QUIET)
    made = pg.plots.report(pg.load_run(tmp_path / "run", pair=Unread()), data=data)
    assert "latent_scatter" in made.written and "manifold" in made.skipped


def test_an_input_is_still_an_input() -> None:
    for name in ("CVAE", "CVAE of the library"):
        pair = CASES[name].build()
        assert pair.input_names == ["y"] and pair.data_names == ["x", "y"]
    assert BY_HAND["CVAE"]().input_names == ["y"]


# ---------------------------------------------------------------- what may be partly observed


def test_what_print_and_the_refusal_say_of_holes_is_one_thing() -> None:
    """A continuous variable is given for all data or for none, with a guide factor or without."""
    pair = CASES["VAE"].build()
    assert "sampled from the guide, for all data or none" in repr(pair)
    x, z = torch.zeros(4, 6), torch.zeros(4, 2)
    mask = torch.tensor([True, False, True, True])
    for name, out in (("z", ", or leave z out for all data"), ("x", "")):
        data = pg.Dataset({"x": x, "z": z}, observed={name: mask})
        for use in (
            lambda data: pg.fit(pair, data, num_epochs=1, **QUIET),
            lambda data: pg.log_marginal_likelihood(pair, data, num_samples=2, device="cpu"),
        ):
            with pytest.raises(ValueError, match="is given for all data or for none") as error:
                use(data)
            text = str(error.value)
            assert text.endswith(f"Drop those data, or fill the holes{out}.")
            assert "guide factor" not in text
    # Both ways out are open, and a mask without holes is no mask.
    for whole in ({"x": x[mask]}, {"x": x, "z": z}):
        assert pg.fit(pair, whole, num_epochs=1, **QUIET).elbo
    full = pg.Dataset({"x": x, "z": z}, observed={"x": mask | True, "z": mask | True})
    assert torch.isfinite(torch.tensor(pg.fit(pair, full, num_epochs=1, **QUIET).elbo)).all()


def test_the_advice_for_a_class_is_one_that_helps() -> None:
    x, y = torch.zeros(4, 6), torch.zeros(4, dtype=torch.long)
    data = pg.Dataset({"x": x, "y": y}, observed={"y": torch.tensor([True, False, True, True])})
    variables: Any = {"y": pg.Categorical(3), "z": pg.Normal(2), "x": pg.Bernoulli(6), "hidden": ()}
    lacking = pg.declare("p(y) p(z) p(x | y, z)", "q(z | x, y)", **variables)
    with pytest.raises(ValueError, match=r"add a guide factor q\(y \| ...\)"):
        pg.fit(lacking, data, num_epochs=1, **QUIET)
    with_factor = pg.declare("p(y) p(z) p(x | y, z)", "q(z | x, y) q(y | x)", **variables)
    assert pg.fit(with_factor, data, num_epochs=1, **QUIET).elbo


def test_an_input_of_the_guide_alone_informs() -> None:
    """A corrupted copy of the data, which the model does not mention; not an input of the model."""
    model = {"z": (), "x": ("z", "c")}
    assert uninformed(model, {"z": ("x_in",)}) == []
    assert uninformed(model, {"z": ("c",)}) == ["z"]
    assert uninformed(model, {"z": ()}) == ["z"]


def test_a_constant_input_of_the_guide_informs_nothing() -> None:
    """q(w | t) is one distribution for all data if t is constant, also if no conditional has t."""
    assert uninformed({"w": (), "x": ("w",)}, {"w": ("t",)}, constant=["t"]) == ["w"]


class InputOfTheGuide(pg.LatentVariableModel):
    """p(w) p(x | w) with the guide q(w | t), where the model does not use t."""

    def __init__(self) -> None:
        super().__init__()
        self.p_w = pg.Conditional(pg.Normal(1))
        self.p_x = pg.Conditional(pg.Normal(1), {"w": pg.Normal(1)}, hidden=())
        self.q_w = pg.Conditional(pg.Normal(1), {"t": pg.Normal(1)}, hidden=())

    def model(self, x: Any = None, w: Any = None, t: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, w=w, t=t), dim=-1):
            w = pyro.sample("w", self.p_w(), obs=w)
            pyro.sample("x", self.p_x(w=w), obs=x)

    def guide(self, x: Any = None, w: Any = None, t: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, w=w, t=t), dim=-1):
            if w is None:
                pyro.sample("w", self.q_w(t=t))


def test_fit_refuses_a_guide_with_a_constant_input() -> None:
    x = torch.randn(8, 1)
    assert pg.fit(InputOfTheGuide(), {"x": x, "t": x + 1}, num_epochs=1, **QUIET).elbo
    with pytest.raises(ValueError, match="no data inform w"):
        pg.fit(InputOfTheGuide(), {"x": x, "t": torch.ones(8, 1)}, num_epochs=1, **QUIET)
