"""Records of variables: each entry survives what a data set does, and `replace` still works."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg
from probgen.data.field import looks_like_images
from probgen.data.noise import GaussianNoise


def field() -> pg.Field:
    return pg.Field(
        torch.arange(12.0).reshape(6, 2), torch.arange(6) > 1, GaussianNoise(torch.ones(6, 2)),
        "x of a sensor", 1.5, ["a", "b"], images=False,
    )  # fmt: skip


def entries(record: pg.Field) -> list[Any]:
    assert record.observed is not None and isinstance(record.noise, GaussianNoise)
    shape = (tuple(record.values.shape), tuple(record.observed.shape), record.noise.scale.shape)
    return [*shape, record.transformation, record.log_jacobian, record.classes, record.images]


def test_every_method_keeps_every_entry() -> None:
    data = pg.Dataset.from_fields({"x": field(), "w": pg.Field(torch.zeros(6, 1))}, "sensor")
    expected = entries(field())
    for other in (
        data, data.only("x"), data.to(torch.device("cpu")), data.with_fields(v=data.fields["w"]),
        data.with_values({"w": np.ones(6)}), pickle.loads(pickle.dumps(data)), replace(data),
        data.subset(torch.tensor([5, 4, 3, 2, 1, 0])),
    ):  # fmt: skip
        assert entries(other.fields["x"]) == expected and other.name == "sensor"
    assert torch.equal(data.subset(slice(2, 4))["x"], field().values[2:4])
    assert data.columns(torch.tensor([1])).spread["x"].shape == (6, 1)
    assert data.with_observed({"x": None}).observed == {}


def test_the_attributes_are_views_of_the_records() -> None:
    data = pg.Dataset.from_fields({"x": field(), "w": pg.Field(torch.rand(6, 1))})
    assert data.transformations == {"x": "x of a sensor"} and data.log_jacobians == {"x": 1.5}
    assert data.classes == {"x": ["a", "b"]} and list(data.spread) == ["x"] == list(data.observed)
    assert data.binarized("dynamic", "w").drawn_anew == ("w", "x")


def test_dataclasses_replace_works_as_it_did() -> None:
    data = pg.Dataset.from_fields({"x": field(), "w": pg.Field(torch.rand(6, 1))})
    change: Any = replace  # the type checker sees the fields alone
    changed = change(data, values={"x": data["x"] + 1}, observed={}, name="other")
    assert list(changed.fields) == ["x"] and changed.name == "other" and not changed.observed
    assert changed.transformations == data.transformations
    assert change(data, spread={}).drawn_anew == ()
    assert change(data, redrawn=("w",)).redrawn == ("w",)


@pytest.mark.parametrize("rows", [slice(1, 4), torch.tensor([3, 1]), torch.arange(6) % 2 == 0])
def test_a_batch_has_the_rows_that_are_asked_for(rows: Any) -> None:
    record = replace(field(), noise=None)
    values, masks = pg.Dataset.from_fields({"x": record}).batch(rows)
    assert torch.equal(values["x"], record.values[rows])
    assert record.observed is not None and torch.equal(masks["x"], record.observed[rows])


@pytest.mark.parametrize("keyword", ["transformations", "log_jacobians", "redrawn", "classes"])
def test_entries_of_unknown_variables_are_refused(keyword: str) -> None:
    given: Any = ("y",) if keyword == "redrawn" else {"y": 1.0}
    with pytest.raises(ValueError, match=f"{keyword} has 'y', but there is no such variable"):
        pg.Dataset({"x": [1.0]}, **{keyword: given})


@pytest.mark.parametrize(
    ("shape", "images"),
    [
        ((8, 8), True), ((1, 8, 8), True), ((1, 5, 3), True), ((64,), True), ((49,), True),
        ((3, 8, 8), False), ((1, 64), False), ((63,), False), ((36,), False), ((), False),
    ],
)  # fmt: skip
def test_images_by_shape(shape: tuple[int, ...], images: bool) -> None:
    assert looks_like_images(shape) == images
    assert pg.Field(torch.zeros(2, *shape)).is_images == images
    for said in (True, False):
        assert pg.Field(torch.zeros(2, *shape), images=said).is_images == said


def test_images_by_where_they_come_from(tmp_path: Any) -> None:
    np.save(tmp_path / "table.npy", np.random.default_rng(0).random((10, 64)))
    np.save(tmp_path / "stack.npy", np.random.default_rng(0).random((10, 8, 8)))

    def loaded(name: str, **settings: Any) -> bool:
        path: Any = name if name == "digits" else tmp_path / name
        return pg.load(path, **settings).train.fields["x"].is_images

    assert loaded("digits") and loaded("digits", flat=False, transform="none")
    assert not loaded("table.npy") and loaded("table.npy", flat=False)
    assert loaded("stack.npy") and loaded("stack.npy", flat=True)
