"""What a scoring method is: one way to compute log p(x) of each datum, one file each in this package."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from probgen.basics.registry import Registry
from probgen.data.dataset import Dataset
from probgen.inference.compute.devices import as_dtype, placed
from probgen.inference.compute.processes import Group
from probgen.inference.compute.spawn import Outcome
from probgen.pair import LatentVariableModel

Columns = dict[str, Any]
"""Arrays of a score by name, the last dimension of each the data, such as `log_prob`."""

METHODS = Registry("scoring method", "probgen.inference.scoring", bases=["ScoringMethod"])
"""Found by the names of their files: `importance.py` is `method="importance"`."""


@dataclass(frozen=True)
class ScoreSettings:
    """What a caller of `log_marginal_likelihood` chooses about the computation.

    Attributes:
        num_samples: draws per datum.
        draws: `"iid"` or `"rqmc"`.
        seed: of the draws.
        precision: of networks and log-probabilities.
        compile: make machine code of passes; `"auto"` decides by their number.
        progress: show a progress bar.
    """

    num_samples: int = 1000
    draws: str = "iid"
    seed: int = 0
    precision: str = "float32"
    compile: bool | str = "auto"
    progress: bool = False


@dataclass(frozen=True)
class Estimate:
    """What a method returns: values and diagnostics of each datum, and how they were made.

    Attributes:
        columns: `log_prob`, `standard_error`, `bias`, `ess`, `khat`, and `replicates` where there
            are several randomizations; NumPy arrays whose last dimension is the data.
        method: what a score says of it: `"exact"`, `"summed"`, `"importance"`, ...
        num_samples: log-weights per datum; 0 for a closed form, 1 where all latents are summed out.
        decoder_passes: how often the decoder was computed for each datum.
        chunk: data and draws of a pass, if there are passes.
    """

    columns: Columns
    method: str
    num_samples: int
    decoder_passes: float
    chunk: tuple[int, int] | None = None


class ScoringMethod(ABC):
    """One way to compute log p(x) of each datum.

    A new method is a new file in this package with a subclass. Methods that average weights draw
    log-weights and leave the loop over data and draws, the errors and the diagnostics to
    `accumulate`, so that those are the same for all of them.
    """

    num_processes = "many"
    """`"many"` if processes can share the data; `"one"` if one process computes all."""

    @abstractmethod
    def estimate(
        self, pair: LatentVariableModel, data: Dataset, device: torch.device,
        settings: ScoreSettings, *, rank: int = 0, first_row: int = 0,
    ) -> Estimate:  # fmt: skip
        """Compute log p(x) of each datum.

        Args:
            pair: on the device.
            data: on the device, prepared.
            device: where.
            settings: what the caller chose.
            rank: the number of this process; draws of different ranks are independent.
            first_row: the row of the first datum in the whole data set, for messages.

        Raises:
            ValueError: the method cannot be used for this pair or these data.
        """


def estimate_share(
    group: Group, device: torch.device, pair: LatentVariableModel, data: Dataset, method: str,
    **settings: Any,
) -> Outcome:  # fmt: skip
    """What each of several processes does: score its share of the data; the first joins the shares."""
    chosen = ScoreSettings(**{**settings, "progress": settings["progress"] and group.rank == 0})
    rows = torch.arange(len(data)).tensor_split(group.size)[group.rank]
    share = data.subset(slice(int(rows[0]), int(rows[-1]) + 1)).to(device)
    own = METHODS.get(method)().estimate(
        placed(pair, device, as_dtype(chosen.precision)), share, device, chosen,
        rank=group.rank, first_row=int(rows[0]),
    )  # fmt: skip
    shares = group.gather(own.columns)
    columns = own.columns
    joined = {n: np.concatenate([s[n] for s in shares], -1) for n in columns} if shares else {}
    record = {
        "method": own.method, "num_samples": own.num_samples,
        "decoder_passes": own.decoder_passes, "chunk": own.chunk,
    }  # fmt: skip
    return {name: torch.from_numpy(column) for name, column in joined.items()}, record
