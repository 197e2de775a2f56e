"""Enumeration: discrete scalars that are not given take all their values at once."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger


class SumOut(Messenger):
    """Gives every unobserved scalar discrete site all its values at once, along a new left dim.

    Pyro's `enum` does this for sites that are marked. Here sites need no mark, and the information
    that Pyro needs to pack dims is left out, which makes a run faster. This handler is outside
    `replay`, so that a site which the guide has enumerated is not enumerated again in the model.
    """

    def __init__(self, first_available_dim: int) -> None:
        super().__init__()
        self.dim = first_available_dim

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if msg["done"] or msg["is_observed"] or not getattr(fn, "has_enumerate_support", False):
            return
        if fn.event_shape or msg["infer"].get("is_auxiliary"):
            return
        values = fn.enumerate_support(expand=False)
        msg["value"] = values.reshape(-1, *[1] * (-1 - self.dim))
        msg["done"] = True
        msg["infer"]["_enumerate_dim"] = self.dim
        self.dim -= 1
