"""Conditionals: p(x | parents) as a module whose call returns a Pyro distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from probgen.basics.locking import one_at_a_time
from probgen.basics.memory import enough_memory
from probgen.networks import MLP, NetworkFactory, as_rows
from probgen.variables import Variable


class Conditional(nn.Module):
    r"""The distribution of a variable given its parents, $p(x \mid a, b, \ldots)$.

    A call with the parents by name returns a Pyro distribution over one event of the variable.
    Parents may carry any leading dims (particles, enumerated classes, data): they broadcast.
    Without parents it is a prior: with the family's standard parameters (N(0, I), equal
    probabilities), or, with `learned=True`, with learned ones.

    Args:
        variable: the variable and its family.
        parents: the variables it depends on, by name.
        network: maps parents to parameters. A module is called with one tensor per parent, in
            the order of `parents`, each of shape `(rows, *input_shape)` with a class one-hot, and
            returns anything that reshapes to `(rows, *variable.output_shape)`, or a tuple of
            tensors, one per output: logits for `Bernoulli` and `Categorical`; for `Normal` the
            mean and a raw scale of any sign, which `positive_scale` maps to the scale (0 to 1).
            A factory is called with the input shapes and the output shape (`pg.ConvDecoder` is
            one, and so is `functools.partial(pg.ConvDecoder, channels=(8, 16))`). By default an
            `MLP`.
        hidden: widths of the MLP's hidden layers; `()` is a linear map.
        activation: class of the MLP's nonlinearity.
        learned: whether the parameters of a prior are learned.

    Raises:
        TypeError: a variable, parent or network of the wrong type.
        ValueError: a network without parents, or `learned` with parents.

    Example:
        >>> import torch, probgen as pg
        >>> p_x = pg.Conditional(pg.Bernoulli(6), {"y": pg.Categorical(3), "z": pg.Normal(2)})
        >>> p_x(y=torch.tensor([0, 2]), z=torch.zeros(5, 1, 2)).batch_shape
        torch.Size([5, 2])
    """

    @one_at_a_time
    def __init__(
        self,
        variable: Variable,
        parents: Mapping[str, Variable] | None = None,
        network: nn.Module | NetworkFactory | None = None,
        *,
        hidden: Sequence[int] = (500, 500),
        activation: Callable[[], nn.Module] = nn.Tanh,
        learned: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(variable, Variable):
            raise TypeError(
                f"Conditional: expected a variable such as pg.Normal(8), got {variable!r}."
            )
        parents = dict(parents or {})
        for name, parent in parents.items():
            if not isinstance(parent, Variable):
                raise TypeError(
                    f"Conditional: parent {name!r} must be a variable such as pg.Normal(8), "
                    f"got {parent!r}."
                )
        self.variable = variable
        self.parents = parents
        self.learned = learned or bool(parents)
        self.network: nn.Module | None = None
        if parents:
            if learned:
                raise ValueError(
                    "Conditional: learned=True is for a prior; with parents the network is "
                    "learned anyway. Leave one of them out."
                )
            shapes = [parent.input_shape for parent in parents.values()]
            if network is None:
                with enough_memory("Conditional", "hidden, or the shapes of the variables"):
                    network = MLP(shapes, variable.output_shape, hidden, activation)
            if not isinstance(network, nn.Module):
                if not callable(network):
                    raise TypeError(
                        "Conditional: network must be a torch.nn.Module or a callable that builds "
                        f"one from the input shapes and the output shape, got {network!r}."
                    )
                network = _built_by(network, shapes, variable)
            self.network = network
        elif network is not None:
            raise ValueError(
                f"Conditional: {variable!r} has no parents, so there is nothing to feed its "
                "network. Name its parents, or use learned=True."
            )
        else:
            outputs = torch.zeros(variable.output_shape)
            if learned:
                self.outputs = nn.Parameter(outputs)
            else:
                self.register_buffer("outputs", outputs, persistent=False)
        shared = variable.shared_shape
        self.raw_scale = None if shared is None else nn.Parameter(torch.zeros(shared))
        # Has the module's dtype and device, even if the module has no parameter.
        self.register_buffer("anchor", torch.empty(0), persistent=False)

    def forward(self, *unnamed: Tensor, **parents: Tensor | None) -> TorchDistributionMixin:
        """The distribution given parents of shape `(..., *event_shape)`; leading dims broadcast.

        Raises:
            TypeError: a parent is missing, `None`, or not among those declared.
            ValueError: a parent's last dims are not its event shape, or the network's output does
                not fit the variable.
        """
        if unnamed:
            raise TypeError(
                f"Conditional of {self.variable!r}: give {_names(self.parents)} by name, as in "
                "q_z(x=x)."
            )
        outputs = self._outputs(parents)
        event_dims = len(self.variable.event_shape)
        if self.raw_scale is not None:
            loc = outputs.squeeze(-1 - event_dims)
            base = self.variable.distribution(loc, self.raw_scale.expand_as(loc))
        else:
            base = self.variable.parametrized(outputs)
        return base.to_event(event_dims) if event_dims else base

    def _outputs(self, parents: Mapping[str, Tensor | None]) -> Tensor:
        if parents.keys() != self.parents.keys() or any(v is None for v in parents.values()):
            given = [name for name, value in parents.items() if value is not None]
            raise TypeError(
                f"Conditional of {self.variable!r}: needs {_names(self.parents)}, "
                f"got {_names(given)}. Give each parent a tensor, by its name."
            )
        if self.network is None:
            return cast(Tensor, self.outputs)
        dtype = cast(Tensor, self.anchor).dtype
        inputs = []
        for name, variable in self.parents.items():
            value = cast(Tensor, parents[name])
            size = len(variable.event_shape)
            if value.shape[value.dim() - size :] != variable.event_shape:
                raise ValueError(
                    f"Conditional of {self.variable!r}: parent {name!r} has shape "
                    f"{tuple(value.shape)}, expected (..., {', '.join(map(str, variable.event_shape))})."
                )
            inputs.append(variable.embed(value, dtype))
        if getattr(self.network, "leading_dims", False):
            outputs = cast(Tensor, self.network(*inputs))
        else:
            outputs = self._call_on_rows(inputs)
        # With precision="bf16" matrix products have lower precision, but densities do not.
        return outputs.to(dtype)

    def _call_on_rows(self, inputs: Sequence[Tensor]) -> Tensor:
        """Call a user's module with one batch dim, as ordinary PyTorch modules expect."""
        rows, leading = as_rows(inputs, [p.input_shape for p in self.parents.values()])
        assert self.network is not None
        try:
            out = self.network(*rows)
        except (RuntimeError, TypeError) as error:
            input_shapes = ", ".join(str(tuple(x.shape)) for x in rows)
            raise ValueError(
                f"Conditional of {self.variable!r}: its {type(self.network).__name__} failed on "
                f"inputs of shape {input_shapes}, one for each of {_names(self.parents)}: {error}"
            ) from error
        output_shape = self.variable.output_shape
        if isinstance(out, tuple):
            out = torch.stack([part.reshape(len(rows[0]), *output_shape[1:]) for part in out], 1)
        if out[0].numel() != output_shape.numel():
            raise ValueError(
                f"Conditional of {self.variable!r}: its {type(self.network).__name__} returned "
                f"shape {tuple(out.shape[1:])} per datum, expected {output_shape.numel()} numbers that "
                f"reshape to {tuple(output_shape)} (outputs, *event shape)."
            )
        return out.reshape(*leading, *output_shape)

    def extra_repr(self) -> str:
        given = ", ".join(f"{name}={parent!r}" for name, parent in self.parents.items())
        return f"{self.variable!r}" + (f" | {given}" if given else "")


def _built_by(
    factory: NetworkFactory, shapes: Sequence[torch.Size], variable: Variable
) -> nn.Module:
    """The network that a factory builds from the input shapes and the output shape."""
    network: object = None
    cause: Exception | None = None
    try:
        network = factory(shapes, variable.output_shape)
    except TypeError as error:
        cause = error
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"Conditional of {variable!r}: network must be a module, or a function of the input "
            "shapes and the output shape that makes one, such as pg.ConvDecoder or "
            f"functools.partial(pg.MLP, hidden=(100,)); got {factory!r}{f': {cause}' if cause else '.'}"
        ) from cause
    return network


def _names(names: object) -> str:
    listed = list(cast(Sequence[str], names))
    return ", ".join(repr(name) for name in listed) if listed else "no parents"
