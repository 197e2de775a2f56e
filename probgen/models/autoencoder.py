"""The autoencoder: a deterministic encoder and a decoder, without a distribution of the codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
from torch import Tensor, nn

from probgen.conditionals import Conditional
from probgen.networks import NetworkFactory, as_widths
from probgen.pair import LatentVariableModel
from probgen.point_mass import PointMass
from probgen.variables import Variable


class Autoencoder(LatentVariableModel):
    r"""The autoencoder: a code z = f(x) from the encoder, and p(x | z) from the decoder.

    The guide is a point mass at f(x), so training maximizes the reconstruction
    $\log p(x \mid z = f(x))$ for each datum, in nats. With a `Normal` of fixed scale that is the
    squared error up to a factor and a constant; with `hidden=()` it is linear, and its codes span
    the subspace of the leading principal components. The prior N(0, I) only states the shape of z
    and is not used in training: the codes are not distributed like it, samples from it need not
    look like data, and there is no ELBO and no score by importance sampling.

    Args:
        x: the data: `Bernoulli`, or `Normal` with a scale that is fixed or learned.
        z: the code.
        hidden: widths of the hidden layers of both MLPs, the encoder's first; the decoder has
            them reversed. `()` makes both linear.
        activation: class of the MLPs' nonlinearity.
        encoder: a network or network factory in place of the encoder's MLP, such as
            `pg.ConvEncoder`.
        decoder: a network or network factory in place of the decoder's MLP, such as
            `pg.ConvDecoder`.

    References:
        Bourlard and Kamp, 1988, "Auto-association by multilayer perceptrons and singular value
        decomposition", section 3 (a linear autoencoder spans the principal subspace).
        Hinton and Salakhutdinov, 2006, "Reducing the dimensionality of data with neural networks".

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> model = pg.models.Autoencoder(x=pg.Bernoulli(64), z=pg.Normal(2), hidden=(32,))
        >>> pg.encode(model, torch.zeros(3, 64))["z"].shape
        torch.Size([3, 2])
    """

    objective = "reconstruction"

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
            PointMass(z), {"x": x}, encoder, hidden=hidden, activation=activation
        )

    def model(self, x: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """z ~ p(z), x ~ p(x | z)."""
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            z = pyro.sample("z", self.p_z(), obs=z)
            return pyro.sample("x", self.p_x(z=z), obs=x)

    def guide(self, x: Tensor | None = None, z: Tensor | None = None) -> None:
        """z = f(x)."""
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            if z is None:
                pyro.sample("z", self.q_z(x=x))
