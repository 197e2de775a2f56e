"""Check the contract of a pair on the sites of one run of guide and model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from probgen.pair import LatentVariableModel

Site = dict[str, Any]


def check_contract(
    pair: LatentVariableModel,
    guide: Mapping[str, Site],
    model: Mapping[str, Site],
    given: Mapping[str, Tensor],
) -> None:
    """Refuse a run of guide and model that breaks the contract of a pair.

    It reads only Python objects, no values of tensors.

    Args:
        pair: the pair.
        guide: the guide's sites by name.
        model: the model's sites by name.
        given: the data that model and guide were called with.

    Raises:
        ValueError: names the site, and what to change.
    """
    for name, site in guide.items():
        if name not in model and not site["infer"].get("is_auxiliary"):
            raise ValueError(
                f"{pair.name}: the guide samples {name}, but the model has no such site. Add it "
                'to the model, or mark it with infer={"is_auxiliary": True}.'
            )
    for name, site in model.items():
        _check_site(pair, "model", name, site)
        if site["is_observed"] or name in guide:
            continue
        if name in given:
            raise ValueError(
                f"{pair.name}.model: {name} is given, but its pyro.sample does not score it. Write "
                f'pyro.sample("{name}", ..., obs={name}).'
            )
        if "_enumerate_dim" not in site["infer"]:
            raise ValueError(
                f"{pair.name}: {name} is not given and has no guide factor, so nothing infers it. "
                f"Give {name}=..., or add a guide factor q({name} | ...)."
            )
    for name, site in guide.items():
        _check_site(pair, "guide", name, site)
        if name in model and "_enumerate_dim" in site["infer"]:
            ours, theirs = (_num_classes(s["fn"]) for s in (site, model[name]))
            if ours != theirs:
                raise ValueError(
                    f"{pair.name}: {name} has {ours} classes in the guide and {theirs} in the model."
                )
    if not any(site["is_observed"] for site in model.values()):
        raise ValueError(
            f"{pair.name}: nothing that the model scores is given. Its variables are "
            f"{', '.join(model)}; give the data, as in x=..."
        )
    summed = [n for n, site in model.items() if not site["is_observed"] and n not in guide]
    lacking = [name for name in pair.data_names if name in summed] if summed else []
    if lacking:
        raise ValueError(
            f"{pair.name}: {', '.join(lacking)} must be given: nothing infers it, and summing it "
            "out would leave a meaningless number."
        )


def _check_site(pair: LatentVariableModel, owner: str, name: str, site: Site) -> None:
    frames = site["cond_indep_stack"]
    if not any(frame.dim == -1 for frame in frames):
        raise ValueError(
            f"{pair.name}.{owner}: the site {name} is outside pyro.plate('data', n, dim=-1), so "
            "it does not have one value per datum. Latents with one value for all data do not exist yet: "
            f"make {name} a torch.nn.Parameter of the pair, which is learned as one value. Inside "
            f"the plate, {name} would be drawn anew for each datum, which is another model."
        )
    extra = [f.name for f in frames if f.dim != -1 and f.name != "particles"]
    if extra:
        raise ValueError(
            f"{pair.name}.{owner}: the site {name} is in a further plate, {', '.join(extra)}, "
            "whose dim would be mistaken for particles. Make it part of the event: .to_event(...)."
        )
    if isinstance(site["scale"], Tensor) or site["scale"] != 1.0:
        raise ValueError(
            f"{pair.name}.{owner}: the site {name} is scaled by {site['scale']}; objectives act on "
            "each datum, so take poutine.scale and subsample_size out of the pair. Batches are "
            "drawn by pg.fit, KL warm-up is pg.ELBO(warmup_epochs=...)."
        )


def _num_classes(fn: Any) -> int | None:
    """The number of classes of a categorical; `None` for other families."""
    return int(fn.param_shape[-1]) if isinstance(fn, torch.distributions.Categorical) else None
