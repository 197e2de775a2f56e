"""All pictures of a run that its model and data allow, as files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from probgen.basics.locking import one_at_a_time
from probgen.data.dataset import Splits
from probgen.plots.style import page_style, save
from probgen.reports.choice import PictureChoice
from probgen.runs.run import Run
from probgen.storage.files import make_folder

FORMATS = ("png", "pdf", "svg")


@dataclass
class Report:
    """What was drawn.

    Attributes:
        written: the file of each picture, by its name.
        skipped: why a picture was not drawn, by its name.
    """

    written: dict[str, Path] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


@one_at_a_time
def report(
    run: Run,
    *,
    data: Splits | None = None,
    folder: str | os.PathLike[str] | None = None,
    format: str = "png",
    page: bool = False,
    progress: bool = False,
) -> Report:
    """Draw every picture that a run's model and data allow.

    Args:
        run: what `pg.load_run` returned.
        data: used instead of the data that the run was trained on.
        folder: where to write; by default `figures` in the run directory.
        format: `"png"`, `"pdf"` or `"svg"`.
        page: in the style of a printed page (`pg.plots.page_style`).
        progress: show a progress bar while importance weights are drawn.

    Returns:
        The files by name, and why other pictures were skipped.

    Raises:
        ValueError: an unknown format, or data that the run cannot find.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile, torch, probgen as pg
        >>> x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        >>> ppca = pg.models.PPCA(x=pg.Normal(3), z=pg.Normal(1))
        >>> folder = tempfile.mkdtemp()
        >>> _ = pg.fit(ppca, x, num_epochs=2, run_dir=folder, progress=False)
        >>> report = pg.plots.report(pg.load_run(folder), data=pg.Splits(pg.Dataset({"x": x})))
        >>> report.written["samples"].name, report.skipped["manifold"]
        ('samples.png', 'the data are no images')
    """
    if format not in FORMATS:
        raise ValueError(f"report: format must be one of {', '.join(FORMATS)}, got {format!r}.")
    target = run.path / "figures" if folder is None else Path(folder)
    within = run.path if folder is None else None
    make_folder(target, within)
    choice = PictureChoice.of(run, run.load_data() if data is None else data, progress)
    result = Report(skipped=choice.skipped)
    for name, draw in choice.pictures.items():
        path = target / f"{name}.{format}"
        if page:
            with page_style():
                save(path, draw, within=within)
        else:
            save(path, draw, within=within)
        result.written[name] = path
    return result
