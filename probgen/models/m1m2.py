"""M1+M2: an M2 on the latents of a VAE, both in one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
from torch import Tensor, nn

from probgen.conditionals import Conditional
from probgen.networks import as_widths
from probgen.pair import LatentVariableModel
from probgen.variables import Variable, as_class


class M1M2(LatentVariableModel):
    """p(y) p(z2) p(z1 | y, z2) p(x | z1), inferred by q(z1 | x) q(y | z1) q(z2 | z1, y).

    The joint form, trained as a whole. In the paper's two stages a VAE gives the z1 of the data, and
    an `M2` whose data are these is trained on them.

    Args:
        x: the data; any family and event shape.
        y: the class, a scalar `pg.Categorical`.
        z1: the latent next to the data, on which classes are told apart.
        z2: the latent that holds what of z1 the class does not say.
        hidden: widths of the hidden layers between x and z1 (reversed in the decoder).
        hidden_class: likewise between z1, y and z2.
        activation: class of the networks' nonlinearity.

    References:
        Kingma, Rezende, Mohamed and Welling, 2014, "Semi-supervised learning with deep generative
        models", section 2 ("stacked generative semi-supervised model").

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> z = pg.Normal(50)
        >>> stack = pg.models.M1M2(x=pg.Bernoulli(784), y=pg.Categorical(10), z1=z, z2=z)
        >>> stack.sample(2)["x"].shape
        torch.Size([2, 784])
    """

    def __init__(
        self,
        x: Variable,
        y: Variable,
        z1: Variable,
        z2: Variable,
        *,
        hidden: Sequence[int] = (500, 500),
        hidden_class: Sequence[int] = (500,),
        activation: Callable[[], nn.Module] = nn.Softplus,
    ) -> None:
        super().__init__()
        outer, inner = as_widths(hidden), as_widths(hidden_class)
        self.p_y = Conditional(as_class(y, "M1M2"))
        self.p_z2 = Conditional(z2)
        self.p_z1 = Conditional(z1, {"y": y, "z2": z2}, hidden=inner[::-1], activation=activation)
        self.p_x = Conditional(x, {"z1": z1}, hidden=outer[::-1], activation=activation)
        self.q_z1 = Conditional(z1.inferred(), {"x": x}, hidden=outer, activation=activation)
        self.q_y = Conditional(y, {"z1": z1}, hidden=inner, activation=activation)
        self.q_z2 = Conditional(
            z2.inferred(), {"z1": z1, "y": y}, hidden=inner, activation=activation
        )

    def model(
        self, x: Tensor | None = None, y: Tensor | None = None,
        z1: Tensor | None = None, z2: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """y ~ p(y), z2 ~ p(z2), z1 ~ p(z1 | y, z2), x ~ p(x | z1)."""
        with pyro.plate("data", self.batch_size(x=x, y=y, z1=z1, z2=z2), dim=-1):
            y = pyro.sample("y", self.p_y(), obs=y)
            z2 = pyro.sample("z2", self.p_z2(), obs=z2)
            z1 = pyro.sample("z1", self.p_z1(y=y, z2=z2), obs=z1)
            return pyro.sample("x", self.p_x(z1=z1), obs=x)

    def guide(
        self, x: Tensor | None = None, y: Tensor | None = None,
        z1: Tensor | None = None, z2: Tensor | None = None,
    ) -> None:  # fmt: skip
        """z1 ~ q(z1 | x), y ~ q(y | z1), z2 ~ q(z2 | z1, y)."""
        with pyro.plate("data", self.batch_size(x=x, y=y, z1=z1, z2=z2), dim=-1):
            if z1 is None:
                z1 = pyro.sample("z1", self.q_z1(x=x))
            if y is None:
                y = pyro.sample("y", self.q_y(z1=z1))
            if z2 is None:
                pyro.sample("z2", self.q_z2(z1=z1, y=y))
