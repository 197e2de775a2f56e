"""The style of pictures: axes, colours, names and printed pages; and drawing into files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NATS = "nats per datum"


def page_style(width: float = 5.5) -> AbstractContextManager[None]:
    """A context in which pictures fit a printed page: serif type of 9 points, thin lines, 300 dpi.

    Settings are restored afterwards.

    Args:
        width: of the text on the page, inches.

    Example:
        >>> import probgen as pg
        >>> with pg.plots.page_style(width=3.3):
        ...     ax = pg.plots.images([[0.0, 1.0, 1.0, 0.0]])
        >>> float(ax.figure.get_figwidth())
        3.3
    """
    import matplotlib

    return matplotlib.rc_context(
        {
            "figure.figsize": (width, 0.66 * width),
            "figure.constrained_layout.use": True,
            "savefig.dpi": 300,
            "font.family": "serif",
            "mathtext.fontset": "cm",
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.labelsize": 9,
            "legend.fontsize": 8,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "lines.linewidth": 1.0,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "pdf.fonttype": 42,
        }
    )


def palette() -> list[Any]:
    """Ten colours that are easy to distinguish."""
    import matplotlib

    return list(matplotlib.colormaps["tab10"].colors)  # type: ignore[attr-defined]


def short_names(names: Iterable[Any], width: int = 24) -> list[str]:
    """Names shortened to a width, followed by their index in brackets if they would be the same."""
    words = [str(name) for name in names]
    cut = [word if len(word) <= width else word[: width - 1] + "…" for word in words]
    often = Counter(cut)
    for place, word in enumerate(words):
        if often[cut[place]] > 1 and len(word) > width:
            end = f"… [{place}]"
            cut[place] = word[: max(1, width - len(end))] + end
    return cut


def element_label(name: str, element: int, labels: Sequence[str] | None) -> str:
    """The name of an element in a legend: its label, shortened, or its index."""
    if labels is None or element >= len(labels):
        return f"{name}[{element}]"
    return short_names(labels)[element]


def axes(ax: Axes | None) -> Axes:
    """The axes given, or new ones."""
    if ax is not None:
        return ax
    import matplotlib
    import matplotlib.pyplot as plt

    size = matplotlib.rcParams["figure.figsize"]
    default = tuple(size) == tuple(matplotlib.rcParamsDefault["figure.figsize"])
    return plt.subplots(figsize=(6.4, 4.2) if default else size, layout="constrained")[1]


def save(
    path: Path, draw: Callable[..., Axes], *args: Any, within: Path | None = None, **named: Any
) -> Path:
    """Draw a picture into a file, without a screen and without pyplot's global state.

    Args:
        path: ends in .png, .pdf or .svg.
        draw: a function of this package.
        *args: its arguments.
        within: a run directory; the file must not be outside of it because of a link.
        **named: its keyword arguments.

    Raises:
        OSError: the file cannot be written.
    """
    import io

    from matplotlib.figure import Figure

    from probgen.storage.files import write_atomically

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    draw(*args, ax=figure.subplots(), **named)
    stream = io.BytesIO()
    figure.savefig(stream, format=path.suffix[1:], dpi=150)
    write_atomically(path, stream.getvalue(), durable=False, within=within)
    return path
