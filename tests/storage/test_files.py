"""Files that are whole or not there: atomic writes, checksums, states without pickles."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from probgen.storage import files
from probgen.storage.files import (
    RunError,
    pack,
    read_record,
    read_tensors,
    unpack,
    write_record,
    write_tensors,
)

TENSORS = {
    "a": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "b": torch.arange(5),
    "c/d": torch.tensor(1.5, dtype=torch.float64),
    "e": torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).T,
    "f": torch.zeros(0, 3, dtype=torch.bool),
}  # fmt: skip


def test_tensors_and_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    record = {"x": [1, 2.5, None, "ä"], "nan": float("inf")}
    write_tensors(path, TENSORS, record)
    tensors, found = read_tensors(path)
    assert found == record == files.read_tensors_record(path)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)
    from safetensors.torch import load_file

    assert torch.equal(load_file(path)["a"], TENSORS["a"])  # any tool can read it
    write_record(tmp_path / "r.json", record)
    assert read_record(tmp_path / "r.json") == record
    assert oct(path.stat().st_mode & 0o777) == oct(0o666 & ~_umask())
    assert not list(tmp_path.glob(".*"))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A file name of other bytes than UTF-8 reaches Python as lone surrogates."""
    record = {"command": os.fsdecode(b"probgen train \xff.npy"), "é": 1}
    write_record(tmp_path / "r.json", record)
    assert read_record(tmp_path / "r.json") == record


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_every_byte_of_a_file_of_tensors_counts(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    write_tensors(path, TENSORS, {"x": 1})
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(changed))
        with pytest.raises(RunError, match=r"t\.safetensors is damaged"):
            read_tensors(path)
    for length in (0, 7, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError, match="damaged"):
            read_tensors(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"a": 1}', b"[" * 100_000])
def test_damaged_records(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"r\.json (is damaged|was changed)"):
        read_record(path)
    with pytest.raises(RunError, match=r"cannot be read \(No such file"):
        read_record(tmp_path / "none.json")


def test_an_edited_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_record(path, {"learning_rate": 0.1})
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(RunError, match="was changed after it was written"):
        read_record(path)
    write_record(path, {"learning_rate": 0.1})
    path.write_text(json.dumps(json.loads(path.read_text())))  # other white space, same content
    assert read_record(path) == {"learning_rate": 0.1}


@pytest.mark.parametrize(
    ("code", "hint"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "Choose a")]
)
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    path = tmp_path / "a.json"
    write_record(path, {"old": 1})

    def fails(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=rf"a\.json cannot be written \(.*{hint}"):
        write_record(path, {"new": 2})
    assert read_record(path) == {"old": 1} and os.listdir(tmp_path) == ["a.json"]


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A limit on the size of files is what the kernel lets a test set."""
    code = f"""
import resource, pathlib
from probgen.storage.files import write_atomically
path = pathlib.Path({str(tmp_path)!r}) / "a"
write_atomically(path, b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(path, b"x" * 5000)
except OSError as error:
    assert "The disk is full" in str(error), error
else:
    raise SystemExit("written")
assert path.read_bytes() == b"old"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert os.listdir(tmp_path) == ["a"]


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"cannot be written.*Choose a folder"):
            files.make_folder(path)


# ---------------------------------------------------------------- states

MAKERS: dict[str, Any] = {
    "Adam": torch.optim.Adam,
    "AdamW, amsgrad": partial(torch.optim.AdamW, amsgrad=True),
    "SGD with momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "RMSprop": partial(torch.optim.RMSprop, centered=True, momentum=0.5),
    "Adagrad": torch.optim.Adagrad,
    "rate as tensor": partial(
        torch.optim.Adam, lr=torch.tensor(1e-2), capturable=False, foreach=False
    ),
}
SCHEDULERS: dict[str, Any] = {
    "StepLR": partial(lr_scheduler.StepLR, step_size=2),
    "MultiStepLR": partial(lr_scheduler.MultiStepLR, milestones=[2, 2, 4]),
    "CosineAnnealingLR": partial(lr_scheduler.CosineAnnealingLR, T_max=7),
    "OneCycleLR": partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=20),
    "LambdaLR": partial(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.9**epoch),
    "ReduceLROnPlateau": partial(lr_scheduler.ReduceLROnPlateau, patience=1),
    "SequentialLR": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer, 0.1), lr_scheduler.ExponentialLR(optimizer, 0.9)],
        milestones=[3],
    ),
}


def _steps(net: Any, optimizer: Any, scheduler: Any, seeds: range) -> None:
    for seed in seeds:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(float(loss))
        elif scheduler is not None:
            scheduler.step()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("maker", "schedule"),
    [(name, None) for name in MAKERS] + [("Adam", name) for name in SCHEDULERS],
)
def test_optimizers_and_schedulers_go_on_to_the_bit(
    tmp_path: Path, maker: str, schedule: str | None
) -> None:
    def fresh() -> tuple[Any, Any, Any]:
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2)
        optimizer = MAKERS[maker](net.parameters())
        return net, optimizer, schedule and SCHEDULERS[schedule](optimizer)

    net, optimizer, scheduler = fresh()
    _steps(net, optimizer, scheduler, range(12))
    half, first, before = fresh()
    _steps(half, first, before, range(5))
    tensors: dict[str, Any] = {f"net/{n}": t for n, t in half.state_dict().items()}
    record = {"optimizer": pack(first.state_dict(), tensors, "optimizer")}
    if before is not None:
        record["scheduler"] = pack(before.state_dict(), tensors, "scheduler")
    write_tensors(tmp_path / "s", tensors, record)

    again, second, after = fresh()
    tensors, record = read_tensors(tmp_path / "s")
    again.load_state_dict({n: tensors[f"net/{n}"] for n in again.state_dict()})
    second.load_state_dict(unpack(record["optimizer"], tensors))
    if after is not None:
        after.load_state_dict(unpack(record["scheduler"], tensors))
    _steps(again, second, after, range(5, 12))
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert optimizer.param_groups[0]["lr"] == second.param_groups[0]["lr"]


def test_states_keep_their_kinds() -> None:
    state = {0: (1, 2.5, None), "a": [True, "x"], "t": torch.ones(2), "c": Counter({3: 2})}
    tensors: dict[str, Any] = {}
    found = unpack(json.loads(json.dumps(pack(state, tensors, "s"))), tensors)
    assert found[0] == (1, 2.5, None) and type(found[0]) is tuple
    assert found["a"] == [True, "x"] and found["c"] == {3: 2} and found["t"] is state["t"]
    with pytest.raises(TypeError, match=r"s/k is .*, which cannot be stored without a pickle"):
        pack({"k": object()}, {}, "s")
