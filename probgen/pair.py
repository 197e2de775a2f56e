"""The contract of a pair: `model()` says how data come about, `guide()` how latents are inferred.

Everything that trains, scores or samples takes any pair and asks nothing more of it than what
`LatentVariableModel` states.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from contextlib import nullcontext
from functools import lru_cache
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
from probgen.structure import Graph, ancestors, sample_sites, sites_of, uninformed
from probgen.variables import Variable


class LatentVariableModel(nn.Module):
    """An explicit Pyro pair: subclass it, give it `Conditional`s, write `model` and `guide`.

    The contract:

    - `model` and `guide` take each variable by its name: a tensor whose first dim is the batch,
      or `None`. A name given is observed, one left out is latent.
    - Every `pyro.sample` stands inside the one `pyro.plate("data", n, dim=-1)`, and a site bears
      its variable's name. `model` scores what is given with `obs=`; `guide` samples only what is
      not given.
    - Particles and enumerated classes arrive as extra dims on the left, through Pyro's handlers
      and never through arguments; a `Conditional` broadcasts them.
    - All learnable parameters are `nn.Parameter`s; nothing lives in Pyro's global store.
    - By convention the conditionals are attributes `p_x`, `q_z`: the factorization, the parameter
      counts and the checks of the structure are read from them.
    - Every latent has one value a datum; there is none yet that all data share. A guide that sees no
      data which tell of a latent, such as q(w), is mostly meant for one of those, so `fit` refuses it
      unless the class says `local = True`.

    Attributes:
        local: latents that no datum informs are meant: drawn anew for each datum, by one guide
            for all data.

    Example:
        >>> import pyro, torch, probgen as pg
        >>> class Autoencoding(pg.LatentVariableModel):
        ...     '''p(z) p(x | z), q(z | x)'''
        ...     def __init__(self):
        ...         super().__init__()
        ...         x, z = pg.Bernoulli(6), pg.Normal(2)
        ...         self.p_z = pg.Conditional(z)
        ...         self.p_x = pg.Conditional(x, {"z": z}, hidden=(8,))
        ...         self.q_z = pg.Conditional(z, {"x": x}, hidden=(8,))
        ...     def model(self, x=None, z=None):
        ...         with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
        ...             z = pyro.sample("z", self.p_z(), obs=z)
        ...             return pyro.sample("x", self.p_x(z=z), obs=x)
        ...     def guide(self, x=None, z=None):
        ...         with pyro.plate("data", self.batch_size(x=x, z=z), dim=-1):
        ...             if z is None:
        ...                 pyro.sample("z", self.q_z(x=x))
        >>> Autoencoding().sample(3)["x"].shape
        torch.Size([3, 6])
    """

    local: bool = False

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Conditionals and parameters are attributes; torch's stub has a union for them."""

    def __new__(cls, *args: Any, **named: Any) -> Any:
        """Note the arguments, from which a run directory builds the pair again."""
        pair = super().__new__(cls)
        vars(pair)["_arguments"] = (args, named)
        return pair

    def model(self, *args: Any, **named: Any) -> Any:
        """How data come about: samples every variable, those given with `obs=`."""
        raise TypeError(f"{self.name} must define model(self, ...); see LatentVariableModel.")

    def guide(self, *args: Any, **named: Any) -> Any:
        """How latents are inferred: samples every latent that is not given."""
        raise TypeError(f"{self.name} must define guide(self, ...); see LatentVariableModel.")

    @property
    def name(self) -> str:
        """How messages call this pair."""
        return type(self).__name__

    @property
    def source(self) -> str:
        """The pair as Python."""
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
        """Every variable that a conditional of the pair names, as the model declares it."""
        found: dict[str, Variable] = {}
        for prefix in ("p", "q"):
            for name, factor in self.factors(prefix).items():
                found.setdefault(name, factor.variable)
                for parent, variable in factor.parents.items():
                    found.setdefault(parent, variable)
        for name, factor in self.factors("p").items():
            found[name] = factor.variable
        return found

    @property
    def input_names(self) -> list[str]:
        """Variables that are conditioned on and have no distribution: always given, never scored."""
        scored = {*self.factors("p"), *self.factors("q"), *self._unread("p")}
        return [name for name in self.variables if name not in scored]

    @property
    def summed_names(self) -> list[str]:
        """Scalar discrete variables that are summed out exactly where they are missing.

        Those with a guide factor; and those without that the model's other factors depend on and
        the guide's do not.
        """
        guided = {*self.factors("q"), *self._unread("q")}
        scored = [*self.factors("p"), *self._unread("p")]
        parents = {p for f in self.factors("p").values() for p in f.parents}
        parents -= {p for f in self.factors("q").values() for p in f.parents}
        return [
            name
            for name in scored
            if is_summable(self.variables[name]) and (name in guided or name in parents)
        ]

    @property
    def data_names(self) -> list[str]:
        """Variables that must be given: without a guide factor, and not summed out."""
        free = {*self.factors("q"), *self._unread("q"), *self.summed_names}
        return [name for name in self.variables if name not in free]

    def uninformed_names(self, given: Iterable[str] = ()) -> list[str]:
        """Latents whose guide sees no data that tell of them: one guide for all data, as in q(w).

        They are read from the conditionals `p_x`, `q_z`; what a guide computes otherwise is not.

        Args:
            given: names of variables that are data, though the guide could infer them.
        """
        unread = self._unread("p") | self._unread("q")
        return uninformed(self._parents("p"), self._parents("q"), given, unread)

    def _parents(self, prefix: str) -> Graph:
        return {name: list(factor.parents) for name, factor in self.factors(prefix).items()}

    def _unread(self, prefix: str) -> frozenset[str]:
        """Variables that the model or the guide samples without a conditional `p_x` or `q_x`.

        A transition may have another name, or no parameters. The pair is asked, once: it is run on
        one datum of zeros.
        """
        factors, variables = self.factors(prefix), self.variables
        names = [name for name in variables if name not in factors]
        asked: dict[Any, frozenset[str]] = vars(self).setdefault("_asked", {})
        key = (prefix, *names)
        if key not in asked:
            asked[key] = frozenset()  # in case the pair asks for its own structure
            like = next(self.parameters(), torch.empty(0))
            zeros = {n: _zeros(variable, like) for n, variable in variables.items()}
            with fixed_seed(0, like.device), evaluation(self):
                if prefix == "p":
                    found = sites_of(self.model, {n: zeros[n] for n in names}) if names else set()
                else:
                    others = [{n: z for n, z in zeros.items() if n != name} for name in names]
                    sites = [sites_of(self.guide, given) for given in others]
                    found = {n for n, own in zip(names, sites, strict=True) if n in own}
            asked[key] = frozenset(found.intersection(names))
        return asked[key]

    def batch_size(self, **named: Tensor | None) -> int:
        """How many data the arguments hold: their first dim, or one where nothing is given.

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
            **given: tensors `(batch, *event_shape)` to hold fixed, such as a class `y`. What is
                given must not depend on what is drawn: that would be a posterior.

        Returns:
            A tensor for each variable drawn: `(n, *event_shape)`, or `(n, batch, *event_shape)`
            where something is given.

        Raises:
            ValueError: n below one, or a given variable depends on one that is drawn.
            TypeError: an unknown variable.
            MemoryError: so many draws do not fit.
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
                    "which would be drawn from the prior. Give those too, or use pg.encode for "
                    "the posterior."
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
                f"{owner}: {', '.join(lacking)} has no distribution in this pair; "
                f"give it, as in sample(n, {lacking[0]}=...); on the command line --given {lacking[0]}=3."
            )
        return checked

    # ------------------------------------------------------------------ what print shows

    def factorization(self, prefix: str) -> str:
        """The model (`"p"`) or the guide (`"q"`) as on a blackboard: `p(z) p(x | z)`."""
        return product(prefix, {name: f.parents for name, f in self.factors(prefix).items()})

    def __repr__(self) -> str:
        if not self.factors("p"):
            return str(super().__repr__())
        lines = [self.name, f"  model  {self.factorization('p')}"]
        lines.append(f"  guide  {self.factorization('q') or 'none: nothing to infer'}")
        rows = [("variable", "family", "p parameters", "q parameters", "where it is missing")]
        for name, variable in self.variables.items():
            p, q = self.factors("p").get(name), self.factors("q").get(name)
            rows.append((name, repr(variable), count(p), count(q), self._fate(name)))
        lines += [f"  {line}" for line in aligned(rows, left={0, 1, 4})[0]]
        total = sum(parameter.numel() for parameter in self.parameters())
        lines.append(f"  {total:,} parameters")
        return "\n".join(lines)

    def _fate(self, name: str) -> str:
        variable = self.variables[name]
        if name in self.input_names:
            return "must be given: an input, never scored"
        alone = name in self.uninformed_names()
        if name in self.summed_names:
            classes = getattr(variable, "num_classes", 2)
            guided = name in self.factors("q") or name in self._unread("q")
            by = "" if guided else ", in the model"
            same = ", with one guide for all data" if alone else ""
            return f"summed out exactly over {classes} classes{by}{same}"
        if name not in self.data_names:
            kind = ", score-function gradient" if variable.discrete else ""
            if alone:
                return f"drawn anew for each datum, from a guide that no data inform{kind}"
            return f"sampled from the guide, for all data or none{kind}"
        return "must be given: it is the data"


def _zeros(variable: Variable, like: Tensor) -> Tensor:
    """One datum of zeros."""
    dtype = torch.long if variable.is_class else like.dtype
    return torch.zeros((1, *variable.event_shape), dtype=dtype, device=like.device)


@lru_cache(maxsize=256)
def is_summable(variable: Variable) -> bool:
    """Whether a missing value of this variable is summed out: scalar, with finite support."""
    if variable.event_shape:
        return False
    with torch.device(
        "cpu"
    ):  # whatever the default: this needs values, and the cache holds for all
        base = variable.parametrized(torch.zeros(variable.output_shape))
    return bool(base.has_enumerate_support)


def count(factor: Conditional | None) -> str:
    """Number of learnable parameters, with thousands separators; a dash where there is no factor."""
    if factor is None:
        return "-"
    return f"{sum(math.prod(p.shape) for p in factor.parameters()):,}"
