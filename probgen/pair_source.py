"""The Python source of a pair: factors and variables to text, and nothing of a user's own into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import nn

from probgen.conditionals import Conditional
from probgen.formula import Factor, product
from probgen.variables import Bernoulli, Categorical, Normal, Variable

DEFAULT_NAME = "DeclaredPair"
"""What a declared pair is called that has no name of its own."""


def write_source(
    p: Sequence[Factor],
    q: Sequence[Factor],
    hidden: tuple[int, ...],
    activation: Callable[[], nn.Module],
    variables: Mapping[str, Variable],
    given: Mapping[str, Any],
    *,
    local: bool = False,
    class_name: str = DEFAULT_NAME,
) -> str:
    """The Python source of the pair; what cannot be written as text becomes an argument.

    `given` holds the user's own networks and whole conditionals by attribute.
    """
    arguments, body = [], []
    for name, variable in variables.items():
        if is_native(variable):
            body.append(f"{name} = pg.{variable!r}")
        else:
            arguments.append(name)
    for letter, factors in (("p", p), ("q", q)):
        for factor in factors:
            attribute = f"{letter}_{factor.name}"
            mine = given.get(attribute)
            if mine is not None:
                arguments.append(attribute)
            if isinstance(mine, Conditional):
                body.append(f"self.{attribute} = {attribute}")
                continue
            variable_text = factor.name + (".inferred()" if letter == "q" else "")
            if factor.parents:
                parents = ", ".join(f'"{parent}": {parent}' for parent in factor.parents)
                network = "hidden=hidden, activation=activation" if mine is None else attribute
                body.append(f"self.{attribute} = pg.Conditional(")
                body.append(f"    {variable_text}, {{{parents}}}, {network}")
                body.append(")")
            else:
                learned = ", learned=True" if letter == "q" else ""
                body.append(f"self.{attribute} = pg.Conditional({variable_text}{learned})")
    if uses_mlp(p, q, given):
        known = next((name for name, value in vars(nn).items() if value is activation), None)
        if known is not None:
            arguments += [f"hidden={hidden!r}", f"activation=torch.nn.{known}"]
        else:
            arguments += ["activation", f"hidden={hidden!r}"]
    signature = "".join(f", {argument}" for argument in arguments)

    names = [factor.name for factor in p]
    names += [name for name in variables if name not in names]
    parameters = ", ".join(f"{name}=None" for name in names)
    plate = (
        f'with pyro.plate("data", self.batch_size({", ".join(f"{n}={n}" for n in names)}), dim=-1):'
    )

    def call(letter: str, factor: Factor) -> str:
        return f"self.{letter}_{factor.name}({', '.join(f'{a}={a}' for a in factor.parents)})"

    model = [f'{f.name} = pyro.sample("{f.name}", {call("p", f)}, obs={f.name})' for f in p]
    guide: list[str] = []
    for f in q:
        guide.append(f"if {f.name} is None:")
        guide.append(f'    {f.name} = pyro.sample("{f.name}", {call("q", f)})')
    formulas = [
        product(letter, {f.name: f.parents for f in fs}) for letter, fs in (("p", p), ("q", q))
    ]
    docstring = ", ".join(formula for formula in formulas if formula)
    lines = [
        "import pyro",
        "import torch",
        "",
        "import probgen as pg",
        "",
        "",
        f"class {class_name}(pg.LatentVariableModel):",
        f'    """{docstring}"""',
        "",
        *(["    local = True  # latents that no data inform are meant", ""] if local else []),
        f"    def __init__(self{signature}):",
        "        super().__init__()",
        *(f"        {line}" for line in body),
        "",
        f"    def model(self, {parameters}):",
        f"        {plate}",
        *(f"            {line}" for line in model),
        f"        return {{{', '.join(f'{chr(34)}{n}{chr(34)}: {n}' for n in names)}}}",
        "",
        f"    def guide(self, {parameters}):",
    ]
    if guide:
        lines += [f"        {plate}", *(f"            {line}" for line in guide)]
    else:
        lines.append('        """Nothing is sampled: every variable is given or summed out."""')
    return "\n".join(lines) + "\n"


def uses_mlp(p: Sequence[Factor], q: Sequence[Factor], given: Mapping[str, Any]) -> bool:
    factors = [(f"p_{f.name}", f) for f in p] + [(f"q_{f.name}", f) for f in q]
    return any(f.parents and attribute not in given for attribute, f in factors)


def is_native(variable: object) -> bool:
    """Whether a variable can be written as text: one of the library's, not of a subclass."""
    return type(variable) in (Normal, Bernoulli, Categorical)


def as_plain(value: Any) -> Any:
    """A variable of the library made anew, without what was set on it since; the rest as it is."""
    if type(value) is Normal:
        return Normal(value.event_shape, cast(Any, value.scale))
    if type(value) is Categorical:
        return Categorical(value.num_classes, value.event_shape)
    return Bernoulli(value.event_shape) if type(value) is Bernoulli else value
