"""Signs that adversarial training has failed, from the metrics of its epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

EPOCHS = 10
"""Number of consecutive epochs that must show a sign."""
FIRST_EPOCHS = 20
"""Epochs at the start of training in which samples may vary little."""
LEAST_SPREAD = 0.5
"""Samples vary too little if their standard deviation is below this share of the data's."""
CERTAIN = 0.99
"""The critic has won if D(x) is above this number and D(G(z)) is below one minus this number."""


def signs_of_collapse(metrics: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """One sentence for each sign of failure, about the first epochs that show it.

    Args:
        metrics: `"spread"`, `"D(x)"` and `"D(G(z))"` of each epoch.

    Example:
        >>> alike = {"spread": [0.1] * 30, "D(x)": [0.6] * 30, "D(G(z))": [0.4] * 30}
        >>> print(*signs_of_collapse(alike))  # doctest: +ELLIPSIS
        Mode collapse: in epochs 21 to 30 the samples varied by 10% of what the data vary ...
    """
    spread, on_data, on_samples = (metrics.get(name, ()) for name in ("spread", "D(x)", "D(G(z))"))
    last = _first_run([value < LEAST_SPREAD for value in spread])
    if last:
        yield (
            f"Mode collapse: in epochs {last - EPOCHS + 1} to {last} the samples varied by "
            f"{spread[last - 1]:.0%} of what the data vary (standard deviations), so the generator "
            "makes similar samples for all z. A smaller learning rate, the penalty r1=... of "
            "pg.Adversarial, or a larger batch may help."
        )
    won = zip(on_data, on_samples, strict=True)
    last = _first_run([real > CERTAIN and false < 1 - CERTAIN for real, false in won])
    if last:
        yield (
            f"The critic has won: in epochs {last - EPOCHS + 1} to {last} D(x) was above {CERTAIN} and "
            f"D(G(z)) below {1 - CERTAIN:.2f}, so the generator learned little. The penalty r1=... of "
            "pg.Adversarial, a smaller critic, or a smaller learning rate for the critic may help."
        )


def _first_run(shown: Sequence[bool]) -> int:
    """The last epoch (counted from one) of the first `EPOCHS` in a row that show a sign; 0 if none."""
    for last in range(FIRST_EPOCHS + EPOCHS, len(shown) + 1):
        if all(shown[last - EPOCHS : last]):
            return last
    return 0
