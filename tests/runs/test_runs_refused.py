"""Run directories that are refused: not this run, damaged, half there; and what a full disk leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probgen as pg
from probgen.inference.training import recorder as recording
from probgen.storage.files import read_record, write_record, write_tensors
from tests.fitting import QUICK, structured, vae, weights
from tests.forging import forged
from tests.pairs import CASES
from tests.runs.test_runs import SETTINGS, curves


def small_run(folder: Path) -> Path:
    pg.fit(vae(), structured(40), num_epochs=2, run_dir=folder, **SETTINGS)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 2e-2}, r"begun with learning_rate 0\.01, but now it is 0\.02"),
        ({"seed": 1}, "begun with seed 0"),
        ({"batch_size": 4}, "begun with batch_size 8"),
        ({"objective": pg.ELBO(2)}, r"begun with objective elbo, but now it is ELBO\("),
        ({"optimizer": torch.optim.SGD}, "begun with optimizer None"),
        ({"scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau}, "begun with scheduler"),
        ({"precision": "float64"}, "begun with precision"),
        ({"validation": structured(8)}, "begun with data"),
        ({"data": structured(38)}, "begun with data"),
        ({"pair": 0}, "begun with model"),
    ],
)
def test_resuming_something_else(change: Any, message: str, tmp_path: Path) -> None:
    small_run(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.*") if p.is_file()}
    settings = {**SETTINGS, "data": structured(40), "num_epochs": 3, **change}
    pair = vae() if settings.pop("pair", None) is None else CASES["PPCA"].build()
    data = torch.randn(40, 6) if pair.name == "PPCA" else settings["data"]
    settings.pop("data")
    with pytest.raises(pg.RunError, match=message):
        pg.fit(pair, data, run_dir=tmp_path, resume=True, **settings)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.*") if p.is_file()} == before


def test_a_folder_with_a_run_is_never_overwritten(tmp_path: Path) -> None:
    small_run(tmp_path)
    with pytest.raises(pg.RunError, match=r"already holds a run\. Resume it \(resume=True"):
        pg.fit(vae(), structured(40), num_epochs=2, run_dir=tmp_path, **SETTINGS)
    (tmp_path / "config.json").unlink()
    for resume in (False, True):
        with pytest.raises(pg.RunError, match=r"weights but no config\.json"):
            pg.fit(vae(), structured(40), num_epochs=2, run_dir=tmp_path, resume=resume, **SETTINGS)
    with pytest.raises(ValueError, match="resume=True needs run_dir"):
        pg.fit(vae(), structured(40), num_epochs=2, resume=True, **SETTINGS)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written"):
        pg.fit(vae(), structured(40), num_epochs=2, run_dir=tmp_path / "file", **SETTINGS)


def test_run_directories_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(pg.RunError, match=r"There is no run in .*: it does not exist"):
        pg.load_run(tmp_path / "nowhere")
    with pytest.raises(pg.RunError, match=r"it has no config\.json"):
        pg.load_run(tmp_path)
    small_run(tmp_path)
    config = read_record(tmp_path / "config.json")
    write_record(tmp_path / "config.json", {**config, "format": 2})
    with pytest.raises(pg.RunError, match=r"written by a newer probgen.*Update probgen"):
        pg.load_run(tmp_path)
    write_record(tmp_path / "config.json", {**config, "run": "0"})
    with pytest.raises(pg.RunError, match="belongs to another run"):
        pg.load_run(tmp_path)
    write_record(tmp_path / "config.json", {"format": 1})
    with pytest.raises(pg.RunError, match="not the configuration of a run"):
        pg.load_run(tmp_path)
    write_record(tmp_path / "config.json", config)
    metrics = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text(metrics.replace("1,-", "1,", 1))
    with pytest.raises(pg.RunError, match=r"metrics\.csv was changed.*Delete it"):
        pg.load_run(tmp_path)
    (tmp_path / "metrics.csv").unlink()
    pg.load_run(tmp_path)
    checkpoint = (tmp_path / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").unlink()
    with pytest.raises(pg.RunError, match=r"but no checkpoint\.safetensors"):
        pg.fit(vae(), structured(40), num_epochs=3, run_dir=tmp_path, resume=True, **SETTINGS)
    pg.load_run(tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(checkpoint)
    (tmp_path / "weights.safetensors").unlink()
    assert pg.load_run(tmp_path).result.stopped == "interrupted"  # from the checkpoint
    (tmp_path / "checkpoint.safetensors").unlink()
    with pytest.raises(pg.RunError, match="a configuration but no weights"):
        pg.load_run(tmp_path)


@pytest.mark.parametrize(
    "description",
    [
        {"kind": "library", "class": "os.system", "arguments": {"command": "false"}},
        {"kind": "library", "class": "__builtins__", "arguments": {}},
        {"kind": "pickle"},
        {"kind": "declared", "p": "p(x)\n    import os", "q": "", "variables": {"x": "normal:6"},
         "hidden": [], "activation": {"activation": "Tanh"}, "own": {}},
        {"kind": "declared", "p": "p(x)", "q": "", "variables": {"x": "normal:6"},
         "hidden": ["__import__('os')"], "activation": {"activation": "Tanh"}, "own": {}},
        {"kind": "declared", "p": "p(x)", "q": "", "variables": {"x": "normal:6"},
         "hidden": [], "activation": {"activation": "__class__"}, "own": {}},
        {"kind": "declared", "p": "p(x)", "q": "", "variables": {"x": "normal:6"}, "hidden": [],
         "activation": {"activation": "Tanh"}, "own": {"p_x": {"network": "exec", "settings": {}}}},
        {"kind": "registered", "name": "os", "class": "os.system", "arguments": {"command": "false"}},
        {"kind": "registered", "name": "vae", "class": "os.system", "arguments": {}},
    ],
)  # fmt: skip
def test_descriptions_name_nothing_but_models(description: Any, tmp_path: Path) -> None:
    forged(small_run(tmp_path / "run"), tmp_path / "forged", model=description)
    with pytest.raises(
        pg.RunError, match=r"cannot be built from its description|of an unknown kind"
    ):
        pg.load_run(tmp_path / "forged")


def test_data_that_changed_since(tmp_path: Path) -> None:
    file = tmp_path / "data.npy"
    np.save(file, structured(50).numpy())
    pg.fit(vae(), pg.load(file), num_epochs=1, run_dir=tmp_path / "run", **QUICK)
    assert len(pg.load_run(tmp_path / "run").load_data().train) == 35
    np.save(file, structured(51).numpy()[1:])
    with pytest.raises(pg.RunError, match=r"has changed since .* was trained: the train data"):
        pg.load_run(tmp_path / "run").load_data()
    file.unlink()
    with pytest.raises(FileNotFoundError, match="there is no file"):
        pg.load_run(tmp_path / "run").load_data()
    with pytest.raises(
        pg.RunError, match="trained on arrays and does not record where they came from"
    ):
        pg.load_run(small_run(tmp_path / "arrays")).load_data()


def test_a_disk_that_fills_up_leaves_the_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pg.fit(vae(), structured(40), num_epochs=5, **SETTINGS)
    write, count = write_tensors, [0]

    def full(path: Path, *rest: Any) -> None:
        count[0] += 1
        if count[0] == 4:
            raise OSError(28, "No space left on device")
        write(path, *rest)

    monkeypatch.setattr(recording, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        pg.fit(vae(), structured(40), num_epochs=5, run_dir=tmp_path, **SETTINGS)
    assert len(pg.load_run(tmp_path).result.elbo) == 2
    result = pg.fit(vae(), structured(40), num_epochs=5, run_dir=tmp_path, resume=True, **SETTINGS)
    assert curves(result) == curves(whole)


def test_optimizer_states_that_need_a_pickle(tmp_path: Path) -> None:
    class Odd(torch.optim.SGD):
        def state_dict(self) -> Any:
            return {**super().state_dict(), "odd": object()}

    pair = vae()
    with pytest.raises(TypeError, match="cannot be stored without a pickle"):
        pg.fit(pair, structured(16), num_epochs=1, run_dir=tmp_path, optimizer=Odd, **QUICK)
    assert torch.equal(weights(pair), weights(vae()))
    assert os.listdir(tmp_path)
