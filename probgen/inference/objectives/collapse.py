"""Signs that adversarial training has failed, from the metrics of its epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

EPOCHS = 5
"""How many epochs in a row must show a sign."""
FIRST_EPOCHS = 10
"""Epochs in which samples may still be alike, since training has just begun."""
LEAST_SPREAD = 0.5
"""Samples vary too little where their standard deviation is below this share of the data's."""
CERTAIN = 0.99
"""The critic has won where D(x) is above this number and D(G(z)) below one minus it."""


def signs_of_collapse(metrics: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """What the last epochs show, one sentence for each sign.

    Args:
        metrics: `"spread"`, `"D(x)"` and `"D(G(z))"` of each epoch.

    Example:
        >>> flat = {"spread": [0.1] * 20, "D(x)": [0.6] * 20, "D(G(z))": [0.4] * 20}
        >>> print(*signs_of_collapse(flat))  # doctest: +ELLIPSIS
        Mode collapse: for 5 epochs the samples have varied by 10% of what the data vary ...
    """
    spread, on_data, on_samples = (
        list(metrics.get(name, ()))[-EPOCHS:] for name in ("spread", "D(x)", "D(G(z))")
    )
    if len(metrics.get("spread", ())) < max(EPOCHS, FIRST_EPOCHS):
        return
    if max(spread) < LEAST_SPREAD:
        yield (
            f"Mode collapse: for {EPOCHS} epochs the samples have varied by {spread[-1]:.0%} of what "
            "the data vary (standard deviations), so the generator makes much the same samples "
            "whatever z is. A smaller learning rate, the penalty r1=... of pg.Adversarial, or a "
            "larger batch may help."
        )
    if min(on_data) > CERTAIN and max(on_samples) < 1 - CERTAIN:
        yield (
            f"The critic has won: for {EPOCHS} epochs D(x) has been above {CERTAIN} and D(G(z)) below "
            f"{1 - CERTAIN:.2f}, so the generator learns little from it. The penalty r1=... of "
            "pg.Adversarial, a smaller critic, or a smaller learning rate for it may help."
        )
