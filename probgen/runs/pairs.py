"""The pair of a run, built again: by the library alone, or by code that the user has to trust.

A run directory may be of unknown origin. Its configuration names the Python file of a pair and the
hash of that file, and its author may have written anything there. So a file is never run only
because a configuration names it, in whatever folder it is: the user has to allow it, or to give the
pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probgen.inference.training.checkpoint import check_shapes
from probgen.inference.training.recorder import CONFIG
from probgen.pair import LatentVariableModel
from probgen.storage.files import RunError, read_file
from probgen.storage.pair_json import pair_from_json, pair_to_json
from probgen.storage.user_code import build_from_file

LARGEST_CODE = 2**22
"""Largest Python file that is read, bytes."""
MOST_CONSTANTS = 10**7
"""The most numbers that a pair may have besides its weights, such as those of a fixed prior."""


class UntrustedCodeError(RunError):
    """Only code can build the pair, and the user neither trusted it nor gave the pair."""


@dataclass(frozen=True)
class Code:
    """The Python file of a run's pair, as the configuration names it."""

    folder: Path
    path: Path
    builder: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.path}:{self.builder} (SHA-256 {self.sha256})"

    @property
    def copy(self) -> Path:
        """The copy that `fit` put into the run directory."""
        return self.folder / "model.py"

    def unchanged_file(self) -> tuple[Path, bytes]:
        """The original file or its copy, whichever has not changed since the training, and its content.

        Raises:
            RunError: both have changed or are gone.
        """
        for file in (self.path, self.copy):
            content = _content(file)
            if content is not None and hashlib.sha256(content).hexdigest() == self.sha256:
                return file, content
        state = "does not exist any more" if _content(self.path) is None else "has changed since"
        raise RunError(
            f"The pair of {self.folder} comes from {self.path}, which {state}, and the copy in "
            f"{self.copy} does not match either: SHA-256 {self.sha256} is expected. Restore one of "
            "them, or give the pair: load_run(path, pair=...), or --pair my_model.py:build."
        )


def code_of(folder: Path, recipe: Mapping[str, Any]) -> Code | None:
    """The file that has to be run to build a pair; `None` for declared and library pairs.

    Raises:
        RunError: the configuration does not state which file.
    """
    if recipe["kind"] != "file":
        return None
    named = [recipe.get(key) for key in ("path", "builder", "sha256")]
    path, builder, digest = (part if isinstance(part, str) else "" for part in named)
    if not path.endswith(".py") or not builder.isidentifier() or len(digest) != 64:
        raise RunError(
            f"{folder / CONFIG} does not state which Python file the pair comes from: {named}. "
            "Give the pair: load_run(path, pair=...), or --pair my_model.py:build."
        )
    return Code(folder, Path(path), builder, digest)


def built_pair(
    folder: Path,
    recipe: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    file: Path,
    pair: LatentVariableModel | None,
    trust_code: bool,
) -> LatentVariableModel:
    """Build the pair that was trained; its weights are still random.

    Args:
        folder: the run directory.
        recipe: of the pair, from the configuration.
        weights: the stored weights, whose shapes the pair must have.
        file: the file of the weights, for messages.
        pair: the user's pair, if given; it is compared with the recipe.
        trust_code: run the Python file that the configuration names.

    Raises:
        UntrustedCodeError: only code can build it.
        RunError: it cannot be built, or the user gave another pair.
    """
    if pair is not None:
        _compare(folder, recipe, pair_to_json(pair))
        return pair
    if recipe["kind"] == "own":
        raise UntrustedCodeError(
            f"The pair of {folder} is {recipe['class']}, which only its author's code can build: make "
            "a new one and give it, load_run(path, pair=...). For the command line put a function "
            "that returns it into a file: --pair my_model.py:build."
        )
    code = code_of(folder, recipe)
    if code is None:
        try:
            _check_fits(recipe, weights, file)
            return pair_from_json(recipe)
        except RunError:
            raise
        except (MemoryError, RuntimeError, ValueError) as error:
            raise RunError(f"{folder / CONFIG}: {error}") from error
    if not trust_code:
        raise UntrustedCodeError(
            f"The pair of {folder} is made by Python code, {code}, and code that a run directory names "
            f"is run only if you allow it. Read that file, or its copy {code.copy}; then "
            "trust_code=True (--trust-code), or give the pair: load_run(path, "
            f'pair=pg.load_pair("{code.path.name}:{code.builder}")), on the command line '
            f"--pair {code.path.name}:{code.builder}."
        )
    file, content = code.unchanged_file()
    # Files next to the copy came with the run directory; they must not replace installed modules.
    return build_from_file(file, code.builder, content, folder_first=file != code.copy)


