"""Processes that a launcher started: they are joined, share the work, and end with the same numbers."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import probgen as pg
from probgen.basics.launcher import Launch, launched
from tests.fitting import structured

SCRIPT = """
import sys, torch, probgen as pg
from pathlib import Path
from tests.fitting import structured

folder = Path(sys.argv[1])
torch.manual_seed(sum(int(__import__("os").environ.get(n, 0)) for n in ("RANK", "SLURM_PROCID")))  # weights differ until they are shared
vae = pg.models.VAE(x=pg.Normal(6), z=pg.Normal(2), hidden=(4,))
if torch.distributed.is_initialized():
    raise SystemExit("nothing joins before the first call")
data = pg.Dataset({"x": structured(64)}).split(validation=16, seed=0)
result = pg.fit(vae, data, num_epochs=3, batch_size=8, device="cpu", run_dir=folder / "run")
score = pg.log_marginal_likelihood(vae, data.validation, num_samples=50, device="cpu", progress=True)
rank = torch.distributed.get_rank()
torch.save({"weights": vae.state_dict(), "elbo": result.elbo, "validation": result.validation_elbo,
            "score": torch.from_numpy(score.log_prob)}, folder / f"{rank}.pt")
try:
    pg.fit(vae, data, num_epochs=1, devices=2, device="cpu")
except ValueError as error:
    (folder / f"{rank}.txt").write_text(str(error))
"""

FAILS = """
import sys, torch, probgen as pg
from tests.fitting import structured

vae = pg.models.VAE(x=pg.Normal(6), z=pg.Normal(2), hidden=(4,))
rank = int(__import__("os").environ["RANK"])
{body}
"""


def environment(**further: str) -> dict[str, str]:
    """Of a process that a launcher starts."""
    root = str(Path(pg.__file__).parent.parent)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, **further}


def torchrun(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes of torchrun."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    return subprocess.run(
        [*command, str(script), *arguments], capture_output=True, text=True, env=environment(),
        timeout=300,
    )  # fmt: skip


@pytest.mark.long
def test_the_page_on_several_machines(tmp_path: Path) -> None:
    """Its script runs as its first command says."""
    page = (Path(pg.__file__).parent.parent / "docs" / "several-machines.md").read_text()
    script = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "script.py").write_text(script)
    line = next(line for line in page.splitlines() if line.startswith("torchrun --standalone"))
    command = [sys.executable, "-m", "torch.distributed.run", *shlex.split(line)[1:]]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd=tmp_path, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("log p(x)")]
    assert len(lines) == 2 and lines[0] == lines[1], "each prints what its script says"
    assert pg.load_run(tmp_path / "runs" / "digits").pair.name == "VAE"


def free_port() -> str:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


def run_both(commands: Sequence[list[str]], environments: Sequence[dict[str, str]]) -> list[str]:
    """Run two processes beside each other; their errors."""
    begun = [
        subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        for command, env in zip(commands, environments, strict=True)
    ]
    errors = [process.communicate(timeout=300)[1] for process in begun]
    assert [process.returncode for process in begun] == [0, 0], errors
    return errors


def check(folder: Path, errors: str) -> None:
    """Both processes have the same numbers, and those of two that `devices=2` starts."""
    first, second = (torch.load(folder / f"{rank}.pt") for rank in (0, 1))
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
    assert first["elbo"] == second["elbo"] and len(first["elbo"]) == 3
    assert first["validation"] == second["validation"]
    assert torch.equal(first["score"], second["score"]) and len(first["score"]) == 16
    torch.manual_seed(0)
    vae = pg.models.VAE(x=pg.Normal(6), z=pg.Normal(2), hidden=(4,))
    data = pg.Dataset({"x": structured(64)}).split(validation=16, seed=0)
    result = pg.fit(vae, data, num_epochs=3, batch_size=8, device="cpu", devices=2, progress=False)
    assert result.elbo == first["elbo"] and result.validation_elbo == first["validation"]
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, first["weights"][name]), name
    run = pg.load_run(folder / "run")
    for name, tensor in run.pair.state_dict().items():
        assert torch.equal(tensor, first["weights"][name]), name
    for rank in (0, 1):
        said = (folder / f"{rank}.txt").read_text()
        assert said.startswith(
            "fit: devices=2 was given inside one of 2 processes that already share the work"
        )
    assert errors.count("fit VAE 3/3") <= 1, "one process alone prints"


@pytest.mark.slow
def test_torchrun_shares_the_work(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = torchrun(script, str(tmp_path))
    assert done.returncode == 0, done.stderr
    check(tmp_path, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("pg.fit(vae, structured(32 + rank), num_epochs=1, device='cpu')",
         "fit: the processes were given different data"),
        ("pg.fit(vae, structured(32), num_epochs=1, device='cpu', run_dir=sys.argv[0])",
         "Process 0 of 2 failed"),
        ("pg.fit(vae, [{'x': structured(32)}], num_epochs=1, device='cpu')",
         "fit: 2 processes cannot share an iterable of batches"),
    ],
)  # fmt: skip
def test_what_fails_in_one_process_ends_all(tmp_path: Path, body: str, words: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(FAILS.format(body=body))
    done = torchrun(script)
    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.slow
def test_srun_shares_the_work(tmp_path: Path) -> None:
    """Two processes with the environment that srun gives its tasks."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environments = [
        environment(
            SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), SLURM_STEP_NUM_TASKS="2", SLURM_JOB_ID="7",
            SLURM_STEP_ID="1", SLURM_STEP_NUM_NODES="1", MASTER_PORT=port,
        )
        for port in [free_port()]
        for rank in (0, 1)
    ]  # fmt: skip
    errors = run_both([[sys.executable, str(script), str(tmp_path)]] * 2, environments)
    check(tmp_path, "".join(errors))


