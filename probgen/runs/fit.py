"""`pg.fit`: the training, and at its end a picture of its curves in the run directory.

The training itself draws nothing, so that inference stays below pictures in the order of imports; whoever
calls `pg.fit` finds `figures/learning_curve.png` in the run directory all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from probgen.inference.compute.processes import current_group
from probgen.inference.training import fit as training
from probgen.inference.training.results import FitResult
from probgen.plots.curves import learning_curve
from probgen.plots.style import save
from probgen.storage.files import absolute, make_folder

P = ParamSpec("P")


def _with_learning_curve(train: Callable[P, FitResult]) -> Callable[P, FitResult]:
    @wraps(train)
    def fit(*args: P.args, **named: P.kwargs) -> FitResult:
        folder: Any = named.get("run_dir")
        if folder is not None:
            folder = absolute(Path(folder))  # wherever the process goes during the training
        result = train(*args, **named)
        group = current_group()
        if folder is not None and result.elbo and (group is None or group.rank == 0):
            path = folder / "figures" / "learning_curve.png"
            make_folder(path.parent, within=folder)
            save(path, learning_curve, result, within=folder)
        return result

    return fit


fit = _with_learning_curve(training.fit)
