"""Formulas that are right, nearly right or hostile: declared or refused with words, and no code runs.

What is declared must print, pickle, sample and score as its formula says. Every place from which
text could come into the source that `declare` writes and runs is tried with code: names in formulas,
names of variables and of the pair, numbers, words and variables of classes with a text of their own.
"""

from __future__ import annotations

import itertools
import math
import os
import pickle
import random
import warnings
from typing import Any

import torch
from torch import Tensor, nn

import probgen as pg
from probgen.formula import FormulaError
from probgen.inference.objectives.elbo import log_importance_weights
from probgen.inference.traces import trace_pair
from tests.attacks import Outcome

MARK = "PROBGEN_ATTACK_RAN"
CODE = f"[__import__('os').environ.update({MARK}='yes'), 2][1]"
"""The number 2, and a mark that it was run."""

NAMES = ["x", "y", "z", "w", "z1", "x_", "list", "model", "guide", "print", "obs", "pair"]
ODD_NAMES = [
    "if", "None", "data", "self", "pg", "p_x", "q_z", "__class__", "_x", "super", "é", "ｘ", "x\u0301",
    "x\x00", "1x", "", "x y", "x;y", "x=1", "name", "local", "hidden", "x.y", "x[0]", "__import__",
    "lambda", "x" * 300, "ℵ", "x\u200b", "\u2028x", "exec", "eval", "type", "object", "vars", "globals",
]  # fmt: skip
PIECES = [
    *"pq()|, =.;:#\\'\"{}[]", "p(", "q(", "p(x)", "p(z) ", "p(x | z)", "q(z | x)", "\n", "\t", "\x00", "\x1b",
    "\x7f", "\u2028", "\u202e", "≡", "λ", "😀", "|", "||", "((", '"""', "'''", "{0}", "{x!r}", "%s", "# ",
    "\\n", "\n    ", "import os", "__import__('os')", CODE, "p(x | ", ")", "obs=None",
]  # fmt: skip
HOSTILE = [
    CODE, f'"); {CODE}; ("', f'"""\n{CODE}\n"""', f"x): {CODE} #", f"x\n{CODE}", f"x=None, y={CODE}",
    f"{{{CODE}}}", f"x if {CODE} else x", f"x:=({CODE})", f"x\r{CODE}", f"x\x0c{CODE}", f"x\u2028{CODE}",
    f"*{CODE}", f"lambda: {CODE}", f"__init__(self): {CODE}",
]  # fmt: skip


class _Texts:
    """A text of its own, whatever it is asked for."""

    def __repr__(self) -> str:
        return CODE

    def __str__(self) -> str:
        return CODE

    def __format__(self, how: str) -> str:
        return CODE


class HostileInt(_Texts, int):
    """2, which says that it is code."""

    def __index__(self) -> int:
        return 2

    __int__ = __index__


class HostileFloat(_Texts, float):
    """Likewise."""


class HostileText(_Texts, str):
    """A name that is equal to every other."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def replace(self, *_: Any) -> str:
        return CODE


class HostileNormal(_Texts, pg.Normal):
    """A family that says it is the library's."""


HostileNormal.__module__ = pg.Normal.__module__


def attack(count: int, seed: int) -> Outcome:
    """Try `count` formulas."""
    os.environ.pop(MARK, None)
    outcome, generator = Outcome(), random.Random(seed)
    for index in range(count):
        p, q, arguments = _case(generator)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            torch.manual_seed(index)
            try:
                said = _try(p, q, arguments, outcome)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
        if os.environ.pop(MARK, None):
            said = "code ran"
        outcome.count += 1
        if said:
            shown = {str.__str__(k): type(v).__name__ for k, v in arguments.items()}
            outcome.wrong.append(f"{str.__str__(p)!r} {str.__str__(q)!r} {shown}: {said}")
    return outcome


def _try(p: str, q: str, arguments: dict[str, Any], outcome: Outcome) -> str:
    """What is wrong, in words; nothing where all is well."""
    try:
        pair = pg.declare(p, q, **arguments)
    except (ValueError, TypeError) as error:
        outcome.refused += 1
        lines = str(error).split("\n")
        if len(str(error)) < 15:
            return f"refused without words: {error!r}"
        if isinstance(error, FormulaError) and not 4 <= lines[-1].find("^") <= 4 + max(
            len(p), len(q)
        ):
            return f"the caret is outside: {error}"
        return ""
    compile(pair.source, "pair", "exec")
    if "__import__" in pair.source.replace("p___import__", ""):
        return "code is in the source"
    if pair.factorization("p") not in pair.source or pair.name not in repr(pair):
        return "print says something else"
    given: Any = {name: _value(pair.variables[name], 1) for name in pair.input_names}
    names_itself = any(type(v) is HostileNormal for v in pair.variables.values())
    twin = pair if names_itself else pickle.loads(pickle.dumps(pair))  # which no pickle could find
    drawn, again = pair.sample(2, seed=0, **given), twin.sample(2, seed=0, **given)
    if set(drawn) != set(pair.factors("p")) or repr(twin) != repr(pair):
        return "a sample lacks variables, or the pickle is another pair"
    if any(not torch.equal(value, again[name]) for name, value in drawn.items()):
        return "the pickle draws something else"
    return _score(pair)


