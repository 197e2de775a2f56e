"""Factor analysis: the linear-Gaussian model, whose log p(x) and posterior have a closed form."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import pyro
import torch
from torch import Tensor

from probgen.basics.checks import as_count
from probgen.conditionals import Conditional
from probgen.models.linear_gaussian import (
    factor_analysis,
    rows_for,
    set_parameters,
    warn_of_ends,
)
from probgen.pair import LatentVariableModel
from probgen.variables import Normal, Variable


class FactorAnalysis(LatentVariableModel):
    r"""Factor analysis: p(z) p(x | z) with p(x | z) = N(x; W z + b, diag(σ²)), inferred by q(z | x).

    The guide is linear with one learned scale for all data, the form of the true posterior up to
    its correlations. `log_prob` and `posterior` are exact, and `set_maximum_likelihood` finds the
    parameters by EM, and sets the guide to the posterior.

    Args:
        x: a `Normal`; its scale is learned, one for each element.
        z: a `Normal`; its prior is N(0, I).

    Raises:
        TypeError: x or z is no `Normal`.

    References:
        Rubin and Thayer, 1982, "EM algorithms for ML factor analysis".
        Bishop, 2006, "Pattern recognition and machine learning", eq. 12.41 to 12.44.

    Example:
        >>> import torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> fa = pg.models.FactorAnalysis(x=pg.Normal(4), z=pg.Normal(2))
        >>> fa.log_prob(torch.zeros(3, 4)).shape, fa.posterior(torch.zeros(3, 4)).mean.shape
        (torch.Size([3]), torch.Size([3, 2]))
        >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
        >>> before = fa.log_prob(x).mean()
        >>> bool(fa.set_maximum_likelihood(x).log_prob(x).mean() > before)
        True
    """

    noise: Literal["shared", "isotropic"] = "shared"

    def __init__(self, x: Variable, z: Variable) -> None:
        super().__init__()
        for name, variable in (("x", x), ("z", z)):
            if not isinstance(variable, Normal):
                raise TypeError(
                    f"{self.name}: {name} must be pg.Normal(...), got {variable!r}; for another "
                    "family use pg.models.VAE with hidden=()."
                )
        x, z = Normal(x.event_shape, self.noise), Normal(z.event_shape)
        self.p_z = Conditional(z)
        self.p_x = Conditional(x, {"z": z}, hidden=())
        self.q_z = Conditional(Normal(z.event_shape, "shared"), {"x": x}, hidden=())

    def model(self, x: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        """z ~ N(0, I), x ~ N(W z + b, diag(σ²))."""
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            z = pyro.sample("z", self.p_z(), obs=z)
            return pyro.sample("x", self.p_x(z=z), obs=x)

    def guide(self, x: Tensor | None = None, z: Tensor | None = None) -> None:
        """z ~ N(A x + c, diag(s²))."""
        with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
            if z is None:
                pyro.sample("z", self.q_z(x=x))

    @torch.no_grad()
    def set_maximum_likelihood(
        self, x: Any, *, tolerance: float = 1e-8, max_iterations: int = 10_000
    ) -> Self:
        r"""Set all parameters, those of the guide too, to a maximum of the likelihood, by EM.

        W is rotated so that the true posterior is diagonal, which makes the guide exact.

        Args:
            x: shape `(data, *event_shape)`.
            tolerance: EM ends if an iteration raises the log-likelihood by less than this, in nats
                per datum.
            max_iterations: the largest number of iterations.

        Raises:
            ValueError: x of the wrong shape, with NaN or infinite values, of fewer than two data; as many
                latents as elements of x, or more; or a setting out of range.

        Warns:
            UserWarning: EM has not converged, or elements of x have a noise variance of zero.

        References:
            Rubin and Thayer, 1982, "EM algorithms for ML factor analysis".
        """
        owner = f"{self.name}.set_maximum_likelihood"
        most = as_count(max_iterations, "max_iterations", owner)
        if not isinstance(tolerance, (int, float)) or not 0 < tolerance < math.inf:
            raise ValueError(f"{owner}: tolerance must be a number above 0, got {tolerance!r}.")
        rows = rows_for(self, x, owner)
        mean = rows.mean(0)
        covariance = (rows - mean).T @ (rows - mean) / len(rows)
        loadings, noise, log_likelihoods = factor_analysis(
            covariance, self.loadings.shape[1], tolerance=tolerance, max_iterations=most
        )
        warn_of_ends(owner, noise, covariance.diagonal(), log_likelihoods, most)
        set_parameters(self, loadings, mean, noise)
        return self

    # ------------------------------------------------------------------ exact answers

    @property
    def loadings(self) -> Tensor:
        """W, shape `(x elements, z elements)`."""
        return self._linear.weight

    @property
    def mean(self) -> Tensor:
        """b, shape `(x elements,)`."""
        return self._linear.bias

    @property
    def noise_variance(self) -> Tensor:
        """σ², shape `(x elements,)`."""
        zero = torch.zeros(
            1, self.loadings.shape[1], dtype=self.mean.dtype, device=self.mean.device
        )
        scale: Tensor = self.p_x(z=zero.reshape(1, *self.p_z.variable.event_shape)).stddev
        return scale.reshape(-1) ** 2

    def log_prob(self, x: Tensor) -> Tensor:
        r"""The exact log N(x; b, W Wᵀ + diag(σ²)) of data `(data, *event_shape)`, nats per datum.

        It uses the Woodbury identity, so that the cost is linear in the number of elements of x.
        """
        precision, scaled, centred = self._moments(x)
        chol = torch.linalg.cholesky(precision)
        white = torch.linalg.solve_triangular(chol, scaled.T, upper=False)
        noise = self.noise_variance
        quadratic = (centred**2 / noise).sum(-1) - (white**2).sum(0)
        log_det = noise.log().sum() + 2 * chol.diagonal().log().sum()
        return -0.5 * (quadratic + log_det + centred.shape[-1] * math.log(2 * math.pi))

    def posterior(self, x: Tensor) -> torch.distributions.MultivariateNormal:
        r"""The exact p(z | x) = N(M⁻¹ Wᵀ diag(σ⁻²) (x − b), M⁻¹) with M = I + Wᵀ diag(σ⁻²) W.

        Args:
            x: shape `(data, *event_shape)`.

        Returns:
            A distribution over the elements of z: batch `(data,)`, event `(z elements,)`.
        """
        precision, scaled, _ = self._moments(x)
        chol = torch.linalg.cholesky(precision)
        loc = torch.cholesky_solve(scaled.T, chol).T
        return torch.distributions.MultivariateNormal(loc, precision_matrix=precision)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """M, Wᵀ diag(σ⁻²) (x − b) of each datum, and x − b."""
        centred = x.reshape(len(x), -1) - self.mean
        weighted = self.loadings / self.noise_variance[:, None]
        identity = torch.eye(self.loadings.shape[1], dtype=weighted.dtype, device=weighted.device)
        return identity + self.loadings.T @ weighted, centred @ weighted, centred

    @property
    def _linear(self) -> torch.nn.Linear:
        return self.p_x.network.layers[0]  # type: ignore[union-attr, index, return-value]
