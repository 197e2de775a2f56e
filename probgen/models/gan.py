"""The generative adversarial network: a generator that is trained with a critic (discriminator)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from probgen.conditionals import Conditional
from probgen.implicit import ImplicitModel
from probgen.networks import NetworkFactory, as_widths
from probgen.point_mass import PointMass
from probgen.variables import Variable


class GAN(ImplicitModel):
    """A generative adversarial network: z ~ p(z), x = G(z), with no density of x.

    The model is the generator alone. The critic D belongs to the objective "adversarial", which
    `pg.fit` uses for this model: D learns to tell data from samples, and G learns to generate
    samples that D classifies as data. Settings of the critic and the loss are those of
    `pg.Adversarial`.

    Args:
        x: the data. The generator returns the mean of the family: any real number for `Normal`,
            numbers between 0 and 1 for `Bernoulli`, such as the brightness of a pixel.
        z: the latent, which is drawn from the family's standard distribution, N(0, I) for `Normal`.
        hidden: widths of the hidden layers of the generator's MLP.
        activation: class of the MLP's nonlinearity.
        generator: a network or network factory in place of the MLP, such as `pg.ConvDecoder`.

    References:
        Goodfellow et al., 2014, "Generative adversarial nets".

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> gan = pg.models.GAN(x=pg.Bernoulli(64), z=pg.Normal(8), hidden=(32,))
        >>> x = gan.sample(3, seed=0)["x"]
        >>> x.shape, bool((0 < x.min()) & (x.max() < 1))
        (torch.Size([3, 64]), True)
    """

    def __init__(
        self,
        x: Variable,
        z: Variable,
        *,
        hidden: Sequence[int] = (128, 128),
        activation: Callable[[], nn.Module] = nn.ReLU,
        generator: nn.Module | NetworkFactory | None = None,
    ) -> None:
        super().__init__()
        self.p_z = Conditional(z)
        self.p_x = Conditional(
            PointMass(x), {"z": z}, generator, hidden=as_widths(hidden), activation=activation
        )