def _check_fits(recipe: Mapping[str, Any], weights: Mapping[str, Tensor], file: Path) -> None:
    """Compare the pair's shapes with the stored weights before memory is allocated for it."""
    with torch.device("meta"):
        shell = pair_from_json(recipe)
    check_shapes(shell, weights, file)
    stored = sum(tensor.numel() for tensor in weights.values())
    needed = sum(tensor.numel() for tensor in (*shell.parameters(), *shell.buffers()))
    if needed > stored + MOST_CONSTANTS:
        raise RunError(
            f"{file} holds {stored:,} numbers, and the model next to it needs {needed:,} more than "
            "weights do. They do not belong together."
        )


def _compare(folder: Path, recipe: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Refuse a given pair whose recipe is not that of the run."""
    if recipe["kind"] != "file":
        if theirs != recipe:
            raise RunError(
                f"{folder} is a run of another pair than the one given: {_named(recipe)} was trained, "
                f"{_named(theirs)} was given, and classes, settings and parts must be the same."
            )
    elif theirs["kind"] == "file" and theirs["sha256"] != recipe["sha256"]:
        raise RunError(
            f"{folder} is a run of another version of {theirs['path']}: SHA-256 {recipe['sha256']} "
            f"was trained, {theirs['sha256']} was given. The code of the training is in "
            f"{folder / 'model.py'}: read it, and give that."
        )


def _named(recipe: Mapping[str, Any]) -> str:
    """A short text for a recipe."""
    if recipe["kind"] == "declared":
        return f"{recipe['p']}, {recipe['q']} {recipe['variables']}"
    return str({k: v for k, v in recipe.items() if k in ("class", "arguments", "path", "builder")})


def _content(file: Path) -> bytes | None:
    try:
        return read_file(file, LARGEST_CODE)
    except RunError:
        return None


class Unbuilt(LatentVariableModel):
    """Takes the place of a pair whose code was not run, and prints what its run directory states.

    Args:
        name: of the model.
        recipe: of the pair, from the configuration.
        weights: by name.
        code: the text of its Python file, if the run directory has it.
        reason: why it was not built.
    """

    def __init__(
        self, name: str, recipe: Mapping[str, Any], weights: Mapping[str, Tensor], code: str | None,
        reason: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self._name, self._recipe, self._weights = name, dict(recipe), dict(weights)
        self._code, self._reason = code, reason

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self._name

    @property
    def source(self) -> str:
        """The text of the Python file, which was not run.

        Raises:
            RunError: the run directory does not have it.
        """
        if self._code is None:
            raise RunError(self._reason)
        return self._code

    def state_dict(self, *args: Any, **named: Any) -> dict[str, Any]:  # type: ignore[override]
        """The weights."""
        return dict(self._weights)

    def __repr__(self) -> str:
        size = sum(tensor.numel() for tensor in self._weights.values())
        shapes = [f"{name} {tuple(tensor.shape)}" for name, tensor in self._weights.items()]
        more = f", and {len(shapes) - 20} more" if len(shapes) > 20 else ""
        parts = str(self._recipe.get("parts", "")).splitlines()
        return "\n".join([
            f"{self._name}, not built: {self._reason}", *parts,
            f"{size:,} stored numbers: {', '.join(shapes[:20])}{more}",
        ])  # fmt: skip


def unbuilt_pair(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], reason: str
) -> Unbuilt:
    """A pair that can be printed, without running its code."""
    recipe, code = config["model"], None
    if recipe["kind"] == "file":
        content = _content(folder / "model.py")
        if content is not None and hashlib.sha256(content).hexdigest() == recipe.get("sha256"):
            code = content.decode(errors="replace")
    return Unbuilt(config["name"], recipe, weights, code, reason)
