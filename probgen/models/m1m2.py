"""M1+M2: an M2 on the latents of a VAE, as one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
import torch
from torch import Tensor, nn

from probgen.basics.locking import one_at_a_time
from probgen.conditionals import Conditional
from probgen.models.class_prior import ClassPrior, prior_of_classes
from probgen.models.m2 import M2
from probgen.models.stacking import check_stage
from probgen.models.vae import VAE
from probgen.networks import as_widths
from probgen.pair import LatentVariableModel
from probgen.variables import SCALE_FLOOR, Normal, Variable, positive_scale, raw_from_scale


class M1M2(LatentVariableModel):
    """p(y) p(z2) p(z1 | y, z2) p(x | z1), inferred by q(z1 | x) q(y | z1) q(z2 | z1, y).

    `pg.fit` trains all factors jointly. The paper trains in two stages: a VAE, and then an `M2` whose
    data are the latents of the VAE; `stacked` makes one model of the two.

    Args:
        x: the data; any family and event shape.
        y: the class, a scalar `pg.Categorical`.
        z1: the latent next to the data, from which the classifier q(y | z1) predicts the class.
        z2: the latent for all of z1 that does not depend on the class.
        hidden: widths of the hidden layers between x and z1 (reversed in the decoder).
        hidden_class: widths of the hidden layers between z1, y and z2.
        activation: class of the networks' nonlinearity.
        class_prior: p(y): `"uniform"`; `"learned"` with all other parameters; or the probability of each
            class.

    Raises:
        TypeError: y is not a scalar `pg.Categorical`.
        ValueError: class_prior is none of these.

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

    registered_name = "m1+m2"

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
        class_prior: ClassPrior = "uniform",
    ) -> None:
        super().__init__()
        outer, inner = as_widths(hidden), as_widths(hidden_class)
        self.p_y = prior_of_classes(y, class_prior, "M1M2")
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

        The networks, p(y) and the M2's p(z) are shared with the stages, not copied.

        Args:
            m1: the VAE; its latent is a vector.
            m2: its data are a vector of elements of that latent, standardized.
            columns: indices of the elements of the latent that are the M2's data; by default all. The
                others have the VAE's prior for every class.
            mean: what was subtracted from these elements, by default 0.
            scale: what they were divided by, by default 1.

        Raises:
            TypeError: stages of another structure, an M2 whose data are not Gaussian with scales from its
                network, or a latent whose prior is not Gaussian.
            ValueError: shapes that do not fit, columns named twice, or scales that are not above 0.

        Example:
            >>> import torch, probgen as pg
            >>> _ = torch.manual_seed(0)
            >>> vae = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,))
            >>> y, z = pg.Categorical(3), pg.Normal(2)
            >>> m2 = pg.models.M2(x=pg.Normal(2), y=y, z=z, hidden=(4,))
            >>> stack = pg.models.M1M2.stacked(vae, m2)
            >>> stack.factorization("p")
            'p(y) p(z2) p(z1 | y, z2) p(x | z1)'
        """
        check_stage(m1, VAE, {"p_z": (), "p_x": ("z",), "q_z": ("x",)})
        check_stage(
            m2, M2,
            {"p_y": (), "p_z": (), "p_x": ("y", "z"), "q_y": ("x",), "q_z": ("x", "y")},
        )  # fmt: skip
        z1, x = m1.p_z.variable, m2.p_x.variable
        if not (isinstance(z1, Normal) and isinstance(x, Normal) and x.scale == "network"):
            raise TypeError(
                f"M1M2.stacked: the M2's data must be latents, pg.Normal(...), got {x!r} on {z1!r}."
            )
        size = z1.event_shape.numel()
        columns = torch.arange(size) if columns is None else torch.as_tensor(columns)
        mean = torch.zeros(len(columns)) if mean is None else torch.as_tensor(mean)
        scale = torch.ones(len(columns)) if scale is None else torch.as_tensor(scale)
        sizes = {len(columns), len(mean), len(scale), *x.event_shape}
        vectors = len(z1.event_shape) == len(x.event_shape) == 1
        if len(sizes) > 1 or not vectors or not bool((columns < size).all()):
            raise ValueError(
                f"M1M2.stacked: the M2 has data {tuple(x.event_shape)}, got {len(columns)} columns of a "
                f"latent {tuple(z1.event_shape)}, {len(mean)} means and {len(scale)} scales."
            )
        kinds = (torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64)
        invalid = columns.dtype in kinds or columns.dim() != 1
        if invalid or columns.min() < 0 or len(columns.unique()) < len(columns):
            raise ValueError(
                "M1M2.stacked: columns must be the numbers of elements of the latent, each once, from 0 to "
                f"{size - 1}; got {columns.tolist()}."
            )
        if not bool(((scale > 0) & scale.isfinite() & mean.isfinite()).all()):
            raise ValueError(
                "M1M2.stacked: means must be finite, and scales finite and above 0; got "
                f"{mean.tolist()} and {scale.tolist()}. Leave out columns that do not vary."
            )
        with torch.random.fork_rng(devices=[]):  # these networks are replaced below
            variables = (m1.p_x.variable, m2.p_y.variable, Normal(size), m2.p_z.variable)
            pair = cls(*variables, hidden=(), hidden_class=())
        for own, theirs in (("p_x", m1.p_x), ("q_z1", m1.q_z), ("q_y", m2.q_y), ("q_z2", m2.q_z)):
            factor = getattr(pair, own)
            if repr(factor.variable) != repr(theirs.variable):
                raise TypeError(
                    f"M1M2.stacked: {own} is of {factor.variable!r}, but the stage has "
                    f"{theirs.variable!r}."
                )
            factor.network, factor.raw_scale = theirs.network, theirs.raw_scale
        pair.p_y, pair.p_z2 = m2.p_y, m2.p_z
        place = (columns, mean, scale)
        assert (
            m2.p_x.network is not None and m2.q_y.network is not None and m2.q_z.network is not None
        )
        pair.p_z1.network = _ToLatent(m2.p_x.network, *place, m1.p_z)
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
    """A network whose first input is some elements of z1, standardized."""

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
    """A network that returns a Gaussian of standardized elements of z1; the others have the prior."""

    def __init__(
        self, network: nn.Module, columns: Tensor, mean: Tensor, scale: Tensor, prior: Conditional
    ) -> None:
        super().__init__(network, columns, mean, scale)
        self.prior = prior

    def forward(self, *inputs: Tensor) -> Tensor:
        out = self.network(*inputs)
        if not self.leading_dims:  # a user's network, called on rows
            out = torch.stack(list(out), 1) if isinstance(out, tuple) else out
            out = out.reshape(len(inputs[0]), 2, len(self.columns))
        loc, raw = out.unbind(-2)
        std = (self.scale * positive_scale(raw)).clamp(min=SCALE_FLOOR * 1.01)
        parts = torch.stack([self.mean + self.scale * loc, _raw(std)], -2)
        others = _parameters(self.prior).expand(*parts.shape[:-1], -1)
        return others.index_copy(-1, self.columns, parts)


def _raw(scale: Tensor) -> Tensor:
    """The raw scale of a scale. Above 20 it is the scale plus a constant, without overflow."""
    return raw_from_scale(scale.clamp(max=20)) + (scale - 20).clamp(min=0)


def _parameters(prior: Conditional) -> Tensor:
    """Mean and raw scale of a Gaussian without parents, `(2, elements)`."""
    outputs = prior.outputs
    if len(outputs) == 2:
        return outputs
    if prior.raw_scale is not None:
        raw = prior.raw_scale.expand_as(outputs[0])
    else:
        raw = _raw(prior().base_dist.scale.clamp(min=SCALE_FLOOR * 1.01))
    return torch.stack([outputs[0], raw])