def namespaces() -> list[str]:
    """Two network namespaces that reach each other by a pair of links.

    Raises:
        OSError: they cannot be made here.
    """
    names = [f"probgen{os.getpid()}{side}" for side in "ab"]
    commands = [f"netns add {name}" for name in names]
    commands += [
        f"link add {names[0][-9:]} netns {names[0]} type veth peer name {names[1][-9:]} netns {names[1]}"
    ]
    for index, name in enumerate(names, 1):
        commands += [
            f"-n {name} addr add 10.99.0.{index}/24 dev {name[-9:]}",
            f"-n {name} link set {name[-9:]} up",
            f"-n {name} link set lo up",
        ]
    for command in commands:
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
        if done.returncode:
            raise OSError(done.stderr)
    return names


@pytest.mark.long
def test_two_machines_of_two_processes(tmp_path: Path) -> None:
    """Two network namespaces stand for two machines, each with torchrun and a process."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the command ip")
    try:
        names = namespaces()
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")
    try:
        script = tmp_path / "script.py"
        script.write_text(SCRIPT)
        commands = [
            ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
             "--node-rank", str(rank), "--nproc-per-node", "1", "--master-addr", "10.99.0.1",
             "--master-port", "29511", str(script), str(tmp_path)]
            for rank, name in enumerate(names)
        ]  # fmt: skip
        environments = [environment(GLOO_SOCKET_IFNAME=name[-9:]) for name in names]
        errors = run_both(commands, environments)
        check(tmp_path, "".join(errors))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def test_what_launchers_say() -> None:
    torch_run = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    assert launched(torch_run) == Launch("torchrun", 3, 4, 1)
    step = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
    assert launched(step) == Launch("srun", 1, 2, 0)
    assert launched({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}) is None, (
        "a batch script is one process"
    )
    assert launched({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert launched({"RANK": "x", "WORLD_SIZE": "2"}) is None


def test_one_process_of_a_launcher_trains_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    vae = pg.models.VAE(x=pg.Normal(6), z=pg.Normal(2), hidden=(4,))
    result = pg.fit(vae, structured(32), num_epochs=1, device="cpu", progress=False)
    assert len(result.elbo) == 1
    assert not torch.distributed.is_initialized()
