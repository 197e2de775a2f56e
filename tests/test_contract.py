"""The contract test: every library model and every declared formula goes through all of it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine

import probgen as pg
from probgen.inference.objectives.elbo import log_importance_weights
from probgen.inference.traces import trace_pair
from tests.pairs import BY_HAND, CASES, Case, HandM2

EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
LABELLED = pytest.mark.parametrize(
    "case", [c for c in CASES.values() if c.label], ids=[n for n, c in CASES.items() if c.label]
)


def unlabelled(case: Case, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in data.items() if name != case.label}


def bound(pair: pg.LatentVariableModel, data: Any, seed: int = 1, **settings: Any) -> torch.Tensor:
    torch.manual_seed(seed)
    if pair.objective == "reconstruction":  # a point mass has no bound
        return pg.Reconstruction()(pair, data)
    return pg.ELBO(**settings)(pair, data)


@EVERY
def test_gradients_reach_every_parameter(case: Case) -> None:
    pair, data = case.build(), case.data(12)
    bound(pair, unlabelled(case, data)).sum().backward()
    for name, parameter in pair.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@EVERY
@pytest.mark.parametrize("size", [1, 2])
def test_small_batches_and_particles(case: Case, size: int) -> None:
    pair, data = case.build(), case.data(size)
    for given in (data, unlabelled(case, data)):
        for particles in (1, 4):
            assert bound(pair, given, num_particles=particles).shape == (size,)
            if pair.objective == "elbo":  # a point mass has no weights
                trace = trace_pair(pair, given, num_particles=particles)
                assert log_importance_weights(trace).shape == (particles, size)


@EVERY
def test_any_leading_particle_dims(case: Case) -> None:
    """Two plates of particles left of the data: every site takes them, and shapes stay a datum's."""
    pair, data = case.build(), case.data(3)
    with pyro.plate("outer", 5, dim=-3), pyro.plate("inner", 4, dim=-2):
        guide = poutine.trace(pair.guide).get_trace(**data)
        model = poutine.trace(poutine.replay(pair.model, trace=guide)).get_trace(**data)
    for name, site in model.nodes.items():
        if name in pair.factors("p"):
            value = site["fn"].log_prob(site["value"])
            assert torch.broadcast_shapes(value.shape, (5, 4, 3)) == (5, 4, 3), name
            assert value.isfinite().all(), name


@EVERY
def test_data_do_not_mix(case: Case) -> None:
    """A datum's bound does not depend on the data beside it."""
    pair, data = case.build().double(), case.data(4)
    data = {n: v.double() if v.is_floating_point() else v for n, v in data.items()}
    changed = {name: value.clone() for name, value in data.items()}
    changed["x"][0] = 1 - changed["x"][0]
    before, after = bound(pair, data), bound(pair, changed)
    assert torch.allclose(before[1:], after[1:], rtol=1e-12)
    assert not torch.allclose(before[0], after[0])


@LABELLED
def test_masked_batch_equals_the_two_bounds_apart(case: Case) -> None:
    """Rows with the label get the bound of log p(x, y), the others that of log p(x)."""
    assert case.label
    pair, data = case.build(), case.data(6)
    mask = torch.tensor([True, False, True, False, False, True])
    particles = 3000
    torch.manual_seed(3)
    with torch.no_grad():
        mixed = _draws(pair, data, particles, {case.label: mask})
        supervised = _draws(pair, data, particles, None)
        free = _draws(pair, unlabelled(case, data), particles, None)
    apart = torch.where(mask, supervised, free)
    error = ((mixed.var(0) + apart.var(0)) / particles).sqrt()
    assert ((mixed.mean(0) - apart.mean(0)).abs() <= 4.5 * error + 1e-5).all()
    # And the values under the mask are never looked at, not even as an index.
    data[case.label] = torch.where(mask, data[case.label], torch.tensor(-1))
    torch.manual_seed(3)
    with torch.no_grad():
        assert torch.equal(mixed, _draws(pair, data, particles, {case.label: mask}))


