"""A pair as a user writes it into a file of their own."""

from typing import Any

import pyro
from torch import Tensor

import probgen as pg


class Own(pg.LatentVariableModel):
    """p(z) p(x | z) with a guide q(z | x)."""

    def __init__(self) -> None:
        super().__init__()
        x, z = pg.Bernoulli(10), pg.Normal(2)
        self.p_z = pg.Conditional(z)
        self.p_x = pg.Conditional(x, {"z": z}, hidden=(8,))
        self.q_z = pg.Conditional(z.inferred(), {"x": x}, hidden=(8,))

    def model(self, x: Tensor | None = None, z: Tensor | None = None) -> dict[str, Any]:
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            z = pyro.sample("z", self.p_z(), obs=z)
            x = pyro.sample("x", self.p_x(z=z), obs=x)
            return {"z": z, "x": x}

    def guide(self, x: Tensor | None = None, z: Tensor | None = None) -> None:
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            if z is None:
                pyro.sample("z", self.q_z(x=x))


def build() -> Own:
    return Own()