def _score(pair: Any) -> str:
    """log p by hand, where it is cheap: classes enumerated, Gaussians given."""
    variables = pair.variables
    classes = {
        n for n, v in variables.items() if isinstance(v, pg.Categorical) and not v.event_shape
    }
    linear = all(isinstance(v, pg.Normal) and v.scale == 0.5 for v in variables.values())
    deep = any(f.parents and len(f.network.layers) > 1 for f in pair.factors("p").values())
    if deep or not (linear or classes == set(variables)):
        return ""
    latents = [n for n in pair.factors("p") if n not in pair.data_names] if not linear else []
    data = {n: _value(v, 3) for n, v in variables.items() if n not in latents}
    if not any(name in data for name in pair.factors("p")) or len(latents) > 3:
        return ""
    with torch.no_grad():
        ours = log_importance_weights(trace_pair(pair, data)).squeeze(0)
        terms = []
        for values in itertools.product(*[range(variables[name].num_classes) for name in latents]):
            named = {
                **data,
                **{n: torch.full((3,), v) for n, v in zip(latents, values, strict=True)},
            }
            terms.append(
                sum((_log_p(pair, name, named) for name in pair.factors("p")), torch.zeros(3))
            )
        by_hand = torch.stack(terms).logsumexp(0)
    if not torch.allclose(ours, by_hand, rtol=1e-4, atol=1e-4):
        return f"log p is {ours.tolist()}, by hand {by_hand.tolist()}"
    return ""


def _log_p(pair: Any, name: str, values: dict[str, Tensor]) -> Tensor:
    """One factor of a linear pair from its weights, one number a row."""
    factor = pair.factors("p")[name]
    kind, size = factor.variable, factor.variable.output_shape.numel()
    outputs = torch.zeros(3, size)
    if factor.parents:
        layer = factor.network.layers[0]
        inputs = []
        for parent, variable in factor.parents.items():
            value = values[parent]
            if isinstance(variable, pg.Categorical):
                value = nn.functional.one_hot(value, variable.num_classes).float()
            inputs.append(value.reshape(3, -1))
        outputs = torch.cat(inputs, -1) @ layer.weight.T + layer.bias
    if isinstance(kind, pg.Categorical):
        return outputs.log_softmax(-1)[torch.arange(3), values[name]]
    z = (values[name] - outputs) / 0.5
    return (-0.5 * z.square() - math.log(0.5 * math.sqrt(2 * math.pi))).sum(-1)


def _value(variable: pg.Variable, rows: int) -> Tensor:
    """Values of a variable, by turns."""
    if isinstance(variable, pg.Categorical):
        flat = torch.arange(rows * variable.event_shape.numel()) % variable.num_classes
        return flat.reshape(rows, *variable.event_shape)
    if isinstance(variable, pg.Bernoulli):
        return torch.ones(rows, *variable.event_shape)
    return torch.linspace(-1, 1, rows * variable.event_shape.numel()).reshape(
        rows, *variable.event_shape
    )


# ---------------------------------------------------------------- what is tried


def _case(generator: random.Random) -> tuple[str, str, dict[str, Any]]:
    """Two formulas and what stands beside them."""
    pick = generator.random()
    p, q = _formulas(generator)
    if pick < 0.15:
        p = _broken(generator, p)
    elif pick < 0.2:
        q = _broken(generator, q)
    elif pick < 0.3:
        p, q = ("".join(generator.choices(PIECES, k=generator.randint(0, 10))) for _ in "pq")
    names = [name for name in NAMES if _word(name, p + q)] or ["x"]
    arguments: dict[str, Any] = {"hidden": generator.choice([(), (), (), (2,), (2, 3)])}
    kind = generator.choice(["classes", "gaussian", "any", "any"])
    arguments |= {name: _variable(generator, kind) for name in names}
    if pick > 0.75:
        p, q = _hostile(generator, p, q, names, arguments)
    return p, q, arguments


def _word(name: str, text: str) -> bool:
    return any(f"{before}{name}{after}" in text for before in "( ," for after in ") ,|")