def _draws(pair: Any, data: Any, particles: int, observed: Any) -> torch.Tensor:
    """One bound a particle and datum: the data repeated, one draw each."""
    size = len(data["x"])
    tiled = {n: v.repeat(particles, *[1] * (v.dim() - 1)) for n, v in data.items()}
    masks = {n: m.repeat(particles) for n, m in (observed or {}).items()}
    return pg.ELBO()(pair, tiled, observed=masks).reshape(particles, size)


@LABELLED
def test_all_and_no_rows_labelled(case: Case) -> None:
    """A mask of ones is the supervised importance weight, one of zeros the unsupervised, exactly."""
    assert case.label
    pair, data = case.build().double(), case.data(5)
    data = {n: v.double() if v.is_floating_point() else v for n, v in data.items()}
    none = {case.label: torch.zeros(5, dtype=torch.bool)}
    torch.manual_seed(1)
    masked = pg.ELBO()(pair, data, observed=none)
    assert torch.allclose(masked, bound(pair, unlabelled(case, data)), rtol=1e-12)


@EVERY
def test_state_dict_round_trip(case: Case) -> None:
    pair, data = case.build(), case.data(5)
    torch.manual_seed(7)
    other = case.build()
    other.load_state_dict(pair.state_dict())
    assert torch.equal(bound(pair, data), bound(other, data))


@EVERY
def test_pickle_and_deepcopy(case: Case) -> None:
    pair, data = case.build(), case.data(5)
    for twin in (pickle.loads(pickle.dumps(pair)), copy.deepcopy(pair)):
        assert torch.equal(bound(pair, data), bound(twin, data))
        with torch.no_grad():
            next(iter(twin.parameters())).add_(1.0)
        assert not torch.equal(bound(pair, data), bound(twin, data))


@EVERY
def test_source_recompiles_to_the_same_numbers(case: Case) -> None:
    pair, data = case.build(), case.data(5)
    source = pair.source
    namespace = dict(vars(sys.modules[type(pair).__module__]))
    exec(compile(textwrap.dedent(source), "<source>", "exec"), namespace)
    rebuilt = namespace[source.split("class ")[1].split("(")[0]]
    twin = rebuilt.__new__(rebuilt)
    torch.nn.Module.__init__(twin)
    for name, child in pair.named_children():
        setattr(twin, name, child)
    assert torch.equal(bound(pair, data), bound(twin, data))
    assert torch.equal(pair.sample(2, seed=3, **_inputs(pair, data))["x"],
                       twin.sample(2, seed=3, **_inputs(pair, data))["x"])  # fmt: skip


def _inputs(pair: pg.LatentVariableModel, data: dict[str, torch.Tensor]) -> Any:
    return {name: data[name] for name in pair.input_names}


@pytest.mark.parametrize("name", BY_HAND)
def test_declared_equals_written_by_hand_to_the_bit(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(5)
    declared = case.build()
    torch.manual_seed(5)
    written = BY_HAND[name]()
    for data in (case.data(7), unlabelled(case, case.data(7))):
        ours, theirs = bound(declared, data), bound(written, data)
        assert torch.equal(ours, theirs)
        ours.sum().backward()
        theirs.sum().backward()
    for (a, p), (b, q) in zip(declared.named_parameters(), written.named_parameters(), strict=True):
        assert a == b
        assert p.grad is not None and q.grad is not None and torch.equal(p.grad, q.grad), a
    data = case.data(8)
    fits = [pg.fit(p, data, num_epochs=2, batch_size=4, progress=False)
            for p in (declared, written)]  # fmt: skip
    assert fits[0].elbo == fits[1].elbo


@EVERY
def test_sampling(case: Case) -> None:
    pair = case.build()
    given = _inputs(pair, case.data(4))
    drawn = pair.sample(3, seed=0, **given)
    shape = (3, 4) if given else (3,)
    for name, value in drawn.items():
        assert value.shape == (*shape, *pair.variables[name].event_shape), name
    assert torch.equal(drawn["x"], pair.sample(3, seed=0, **given)["x"])


@EVERY
def test_two_models_do_not_touch_each_other(case: Case) -> None:
    """Training another model in between changes nothing, and nothing enters Pyro's store."""
    alone, beside, other = case.build(), case.build(), case.build()
    beside.load_state_dict(alone.state_dict())
    data = case.data(8)

    def train(pair: pg.LatentVariableModel) -> None:
        pg.fit(pair, data, num_epochs=2, batch_size=4, progress=False)

    train(alone)
    train(other)
    before = {n: v.clone() for n, v in other.state_dict().items()}
    train(beside)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, beside.state_dict()[name])
    for name, value in other.state_dict().items():
        assert torch.equal(value, before[name])
    assert not dict(pyro.get_param_store().items())


