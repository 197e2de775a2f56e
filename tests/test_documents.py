"""The documents do what they say: the walk-through's commands and the notebooks' cells run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import probgen as pg
from probgen.cli import main as cli
from tests.test_project import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def quick(text: str) -> str:
    """The same on a budget of two epochs and few samples."""
    for name, number in (
        ("NUM_EPOCHS = ", 5),
        ("NUM_SAMPLES = ", 30),
        ("--epochs ", 2),
        ("--samples ", 30),
    ):
        text = re.sub(rf"{name}\d+", f"{name}{number}", text)
    if re.match("probgen (train|classify) ", text) and "--epochs" not in text:
        text += " --epochs 2"
    if text.startswith("probgen classify "):
        text = re.sub(r"--seeds \d+", "--seeds 1", text) + " --no-figures"
    return text


WALK_THROUGH = (ROOT / "docs" / "walkthrough.md").read_text()
DOCUMENTS = sorted(
    p
    for folder in (".", "docs", "docs/extending", "experiments", "benchmarks")
    for p in (ROOT / folder).glob("*.md")
)
EXTENDING = sorted((ROOT / "docs" / "extending").glob("*.md"))


def run_block(kind: str, block: str) -> None:
    """Python is run, or written where its first line names a file."""
    named = re.match(r"# (\w+\.py)\n", block)
    if named:
        Path(named[1]).write_text(block)
    elif kind == "python":
        exec(compile(block, "document", "exec"), {"__name__": "document"})


def run_command(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command of `probgen` on a small budget, in this process."""
    monkeypatch.setattr(sys, "argv", shlex.split(quick(line), comments=True))
    try:
        cli.main()
    except SystemExit as stop:
        captured = capsys.readouterr()
        assert not stop.code, f"{line}: {captured.err}"


def commands(document: Path) -> list[str]:
    """Lines of a document that are commands: in blocks of bash, or indented."""
    lines = document.read_text().splitlines()
    start = re.compile(r"(?: {4})?((?:\.venv/bin/)?(?:python -m|probgen) .*)")
    found = [match[1] for line in lines if (match := start.fullmatch(line))]
    return [line.removeprefix(".venv/bin/") for line in found]


@pytest.mark.slow
def test_the_walk_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block in its order, in an empty folder: three files, from training to pictures."""
    monkeypatch.chdir(tmp_path)
    count = 0
    for kind, block in re.findall(r"```(python|bash)\n(.*?)```", WALK_THROUGH, re.DOTALL):
        run_block(kind, block)
        for line in block.strip().splitlines() if kind == "bash" else []:
            run_command(line, monkeypatch, capsys)
            count += 1
    assert count >= 14
    for run in ("wine", "survey", "stack"):
        assert len(list(Path("runs", run, "figures").glob("*.png"))) >= 6
    ends = {p.suffix for p in Path(".").iterdir() if p.is_file()}
    assert ends == {".csv", ".npy", ".npz", ".py"}


@pytest.mark.slow
def test_the_commands_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each runs, on the walk-through's files and model, one after the other."""
    monkeypatch.chdir(tmp_path)
    for kind, block in re.findall(r"```(python)\n(.*?)```", WALK_THROUGH, re.DOTALL):
        run_block(kind, block)
    stack = np.load("stack.npy")
    np.save("images.npy", (stack * 15).astype(np.uint8))  # 256 levels
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("probgen ")]
    assert len(lines) >= 7
    for line in lines:
        run_command(line, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("page", EXTENDING, ids=lambda path: path.stem)
def test_the_pages_on_extending(page: Path, tmp_path: Path) -> None:
    """Files are written, and the rest runs as one program, in a process that nothing is registered in."""
    if page.stem == "objective" and "register_objective" not in pg.__all__:
        pytest.skip("objectives cannot be registered yet")
    program = ["import warnings", "warnings.simplefilter('ignore')"]
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        named = re.match(r"# (\w+\.py)\n", block)
        if named:
            (tmp_path / named[1]).write_text(block)
        else:
            program.append(block)
    assert len(program) > 2
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "CI": "true"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(program)], cwd=tmp_path, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_are_commands(document: Path) -> None:
    """Their commands, modules and options exist; those that take hours are not run."""
    known: Any = typer.main.get_command(cli.app)
    for line in commands(document):
        words = shlex.split(line, comments=True)
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        if words[0] == "probgen":
            command = known if words[1].startswith("-") else known.commands[words[1]]
            options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
            options |= {"--help", "--install-completion"}
        elif words[2].split(".")[0] not in ("experiments", "benchmarks", "tests"):
            continue  # some other program
        else:
            path = ROOT.joinpath(*words[2].split("."))
            source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
            options = set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', source.read_text()))
        assert given <= options, (line, given - options)


def test_commands_are_found() -> None:
    """So that the tests above look at something."""
    counts = {document.name: len(commands(document)) for document in DOCUMENTS}
    assert (
        counts["walkthrough.md"] >= 15 and counts["mnist.md"] >= 3 and counts["few_labels.md"] >= 2
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_and_are_shipped_with_outputs(path: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook: Any = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        assert cell.execution_count == number, "run the notebook from top to bottom before shipping"
        assert not any(output.output_type == "error" for output in cell.outputs)
        shown = "".join(output.get("text", "") for output in cell.outputs)
        assert not any(word in shown for word in ("Traceback", "site-packages", str(Path.home())))
    pictures = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3
    for cell in notebook.cells:
        cell.source = quick(cell.source)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()


def test_documents_link_to_what_is_there() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
