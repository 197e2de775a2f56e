"""What follows from who depends on whom, and what a pair says of itself where that cannot be read."""

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
    found: set[str] = set()
    stack = [name]
    while stack:
        new = set(graph.get(stack.pop(), ())) - found
        found |= new
        stack.extend(new)
    return found


def uninformed(
    p: Graph, q: Graph, given: Iterable[str] = (), unread: Iterable[str] = ()
) -> list[str]:
    """Latents whose guide sees no data that say anything of them beyond their prior.

    Data say something of a latent if they depend on it or on what it depends on. What the latent
    itself depends on, a class or an input, does not: p(u | g) knows as much. So a guide q(w), or
    q(u | g), is one distribution for all data, or for all data of a class. A latent on which nothing
    depends, an auxiliary one, is informed by whatever its guide sees.

    Args:
        p: the model.
        q: the guide.
        given: variables with a guide factor that are data all the same.
        unread: variables whose factors are not in `p` or `q`, though the pair samples them. No
            latent is named of which that leaves a doubt.
    """
    missing, unread = q.keys() - set(given), set(unread)
    found = []
    for name in (name for name in q if name in missing and name in p):
        seen = ancestors(q, name)
        own = {name} | ancestors(p, name)
        telling = set(p)
        if not unread and any(name in ancestors(p, v) for v in p):
            telling = {v for v in p if v not in own and ancestors(p, v) & own}
        if not seen & unread and not seen & telling - missing:
            found.append(name)
    return found


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
    """The sites that a model or a guide samples on these values, as far as it comes.

    Args:
        function: `pair.model` or `pair.guide`.
        given: values by name; those that the function does not take are left out.
    """
    parameters = inspect.signature(function).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    taken = {name: v for name, v in given.items() if anything or name in parameters}
    trace = poutine.trace()
    with trace, suppress(Exception):  # a user's code, asked for less than it may need
        function(**taken)
    return set(sample_sites(trace.trace))
