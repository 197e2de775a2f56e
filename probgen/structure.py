"""What follows from who depends on whom, and what a pair says of itself where that cannot be read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
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
