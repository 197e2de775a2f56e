"""Models that a user registers: what is refused, and what is found."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import probgen as pg
from probgen.models import MODELS


def test_a_model_is_known_by_its_class_or_by_what_it_states() -> None:
    @pg.register_model
    class Registered(pg.models.VAE):
        """A VAE of this test."""

    @pg.register_model
    class Stated(pg.models.VAE):
        """Another."""

        registered_name = "stated-name"

    class Below(Stated):
        """A subclass does not inherit the name."""

    assert (
        MODELS.get("registered") is Registered
        and MODELS.help("registered") == "A VAE of this test."
    )
    assert MODELS.name_of(Stated) == "stated-name" and MODELS.name_of(Below) is None
    assert "registered" not in MODELS.attributes().values()


@pytest.mark.parametrize("thing", [nn.Linear, 3, "VAE", pg.Normal])
def test_only_models_are_models_and_families_families(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a subclass of pg\.LatentVariableModel"):
        pg.register_model(thing)
    if thing is not pg.Normal:
        with pytest.raises(TypeError, match=r"expected a subclass of pg\.Variable"):
            pg.register_family(thing)


def test_names_of_the_library_are_taken() -> None:
    with pytest.raises(
        ValueError, match="A model named 'vae' is registered already by the library"
    ):
        pg.register_model(type("VAE", (pg.LatentVariableModel,), {}))
    own = {"distribution": lambda self, loc: pg.Normal(1).distribution(loc)}
    with pytest.raises(ValueError, match="A family named 'normal' is registered already"):
        pg.register_family(type("Normal", (pg.Variable,), own))
    with pytest.raises(TypeError, match="must define distribution"):
        pg.register_family(type("Empty", (pg.Variable,), {}))


def test_every_model_is_an_attribute_and_others_are_not() -> None:
    assert {"VAE", "M1M2", "FactorAnalysis"} <= set(dir(pg.models))
    assert pg.models.M1M2 is MODELS.get("m1+m2")
    for place in (pg, pg.models):
        with pytest.raises(AttributeError, match="NoSuchThing"):
            place.NoSuchThing  # noqa: B018
