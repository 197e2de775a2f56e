"""bfloat16 only where it pays: what is computed in, what is said of it, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg
from probgen.inference.compute import devices
from tests.fitting import QUICK, structured, vae, weights

CPU = torch.device("cpu")
SETTINGS: Any = {"num_epochs": 2, "batch_size": 16, **QUICK}
ABILITIES: list[tuple[dict[str, Any], bool]] = [
    ({"avx2": True, "avx512_f": True}, False),
    ({"avx512_bf16": True}, True),
    ({"amx_bf16": True}, True),
    ({"neon": True, "bf16": False}, False),
    ({"neon": True, "bf16": True}, True),
]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without instructions for bfloat16."""
    monkeypatch.setattr(
        "probgen.inference.compute.devices.has_bf16", lambda device: False, raising=False
    )


@pytest.mark.parametrize(("abilities", "expected"), ABILITIES)
def test_which_processors_have_it(
    abilities: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert devices.has_bf16(CPU) is expected


@pytest.mark.parametrize(("generation", "expected"), [((7, 5), False), ((8, 0), True)])
def test_which_gpus_have_it(
    generation: tuple[int, int], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: generation)
    monkeypatch.setattr(torch.version, "hip", None)
    assert devices.has_bf16(torch.device("cuda")) is expected


@pytest.mark.usefixtures("without")
def test_a_fit_takes_float32_in_its_place_and_says_so(tmp_path: Path) -> None:
    x = structured(32)
    plain, asked, forced = (vae() for _ in range(3))
    pg.fit(plain, x, **SETTINGS)
    with pytest.warns(UserWarning, match="fit: .*would be slower.*float32 is used.*bf16-forced"):
        result = pg.fit(asked, x, precision="bf16", run_dir=tmp_path / "run", **SETTINGS)
    assert torch.equal(weights(plain), weights(asked)) and result.precision == "float32"
    run = pg.load_run(tmp_path / "run")
    assert run.config["settings"]["precision"] == run.result.precision == "float32"
    assert pg.fit(forced, x, precision="bf16-forced", **SETTINGS).precision == "bf16"
    assert not torch.equal(weights(plain), weights(forced))


@pytest.mark.usefixtures("without")
@pytest.mark.filterwarnings("ignore::probgen.UnreliableEstimateWarning")
def test_a_score_takes_float32_in_its_place_and_says_so() -> None:
    pair, x = vae(), structured(4)
    settings: Any = {"num_samples": 50}
    plain = pg.log_marginal_likelihood(pair, x, **settings)
    with pytest.warns(UserWarning, match="log_marginal_likelihood: .*float32 is used"):
        asked = pg.log_marginal_likelihood(pair, x, precision="bf16", **settings)
    forced = pg.log_marginal_likelihood(pair, x, precision="bf16-forced", **settings)
    assert np.array_equal(plain.log_prob, asked.log_prob)
    assert not np.array_equal(plain.log_prob, forced.log_prob)
    assert [s.precision for s in (plain, asked, forced)] == ["float32", "float32", "bf16"]


@pytest.mark.filterwarnings("error::probgen.PrecisionWarning")
def test_where_it_pays_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda device: True)
    assert pg.fit(vae(), structured(32), precision="bf16", **SETTINGS).precision == "bf16"
    with pytest.raises(ValueError, match="precision='bf17' is unknown; use float32"):
        pg.fit(vae(), structured(32), precision="bf17", **SETTINGS)
