"""The auxiliary deep generative model: M2 with an auxiliary latent for a flexible guide."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
from torch import Tensor, nn

from probgen.conditionals import Conditional
from probgen.models.class_prior import ClassPrior, prior_of_classes
from probgen.networks import as_widths
from probgen.pair import LatentVariableModel
from probgen.variables import Variable


class ADGM(LatentVariableModel):
    """p(y) p(z) p(x | y, z) p(a | x, y, z), inferred by q(a | x) q(y | a, x) q(z | a, x, y).

    The auxiliary variable a does not change p(x, y, z). Averaged over a, the guide q(y, z | x) is a
    mixture and so more flexible than without a.

    Args:
        x: the data; any family and event shape.
        y: the class, a scalar `pg.Categorical`.
        z: the latent for all of x that does not depend on the class.
        a: the auxiliary latent.
        hidden: widths of the hidden layers of all networks, reversed in those of the model.
        activation: class of the networks' nonlinearity.
        class_prior: p(y): `"uniform"`; `"learned"` with all other parameters; or the probability of each
            class.

    Raises:
        TypeError: y is not a scalar `pg.Categorical`.
        ValueError: class_prior is none of these.

    References:
        Maaløe, Sønderby, Sønderby and Winther, 2016, "Auxiliary deep generative models", eq. 1 to 9.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> z = pg.Normal(100)
        >>> adgm = pg.models.ADGM(x=pg.Bernoulli(784), y=pg.Categorical(10), z=z, a=z)
        >>> adgm.sample(2)["a"].shape
        torch.Size([2, 100])
    """

    def __init__(
        self,
        x: Variable,
        y: Variable,
        z: Variable,
        a: Variable,
        *,
        hidden: Sequence[int] = (500, 500),
        activation: Callable[[], nn.Module] = nn.ReLU,
        class_prior: ClassPrior = "uniform",
    ) -> None:
        super().__init__()
        hidden = as_widths(hidden)
        back = hidden[::-1]
        self.p_y = prior_of_classes(y, class_prior, "ADGM")
        self.p_z = Conditional(z)
        self.p_x = Conditional(x, {"y": y, "z": z}, hidden=back, activation=activation)
        self.p_a = Conditional(a, {"x": x, "y": y, "z": z}, hidden=back, activation=activation)
        self.q_a = Conditional(a.inferred(), {"x": x}, hidden=hidden, activation=activation)
        self.q_y = Conditional(y, {"a": a, "x": x}, hidden=hidden, activation=activation)
        self.q_z = Conditional(
            z.inferred(), {"a": a, "x": x, "y": y}, hidden=hidden, activation=activation
        )

    def model(
        self, x: Tensor | None = None, y: Tensor | None = None,
        z: Tensor | None = None, a: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """y ~ p(y), z ~ p(z), x ~ p(x | y, z), a ~ p(a | x, y, z)."""
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z, a=a), dim=-1):
            y = pyro.sample("y", self.p_y(), obs=y)
            z = pyro.sample("z", self.p_z(), obs=z)
            x = pyro.sample("x", self.p_x(y=y, z=z), obs=x)
            pyro.sample("a", self.p_a(x=x, y=y, z=z), obs=a)
            return x

    def guide(
        self, x: Tensor | None = None, y: Tensor | None = None,
        z: Tensor | None = None, a: Tensor | None = None,
    ) -> None:  # fmt: skip
        """a ~ q(a | x), y ~ q(y | a, x), z ~ q(z | a, x, y)."""
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z, a=a), dim=-1):
            if a is None:
                a = pyro.sample("a", self.q_a(x=x))
            if y is None:
                y = pyro.sample("y", self.q_y(a=a, x=x))
            if z is None:
                pyro.sample("z", self.q_z(a=a, x=x, y=y))
