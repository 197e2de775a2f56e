"""The Python source of a declared pair, from its factors and variables.

No text that the user gave becomes part of the source: what cannot be written as the library's own
code is an argument of the generated class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from probgen.conditionals import Conditional
from probgen.formula import Factor, product
from probgen.variables import Variable, is_library_variable

DEFAULT_NAME = "DeclaredPair"
"""The name of a declared pair if the user gave none."""


@dataclass(frozen=True)
class Declaration:
    """The arguments of `declare`, after they were checked.

    Attributes:
        p: factors of the model, each after its parents.
        q: factors of the guide, each after its parents.
        hidden: widths of the hidden layers of every MLP.
        activation: class of the MLPs' nonlinearity.
        variables: by name.
        given: the user's own networks and whole conditionals, by attribute such as `p_x`.
        local: latents that no data inform are intended.
        class_name: of the generated class.
    """

    p: Sequence[Factor]
    q: Sequence[Factor]
    hidden: tuple[int, ...]
    activation: Callable[[], nn.Module]
    variables: Mapping[str, Variable]
    given: Mapping[str, Any]
    local: bool = False
    class_name: str = DEFAULT_NAME

    def factors(self) -> Iterable[tuple[str, Factor]]:
        """Each attribute, such as `p_x`, with its factor; the model's first."""
        for letter, factors in (("p", self.p), ("q", self.q)):
            for factor in factors:
                yield f"{letter}_{factor.name}", factor

    @property
    def uses_mlp(self) -> bool:
        """Whether some factor has parents and no network that the user gave."""
        return any(factor.parents and name not in self.given for name, factor in self.factors())

    @property
    def names(self) -> list[str]:
        """The arguments of `model` and `guide`: variables in the order of sampling, then inputs."""
        names = [factor.name for factor in self.p]
        return names + [name for name in self.variables if name not in names]


def write_source(declaration: Declaration) -> str:
    """The Python source of the pair."""
    arguments = "".join(f", {argument}" for argument in _constructor_arguments(declaration))
    parameters = ", ".join(f"{name}=None" for name in declaration.names)
    lines = [
        *("import pyro", "import torch", "", "import probgen as pg", "", ""),
        f"class {declaration.class_name}(pg.LatentVariableModel):",
        f'    """{_docstring(declaration)}"""',
        "",
        *_local_attribute(declaration),
        f"    def __init__(self{arguments}):",
        "        super().__init__()",
        *_indented(_constructor_body(declaration), 2),
        "",
        f"    def model(self, {parameters}):",
        *_indented(_model_body(declaration), 2),
        "",
        f"    def guide(self, {parameters}):",
        *_indented(_guide_body(declaration), 2),
    ]
    return "\n".join(lines) + "\n"


def _docstring(declaration: Declaration) -> str:
    formulas = [
        product(letter, {factor.name: factor.parents for factor in factors})
        for letter, factors in (("p", declaration.p), ("q", declaration.q))
    ]
    return ", ".join(formula for formula in formulas if formula)


def _local_attribute(declaration: Declaration) -> list[str]:
    if not declaration.local:
        return []
    return ["    local = True  # latents that no data inform are intended", ""]


def _constructor_arguments(declaration: Declaration) -> list[str]:
    """What the source cannot contain: variables and networks of the user, an unknown activation."""
    arguments = [n for n, v in declaration.variables.items() if not is_library_variable(v)]
    arguments += [
        attribute for attribute, _ in declaration.factors() if attribute in declaration.given
    ]
    if not declaration.uses_mlp:
        return arguments
    hidden = f"hidden={declaration.hidden!r}"
    names_in_torch = [name for name, value in vars(nn).items() if value is declaration.activation]
    if names_in_torch:
        return [*arguments, hidden, f"activation=torch.nn.{names_in_torch[0]}"]
    return [*arguments, "activation", hidden]


def _constructor_body(declaration: Declaration) -> list[str]:
    """The variables, then one conditional for each factor."""
    library = {n: v for n, v in declaration.variables.items() if is_library_variable(v)}
    lines = [f"{name} = pg.{variable!r}" for name, variable in library.items()]
    for attribute, factor in declaration.factors():
        lines += _conditional(attribute, factor, declaration.given.get(attribute))
    return lines


def _conditional(attribute: str, factor: Factor, given: Any) -> list[str]:
    """The lines that make the conditional of a factor, with the user's network if one was given."""
    if isinstance(given, Conditional):
        return [f"self.{attribute} = {attribute}"]
    in_guide = attribute.startswith("q_")
    variable = f"{factor.name}.inferred()" if in_guide else factor.name
    if not factor.parents:
        learned = ", learned=True" if in_guide else ""
        return [f"self.{attribute} = pg.Conditional({variable}{learned})"]
    parents = ", ".join(f'"{parent}": {parent}' for parent in factor.parents)
    network = "hidden=hidden, activation=activation" if given is None else attribute
    return [
        f"self.{attribute} = pg.Conditional(",
        f"    {variable}, {{{parents}}}, {network}",
        ")",
    ]


def _model_body(declaration: Declaration) -> list[str]:
    """One sample statement for each factor inside the plate, and the values by name."""
    samples = [
        f'{factor.name} = pyro.sample("{factor.name}", {_call("p", factor)}, obs={factor.name})'
        for factor in declaration.p
    ]
    values = ", ".join(f'"{name}": {name}' for name in declaration.names)
    return [_plate(declaration), *_indented(samples, 1), f"return {{{values}}}"]


def _guide_body(declaration: Declaration) -> list[str]:
    """One sample statement for each factor whose variable is not given."""
    if not declaration.q:
        return ['"""Nothing is sampled: every variable is given or summed out."""']
    lines = []
    for factor in declaration.q:
        lines.append(f"if {factor.name} is None:")
        lines.append(f'    {factor.name} = pyro.sample("{factor.name}", {_call("q", factor)})')
    return [_plate(declaration), *_indented(lines, 1)]


def _plate(declaration: Declaration) -> str:
    values = ", ".join(f"{name}={name}" for name in declaration.names)
    return f'with pyro.plate("data", self.batch_size({values}), dim=-1):'


def _call(letter: str, factor: Factor) -> str:
    """The distribution of a factor given its parents: `self.p_x(y=y, z=z)`."""
    return f"self.{letter}_{factor.name}({', '.join(f'{name}={name}' for name in factor.parents)})"


def _indented(lines: Iterable[str], levels: int) -> list[str]:
    return [f"{'    ' * levels}{line}" for line in lines]
