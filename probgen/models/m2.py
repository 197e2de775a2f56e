"""The semi-supervised M2: a class and a style."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
from torch import Tensor, nn

from probgen.conditionals import Conditional
from probgen.models.class_prior import ClassPrior, prior_of_classes
from probgen.networks import NetworkFactory, as_widths
from probgen.pair import LatentVariableModel
from probgen.variables import Variable


class M2(LatentVariableModel):
    """Data from a class and a style: p(y) p(z) p(x | y, z), inferred by q(y | x) q(z | x, y).

    For data without y the class is summed out.

    Args:
        x: the data; any family and event shape.
        y: the class, a scalar `pg.Categorical`.
        z: the latent for all of x that does not depend on the class, such as the style of writing.
        hidden: widths of the hidden layers of the classifier, the encoder and, reversed, the decoder.
        activation: class of the networks' nonlinearity.
        classifier: a network or network factory in place of the classifier's MLP.
        class_prior: p(y): `"uniform"`; `"learned"` with all other parameters; or the probability of each
            class.

    Raises:
        TypeError: y is not a scalar `pg.Categorical`.
        ValueError: class_prior is none of these.

    References:
        Kingma, Rezende, Mohamed and Welling, 2014, "Semi-supervised learning with deep generative
        models", eq. 2 and 4.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> m2 = pg.models.M2(x=pg.Bernoulli(784), y=pg.Categorical(10), z=pg.Normal(50))
        >>> m2.sample(1, y=torch.tensor([0, 1, 2]))["x"].shape
        torch.Size([1, 3, 784])
    """

    def __init__(
        self,
        x: Variable,
        y: Variable,
        z: Variable,
        *,
        hidden: Sequence[int] = (500,),
        activation: Callable[[], nn.Module] = nn.Softplus,
        classifier: nn.Module | NetworkFactory | None = None,
        class_prior: ClassPrior = "uniform",
    ) -> None:
        super().__init__()
        hidden = as_widths(hidden)
        back = hidden[::-1]
        self.p_y = prior_of_classes(y, class_prior, "M2")
        self.p_z = Conditional(z)
        self.p_x = Conditional(x, {"y": y, "z": z}, hidden=back, activation=activation)
        self.q_y = Conditional(y, {"x": x}, classifier, hidden=hidden, activation=activation)
        self.q_z = Conditional(z.inferred(), {"x": x, "y": y}, hidden=hidden, activation=activation)

    def model(
        self, x: Tensor | None = None, y: Tensor | None = None, z: Tensor | None = None
    ) -> Tensor:
        """y ~ p(y), z ~ p(z), x ~ p(x | y, z)."""
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z), dim=-1):
            y = pyro.sample("y", self.p_y(), obs=y)
            z = pyro.sample("z", self.p_z(), obs=z)
            return pyro.sample("x", self.p_x(y=y, z=z), obs=x)

    def guide(
        self, x: Tensor | None = None, y: Tensor | None = None, z: Tensor | None = None
    ) -> None:
        """y ~ q(y | x), z ~ q(z | x, y)."""
        with pyro.plate("data", self.batch_size(x=x, y=y, z=z), dim=-1):
            if y is None:
                y = pyro.sample("y", self.q_y(x=x))
            if z is None:
                pyro.sample("z", self.q_z(x=x, y=y))
