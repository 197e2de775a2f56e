"""Models, one file each: to add a model, add its file.

A file that defines a public subclass of `LatentVariableModel` or `ImplicitModel` is a model:
`pg.models.X`, a name on the command line (the file's, or the class's `registered_name`),
in its help, and in run directories. Importing this package imports no model and no PyTorch.
"""

from __future__ import annotations

from typing import Any, TypeVar

from probgen.basics.registry import Registry

MODELS = Registry("model", "probgen.models", bases=["LatentVariableModel", "ImplicitModel"])
"""The models by their names on the command line."""

Model = TypeVar("Model", bound=type)


def register_model(model: Model) -> Model:
    """Register a model of your own by name, for this process; can be used as a decorator.

    A run directory of the model can then be loaded without giving the pair. A process that loads it
    must register the model first: no code is imported because a folder names it.

    Args:
        model: a subclass of `pg.LatentVariableModel` or `pg.ImplicitModel`. Its name is
            that of the class in lower case, or its `registered_name = "..."`. Its arguments are
            variables, numbers, texts, library networks and lists of these, so that a run directory
            can hold them.

    Returns:
        The class, unchanged.

    Raises:
        TypeError: it is not a subclass of one of them.
        ValueError: the name is taken.

    Example:
        >>> import probgen as pg
        >>> @pg.register_model
        ... class WideVAE(pg.models.VAE):
        ...     '''A VAE with one hidden layer of 2,000 units.'''
        ...     def __init__(self, x, z):
        ...         super().__init__(x, z, hidden=(2000,))
        >>> pg.models.MODELS.get("widevae").__name__
        'WideVAE'
    """
    from probgen.generative import GenerativeModel

    if not isinstance(model, type) or not issubclass(model, GenerativeModel):
        raise TypeError(
            "register_model: expected a subclass of pg.LatentVariableModel or pg.ImplicitModel, "
            f"got {model!r}."
        )
    MODELS.register(vars(model).get("registered_name", model.__name__.lower()), model)
    return model


def __getattr__(name: str) -> Any:
    if name in (names := MODELS.attributes()):
        return MODELS.get(names[name])
    if name == "__all__":
        return sorted(names)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *MODELS.attributes()})
