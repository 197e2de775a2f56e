"""One pass of guide and model, from which every objective and every score is computed.

Pyro's handlers run the pair once: the guide under `trace`, then the model replayed on it; discrete
scalars that are not given get all their values at once.
Log-probabilities are left as tensors of shape `(classes..., particles, data)`, unscaled, and
nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from probgen.basics.locking import one_at_a_time
from probgen.inference.contract import Site as Site
from probgen.inference.contract import check_contract
from probgen.inference.enumeration import SumOut
from probgen.pair import LatentVariableModel
from probgen.point_mass import is_point_mass
from probgen.structure import sample_sites


class NoDensityError(ValueError):
    """A guide with a point mass: there is no ELBO and no importance weight."""


@dataclass
class PairTrace:
    """The sites of one pass and their log-probabilities.

    Attributes:
        model: the model's sites by name, in order.
        guide: the guide's sites by name, in order.
        log_p: log-probability of each model site.
        log_q: log-probability of each guide site.
        guide_sums: dim (negative, in log-probabilities) of each variable summed with a guide
            factor.
        model_sums: dim of each variable summed in the model.
        num_data: size of the data plate.
        num_particles: size of the particle plate; one means there is none.
        observed: for a partly observed variable, its values and the mask of observed data, both
            `(data,)`.
        pair_name: the name of the pair in messages.
    """

    model: dict[str, Site]
    guide: dict[str, Site]
    log_p: dict[str, Tensor]
    log_q: dict[str, Tensor]
    guide_sums: dict[str, int]
    model_sums: dict[str, int]
    num_data: int
    num_particles: int
    observed: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    pair_name: str = "This pair"

    def check_densities(self) -> None:
        """Refuse a guide with a point mass, under which log q is not a density.

        Raises:
            NoDensityError: names the latents and what to do instead.
        """
        names = [name for name, site in self.guide.items() if is_point_mass(site["fn"])]
        if names:
            raise NoDensityError(
                f"{self.pair_name}: the guide puts a point mass on {', '.join(names)}, so there is no "
                'ELBO and no importance weight. Train it with objective="reconstruction", look at '
                "pg.encode and pg.reconstruct, or give its guide a density, such as pg.Normal."
            )

    def allowed(self, name: str) -> Tensor | None:
        """Which classes of a summed variable are possible for each datum, or `None` if all are.

        A row with a label allows only that class: shape `(classes, 1..., data)`.
        """
        if name not in self.observed:
            return None
        values, known = self.observed[name]
        dim = self.sums[name]
        classes = self.model[name]["value"].reshape(-1, *[1] * (-1 - dim))
        return ~known | (classes == values)

    @property
    def sums(self) -> dict[str, int]:
        """Dim of every summed variable."""
        return {**self.guide_sums, **self.model_sums}

    @property
    def sampled(self) -> list[str]:
        """Latents that the guide drew (rather than summed)."""
        return [name for name in self.guide if name not in self.guide_sums]


@one_at_a_time
def trace_pair(
    pair: LatentVariableModel,
    data: Mapping[str, Tensor],
    *,
    num_particles: int = 1,
    observed: Mapping[str, Tensor] | None = None,
    noise: Messenger | None = None,
) -> PairTrace:
    """Run guide and model once on a batch.

    Args:
        pair: the pair.
        data: tensors `(batch, *event_shape)` by variable name.
        num_particles: draws of the guide for each datum.
        observed: for a partly observed variable, a boolean mask `(batch,)`; where it is false
            the value in `data` is not used and the variable is summed out.
        noise: a handler that gives the guide's latents their values in place of random draws.

    Raises:
        ValueError: the pair breaks its contract on these data: a latent that nothing infers, a
            guide site that the model lacks, a site outside the data plate or scaled, nothing
            observed, or a partly observed variable that cannot be summed out.
    """
    partly = {name: (data[name], mask) for name, mask in (observed or {}).items()}
    given = {name: value for name, value in data.items() if name not in partly}
    if not given:
        raise ValueError(
            f"{pair.name}: every variable given is partly observed ({', '.join(partly) or 'none'}); "
            "at least one must be given for all data."
        )
    num_data = pair.batch_size(**data)
    with SumOut(-2 if num_particles == 1 else -3), _particles(num_particles):
        with noise or nullcontext():
            guide_trace = poutine.trace(pair.guide).get_trace(**given)
        replayed = poutine.replay(pair.model, trace=guide_trace)
        model_trace = poutine.trace(replayed).get_trace(**given)
    guide_sites, model_sites = sample_sites(guide_trace), sample_sites(model_trace)
    check_contract(pair, guide_sites, model_sites, given)
    for trace in (guide_trace, model_trace):
        names = [name for name, node in trace.nodes.items() if node["type"] == "param"]
        if names:
            raise ValueError(
                f"{pair.name}: {', '.join(names)} is a pyro.param, which lives outside the pair and "
                "would not be trained. Make it a torch.nn.Parameter of the pair."
            )
    guide_sums = _sums(guide_sites)
    model_sums = _sums({n: s for n, s in model_sites.items() if n not in guide_sites})
    for name in partly:
        if name not in guide_sums and name not in model_sums:
            raise ValueError(
                f"{pair.name}: {name} is observed for some data only, and cannot be summed out "
                "over its classes elsewhere. Only scalar discrete variables of the pair can be "
                "partly observed; drop those data, or fill in their values."
            )
    return PairTrace(
        model_sites,
        guide_sites,
        {name: log_prob(site) for name, site in model_sites.items()},
        {name: log_prob(site) for name, site in guide_sites.items()},
        guide_sums,
        model_sums,
        num_data,
        num_particles,
        partly,
        pair.name,
    )


@one_at_a_time
def trace_guide(
    pair: LatentVariableModel,
    data: Mapping[str, Tensor],
    until: str,
    *,
    num_particles: int = 1,
    observed: Mapping[str, Tensor] | None = None,
    noise: Messenger | None = None,
) -> PairTrace:
    """Run the guide alone, as far as a variable, on a batch that `trace_pair` would take.

    Args:
        pair: the pair.
        data: tensors `(batch, *event_shape)` by variable name.
        until: what comes after this variable in the guide is not run.
        num_particles: draws for each datum.
        observed: as in `trace_pair`.
        noise: as in `trace_pair`.

    Returns:
        A trace whose sites of the guide are also its sites of the model.
    """
    partly = {name: (data[name], mask) for name, mask in (observed or {}).items()}
    given = {name: value for name, value in data.items() if name not in partly}
    trace, dim = poutine.trace(), -2 if num_particles == 1 else -3
    ended = suppress(_ReachedError)  # inside the trace handler, which has recorded the site by then
    plate = _particles(num_particles)
    with SumOut(dim), plate, noise or nullcontext(), trace, ended, _StopAfter(until):
        pair.guide(**given)
    sites = sample_sites(trace.trace)
    log_q = {name: log_prob(site) for name, site in sites.items()}
    size = pair.batch_size(**data)
    return PairTrace(sites, sites, {}, log_q, _sums(sites), {}, size, num_particles, partly)


def _particles(num_particles: int) -> Any:
    """The particle plate, to the left of the data plate; none for one particle."""
    return nullcontext() if num_particles == 1 else pyro.plate("particles", num_particles, dim=-2)


class _ReachedError(Exception):
    """The guide has sampled all that is needed."""


class _StopAfter(Messenger):
    """A handler that ends the run of a guide after one of its variables."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] == self.name:
            raise _ReachedError


def log_prob(site: Site) -> Tensor:
    """Log-probability of a site's value, with its mask applied but not its scale."""
    kind = site["value"].device.type
    with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
        value: Tensor = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    if value.dtype in (torch.bfloat16, torch.float16):
        raise ValueError(
            f"The log-probability of {site['name']} is {value.dtype}, too coarse to be summed. Take "
            "the networks' outputs to float32 before they become a distribution: out.float()."
        )
    mask = site["mask"]
    if mask is None or mask is True:
        return value
    return torch.where(torch.as_tensor(mask, device=value.device), value, value.new_zeros(()))


def _sums(sites: Mapping[str, Site]) -> dict[str, int]:
    dims = {name: site["infer"].get("_enumerate_dim") for name, site in sites.items()}
    return {name: dim for name, dim in dims.items() if dim is not None}


def innermost(fn: Any) -> Any:
    """The distribution under all `Independent` and other wrappers."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn
