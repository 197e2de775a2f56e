r"""The reconstruction objective: log p(x | z) at the code that the guide computes, for autoencoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from probgen.inference.expectations import guide_average
from probgen.inference.objectives.base import Objective
from probgen.inference.traces import trace_pair


class Reconstruction(Objective):
    r"""The log-probability of the data given the latents of the guide, $\log p(x \mid z(x))$.

    For a guide with a point mass, as in `pg.models.Autoencoder`, $z(x)$ is the code that the encoder
    computes. For other guides it is one draw, so the value estimates $E_q[\log p(x \mid z)]$, the
    ELBO without its KL term. It is not a bound of log p(x), because it does not depend on the prior
    of the latents.

    References:
        Goodfellow, Bengio and Courville, 2016, "Deep learning", section 14.4.

    Example:
        >>> import math, torch, probgen as pg
        >>> _ = torch.manual_seed(0)
        >>> model = pg.models.Autoencoder(x=pg.Normal(3, scale=1.0), z=pg.Normal(1), hidden=())
        >>> x = torch.randn(2, 3)
        >>> value = pg.Reconstruction()(model, {"x": x})
        >>> error = (x - pg.reconstruct(model, x, device="cpu")["x"]).square().sum(1)
        >>> bool(torch.allclose(value, -0.5 * error - 1.5 * math.log(2 * math.pi)))
        True
    """

    quantity = "reconstruction"

    def __repr__(self) -> str:
        return "Reconstruction()"

    def __call__(
        self,
        pair: Any,
        data: Mapping[str, Tensor],
        *,
        observed: Mapping[str, Tensor] | None = None,
        **further: Tensor,
    ) -> Tensor:
        """The log-probability of each datum given its latents, shape `(batch,)`, in nats.

        Args:
            pair: a pair of model and guide.
            data: tensors `(batch, *event_shape)` by variable name.
            observed: boolean masks `(batch,)`; partly observed variables are refused.
            **further: not used.

        Raises:
            TypeError: the model is not a pair.
            ValueError: a variable is missing for some data, or a class without a guide factor would
                have to be summed out.
        """
        self.check_model(pair)
        trace = trace_pair(pair, data, observed=observed)
        missing = [*trace.observed, *trace.model_sums]
        if missing:
            raise ValueError(
                f"reconstruction: {pair.name} has no value of {', '.join(missing)} for some data, but the "
                "reconstruction needs one for every datum. Give it for all data, add a guide factor for "
                'it, or use objective="elbo".'
            )
        terms = [trace.log_p[name] for name, site in trace.model.items() if site["is_observed"]]
        total = guide_average(trace, sum(terms[1:], terms[0]))
        return total.reshape(-1, total.shape[-1]).mean(0).expand(trace.num_data)


OBJECTIVE = Reconstruction
