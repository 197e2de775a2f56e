"""Probabilistic principal component analysis."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch

from probgen.models.factor_analysis import FactorAnalysis
from probgen.models.linear_gaussian import LEAST_VARIANCE, rows_for, set_parameters


class PPCA(FactorAnalysis):
    r"""Probabilistic PCA: factor analysis with one noise variance, p(x | z) = N(x; W z + b, σ² I).

    Args:
        x: a `Normal`; its scale is learned, one for all elements.
        z: a `Normal`; its prior is N(0, I).

    References:
        Tipping and Bishop, 1999, "Probabilistic principal component analysis", eq. 7, 8 and 12.

    Example:
        >>> import torch, probgen as pg
        >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(4), z=pg.Normal(2)).set_maximum_likelihood(x)
        >>> bool((ppca.mean - x.mean(0)).abs().max() < 1e-6)
        True
    """

    noise: Literal["shared", "isotropic"] = "isotropic"

    @torch.no_grad()
    def set_maximum_likelihood(self, x: Any) -> Self:  # type: ignore[override]  # nothing to iterate
        r"""Set all parameters, the guide's too, to the closed-form maximum of the likelihood.

        $W = U (\Lambda - \sigma^2 I)^{1/2}$ from the leading eigenvectors of the sample
        covariance, $\sigma^2$ the average of the other eigenvalues. With this rotation the true
        posterior is diagonal, so that the guide is exact.

        Args:
            x: shape `(data, *event_shape)`.

        Raises:
            ValueError: x of the wrong shape, with NaN or infinite values, of fewer than two
                data, or as many latents as elements of x, or more, which would leave no noise.
        """
        num_latents = self.loadings.shape[1]
        rows = rows_for(self, x, f"{self.name}.set_maximum_likelihood")
        centred = rows - rows.mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
        values, vectors = values.flip(0), vectors.flip(1)
        variance = values[num_latents:].mean().clamp(min=LEAST_VARIANCE)
        stretch = (values[:num_latents] - variance).clamp(min=0).sqrt()
        set_parameters(self, vectors[:, :num_latents] * stretch, rows.mean(0), variance)
        return self
