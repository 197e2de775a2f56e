"""The conditional VAE: M2 with a class, or any other condition, that is always given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
from torch import Tensor, nn

from probgen.conditionals import Conditional
from probgen.networks import as_widths
from probgen.pair import LatentVariableModel
from probgen.variables import Variable


class CVAE(LatentVariableModel):
    """The conditional VAE: p(z) p(x | y, z), inferred by q(z | x, y).

    The condition y is an input: it has no probability of its own and must be given.

    Args:
        x: the data; any family and event shape.
        y: the condition; any family and event shape, such as a class or another part of an image.
        z: the latent.
        hidden: widths of the hidden layers of the encoder and, reversed, the decoder.
        activation: class of the networks' nonlinearity.

    References:
        Kingma, Rezende, Mohamed and Welling, 2014, "Semi-supervised learning with deep generative
        models".
        Sohn, Lee and Yan, 2015, "Learning structured output representation using deep conditional
        generative models".

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> cvae = pg.models.CVAE(x=pg.Bernoulli(784), y=pg.Categorical(10), z=pg.Normal(2))
        >>> cvae.sample(1, y=torch.arange(10))["x"].shape
        torch.Size([1, 10, 784])
    """

    def __init__(
        self,
        x: Variable,
        y: Variable,
        z: Variable,
        *,
        hidden: Sequence[int] = (500,),
        activation: Callable[[], nn.Module] = nn.Tanh,
    ) -> None:
        super().__init__()
        hidden = as_widths(hidden)
        back = hidden[::-1]
        self.p_z = Conditional(z)
        self.p_x = Conditional(x, {"y": y, "z": z}, hidden=back, activation=activation)
        self.q_z = Conditional(z.inferred(), {"x": x, "y": y}, hidden=hidden, activation=activation)

    def model(
        self, x: Tensor | None = None, y: Tensor | None = None, z: Tensor | None = None
    ) -> Tensor:
        """z ~ p(z), x ~ p(x | y, z)."""
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z), dim=-1):
            z = pyro.sample("z", self.p_z(), obs=z)
            return pyro.sample("x", self.p_x(y=y, z=z), obs=x)

    def guide(
        self, x: Tensor | None = None, y: Tensor | None = None, z: Tensor | None = None
    ) -> None:
        """z ~ q(z | x, y)."""
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z), dim=-1):
            if z is None:
                pyro.sample("z", self.q_z(x=x, y=y))
