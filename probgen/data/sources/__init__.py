"""Named data sets, one file each: to add a data set, add its file.

A file that defines a public subclass of `Source` is a data set that `pg.load` and `--data` know, by
the file's name or by the class's `registered_name`. Importing this package imports no
data set and no PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from probgen.basics.registry import Registry

if TYPE_CHECKING:
    from probgen.data.dataset import Splits

SOURCES = Registry("data source", "probgen.data.sources", bases=["Source"])
"""The data sets by name."""


class Source:
    """A named data set: how it is read, and how it is prepared by default.

    A subclass defines `load`; the other attributes are optional. The first line of its docstring
    describes it in the help.

    Attributes:
        levels: the values are whole grey levels 0..levels-1; `None` if they are not.
        transform: what `pg.load(name)` does by default, one of its transforms.
        flat: whether x is one vector for each datum by default; `None` to leave its shape.
        images: whether a datum is an image; `None` to decide by the shape.
        split: validation and test data by default, as counts or as fractions below one.

    Example:
        >>> import probgen as pg, torch
        >>> class Line(pg.Source):
        ...     def load(self, split, seed):
        ...         x = torch.arange(10.0)[:, None]
        ...         return pg.Dataset({"x": x}).split(validation=split[0], test=split[1], seed=seed)
        >>> Line().load((1, 2), seed=0)
        Splits
          train       Dataset(data, 7 data: x (1,))
          validation  Dataset(data, 1 data: x (1,))
          test        Dataset(data, 2 data: x (1,))
    """

    levels: ClassVar[int | None] = None
    transform: ClassVar[str] = "none"
    flat: ClassVar[bool | None] = None
    images: ClassVar[bool | None] = None
    split: ClassVar[tuple[float, float]] = (0.1, 0.2)

    def load(self, split: tuple[float, float], seed: int) -> Splits:
        """The raw data x, and labels y if there are any.

        Args:
            split: validation and test data, as counts or as fractions below one.
            seed: of the splits.

        Returns:
            The splits; `Dataset.split` makes them of one data set.
        """
        raise NotImplementedError


SourceClass = TypeVar("SourceClass", bound=type[Source])


def register_source(source: SourceClass) -> SourceClass:
    """Register a data set of your own by name, for this process; can be used as a decorator.

    A run that was trained on it can be scored and drawn in a process that registers it first.

    Args:
        source: a subclass of `pg.Source`. Its name is that of the class in lower case, or
            its `registered_name = "..."`.

    Returns:
        The class, unchanged.

    Raises:
        TypeError: it is not a subclass of `pg.Source`.
        ValueError: the name is taken.

    Example:
        >>> import probgen as pg, torch
        >>> @pg.register_source
        ... class Ring(pg.Source):
        ...     '''Points on a circle.'''
        ...     def load(self, split, seed):
        ...         angle = torch.linspace(0, 6.28, 100)
        ...         x = torch.stack([angle.cos(), angle.sin()], 1)
        ...         return pg.Dataset({"x": x}, "ring").split(
        ...             validation=split[0], test=split[1], seed=seed
        ...         )
        >>> pg.load("ring").train["x"].shape
        torch.Size([70, 2])
    """
    if not isinstance(source, type) or not issubclass(source, Source):
        raise TypeError(f"register_source: expected a subclass of pg.Source, got {source!r}.")
    SOURCES.register(vars(source).get("registered_name", source.__name__.lower()), source)
    return source
