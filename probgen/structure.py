"""The dependency graph of a pair: ancestors, uninformed latents, and the sites that Pyro samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

Graph = Mapping[str, Collection[str]]
"""The parents of each variable that has a factor."""


def ancestors(graph: Graph, name: str) -> set[str]:
    """All variables that `name` depends on, directly or not."""
    above: set[str] = set()
    stack = [name]
    while stack:
        new = set(graph.get(stack.pop(), ())) - above
        above |= new
        stack.extend(new)
    return above


def uninformed(
    p: Graph,
    q: Graph,
    given: Iterable[str] = (),
    unknown: Iterable[str] = (),
    constant: Iterable[str] = (),
) -> list[str]:
    """Latents whose guide sees no data with information about them beyond their prior.

    Data inform a latent if they depend on it or on one of its ancestors. The ancestors themselves,
    such as a class or an input, do not: p(u | g) depends on them already. So a guide q(w) is
    one distribution for all data, and q(u | g) one for all data of a class. An auxiliary latent, on
    which nothing depends, is informed by whatever its guide sees. An input of the guide that no
    conditional of the model has, such as a corrupted copy of the data, counts as data that inform a
    latent, unless it is constant.

    Args:
        p: the model.
        q: the guide.
        given: variables with a guide factor that are given as data.
        unknown: variables that the pair samples although `p` or `q` has no factor for them. Latents
            that may be informed through them are not returned.
        constant: inputs that have the same value for all data.
    """
    missing, unknown = q.keys() - set(given), set(unknown)
    uninformative = set(p).union(*p.values(), q, constant)
    names = []
    for name in (name for name in q if name in missing and name in p):
        seen = ancestors(q, name)
        own = {name} | ancestors(p, name)
        informative = set(p)
        if not unknown and any(name in ancestors(p, v) for v in p):
            informative = {v for v in p if v not in own and ancestors(p, v) & own}
        if not seen & unknown and not seen & informative - missing and seen <= uninformative:
            names.append(name)
    return names


def sample_sites(trace: Any) -> dict[str, Any]:
    """The random variables of a trace by name: no plates, no deterministic sites."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not site_is_subsample(site)
        and not site["infer"].get("_deterministic")
    }


def sites_of(function: Callable[..., Any], given: Mapping[str, Tensor]) -> set[str]:
    """The sites that a model or a guide samples for these values; if it fails, those until then.

    Args:
        function: `pair.model` or `pair.guide`.
        given: values by name; those that are not arguments of the function are ignored.
    """
    parameters = inspect.signature(function).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    arguments = {name: v for name, v in given.items() if anything or name in parameters}
    trace = poutine.trace()
    with trace, suppress(Exception):  # a user's code, which may need more than is given
        function(**arguments)
    return set(sample_sites(trace.trace))


def variable_names(pair: Any) -> list[str]:
    """Names of all variables that the model of a pair takes."""
    parameters = inspect.signature(pair.model).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return list(pair.variables)
    return [p.name for p in parameters]
