"""Check the two stages of a stacked M1+M2."""

from __future__ import annotations

from probgen.conditionals import Conditional
from probgen.pair import LatentVariableModel


def check_stage(
    pair: LatentVariableModel, kind: type[LatentVariableModel], parents: dict[str, tuple[str, ...]]
) -> None:
    """Refuse a stage whose model or guide the stacked model could not reproduce.

    Args:
        pair: the stage.
        kind: the class that it must be of.
        parents: the parents of each of its conditionals.

    Raises:
        TypeError: another class, a `model` or `guide` of its own, or conditionals with other parents.
    """
    owner, name = "M1M2.stacked", kind.__name__
    if not isinstance(pair, kind):
        raise TypeError(f"{owner}: needs a pg.models.{name}, got {type(pair).__name__}.")
    factors = {f"{p}_{n}": factor for p in "pq" for n, factor in pair.factors(p).items()}
    structure = {part: tuple(factor.parents) for part, factor in factors.items()}
    if structure != parents:
        raise TypeError(
            f"{owner}: needs {name}'s factors, but {pair.name} has {pair.factorization('p')}, "
            f"{pair.factorization('q')}. Write the stacked model as a pair of your own."
        )
    inner = [part for part in parents if part != "p_y" and type(factors[part]) is not Conditional]
    own = [
        part for part in ("model", "guide") if getattr(type(pair), part) is not getattr(kind, part)
    ]
    if own or inner:
        raise TypeError(
            f"{owner}: {pair.name} has {', '.join(own + inner)} of its own, which the stacked model "
            "would not have. Write the stacked model as a pair of your own."
        )
