"""The variational autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
from torch import Tensor, nn

from probgen.conditionals import Conditional
from probgen.networks import NetworkFactory, as_widths
from probgen.pair import LatentVariableModel
from probgen.variables import Variable


class VAE(LatentVariableModel):
    """The variational autoencoder: p(z) p(x | z), inferred by q(z | x).

    Args:
        x: the data; any family and event shape.
        z: the latent.
        hidden: widths of the hidden layers of both MLPs, the encoder's first; the decoder has
            them reversed.
        activation: class of the MLPs' nonlinearity.
        encoder: a network or network factory in place of the encoder's MLP, such as
            `pg.ConvEncoder`.
        decoder: a network or network factory in place of the decoder's MLP, such as
            `pg.ConvDecoder`.

    References:
        Kingma and Welling, 2014, "Auto-encoding variational Bayes".
        Rezende, Mohamed and Wierstra, 2014, "Stochastic backpropagation and approximate inference
        in deep generative models".

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> vae = pg.models.VAE(x=pg.Bernoulli(784), z=pg.Normal(50), hidden=(200, 200))
        >>> vae.sample(3)["x"].shape
        torch.Size([3, 784])
    """

    def __init__(
        self,
        x: Variable,
        z: Variable,
        *,
        hidden: Sequence[int] = (500,),
        activation: Callable[[], nn.Module] = nn.Tanh,
        encoder: nn.Module | NetworkFactory | None = None,
        decoder: nn.Module | NetworkFactory | None = None,
    ) -> None:
        super().__init__()
        hidden = as_widths(hidden)
        self.p_z = Conditional(z)
        self.p_x = Conditional(x, {"z": z}, decoder, hidden=hidden[::-1], activation=activation)
        self.q_z = Conditional(
            z.inferred(), {"x": x}, encoder, hidden=hidden, activation=activation
        )

    def model(self, x: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """z ~ p(z), x ~ p(x | z)."""
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            z = pyro.sample("z", self.p_z(), obs=z)
            return pyro.sample("x", self.p_x(z=z), obs=x)

    def guide(self, x: Tensor | None = None, z: Tensor | None = None) -> None:
        """z ~ q(z | x)."""
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            if z is None:
                pyro.sample("z", self.q_z(x=x))