def settings() -> tuple[Any, ...]:
    return (
        pyro.settings.get(),
        torch.distributions.Distribution._validate_args,
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
    )


@EVERY
def test_no_process_wide_setting_changes(case: Case) -> None:
    pair, data = case.build(), case.data(6)
    before = settings()
    pg.fit(pair, data, num_epochs=1, batch_size=3, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.UnreliableEstimateWarning)
        if pair.objective == "elbo":
            pg.log_marginal_likelihood(pair, data, num_samples=30)
        else:
            pg.encode(pair, data)
    pair.sample(2, seed=0, **_inputs(pair, data))
    assert pair.training
    assert settings() == before

    def fails(*_: Any, **__: Any) -> torch.Tensor:
        assert not torch.distributions.Distribution._validate_args
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        pg.fit(pair, data, num_epochs=1, batch_size=3, objective=fails, progress=False)
    with pytest.raises(ValueError, match="NaN"):
        pg.log_marginal_likelihood(pair, {**data, "x": data["x"] * torch.nan}, num_samples=30)
    assert settings() == before


def test_a_declared_pair_pickles_into_a_fresh_process(tmp_path: Path) -> None:
    pair, data = CASES["convolutional M2"].build(), CASES["convolutional M2"].data(3)
    file = tmp_path / "pair.pickle"
    file.write_bytes(pickle.dumps((pair, data)))
    code = (
        "import pickle, sys, torch, probgen as pg\n"
        f"pair, data = pickle.loads(open({str(file)!r}, 'rb').read())\n"
        "torch.manual_seed(1)\n"
        "print(pg.ELBO()(pair, data).tolist())\n"
        "print(pair)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, rest = done.stdout.split("\n", 1)
    assert first == str(bound(pair, data).tolist())
    assert rest.strip() == repr(pair)


def test_a_pair_without_conditionals() -> None:
    """The contract asks for nothing but model and guide: plain Pyro distributions do."""
    import pyro.distributions as dist

    class Plain(pg.LatentVariableModel):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def model(self, x: Any = None, z: Any = None) -> None:
            with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
                z = pyro.sample("z", dist.Normal(0.0, 1.0), obs=z)
                pyro.sample("x", dist.Normal(self.weight * z, 0.5), obs=x)

        def guide(self, x: Any = None, z: Any = None) -> None:
            with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
                if z is None:
                    pyro.sample("z", dist.Normal(0.8 * x, 0.45))

    pair, x = Plain(), torch.linspace(-2, 2, 9)
    score = pg.log_marginal_likelihood(pair, x, num_samples=2000)
    exact = dist.Normal(0.0, 1.25**0.5).log_prob(x).numpy()
    assert (abs(score.log_prob - exact) <= 4 * score.standard_error).all()
    assert pg.fit(pair, x, num_epochs=1, batch_size=3, progress=False).elbo
    assert "weight" in dict(pair.named_parameters())


def test_print_says_what_is_observed_summed_and_sampled() -> None:
    text = repr(HandM2())
    assert "p(y) p(z) p(x | y, z)" in text and "q(y | x) q(z | x, y)" in text
    assert "summed out exactly over 3 classes" in text
    assert "sampled from the guide" in text
    assert "must be given: it is the data" in text
    assert "an input" in repr(CASES["CVAE"].build())
    assert "score-function" in repr(CASES["binary latents"].build())
