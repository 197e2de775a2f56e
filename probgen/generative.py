"""What every generative model has: variables, sampling, and how it is printed.

`LatentVariableModel` (a pair of model and guide, with densities) and `ImplicitModel` (a sampler
without a density) build on it.
"""

from __future__ import annotations

import inspect
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from probgen.basics.checks import as_count, as_seed
from probgen.basics.locking import one_at_a_time
from probgen.basics.memory import enough_memory
from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.basics.tensors import plain_tensor
from probgen.basics.text import aligned
from probgen.conditionals import Conditional
from probgen.data.support import check_shape, check_support, convert
from probgen.formula import product
from probgen.structure import Graph, ancestors, sample_sites
from probgen.variables import Variable


class GenerativeModel(nn.Module):
    """A model of data that can be sampled: a base class for the two kinds of model.

    A subclass gives `Conditional`s as attributes `p_x`, `p_z`, and a method `model` that samples
    every variable with `pyro.sample` inside `pyro.plate("data", n, dim=-1)`.

    Attributes:
        objective: the name of the objective that `pg.fit` maximizes unless it is told another.
    """

    objective: str = "elbo"

    _instead_of_a_posterior = "Give those too, or use pg.encode for the posterior."

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Conditionals and parameters are attributes; torch's stub has a union for them."""

    def __new__(cls, *args: Any, **named: Any) -> Any:
        """Keep the arguments, from which a run directory builds the model again."""
        model = super().__new__(cls)
        vars(model)["_arguments"] = (args, named)
        return model

    def model(self, *args: Any, **named: Any) -> Any:
        """The generative process: samples every variable; those given are passed as `obs=`."""
        raise TypeError(f"{self.name} must define model(self, ...).")

    @property
    def name(self) -> str:
        """The name of this model in messages."""
        return type(self).__name__

    @property
    def source(self) -> str:
        """The model as Python."""
        return inspect.getsource(type(self))

    # ------------------------------------------------------------------ structure

    def factors(self, prefix: str) -> dict[str, Conditional]:
        """The conditionals of the model (`prefix="p"`) or of the guide (`"q"`), by variable."""
        return {
            name[2:]: child
            for name, child in self.named_children()
            if name.startswith(prefix + "_") and isinstance(child, Conditional)
        }

    @property
    def variables(self) -> dict[str, Variable]:
        """Every variable of the conditionals, by name."""
        declared: dict[str, Variable] = {}
        for prefix in ("p", "q"):
            for name, factor in self.factors(prefix).items():
                declared.setdefault(name, factor.variable)
                for parent, variable in factor.parents.items():
                    declared.setdefault(parent, variable)
        for name, factor in self.factors("p").items():
            declared[name] = factor.variable
        return declared

    @property
    def input_names(self) -> list[str]:
        """Variables that are conditioned on and have no distribution: they must always be given."""
        return [name for name in self.variables if name not in self.factors("p")]

    @property
    def summed_names(self) -> list[str]:
        """Discrete variables that are summed out exactly if they are missing; here none."""
        return []

    @property
    def data_names(self) -> list[str]:
        """Variables that must be given to train the model."""
        return list(self.variables)

    def _parents(self, prefix: str) -> Graph:
        return {name: list(factor.parents) for name, factor in self.factors(prefix).items()}

    def batch_size(self, **named: Tensor | None) -> int:
        """How many data the arguments hold: their first dim, or one if nothing is given.

        Raises:
            ValueError: the arguments differ in their first dim.
        """
        sizes = {name: len(value) for name, value in named.items() if value is not None}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise ValueError(
                f"{self.name}: all variables of a batch need the same first dim, but {listed}."
            )
        return next(iter(sizes.values()), 1)

    # ------------------------------------------------------------------ sampling

    @one_at_a_time
    def sample(
        self, n: int = 1, /, *, seed: int | None = None, **given: Tensor
    ) -> dict[str, Tensor]:
        """Draw from the model, every variable that is not given from its conditional.

        Args:
            n: how many draws.
            seed: makes the draw repeatable; the global random state stays as it was.
            **given: tensors `(batch, *event_shape)` to condition on, such as a class `y`. A given
                variable must not depend on one that is drawn: that would need the posterior.

        Returns:
            A tensor for each variable drawn: `(n, *event_shape)`, or `(n, batch, *event_shape)`
            if something is given.

            Raises:
            ValueError: n below one, or a given variable depends on one that is drawn.
            TypeError: an unknown variable.
            MemoryError: the draws do not fit into memory.
        """
        owner = f"{self.name}.sample"
        n = as_count(n, "n", owner)
        given = self._check_given({k: v for k, v in given.items() if v is not None}, owner)
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        fixed: Any = nullcontext()
        if seed is not None:
            fixed = fixed_seed(as_seed(seed, owner), device)
        with (
            enough_memory(owner, "n"),
            fixed,
            evaluation(self),
            pyro.plate("particles", n, dim=-2),
        ):
            trace = poutine.trace(self.model).get_trace(**given)
        drawn = {}
        for name, site in sample_sites(trace).items():
            if not site["is_observed"]:
                event = site["fn"].event_shape
                value = site["value"].expand(n, self.batch_size(**given), *event)
                drawn[name] = value if given else value.squeeze(1)
        return drawn

    def _check_given(self, given: dict[str, Any], owner: str) -> dict[str, Tensor]:
        graph, variables = self._parents("p"), self.variables
        like = next(self.parameters(), torch.empty(0))
        checked = {}
        for name, value in given.items():
            if variables and name not in variables:
                raise TypeError(
                    f"{owner}: unknown variable {name!r}; its variables are {', '.join(variables)}."
                )
            missing = [
                parent
                for parent in sorted(ancestors(graph, name))
                if parent in graph and parent not in given
            ]
            if missing:
                raise ValueError(
                    f"{owner}: {name} is given but depends on {', '.join(missing)}, "
                    f"which would be drawn from the prior. {self._instead_of_a_posterior}"
                )
            tensor = plain_tensor(value, name, owner).to(like.device)
            variable = variables.get(name)
            if variable is not None:
                described = f"{self.name} is {variable!r}"
                check_shape(tensor, variable, name, owner, self.name)
                check_support(tensor, variable.support, name, owner, described, variable=variable)
            checked[name] = convert(tensor, variable, like.dtype)
        lacking = [name for name in self.input_names if name not in given]
        if lacking:
            raise ValueError(
                f"{owner}: {', '.join(lacking)} has no distribution in this model; "
                f"give it, as in sample(n, {lacking[0]}=...); on the command line --given {lacking[0]}=3."
            )
        return checked

    # ------------------------------------------------------------------ what print shows

    def factorization(self, prefix: str) -> str:
        """The model (`"p"`) or the guide (`"q"`) as a formula: `p(z) p(x | z)`."""
        return product(prefix, {name: f.parents for name, f in self.factors(prefix).items()})

    def __repr__(self) -> str:
        if not self.factors("p"):
            return str(super().__repr__())
        lines = [self.name, *self._formulas()]
        rows = self._table()
        text_columns = {0, 1, len(rows[0]) - 1}
        lines += [f"  {line}" for line in aligned(rows, left=text_columns)[0]]
        total = sum(parameter.numel() for parameter in self.parameters())
        lines.append(f"  {total:,} parameters")
        return "\n".join(lines)

    def _formulas(self) -> list[str]:
        """The lines of the printed form that show how the variables depend on each other."""
        return [f"  model  {self.factorization('p')}"]

    def _table(self) -> list[tuple[str, ...]]:
        """The rows of the printed table, the heading first: one row per variable."""
        raise NotImplementedError


def num_parameters(factor: Conditional | None) -> str:
    """Number of learnable parameters, with thousands separators; a dash if there is no factor."""
    if factor is None:
        return "-"
    return f"{sum(math.prod(p.shape) for p in factor.parameters()):,}"
