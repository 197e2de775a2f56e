"""A run directory, read: the pair, what it was trained on, its curves and its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probgen.basics.text import printable
from probgen.data.dataset import Splits
from probgen.data.fingerprint import fingerprint
from probgen.inference.scoring.scores import Score
from probgen.inference.training.results import FitResult
from probgen.pair import LatentVariableModel
from probgen.runs.data import load_other_data, reload_data, training_data
from probgen.runs.scores import read_scores, write_score
from probgen.storage.files import RunError


class Run:
    """A run directory, read by `pg.load_run`.

    Attributes:
        path: the folder.
        config: the configuration: command, versions, machine, settings, data.
        pair: the pair with the weights kept, on the CPU, in eval mode.
        result: its curves, as `fit` returned them.

    Example:
        >>> import tempfile, torch, probgen as pg
        >>> x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
        >>> folder = tempfile.mkdtemp()
        >>> _ = pg.fit(ppca, x, num_epochs=2, run_dir=folder, progress=False)
        >>> run = pg.load_run(folder)
        >>> score = pg.log_marginal_likelihood(run.pair, x, method="exact")
        >>> run.save_score(score, "train-exact").name, list(run.scores)
        ('train-exact.safetensors', ['train-exact'])
    """

    def __init__(
        self, path: Path, config: dict[str, Any], pair: LatentVariableModel, result: FitResult
    ) -> None:
        self.path, self.config, self.pair, self.result = path, config, pair, result

    @property
    def data(self) -> dict[str, Any]:
        """The data of the training: size, shapes, transformations and hash of each part."""
        return training_data(self.config)

    def load_data(self) -> Splits:
        """Load the data again, and compare every part with the data of the training.

        The validation part is that of the file, even if `fit` was given other validation data.

        Returns:
            The parts, prepared as they were for the training.

        Raises:
            RunError: the data did not come from a file, the configuration has arguments that `load`
                does not accept, or the data have changed.
            FileNotFoundError: the file is gone.
        """
        return reload_data(self.path, self.config, self.pair)

    def load_other(self, name: str) -> Splits:
        """Load other data, prepared in the same way as those that the run was trained on.

        Args:
            name: a data set, or a file; all of a file becomes the part `train`, with one stored
                draw of any noise.

        Raises:
            RunError: labels whose codes have other meanings than in training, or data whose
                preparation cannot be repeated.
            ValueError: data that cannot be read or prepared so.
        """
        source = self.config["data"]["source"]
        if source is not None and name == source["name"]:
            return self.load_data()
        return load_other_data(self.path, self.config, self.pair, name)

    @property
    def scores(self) -> dict[str, Score]:
        """The saved scores of these weights, by name.

        Raises:
            RunError: a file of a score is damaged.
        """
        scores = self.read_scores()
        for score in scores.values():
            if isinstance(score, RunError):
                raise score
        return {name: score for name, score in scores.items() if isinstance(score, Score)}

    def read_scores(self) -> dict[str, Score | RunError]:
        """The saved scores of these weights; for a damaged file the error in place of the score."""
        return read_scores(self.path, self.config, self._weights_hash())

    def save_score(self, score: Score, name: str) -> Path:
        """Keep a score in the run directory.

        Args:
            score: of this run's pair.
            name: of the file, such as `test-K5000`.

        Returns:
            The file.

        Raises:
            ValueError: the name is not a plain file name.
            RunError: the folder `scores` is a link.
            OSError: it cannot be written.
        """
        return write_score(self.path, self.config, self._weights_hash(), score, name)

    def _weights_hash(self) -> str:
        return fingerprint(self.pair.state_dict())

    def __repr__(self) -> str:
        config, train = self.config, self.data["train"]
        sizes = ", ".join(f"{about['size']} {part}" for part, about in self.data.items())
        versions = ", ".join(f"{n} {config['versions'].get(n)}" for n in ("probgen", "torch"))
        resumed = f", resumed {len(config['resumed'])} times" if config["resumed"] else ""
        settings = ", ".join(f"{k} {v}" for k, v in config["settings"].items() if v is not None)
        lines = [
            f"Run {self.path}",
            f"  command   {config['command']}",
            f"  begun     {config.get('started')}, {versions}{resumed}",
            f"  data      {train['name']}: {sizes}, hash {train['hash']}",
            *(f"            {words}" for words in train.get("transformations", {}).values()),
            f"  settings  {settings}",
            f"  result    {self.result!r}",
        ]
        # Line breaks in texts from the files are removed.
        lines = [printable(line, lines=False) for line in lines]
        for name, score in self.read_scores().items():
            shown = f"cannot be read: {score}" if isinstance(score, RunError) else repr(score)
            lines += (
                printable(f"  score     {name}: {shown}")
                .replace("\n", "\n            ")
                .split("\n")
            )
        return "\n".join(
            [*lines, *(f"  {printable(line)}" for line in repr(self.pair).splitlines())]
        )
