"""What every test and every example in a docstring shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from probgen.data.sources import SOURCES
from probgen.families import FAMILIES
from probgen.inference.objectives import OBJECTIVES
from probgen.models import MODELS


@pytest.fixture(autouse=True)
def registrations_end_with_the_test() -> Iterator[None]:
    """Names that a test registers are unknown to the next one, so that the order does not matter."""
    registries = (SOURCES, FAMILIES, OBJECTIVES, MODELS)
    before = [dict(registry._registered) for registry in registries]
    yield
    for registry, registered in zip(registries, before, strict=True):
        registry._registered.clear()
        registry._registered.update(registered)
