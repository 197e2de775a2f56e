"""The contract of a pair: `model()` is the generative process, `guide()` infers the latents.

Everything that trains, scores or samples takes any pair that keeps the contract stated in
`LatentVariableModel`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from probgen.basics.randomness import fixed_seed
from probgen.basics.settings import evaluation
from probgen.generative import GenerativeModel, num_parameters
from probgen.point_mass import point_masses
from probgen.structure import sites_of, uninformed
from probgen.variables import Variable


class LatentVariableModel(GenerativeModel):
    """An explicit Pyro pair: subclass it, give it `Conditional`s, write `model` and `guide`.

    The contract:

    - `model` and `guide` take each variable by its name: a tensor whose first dim is the batch,
      or `None`. A name given is observed, one left out is latent.
    - Every `pyro.sample` is inside the one `pyro.plate("data", n, dim=-1)`, and a site has its
      variable's name. `model` passes given variables as `obs=`; `guide` samples only variables
      that are not given.
    - Particles and enumerated classes are extra dims on the left, added by Pyro's handlers and
      never by arguments; a `Conditional` broadcasts them.
    - All learnable parameters are `nn.Parameter`s; nothing is kept in Pyro's global parameter
      store.
    - By convention the conditionals are attributes `p_x`, `q_z`: the factorization, the parameter
      counts and the checks of the structure are read from them.
    - Every latent has one value per datum; latents with one value for all data do not exist yet. A
      guide that sees no data which depend on its latent, such as q(w), is usually meant for one
      of those, so `fit` refuses it unless the class has `local = True`.

    Attributes:
        local: whether latents without any data in their guide are intended: each datum has its
            own value, and one guide serves all data.

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

    def guide(self, *args: Any, **named: Any) -> Any:
        """The inference of the latents: samples every latent that is not given."""
        raise TypeError(f"{self.name} must define guide(self, ...); see LatentVariableModel.")

    # ------------------------------------------------------------------ structure

    @property
    def input_names(self) -> list[str]:
        """Variables that are conditioned on and have no distribution: always given, never scored."""
        scored = {*self.factors("p"), *self.factors("q"), *self._sites_without_factor("p")}
        return [name for name in self.variables if name not in scored]

    @property
    def summed_names(self) -> list[str]:
        """Scalar discrete variables that are summed out exactly if they are missing.

        These are the ones with a guide factor, and those without one on which other factors of the
        model depend but no factor of the guide.
        """
        guided = {*self.factors("q"), *self._sites_without_factor("q")}
        scored = [*self.factors("p"), *self._sites_without_factor("p")]
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
        free = {*self.factors("q"), *self._sites_without_factor("q"), *self.summed_names}
        return [name for name in self.variables if name not in free]

    def uninformed_names(
        self, given: Iterable[str] = (), constant: Iterable[str] = ()
    ) -> list[str]:
        """Latents whose guide sees no data that depend on them: one guide for all data, as in q(w).

        They are read from the conditionals `p_x`, `q_z`; what a guide computes without a
        conditional is not taken into account.

        Args:
            given: names of variables that are data, though the guide could infer them.
            constant: names of inputs that have the same value for all data.
        """
        unknown = self._sites_without_factor("p") | self._sites_without_factor("q")
        return uninformed(self._parents("p"), self._parents("q"), given, unknown, constant)

    def _sites_without_factor(self, prefix: str) -> frozenset[str]:
        """Variables that the model or the guide samples without a conditional `p_x` or `q_x`.

        A transition may have another name, or no parameters. To find such variables, the pair is
        run once on one datum of zeros, and the result is kept.
        """
        factors, variables = self.factors(prefix), self.variables
        names = [name for name in variables if name not in factors]
        cache: dict[Any, frozenset[str]] = vars(self).setdefault("_sites_cache", {})
        key = (prefix, *names)
        if key not in cache:
            cache[key] = (
                frozenset()
            )  # in case the model or guide asks for the structure of its own pair
            like = next(self.parameters(), torch.empty(0))
            zeros = {n: _zeros(variable, like) for n, variable in variables.items()}
            with fixed_seed(0, like.device), evaluation(self):
                if prefix == "p":
                    sampled = sites_of(self.model, {n: zeros[n] for n in names}) if names else set()
                else:
                    others = [{n: z for n, z in zeros.items() if n != name} for name in names]
                    sites = [sites_of(self.guide, given) for given in others]
                    sampled = {n for n, own in zip(names, sites, strict=True) if n in own}
            cache[key] = frozenset(sampled.intersection(names))
        return cache[key]

    # ------------------------------------------------------------------ what print shows

    def _formulas(self) -> list[str]:
        guide = self.factorization("q") or "none: nothing to infer"
        return [*super()._formulas(), f"  guide  {guide}"]

    def _table(self) -> list[tuple[str, ...]]:
        rows = [("variable", "family", "p parameters", "q parameters", "where it is missing")]
        for name, variable in self.variables.items():
            p, q = self.factors("p").get(name), self.factors("q").get(name)
            counts = num_parameters(p), num_parameters(q)
            rows.append((name, repr(variable), *counts, self._where_missing(name)))
        return list(rows)

    def _where_missing(self, name: str) -> str:
        """What is done with a variable that the data do not have."""
        variable = self.variables[name]
        if name in self.input_names:
            return "must be given: an input, never scored"
        same_guide = name in self.uninformed_names()
        if name in self.summed_names:
            classes = getattr(variable, "num_classes", 2)
            guided = name in self.factors("q") or name in self._sites_without_factor("q")
            by = "" if guided else ", in the model"
            same = ", with one guide for all data" if same_guide else ""
            return f"summed out exactly over {classes} classes{by}{same}"
        if name not in self.data_names:
            if name in point_masses(self.factors("q")):
                return "computed by the guide: a point mass"
            gradient = ", score-function gradient" if variable.discrete else ""
            if same_guide:
                return f"drawn anew for each datum, from one guide for all data{gradient}"
            return f"sampled from the guide, for all data or none{gradient}"
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
    # On the CPU, whatever the default device is: values are needed, and the cache is for all devices.
    with torch.device("cpu"):
        base = variable.parametrized(torch.zeros(variable.output_shape))
    return bool(base.has_enumerate_support)
