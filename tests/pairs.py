"""The pairs that every test of the contract runs over, and the same ones written by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pyro
import torch
from torch import Tensor

import probgen as pg
from probgen.models import MODELS
from probgen.pair import LatentVariableModel

X, Z, Y = 6, 2, 3
HIDDEN = (8,)


def binary(n: int) -> Tensor:
    return torch.bernoulli(torch.full((n, X), 0.5))


def labels(n: int) -> Tensor:
    return torch.arange(n) % Y


@dataclass(frozen=True)
class Case:
    """A pair and data for it; `label` names a variable that may be partly observed."""

    build: Callable[[], LatentVariableModel]
    data: Callable[[int], dict[str, Tensor]]
    label: str | None = None


def m2() -> LatentVariableModel:
    return pg.declare(
        "p(y) p(z) p(x | y, z)", "q(y | x) q(z | x, y)", hidden=HIDDEN,
        y=pg.Categorical(Y), z=pg.Normal(Z), x=pg.Bernoulli(X),
    )  # fmt: skip


def stacked() -> LatentVariableModel:
    return pg.declare(
        "p(y) p(z2) p(z1 | y, z2) p(x | z1)", "q(z1 | x) q(y | z1) q(z2 | z1, y)", hidden=HIDDEN,
        y=pg.Categorical(Y), z1=pg.Normal(Z), z2=pg.Normal(Z), x=pg.Bernoulli(X),
    )  # fmt: skip


def cvae() -> LatentVariableModel:
    return pg.declare(
        "p(z) p(x | y, z)", "q(z | x, y)", hidden=HIDDEN,
        y=pg.Categorical(Y), z=pg.Normal(Z), x=pg.Bernoulli(X),
    )  # fmt: skip


def hierarchical() -> LatentVariableModel:
    return pg.declare(
        "p(z2) p(z1 | z2) p(x | z1)", "q(z1 | x) q(z2 | z1)", hidden=HIDDEN,
        z1=pg.Normal(3), z2=pg.Normal(Z), x=pg.Normal(X, scale="shared"),
    )  # fmt: skip


def mixture() -> LatentVariableModel:
    return pg.declare(
        "p(y) p(x | y)", hidden=(), y=pg.Categorical(Y), x=pg.Normal(X, scale="shared")
    )


def auxiliary() -> LatentVariableModel:
    return pg.declare(
        "p(y) p(z) p(a | y, z) p(x | a, y, z)", "q(a | x) q(y | a, x) q(z | a, x, y)",
        hidden=HIDDEN, y=pg.Categorical(Y), z=pg.Normal(Z), a=pg.Normal(2), x=pg.Bernoulli(X),
    )  # fmt: skip


def convolutional() -> LatentVariableModel:
    return pg.declare(
        "p(y) p(z) p(x | y, z)", "q(y | x) q(z | x, y)", hidden=HIDDEN,
        p_x=pg.ConvDecoder, q_z=pg.ConvEncoder, q_y=pg.ConvEncoder,
        y=pg.Categorical(Y), z=pg.Normal(Z), x=pg.Normal((1, 6, 5), scale="isotropic"),
    )  # fmt: skip


def binary_latents() -> LatentVariableModel:
    return pg.declare(
        "p(z) p(x | z)", "q(z | x)", hidden=HIDDEN, z=pg.Bernoulli(3), x=pg.Bernoulli(X),
        p_z=pg.Conditional(pg.Bernoulli(3), learned=True),
    )  # fmt: skip


def gaussian_mixture_vae() -> LatentVariableModel:
    """A class without a guide factor above a continuous latent with one."""
    return pg.declare(
        "p(y) p(z | y) p(x | z)", "q(z | x)", hidden=HIDDEN,
        y=pg.Categorical(Y), z=pg.Normal(Z), x=pg.Bernoulli(X),
    )  # fmt: skip


def _x(n: int) -> dict[str, Tensor]:
    return {"x": binary(n)}


def _xy(n: int) -> dict[str, Tensor]:
    return {"x": binary(n), "y": labels(n)}


def _real(n: int) -> dict[str, Tensor]:
    return {"x": torch.randn(n, X)}


def _real_xy(n: int) -> dict[str, Tensor]:
    return {"x": torch.randn(n, 1, 6, 5), "y": labels(n)}


def _vae(**settings: Any) -> LatentVariableModel:
    return pg.models.VAE(x=pg.Bernoulli(X), z=pg.Normal(Z), hidden=HIDDEN, **settings)


_Y: Any = {"x": pg.Bernoulli(X), "y": pg.Categorical(Y), "hidden": HIDDEN}
_Z: Any = {"z": pg.Normal(Z)}

CASES: dict[str, Case] = {
    "VAE": Case(_vae, _x),
    "VAE of images": Case(
        lambda: pg.models.VAE(
            x=pg.Bernoulli((1, 6, 5)), z=pg.Normal(Z),
            encoder=pg.ConvEncoder, decoder=pg.ConvDecoder,
        ),
        lambda n: {"x": torch.bernoulli(torch.full((n, 1, 6, 5), 0.5))},
    ),
    "PPCA": Case(lambda: pg.models.PPCA(x=pg.Normal(X), z=pg.Normal(Z)), _real),
    "FactorAnalysis": Case(lambda: pg.models.FactorAnalysis(x=pg.Normal(X), z=pg.Normal(Z)), _real),
    "M2": Case(m2, _xy, "y"),
    "stacked M1+M2": Case(stacked, _xy, "y"),
    "CVAE": Case(cvae, _xy),
    "hierarchical": Case(hierarchical, _real),
    "mixture": Case(mixture, lambda n: {**_real(n), "y": labels(n)}, "y"),
    "auxiliary": Case(auxiliary, _xy, "y"),
    "convolutional M2": Case(convolutional, _real_xy, "y"),
    "binary latents": Case(binary_latents, _x),
    "Gaussian mixture VAE": Case(gaussian_mixture_vae, _xy, "y"),
    "M2 of the library": Case(lambda: pg.models.M2(**_Y, **_Z), _xy, "y"),
    "CVAE of the library": Case(lambda: pg.models.CVAE(**_Y, **_Z), _xy),
    "M1M2": Case(
        lambda: pg.models.M1M2(**_Y, z1=pg.Normal(Z), z2=pg.Normal(Z), hidden_class=HIDDEN), _xy, "y"
    ),
    "ADGM": Case(lambda: pg.models.ADGM(**_Y, **_Z, a=pg.Normal(Z)), _xy, "y"),
}  # fmt: skip


LISTED = {"vae", "ppca", "factor-analysis", "m2", "cvae", "m1+m2", "adgm"}
"""Library models among the cases above; every other is built by `example_of`."""


def example_of(model: type[LatentVariableModel]) -> LatentVariableModel:
    """A small instance of a model: of its `example()`, or of its arguments without a default."""
    if hasattr(model, "example"):
        return cast(LatentVariableModel, model.example())
    parameters = inspect.signature(model).parameters
    by_name = {"x": pg.Normal(X), "y": pg.Categorical(Y)}
    needed = [
        name for name, parameter in parameters.items() if parameter.default is parameter.empty
    ]
    hidden: Any = {"hidden": HIDDEN} if "hidden" in parameters else {}
    return model(**{name: by_name.get(name, pg.Normal(Z)) for name in needed}, **hidden)


def case_of(name: str) -> Case | None:
    """The case of a library model, with data drawn from it; `None` where it is no explicit pair."""
    model = MODELS.get(name)
    if not issubclass(model, LatentVariableModel):
        return None

    def build() -> LatentVariableModel:
        return example_of(model)

    def data(n: int) -> dict[str, Tensor]:
        known: Any = {"y": labels(n)} if build().input_names else {}
        drawn = build().sample(1, **known) if known else build().sample(n)
        return {k: v[0] if known else v for k, v in drawn.items() if k in ("x", "y")} | known

    return Case(build, data, "y" if "y" in build().summed_names else None)


CASES |= {name: case for name in MODELS.names() if name not in LISTED and (case := case_of(name))}

IMPLICIT = [name for name in MODELS.names() if issubclass(MODELS.get(name), pg.ImplicitModel)]


def linear_gaussian(seed: int = 0) -> tuple[pg.models.FactorAnalysis, Tensor]:
    """Factor analysis with random parameters, in float64, and four data."""
    torch.manual_seed(seed)
    pair = pg.models.FactorAnalysis(x=pg.Normal(5), z=pg.Normal(2)).double()
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return pair, 1.5 * torch.randn(4, 5, dtype=torch.float64)


# ---------------------------------------------------------------- the same, written by hand


class HandM2(pg.LatentVariableModel):
    """p(y) p(z) p(x | y, z), q(y | x) q(z | x, y)"""

    def __init__(self) -> None:
        super().__init__()
        y, z, x = pg.Categorical(Y), pg.Normal(Z), pg.Bernoulli(X)
        self.p_y = pg.Conditional(y)
        self.p_z = pg.Conditional(z)
        self.p_x = pg.Conditional(x, {"y": y, "z": z}, hidden=HIDDEN)
        self.q_y = pg.Conditional(y, {"x": x}, hidden=HIDDEN)
        self.q_z = pg.Conditional(z, {"x": x, "y": y}, hidden=HIDDEN)

    def model(self, x: Any = None, y: Any = None, z: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z), dim=-1):
            y = pyro.sample("y", self.p_y(), obs=y)
            z = pyro.sample("z", self.p_z(), obs=z)
            pyro.sample("x", self.p_x(y=y, z=z), obs=x)

    def guide(self, x: Any = None, y: Any = None, z: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z), dim=-1):
            if y is None:
                y = pyro.sample("y", self.q_y(x=x))
            if z is None:
                pyro.sample("z", self.q_z(x=x, y=y))


class HandStacked(pg.LatentVariableModel):
    """p(y) p(z2) p(z1 | y, z2) p(x | z1), q(z1 | x) q(y | z1) q(z2 | z1, y)"""

    def __init__(self) -> None:
        super().__init__()
        y, z1, z2, x = pg.Categorical(Y), pg.Normal(Z), pg.Normal(Z), pg.Bernoulli(X)
        self.p_y = pg.Conditional(y)
        self.p_z2 = pg.Conditional(z2)
        self.p_z1 = pg.Conditional(z1, {"y": y, "z2": z2}, hidden=HIDDEN)
        self.p_x = pg.Conditional(x, {"z1": z1}, hidden=HIDDEN)
        self.q_z1 = pg.Conditional(z1, {"x": x}, hidden=HIDDEN)
        self.q_y = pg.Conditional(y, {"z1": z1}, hidden=HIDDEN)
        self.q_z2 = pg.Conditional(z2, {"z1": z1, "y": y}, hidden=HIDDEN)

    def model(self, x: Any = None, y: Any = None, z1: Any = None, z2: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y, z1=z1, z2=z2), dim=-1):
            y = pyro.sample("y", self.p_y(), obs=y)
            z2 = pyro.sample("z2", self.p_z2(), obs=z2)
            z1 = pyro.sample("z1", self.p_z1(y=y, z2=z2), obs=z1)
            pyro.sample("x", self.p_x(z1=z1), obs=x)

    def guide(self, x: Any = None, y: Any = None, z1: Any = None, z2: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y, z1=z1, z2=z2), dim=-1):
            if z1 is None:
                z1 = pyro.sample("z1", self.q_z1(x=x))
            if y is None:
                y = pyro.sample("y", self.q_y(z1=z1))
            if z2 is None:
                pyro.sample("z2", self.q_z2(z1=z1, y=y))


class HandCVAE(pg.LatentVariableModel):
    """p(z) p(x | y, z), q(z | x, y); y is an input"""

    def __init__(self) -> None:
        super().__init__()
        y, z, x = pg.Categorical(Y), pg.Normal(Z), pg.Bernoulli(X)
        self.p_z = pg.Conditional(z)
        self.p_x = pg.Conditional(x, {"y": y, "z": z}, hidden=HIDDEN)
        self.q_z = pg.Conditional(z, {"x": x, "y": y}, hidden=HIDDEN)

    def model(self, x: Any = None, y: Any = None, z: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z), dim=-1):
            z = pyro.sample("z", self.p_z(), obs=z)
            pyro.sample("x", self.p_x(y=y, z=z), obs=x)

    def guide(self, x: Any = None, y: Any = None, z: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z), dim=-1):
            if z is None:
                pyro.sample("z", self.q_z(x=x, y=y))


class HandHierarchical(pg.LatentVariableModel):
    """p(z2) p(z1 | z2) p(x | z1), q(z1 | x) q(z2 | z1)"""

    def __init__(self) -> None:
        super().__init__()
        z1, z2, x = pg.Normal(3), pg.Normal(Z), pg.Normal(X, scale="shared")
        self.p_z2 = pg.Conditional(z2)
        self.p_z1 = pg.Conditional(z1, {"z2": z2}, hidden=HIDDEN)
        self.p_x = pg.Conditional(x, {"z1": z1}, hidden=HIDDEN)
        self.q_z1 = pg.Conditional(z1, {"x": x}, hidden=HIDDEN)
        self.q_z2 = pg.Conditional(z2, {"z1": z1}, hidden=HIDDEN)

    def model(self, x: Any = None, z1: Any = None, z2: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, z1=z1, z2=z2), dim=-1):
            z2 = pyro.sample("z2", self.p_z2(), obs=z2)
            z1 = pyro.sample("z1", self.p_z1(z2=z2), obs=z1)
            pyro.sample("x", self.p_x(z1=z1), obs=x)

    def guide(self, x: Any = None, z1: Any = None, z2: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, z1=z1, z2=z2), dim=-1):
            if z1 is None:
                z1 = pyro.sample("z1", self.q_z1(x=x))
            if z2 is None:
                pyro.sample("z2", self.q_z2(z1=z1))


class HandMixture(pg.LatentVariableModel):
    """p(y) p(x | y); y is summed out in the model"""

    def __init__(self) -> None:
        super().__init__()
        y, x = pg.Categorical(Y), pg.Normal(X, scale="shared")
        self.p_y = pg.Conditional(y)
        self.p_x = pg.Conditional(x, {"y": y}, hidden=())

    def model(self, x: Any = None, y: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y), dim=-1):
            y = pyro.sample("y", self.p_y(), obs=y)
            pyro.sample("x", self.p_x(y=y), obs=x)

    def guide(self, x: Any = None, y: Any = None) -> None:
        """Nothing to infer."""


class HandAuxiliary(pg.LatentVariableModel):
    """p(y) p(z) p(a | y, z) p(x | a, y, z), q(a | x) q(y | a, x) q(z | a, x, y)"""

    def __init__(self) -> None:
        super().__init__()
        y, z, a, x = pg.Categorical(Y), pg.Normal(Z), pg.Normal(2), pg.Bernoulli(X)
        self.p_y = pg.Conditional(y)
        self.p_z = pg.Conditional(z)
        self.p_a = pg.Conditional(a, {"y": y, "z": z}, hidden=HIDDEN)
        self.p_x = pg.Conditional(x, {"a": a, "y": y, "z": z}, hidden=HIDDEN)
        self.q_a = pg.Conditional(a, {"x": x}, hidden=HIDDEN)
        self.q_y = pg.Conditional(y, {"a": a, "x": x}, hidden=HIDDEN)
        self.q_z = pg.Conditional(z, {"a": a, "x": x, "y": y}, hidden=HIDDEN)

    def model(self, x: Any = None, y: Any = None, z: Any = None, a: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z, a=a), dim=-1):
            y = pyro.sample("y", self.p_y(), obs=y)
            z = pyro.sample("z", self.p_z(), obs=z)
            a = pyro.sample("a", self.p_a(y=y, z=z), obs=a)
            pyro.sample("x", self.p_x(a=a, y=y, z=z), obs=x)

    def guide(self, x: Any = None, y: Any = None, z: Any = None, a: Any = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z, a=a), dim=-1):
            if a is None:
                a = pyro.sample("a", self.q_a(x=x))
            if y is None:
                y = pyro.sample("y", self.q_y(a=a, x=x))
            if z is None:
                pyro.sample("z", self.q_z(a=a, x=x, y=y))


BY_HAND: dict[str, type[LatentVariableModel]] = {
    "M2": HandM2,
    "stacked M1+M2": HandStacked,
    "CVAE": HandCVAE,
    "hierarchical": HandHierarchical,
    "mixture": HandMixture,
    "auxiliary": HandAuxiliary,
}
