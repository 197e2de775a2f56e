"""Probabilistic principal component analysis."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from probgen.checks import check_shape, check_support
from probgen.models.factor_analysis import FactorAnalysis
from probgen.tensors import as_tensor
from probgen.variables import SCALE_FLOOR, raw_from_scale


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
    def set_maximum_likelihood(self, x: Tensor) -> PPCA:
        r"""Set all parameters, the guide's too, to the closed-form maximum of the likelihood.

        $W = U (\Lambda - \sigma^2 I)^{1/2}$ from the leading eigenvectors of the sample
        covariance, $\sigma^2$ the average of the other eigenvalues. With this rotation the true
        posterior is diagonal, so that the guide is exact.

        Args:
            x: shape `(data, *event_shape)`.

        Raises:
            ValueError: x of the wrong shape, with NaN or infinite values, or as many latents as elements of x, or more: no noise would be left.
        """
        num_latents = self.loadings.shape[1]
        owner, variable = f"{self.name}.set_maximum_likelihood", self.p_x.variable
        x = as_tensor(x, "x", owner).to(self.mean.device)
        check_shape(x, variable, "x", owner, self.name)
        check_support(x, variable.support, "x", owner, f"{self.name} is {variable!r}")
        flat = x.reshape(len(x), -1).to(torch.float64)
        if num_latents >= flat.shape[1]:
            raise ValueError(
                f"{owner}: needs fewer latents than elements of x, got "
                f"{num_latents} and {flat.shape[1]}."
            )
        centred = flat - flat.mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(flat))
        values, vectors = values.flip(0), vectors.flip(1)
        variance = values[num_latents:].mean().clamp(min=(2 * SCALE_FLOOR) ** 2)
        stretch = (values[:num_latents] - variance).clamp(min=0).sqrt()
        loadings = vectors[:, :num_latents] * stretch
        precision = loadings.T @ loadings / variance + torch.eye(num_latents).to(flat)
        encoder = torch.linalg.solve(precision, loadings.T / variance)
        self.loadings.copy_(loadings)
        self.mean.copy_(flat.mean(0))
        self.p_x.raw_scale.copy_(raw_from_scale(variance.sqrt()))  # type: ignore[union-attr]
        inference: Any = self.q_z.network.layers[0]  # type: ignore[union-attr, index]
        inference.weight.copy_(encoder)
        inference.bias.copy_(-encoder @ flat.mean(0))
        scale = (
            precision.diagonal()
            .rsqrt()
            .clamp(min=2 * SCALE_FLOOR)
            .reshape(self.q_z.variable.event_shape)
        )
        self.q_z.raw_scale.copy_(raw_from_scale(scale))  # type: ignore[union-attr]
        return self