def _formulas(generator: random.Random) -> tuple[str, str]:
    """A model and a guide; most of them are right."""
    names = generator.sample(NAMES, generator.randint(1, 4))
    p, q = [], []
    for index, name in enumerate(names):
        parents = [other for other in names[:index] if generator.random() < 0.6]
        if index or generator.random() < 0.8:
            p.append(f"p({name}" + (f" | {', '.join(parents)}" if parents else "") + ")")
    latents = generator.sample(names[:-1], generator.randint(0, len(names) - 1))
    seen = [name for name in names if name not in latents]
    for name in latents:
        parents = [other for other in seen if generator.random() < 0.7]
        q.append(f"q({name}" + (f" | {', '.join(parents)}" if parents else "") + ")")
        seen.append(name)
    generator.shuffle(p)
    generator.shuffle(q)
    gap = generator.choice([" ", " ", "", "\n", "\t "])
    return gap.join(p), gap.join(q)


def _broken(generator: random.Random, formula: str) -> str:
    """A formula with one thing wrong, or nearly."""
    at = generator.randint(0, len(formula))
    way = generator.randint(0, 4)
    if way == 0:
        return formula[:at] + generator.choice(PIECES) + formula[at:]
    if way == 1:
        return formula[:at] + formula[at + 1 :]
    if way == 2:
        return formula.replace(generator.choice(NAMES), generator.choice(ODD_NAMES))
    if way == 3:
        return formula + " " + generator.choice(["p(x)", "q(x)", "p(x, y)", "and", CODE])
    return formula.replace(generator.choice("()|, "), generator.choice(PIECES), 1)


def _variable(generator: random.Random, kind: str) -> Any:
    if kind == "classes":
        return pg.Categorical(generator.randint(2, 3))
    if kind == "gaussian":
        return pg.Normal(generator.randint(1, 2), scale=0.5)
    return generator.choice([
        pg.Normal(2), pg.Normal((1, 2), scale="shared"), pg.Normal((), scale="isotropic"),
        pg.Bernoulli(3), pg.Bernoulli(()), pg.Categorical(3), pg.Categorical(2, 2), pg.Normal(1, 0.1),
    ])  # fmt: skip


def _hostile(
    generator: random.Random, p: str, q: str, names: list[str], arguments: dict[str, Any]
) -> tuple[str, str]:
    """Code in one of the places where text comes in."""
    code, name = generator.choice(HOSTILE), generator.choice(names)
    way = generator.randint(0, 11)
    if way == 0:
        return p.replace(name, code), q
    if way == 1:
        return HostileText(p), HostileText(q)
    if way == 2:
        arguments[code] = arguments.pop(name)
    elif way == 3:
        arguments[HostileText(name)] = arguments.pop(name)
    elif way == 4:
        arguments["name"] = generator.choice(
            [code, HostileText("M2"), "M2", "M" + code, *ODD_NAMES]
        )
    elif way == 5:
        arguments["hidden"] = generator.choice(
            [
                (HostileInt(2),),
                code,
                (code,),
                [_Texts()],
                HostileInt(2),
                (2.0,),
                None,
                (HostileFloat(2),),
            ]
        )
    elif way == 6:
        arguments["activation"] = generator.choice(
            [None, code, HostileText("Tanh"), _Texts(), nn.Tanh()]
        )
    elif way == 7:
        arguments["local"] = generator.choice(
            [code, HostileText("True"), HostileInt(1), None, True]
        )
    elif way == 8:
        arguments[name] = generator.choice(
            [code, HostileText("normal:2"), _Texts(), HostileNormal(2), None]
        )
    elif way == 9:
        arguments[name] = _numbers(generator)
    elif way == 10:
        variable = arguments[name]
        changes = [{"arguments": _Texts().__repr__}, {"event_shape": (HostileInt(2),)},
                   {"scale": HostileText("shared")}, {"num_classes": HostileInt(2)},
                   {"event_shape": code}, {"scale": code}]  # fmt: skip
        vars(variable).update(generator.choice(changes))
    else:
        arguments[f"{generator.choice('pq')}_{name}"] = generator.choice(
            [code, _Texts(), HostileInt(2), nn.Tanh]
        )
    return p, q


def _numbers(generator: random.Random) -> Any:
    """A variable of hostile numbers and words."""
    return generator.choice([
        lambda: pg.Normal(HostileInt(2)), lambda: pg.Normal((HostileInt(2), HostileInt(2))),
        lambda: pg.Normal(2, HostileFloat(0.5)), lambda: pg.Normal(2, HostileText("shared")),  # type: ignore[arg-type]
        lambda: pg.Bernoulli(HostileInt(3)), lambda: pg.Categorical(HostileInt(3)),
        lambda: pg.Categorical(3, HostileInt(2)), lambda: pg.Categorical(3, (HostileInt(2),)),
    ])()  # fmt: skip
