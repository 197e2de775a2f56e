"""The documents do what they say: the walk-through's commands and the notebooks' cells run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from probgen import cli
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
    return text


@pytest.mark.slow
def test_the_walk_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block in its order, in an empty folder: three files, from training to pictures."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"```(python|bash)\n(.*?)```", (ROOT / "docs" / "walkthrough.md").read_text(), re.DOTALL
    )
    commands = 0
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, "walkthrough.md", "exec"), {"__name__": "walkthrough"})
            continue
        for line in block.strip().splitlines():
            monkeypatch.setattr(sys, "argv", shlex.split(quick(line)))
            try:
                cli.main()
            except SystemExit as stop:
                captured = capsys.readouterr()
                assert not stop.code, f"{line}: {captured.err}"
            commands += 1
    assert commands >= 12
    for run in ("wine", "survey", "stack"):
        assert len(list(Path("runs", run, "figures").glob("*.png"))) >= 6
    assert {p.suffix for p in Path(".").iterdir() if p.is_file()} == {".csv", ".npy", ".npz"}


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
        assert "Traceback" not in shown and str(Path.home()) not in shown
    pictures = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3
    for cell in notebook.cells:
        cell.source = quick(cell.source)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()


def test_documents_link_to_what_is_there() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "experiments").glob("*.md"),
                 *(ROOT / "benchmarks").glob("*.md")]  # fmt: skip
    for document in documents:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_commands_in_the_readme_are_commands() -> None:
    """Options that the README names exist; what the commands do is tested elsewhere."""
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        for line in block.strip().splitlines():
            words = shlex.split(line, comments=True)
            if not words or words[0] != "probgen":
                continue
            help_text = subprocess.run(
                [sys.executable, "-m", "probgen", words[1], "--help"], capture_output=True, text=True,
                env={"COLUMNS": "200", "PATH": ""}, cwd=ROOT,
            ).stdout  # fmt: skip
            for word in words[2:]:
                if word.startswith("--"):
                    assert word in help_text, (line, word)
