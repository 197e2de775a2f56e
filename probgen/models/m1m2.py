"""M1+M2: an M2 on the latents of a VAE, both in one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
import torch
from torch import Tensor, nn

from probgen.conditionals import Conditional
from probgen.locking import one_at_a_time
from probgen.models.m2 import M2
from probgen.models.vae import VAE
from probgen.networks import as_widths
from probgen.pair import LatentVariableModel
from probgen.variables import (
    SCALE_FLOOR,
    Normal,
    Variable,
    as_class,
    positive_scale,
    raw_from_scale,
)


class M1M2(LatentVariableModel):
    """p(y) p(z2) p(z1 | y, z2) p(x | z1), inferred by q(z1 | x) q(y | z1) q(z2 | z1, y).

    Trained as a whole it is the joint form. In the paper's two stages a VAE gives the z1 of the data, and
    an `M2` whose data are these is trained on them; `stacked` makes one model of the two.

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

    @classmethod
    @one_at_a_time
    def stacked(
        cls, m1: VAE, m2: M2, *, columns: Tensor | None = None,
        mean: Tensor | None = None, scale: Tensor | None = None,
    ) -> M1M2:  # fmt: skip
        """One model of two stages: a VAE, and an M2 trained on its latents.

        The networks are those of the stages and not copies of them.

        Args:
            m1: the VAE; its latent is a vector.
            m2: its data are elements of that latent, standardized.
            columns: the elements of the latent that the M2 knows; by default all. The others are
                N(0, 1) whatever the class.
            mean: what was subtracted from these elements, by default 0.
            scale: what they were divided by, by default 1.

        Raises:
            TypeError: an M2 whose data are not Gaussian with scales from its network.
            ValueError: shapes that do not fit.
        """
        z1, x = m1.p_z.variable, m2.p_x.variable
        if not (isinstance(z1, Normal) and isinstance(x, Normal) and x.scale == "network"):
            raise TypeError(
                f"M1M2.stacked: the M2's data must be latents, pg.Normal(...), got {x!r} on {z1!r}."
            )
        size = z1.event_shape.numel()
        columns = torch.arange(size) if columns is None else torch.as_tensor(columns)
        mean = torch.zeros(len(columns)) if mean is None else torch.as_tensor(mean)
        scale = torch.ones(len(columns)) if scale is None else torch.as_tensor(scale)
        sizes = {len(columns), len(mean), len(scale), x.event_shape.numel()}
        if len(sizes) > 1 or len(z1.event_shape) != 1 or not bool((columns < size).all()):
            raise ValueError(
                f"M1M2.stacked: the M2 has data {tuple(x.event_shape)}, got {len(columns)} columns of a "
                f"latent {tuple(z1.event_shape)}, {len(mean)} means and {len(scale)} scales."
            )
        with torch.random.fork_rng(devices=[]):  # for networks that are replaced at once
            variables = (m1.p_x.variable, m2.p_y.variable, z1, m2.p_z.variable)
            pair = cls(*variables, hidden=(), hidden_class=())
        pair.p_x.network, pair.p_x.raw_scale = m1.p_x.network, m1.p_x.raw_scale
        pair.q_z1.network = m1.q_z.network
        place = (columns, mean, scale)
        assert (
            m2.p_x.network is not None and m2.q_y.network is not None and m2.q_z.network is not None
        )
        pair.p_z1.network = _ToLatent(m2.p_x.network, *place, size)
        pair.q_y.network = _FromLatent(m2.q_y.network, *place)
        pair.q_z2.network = _FromLatent(m2.q_z.network, *place)
        like = next(m1.parameters())
        return pair.to(device=like.device, dtype=like.dtype)

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


class _FromLatent(nn.Module):
    """A network of some standardized elements of its first input."""

    columns: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, columns: Tensor, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.network, self.leading_dims = network, getattr(network, "leading_dims", False)
        like = next(network.parameters())
        self.register_buffer("columns", columns.to(like.device))
        self.register_buffer("mean", mean.to(like))
        self.register_buffer("scale", scale.to(like))

    def forward(self, z1: Tensor, *others: Tensor) -> Tensor:
        chosen = z1.index_select(-1, self.columns)
        out: Tensor = self.network((chosen - self.mean) / self.scale, *others)
        return out


class _ToLatent(_FromLatent):
    """A network whose Gaussian is of some standardized elements; the others are N(0, 1)."""

    def __init__(
        self, network: nn.Module, columns: Tensor, mean: Tensor, scale: Tensor, size: int
    ) -> None:
        super().__init__(network, columns, mean, scale)
        self.size = size

    def forward(self, *inputs: Tensor) -> Tensor:
        loc, raw = self.network(*inputs).unbind(-2)
        spread = (self.scale * positive_scale(raw)).clamp(min=SCALE_FLOOR * 1.01)
        # Beyond 20 the inverse is a shift, and its exponential may overflow.
        raw = raw_from_scale(spread.clamp(max=20)) + (spread - 20).clamp(min=0)
        parts = torch.stack([self.mean + self.scale * loc, raw], -2)
        # Zeros are mean 0 and scale 1.
        out = parts.new_zeros(*parts.shape[:-1], self.size)
        return out.index_copy(-1, self.columns, parts)
