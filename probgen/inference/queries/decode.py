"""The mean of a variable given the variables that it depends on: decoding."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import TransformedDistribution

from probgen.basics.locking import one_at_a_time
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.data.support import is_class
from probgen.pair import LatentVariableModel
from probgen.variables import Variable


@one_at_a_time
def decode(
    pair: LatentVariableModel,
    name: str,
    given: Mapping[str, Tensor],
    *,
    seed: int = 0,
    latents_at_means: bool = False,
    owner: str = "decode",
) -> Tensor:
    r"""The mean of a variable under the model, given other variables: $E[x \mid z]$.

    Given variables that are not needed are ignored. If the variable depends on latents
    that are not given, they are drawn from the model (a single draw), or set to their means.

    Args:
        pair: the pair; it is not changed.
        name: the variable.
        given: tensors `(data, *event_shape)` by name, such as the latents and the class.
        seed: of the latents that are drawn.
        latents_at_means: set continuous latents that are not given to their means instead.
        owner: the function that error messages name.

    Returns:
        Shape `(data, *event_shape)`, on the CPU, float32.

    Raises:
        ValueError: no such variable, a class, or a family without a mean in closed form.

    Example:
        >>> import torch, probgen as pg
        >>> from probgen.inference.queries.decode import decode
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1)).set_maximum_likelihood(x)
        >>> mean = decode(ppca, "x", {"z": torch.zeros(2, 1)})  # at z = 0: the mean of the data
        >>> torch.allclose(mean, x.mean(0).expand(2, 3), atol=1e-5)
        True
    """
    device = next(pair.parameters()).device
    latents = _LatentsAtMeans(owner) if latents_at_means else nullcontext()
    with evaluation(pair), fixed_seed(seed, device), latents:
        trace = poutine.trace(pair.model).get_trace(**beside_parameters(pair, given))
    return _mean_in(trace, pair, name, owner).float().cpu()


@one_at_a_time
def decode_draws(
    pair: LatentVariableModel,
    n: int = 1,
    *,
    name: str = "x",
    seed: int | None = 0,
    owner: str = "decode_draws",
    **given: Any,
) -> Tensor:
    """Draw from the model as `pair.sample` does, and return the mean of a variable for each draw.

    The latents are those of `pair.sample(n, seed=seed, **given)`; only the noise of the variable
    itself is left out, as pictures of samples are usually shown.

    Args:
        pair: the pair; it is not changed.
        n: how many draws; of each row of `given` if something is given.
        name: the variable.
        seed: of the draws.
        owner: the function that error messages name.
        **given: variables to condition on, `(batch, *event_shape)`, such as `y=torch.arange(10)`.

    Returns:
        `(n, *event_shape)`, or `(n, batch, *event_shape)` if something is given.

    Raises:
        ValueError: no such variable, a class, or a family without a mean in closed form.

    Example:
        >>> import torch, probgen as pg
        >>> from probgen.inference.queries.decode import decode_draws
        >>> _ = torch.manual_seed(0)
        >>> vae = pg.models.VAE(x=pg.Bernoulli(6), z=pg.Normal(2), hidden=(4,))
        >>> probabilities = decode_draws(vae, 3)
        >>> probabilities.shape, bool(((probabilities > 0) & (probabilities < 1)).all())
        (torch.Size([3, 6]), True)
    """
    drawn = pair.sample(n, seed=seed, **given)
    if name not in drawn:
        raise ValueError(f"{owner}: no variable {name!r} among {', '.join(drawn)}.")
    # With the batch dimension that `sample` removes, as for sites inside the two plates.
    fixed = {
        other: value if given else value.unsqueeze(1)
        for other, value in drawn.items()
        if other != name
    }
    inputs = beside_parameters(pair, {key: torch.as_tensor(value) for key, value in given.items()})
    with (
        evaluation(pair),
        fixed_seed(0, next(pair.parameters()).device),  # x itself is drawn too, but not used
        pyro.plate("particles", n, dim=-2),
        pyro.condition(data=fixed),
    ):
        trace = poutine.trace(pair.model).get_trace(**inputs)
    mean = _mean_in(trace, pair, name, owner)
    event_shape = drawn[name].shape[2 if given else 1 :]
    mean = mean.expand(n, pair.batch_size(**inputs), *event_shape)
    return mean if given else mean.squeeze(1)


def mean_of(fn: Any, name: str, owner: str, variable: Variable | None = None) -> Tensor:
    """The mean of a distribution in closed form, or the family's substitute for it.

    Args:
        fn: the distribution.
        name: its variable, for messages.
        owner: the function that error messages name.
        variable: the variable, whose `reconstruction` is used.

    Raises:
        ValueError: the family has no mean, or none in closed form.
    """
    mean: Tensor | None = None
    with suppress(NotImplementedError):
        mean = fn.mean if variable is None else variable.reconstruction(fn)
    if mean is None or bool(mean.isnan().all()):
        raise ValueError(
            f"{owner}: {name} is drawn from {family_name(fn)}, which has no mean in closed form. "
            f"Choose a family that has one, such as pg.Normal, or average draws of {name} yourself."
        )
    return mean


def family_name(fn: Any) -> str:
    """The name of a distribution's family, without wrappers such as `Independent`."""
    while hasattr(fn, "base_dist") and not isinstance(fn, TransformedDistribution):
        fn = fn.base_dist
    return type(fn).__name__


def beside_parameters(pair: LatentVariableModel, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values on the device of the pair's parameters; floating-point ones also in their precision."""
    like = next(pair.parameters())
    return {
        key: value.to(like.device, like.dtype if value.is_floating_point() else None)
        for key, value in given.items()
    }


def _mean_in(trace: Any, pair: LatentVariableModel, name: str, owner: str) -> Tensor:
    """The mean of a variable's distribution in a trace of the model."""
    site = trace.nodes.get(name)
    if site is None or site["type"] != "sample":
        raise ValueError(f"{owner}: {name!r} is not a variable of {pair.name}.")
    if is_class(pair.variables.get(name)):
        raise ValueError(f"{owner}: {name} consists of classes, which have no mean.")
    return mean_of(site["fn"], name, owner, pair.variables.get(name))


class _LatentsAtMeans(Messenger):
    """Continuous latents take their means in place of draws."""

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["done"] and not msg["is_observed"] and msg["fn"].has_rsample:
            msg["value"], msg["done"] = mean_of(msg["fn"], msg["name"], self.owner), True
