"""All pictures of a run that its model and data allow, as files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from probgen.basics.locking import one_at_a_time
from probgen.data.dataset import Dataset, Splits
from probgen.data.support import is_class
from probgen.implicit import ImplicitModel
from probgen.inference.inputs import known_part
from probgen.inference.queries.prior_quantiles import prior_quantiles
from probgen.inference.scoring.marginal_likelihood import log_marginal_likelihood
from probgen.inference.scoring.scores import provenance
from probgen.inference.traces import NoDensityError
from probgen.pair import LatentVariableModel
from probgen.plots.curves import learning_curve
from probgen.plots.diagnostics import importance_weights
from probgen.plots.images import reconstructions, samples
from probgen.plots.latents import latent_scatter, manifold, traversals
from probgen.plots.metrics import metric_curves
from probgen.plots.style import page_style, save
from probgen.plots.tables import draws, elements
from probgen.point_mass import PointMass
from probgen.storage.files import make_folder

if TYPE_CHECKING:
    from probgen.runs.run import Run

FORMATS = ("png", "pdf", "svg")
QUICK_DATA, QUICK_SAMPLES = 500, 500
"""Data and importance samples of the diagnostics where no score was saved."""


NAMES_OF_PICTURES = (
    "learning_curve", "metrics", "reconstructions", "samples", "latent_scatter", "manifold",
    "traversals", "importance_weights",
)  # fmt: skip


@dataclass
class Report:
    """What was drawn.

    Attributes:
        written: the file of each picture, by its name.
        skipped: why a picture does not apply, by its name.
    """

    written: dict[str, Path] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


@one_at_a_time
def report(
    run: Run,
    *,
    data: Splits | None = None,
    folder: str | os.PathLike[str] | None = None,
    format: str = "png",
    page: bool = False,
    progress: bool = False,
) -> Report:
    """Draw every picture that a run's model and data allow.

    Args:
        run: what `pg.load_run` returned.
        data: in place of the data that the run was trained on.
        folder: where to write, by default `figures` in the run directory.
        format: `"png"`, `"pdf"` or `"svg"`.
        page: in the style of a printed page (`pg.plots.page_style`).
        progress: show a progress bar while importance weights are drawn.

    Returns:
        The files by name, and why the others were left out.

    Raises:
        ValueError: an unknown format, or data that the run cannot find.
        OSError: the folder cannot be written.
    """
    if format not in FORMATS:
        raise ValueError(f"report: format must be {', '.join(FORMATS)}, got {format!r}.")
    target = run.path / "figures" if folder is None else Path(folder)
    within = run.path if folder is None else None
    make_folder(target, within)
    splits = run.load_data() if data is None else data
    held = next(reversed(splits.parts.values()))  # test data, or what comes nearest
    pictures, skipped = _choose(run, splits, held, progress)
    result = Report(skipped=skipped)
    for name, draw in pictures.items():
        path = target / f"{name}.{format}"
        if page:
            with page_style():
                save(path, draw, within=within)
        else:
            save(path, draw, within=within)
        result.written[name] = path
    return result


def _choose(
    run: Run, splits: Splits, held: Dataset, progress: bool
) -> tuple[dict[str, Callable[..., Any]], dict[str, str]]:
    pair = run.pair
    pictures: dict[str, Callable[..., Any]] = {}
    skipped: dict[str, str] = {}
    if run.result.elbo:
        pictures["learning_curve"] = partial(learning_curve, run.result)
    else:
        skipped["learning_curve"] = "the run ended before its first epoch"
    if run.result.metrics:
        pictures["metrics"] = partial(metric_curves, run.result)
    held = held.stored()
    known = known_part(pair, held)
    target = next((n for n in pair.data_names if n in held.values and n != "y"), None)
    if target is None or not pair.factors("p"):
        for name in NAMES_OF_PICTURES:
            skipped.setdefault(name, "the pair does not say by conditionals what its data are")
        _choose_weights(run, known, "x", False, pictures, skipped, progress)
        return pictures, {name: why for name, why in skipped.items() if name not in pictures}
    variable = pair.variables[target]
    given: dict[str, Any] = {n: _choices(pair, n) for n in pair.input_names}
    is_images = held.fields[target].is_images
    some = _some(known, 2000)
    if is_class(variable):
        reason = f"{target} is made of classes, which have no mean"
        for name in ("reconstructions", "samples", "manifold", "traversals"):
            skipped[name] = reason
    else:
        recognized = bool(pair.factors("q")) and not _needs_class(pair, known)
        few = _some(known, 40)
        if isinstance(pair, ImplicitModel):
            skipped["reconstructions"] = "an implicit model infers nothing from data"
        elif not recognized:
            skipped["reconstructions"] = "the guide infers no latent without the class"
        elif is_images:
            pictures["reconstructions"] = partial(reconstructions, pair, few, name=target)
        else:
            pictures["reconstructions"] = partial(
                elements, pair, some, name=target, labels=_columns(splits)
            )
        if any(value is None for value in given.values()):
            skipped["samples"] = f"{', '.join(given)} must be given"
        elif is_images:
            columns = len(next(iter(given.values()))) if given else None
            n = 8 if given else 100
            pictures["samples"] = partial(samples, pair, n=n, name=target, columns=columns, **given)
        elif given:
            skipped["samples"] = f"{', '.join(given)} must be given"
        else:
            pictures["samples"] = partial(draws, pair, some, name=target)
    _choose_latents(run, splits, some, target, is_images, pictures, skipped)
    _choose_weights(run, known, target, is_images, pictures, skipped, progress)
    if _has_point_mass(pair):
        for name in ("samples", "manifold", "traversals"):
            pictures.pop(name, None)
            skipped[name] = "the codes of an autoencoder are not distributed like the prior"
    return pictures, skipped


def _choose_latents(
    run: Run, splits: Splits, some: Dataset, target: str, is_images: bool,
    pictures: dict[str, Callable[..., Any]], skipped: dict[str, str],
) -> None:  # fmt: skip
    pair = run.pair
    latent = next((n for n, f in pair.factors("q").items() if not f.variable.discrete), None)
    if latent is None:
        skipped |= {
            name: "the guide infers no continuous latent"
            for name in ("latent_scatter", "manifold", "traversals")
        }
        return
    held = next(reversed(splits.parts.values()))
    labels = None
    if "y" in held.values and "y" not in (held.observed or {}):
        rows = _some(held, 2000)
        if len(rows["y"].unique()) <= 50:
            labels = rows["y"].numpy()
            if "y" in rows.classes:
                labels = np.asarray(rows.classes["y"])[labels]
    where: dict[str, Any] = {"name": target, "latent": latent}
    pictures["latent_scatter"] = partial(latent_scatter, pair, some, labels, **where)
    if "manifold" in skipped:
        return
    prior = pair.factors("p").get(latent)
    alone = prior is not None and not prior.parents and not pair.input_names
    unplaced = None
    try:
        one = {n: v for n, v in _some(some, 1).values.items() if n in pair.input_names}
        prior_quantiles(pair, latent, torch.zeros(1), one)
    except ValueError:
        unplaced = f"the elements of {latent} have no quantiles under the prior"
    if not is_images:
        skipped["manifold"] = "the data are no images"
    elif pair.variables[latent].event_shape.numel() != 2 or not alone:
        skipped["manifold"] = f"{latent} has not two elements with a prior of their own"
    elif unplaced:
        skipped["manifold"] = unplaced
    else:
        pictures["manifold"] = partial(manifold, pair, latent=latent, name=target)
    if _needs_class(pair, some):
        skipped["traversals"] = "the class of the data is not given"
    elif unplaced:
        skipped["traversals"] = unplaced
    else:
        pictures["traversals"] = partial(
            traversals, pair, some, labels=_columns(splits), are_images=is_images, **where
        )


def _choose_weights(
    run: Run, known: Dataset, target: str, is_images: bool,
    pictures: dict[str, Callable[..., Any]], skipped: dict[str, str], progress: bool,
) -> None:  # fmt: skip
    import warnings

    if isinstance(run.pair, ImplicitModel):
        skipped["importance_weights"] = "the model has no density"
        return

    part = known
    scored = provenance(known, list(known.values))["data_hash"]
    score = next((s for s in reversed(run.scores.values()) if s.data_hash == scored), None)
    if score is None:
        part = _some(known, QUICK_DATA)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the picture says it
            try:
                score = log_marginal_likelihood(
                    run.pair, part, num_samples=QUICK_SAMPLES, progress=progress
                )
            except NoDensityError:
                skipped["importance_weights"] = "the guide is a point mass, without a density"
                return
    pictures["importance_weights"] = partial(
        importance_weights, score, part if is_images else None, name=target
    )


def _some(data: Dataset, n: int) -> Dataset:
    return data.subset(slice(0, n))


def _choices(pair: LatentVariableModel, name: str) -> torch.Tensor | None:
    """Every class of an input, or nothing where it is not one class."""
    variable = pair.variables[name]
    if is_class(variable) and not variable.event_shape:
        return torch.arange(variable.num_classes)  # type: ignore[attr-defined]
    return None


def _columns(splits: Splits) -> list[str] | None:
    """The names of a table's columns, where it has names."""
    columns: list[str] | None = (splits.source or {}).get("columns")
    return None if columns is None or all(name.isdigit() for name in columns) else columns


def _has_point_mass(pair: LatentVariableModel) -> bool:
    """Whether a latent is a deterministic function of what the guide sees."""
    return any(isinstance(f.variable, PointMass) for f in pair.factors("q").values())


def _needs_class(pair: LatentVariableModel, data: Dataset) -> bool:
    """Whether a class that x depends on is not given for all data."""
    partly = data.observed or {}
    return any(name not in data.values or name in partly for name in pair.summed_names)
