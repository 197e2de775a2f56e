"""The check for latents that no data inform, usually meant to have one value for all data."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from probgen.inference.traces import PairTrace, Site, innermost
from probgen.pair import LatentVariableModel


def check_informed(
    pair: LatentVariableModel,
    trace: PairTrace,
    known: Collection[str],
    constant: Collection[str],
    owner: str,
) -> None:
    """Refuse to learn a latent with one guide for all data, unless the pair has `local = True`.

    Such a guide is valid but rarely intended: each datum draws the latent anew, and no datum
    informs it. Usually one value for all data is intended, such as the weights of a regression, and
    training would fit another model without a warning.

    Args:
        pair: the pair.
        trace: a trace of guide and model on two data.
        known: variables that are given for all data.
        constant: inputs that have the same value for all data.
        owner: the function that the message names.

    Raises:
        ValueError: names the latents, and what can be done.
    """
    if pair.local:
        return
    latents = [name for name in trace.guide if name in trace.model and name not in known]
    names = [name for name in pair.uninformed_names(known, constant) if name in latents]
    if trace.num_data > 1:
        without_factor = (name for name in latents if name not in pair.factors("q"))
        names += [name for name in without_factor if _is_shared(trace.guide[name])]
    if not names:
        return
    one, it = (names[0], "it") if len(names) == 1 else (", ".join(names), "them")
    raise ValueError(
        f"{owner}: no data inform {one} in {pair.name}: the model draws {it} anew for each datum, but "
        f"the guide sees no data that depend on {it}. If you mean one value for all data, such as the "
        "weights of a regression: latents with one value for all data do not exist yet; use a "
        "torch.nn.Parameter in a network of your own. If each datum has its own value, let the guide "
        f"see the data, as in q({names[0]} | ...). If one guide for all data is intended, use "
        "declare(..., local=True), or local = True in the class."
    )


def _is_shared(site: Site) -> bool:
    """Whether all data of a site share one distribution, judged by the strides of its parameters.

    A parameter that the plate expanded has stride 0 over the data. The output of a network has
    another stride, even if its values are equal, and so has a value that depends on a summed class.
    If this cannot be determined, as for a normalizing flow, the result is false.
    """
    fn = site["fn"]
    base = innermost(fn)
    while fn is not base:
        if hasattr(fn, "transforms"):
            return False
        fn = fn.base_dist
    dims = len(base.batch_shape)
    batch = dims - (len(site["fn"].event_shape) - len(base.event_shape))
    tensors = [value for value in vars(base).values() if isinstance(value, Tensor)]
    return bool(tensors) and not any(
        value.shape[dim] > 1 and value.stride(dim) > 0
        for value in tensors
        if value.dim() >= dims
        for dim in range(batch)
    )
