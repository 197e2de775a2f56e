"""Transformations of one variable: dequantize, binarize, standardize, and hide labels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from probgen.basics.tensors import plain_tensor
from probgen.data.field import Field
from probgen.data.noise import Binarization, Corruption, GaussianNoise


def dequantized(field: Field, name: str, levels: int, seed: int) -> Field:
    """Map grey levels k in 0..levels-1 to (k + u) / levels with one stored uniform draw u.

    Raises:
        ValueError: values that are not whole numbers in 0..levels-1, or that are drawn anew in every batch.
    """
    if field.noise is not None:
        raise ValueError(
            f"Dataset.dequantized: {name} is drawn anew in every batch. Dequantize the stored grey levels."
        )
    values = field.values.double()
    if bool(((values != values.round()) | (values < 0) | (values >= levels)).any()):
        raise ValueError(
            f"Dataset.dequantized: {name} must hold whole grey levels 0..{levels - 1}, got "
            f"values from {values.min():.4g} to {values.max():.4g}."
        )
    uniform = torch.from_numpy(np.random.default_rng(seed).random(values.shape))
    # Rounding k + u to float32 must not reach the next level.
    result = ((values + uniform) / levels).float().clamp(max=1 - 2**-24)
    return replace(
        field,
        values=result,
        transformation=f"({name} + u) / {levels}, u uniform, one stored draw (seed {seed})",
        log_jacobian=-math.prod(values.shape[1:]) * math.log(levels),
    )


def scaled_to_unit(field: Field, name: str, levels: int, owner: str) -> Field:
    """Map whole grey levels 0..levels-1 to numbers from 0 to 1.

    Raises:
        ValueError: values that are not whole numbers in 0..levels-1.
    """
    values = field.values.double()
    if bool(((values != values.round()) | (values < 0) | (values >= levels)).any()):
        raise ValueError(
            f"{owner} must hold whole grey levels 0..{levels - 1}, got values from "
            f"{values.min():.4g} to {values.max():.4g}. Say how many levels there are, as in levels=256."
        )
    return replace(
        field,
        values=(values / (levels - 1)).float(),
        transformation=f"{name} grey, from 0 to 1",
        log_jacobian=-math.prod(values.shape[1:]) * math.log(levels - 1),
    )


def binarized(field: Field, name: str, how: Literal["static", "dynamic"], seed: int) -> Field:
    """Draw zeros and ones from probabilities, once and stored, or anew in every batch.

    Raises:
        ValueError: an unknown word, values outside [0, 1], or other noise that is drawn anew.
    """
    if how not in ("static", "dynamic"):
        raise ValueError(f'Dataset.binarized: use "static" or "dynamic", got {how!r}.')
    if field.noise is not None and not isinstance(field.noise, Binarization):
        raise ValueError(
            f"Dataset.binarized: {name} is drawn anew in every batch already. Store one draw first: "
            "data.stored()."
        )
    values = field.values
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(
            f"Dataset.binarized: {name} must lie in [0, 1], got values from {values.min():.4g} "
            f"to {values.max():.4g}. Divide by the largest grey level first."
        )
    earlier = f"{field.transformation}, then " if field.transformation else ""
    # A probability mass has no Jacobian.
    if how == "dynamic":
        words = f"{earlier}{name} binarized anew in every batch"
        return replace(field, noise=Binarization(), transformation=words, log_jacobian=None)
    return replace(
        field,
        values=Binarization().store(values, seed),
        noise=None,
        transformation=f"{earlier}{name} binarized by one stored draw (seed {seed})",
        log_jacobian=None,
    )


def stored(field: Field, name: str, seed: int, index: int) -> Field:
    """One stored draw in place of noise; `index` counts the variables, so that draws are independent."""
    if field.noise is None:
        return field
    if isinstance(field.noise, Binarization):
        return binarized(field, name, "static", seed)
    return replace(
        field,
        values=field.noise.store(field.values, seed, index),
        noise=None,
        transformation=f"{field.transformation or name}, one stored draw (seed {seed})",
    )


def corrupted(field: Field, name: str, corruption: Corruption) -> Field:
    """A copy as the input of a denoising autoencoder, corrupted anew in every batch.

    Raises:
        ValueError: other noise is drawn anew, so that the copy would contain another draw of it.
    """
    if field.noise is not None:
        raise ValueError(
            f"Dataset.corrupted: {name} is drawn anew in every batch, so a corrupted copy of it would "
            "contain another draw. Store one draw first: data.stored()."
        )
    values = field.values if field.values.is_floating_point() else field.values.float()
    words = f"{field.transformation or name}, {corruption.words}, drawn anew in every batch"
    return Field(values, field.observed, corruption, words, images=field.images)


def standardized(field: Field, name: str, mean: Tensor | None, scale: Tensor | None) -> Field:
    """Subtract each element's mean and divide by its standard deviation, by default of these data.

    Raises:
        ValueError: an element is constant, so that its standard deviation is 0; or zeros and ones,
            or corrupted values, are drawn anew in every batch.
    """
    if field.noise is not None and not isinstance(field.noise, GaussianNoise):
        raise ValueError(
            f"Dataset.standardized: {name} is drawn anew in every batch. Standardize it first, or store one "
            "draw: data.stored()."
        )
    values = field.values.double()
    mean, scale = (
        of_data if given is None else plain_tensor(given, what, "Dataset.standardized").double()
        for given, of_data, what in (
            (mean, values.mean(0), "mean"),
            (scale, values.std(0, correction=0), "scale"),
        )
    )
    constant = (scale <= 0).flatten().nonzero().flatten()
    if len(constant):
        raise ValueError(
            f"Dataset.standardized: {len(constant)} elements of {name} are constant, the first "
            f"is number {int(constant[0])} (counted from 0). Leave them out."
        )
    earlier = f"{field.transformation}, then " if field.transformation else ""
    return replace(
        field,
        values=((values - mean) / scale).float(),
        noise=None if field.noise is None else field.noise.divided_by(scale),
        transformation=f"{earlier}{name} standardized by the training data",
        log_jacobian=(field.log_jacobian or 0.0) - float(scale.log().sum()),
    )


def labels_kept(field: Field, per_class: int, seed: int) -> Field:
    """Hide all labels except some of each class, chosen by the seed among the known ones.

    Raises:
        ValueError: a class has fewer data, or `per_class` is below one.
    """
    labels, known = field.values.numpy(), field.known.numpy()
    generator = np.random.default_rng(seed)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in np.unique(labels[known]):
        rows = np.flatnonzero((labels == label) & known)
        if not 1 <= per_class <= len(rows):
            raise ValueError(
                f"Dataset.keep_labels: class {label} has {len(rows)} data, so per_class must "
                f"be from 1 to {len(rows)}, got {per_class}."
            )
        mask[torch.from_numpy(generator.choice(rows, per_class, replace=False))] = True
    return replace(field, observed=mask)
