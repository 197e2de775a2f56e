"""Networks, which map the parents of a variable to the parameters of its distribution.

A network is built from the shapes of its inputs and of its output and called with one tensor per
input. The three networks here act on the last dims, those of the shapes given; any leading dims
(particles, enumerated classes, data) are kept and broadcast between the inputs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from probgen.basics.locking import one_at_a_time

Shape = Sequence[int]


class NetworkFactory(Protocol):
    """Anything that builds a network from the input shapes and the output shape."""

    def __call__(self, input_shapes: Sequence[Shape], output_shape: Shape, /) -> nn.Module: ...


def broadcast_leading(inputs: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Tensor]:
    """Expand tensors `(..., *shape)` to common leading dims; the last dims stay as they are."""
    leading = [x.shape[: x.dim() - len(shape)] for x, shape in zip(inputs, shapes, strict=True)]
    if all(lead == leading[0] for lead in leading):
        return list(inputs)
    common = torch.broadcast_shapes(*leading)
    return [x.expand(*common, *shape) for x, shape in zip(inputs, shapes, strict=True)]


def as_rows(inputs: Sequence[Tensor], shapes: Sequence[Shape]) -> tuple[list[Tensor], torch.Size]:
    """Inputs `(..., *shape)` as `(rows, *shape)` each, and their common leading dims."""
    inputs = broadcast_leading(inputs, shapes)
    leading = inputs[0].shape[: inputs[0].dim() - len(shapes[0])]
    return [x.reshape(-1, *shape) for x, shape in zip(inputs, shapes, strict=True)], leading


def as_widths(widths: Sequence[int], name: str = "hidden") -> tuple[int, ...]:
    """Widths of layers as a tuple of ints.

    Raises:
        TypeError: not a sequence of integers.
        ValueError: a width below one.
    """
    try:
        checked = tuple(operator.index(width) for width in widths)
    except TypeError:
        raise TypeError(
            f"{name} must be a tuple of ints such as (500, 500), or () for a linear map, "
            f"got {widths!r}."
        ) from None
    if any(width < 1 for width in checked):
        raise ValueError(f"{name}: every width must be at least 1, got {widths!r}.")
    return checked


def as_activation(activation: Callable[[], nn.Module]) -> nn.Module:
    """A new nonlinearity.

    Raises:
        TypeError: not a class of modules, nor a function that makes one.
    """
    module: object = None
    if callable(activation) and not isinstance(activation, nn.Module):
        with suppress(TypeError):
            module = activation()
    if not isinstance(module, nn.Module):
        raise TypeError(
            "activation must be a class of modules such as torch.nn.Tanh, or a function that makes "
            f"one, got {activation!r}."
        )
    return module


class MLP(nn.Module):
    """A multilayer perceptron over any number of inputs.

    The first layer adds one matrix product per input, so that inputs with fewer leading dims (a
    datum shared by all particles, a class shared by all data) are multiplied once and broadcast
    afterwards.

    Args:
        input_shapes: shape of one datum of each input.
        output_shape: shape of one datum of the output.
        hidden: widths of the hidden layers; `()` is a linear map.
        activation: class of the nonlinearity between layers.

    Example:
        >>> import torch, probgen as pg
        >>> network = pg.MLP([(3,), (2,)], (1, 4), hidden=(8,))
        >>> network(torch.zeros(5, 1, 3), torch.zeros(6, 2)).shape  # leading dims broadcast
        torch.Size([5, 6, 1, 4])
    """

    leading_dims = True

    @one_at_a_time
    def __init__(
        self,
        input_shapes: Sequence[Shape],
        output_shape: Shape,
        hidden: Sequence[int] = (500, 500),
        activation: Callable[[], nn.Module] = nn.Tanh,
    ) -> None:
        super().__init__()
        self.input_shapes = [tuple(shape) for shape in input_shapes]
        self.output_shape = tuple(output_shape)
        self.input_sizes = [math.prod(shape) for shape in self.input_shapes]
        widths = [sum(self.input_sizes), *as_widths(hidden), math.prod(self.output_shape)]
        self.layers = nn.ModuleList(
            nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths)
        )
        self.activation = as_activation(activation)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs `(..., *input_shape)` to outputs `(..., *output_shape)`."""
        flat = [
            x if len(shape) == 1 else x.flatten(x.dim() - len(shape))
            for x, shape in zip(inputs, self.input_shapes, strict=True)
        ]
        first, *others = self.layers
        h: Tensor
        if len(flat) == 1:
            h = first(flat[0])
        else:
            parts = first.weight.split(self.input_sizes, dim=1)  # type: ignore[operator]
            h = first.bias  # type: ignore[assignment]
            for x, weight in zip(flat, parts, strict=True):
                h = h + F.linear(x, weight)
        for layer in others:
            h = layer(self.activation(h))
        return h if len(self.output_shape) == 1 else h.unflatten(-1, self.output_shape)


class ConvEncoder(nn.Module):
    """A convolutional network that maps images, and optionally vectors, to a vector.

    Each convolution halves height and width. A vector input becomes constant channels of the image,
    the usual way to condition a convolutional encoder on a class.

    Args:
        input_shapes: shapes of the inputs, at least one of them an image `(channels, H, W)`.
        output_shape: shape of one datum of the output, any.
        channels: output channels of each convolution.
        activation: class of the nonlinearity after each convolution.

    Raises:
        ValueError: no input is an image, or images differ in size.

    Example:
        >>> import torch, probgen as pg
        >>> network = pg.ConvEncoder([(1, 8, 8), (10,)], (2, 4), channels=(4, 8))
        >>> network(torch.zeros(5, 1, 8, 8), torch.zeros(5, 10)).shape
        torch.Size([5, 2, 4])
    """

    leading_dims = True

    @one_at_a_time
    def __init__(
        self,
        input_shapes: Sequence[Shape],
        output_shape: Shape,
        channels: Sequence[int] = (32, 64),
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.input_shapes = [tuple(shape) for shape in input_shapes]
        self.output_shape = tuple(output_shape)
        images = [shape for shape in self.input_shapes if len(shape) == 3]
        if not images or len({shape[1:] for shape in images}) != 1:
            raise ValueError(
                "ConvEncoder: needs an image (channels, height, width) among its inputs, all of "
                f"one size, got shapes {self.input_shapes}. Reshape the data or use an MLP."
            )
        self.size = images[0][1:]
        widths = [
            sum(shape[0] if len(shape) == 3 else math.prod(shape) for shape in self.input_shapes),
            *as_widths(channels, "ConvEncoder: channels"),
        ]
        stages: list[nn.Module] = []
        height, width = self.size
        for fan_in, fan_out in pairwise(widths):
            stages += [
                nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1),
                as_activation(activation),
            ]
            height, width = (height + 1) // 2, (width + 1) // 2
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(widths[-1] * height * width, math.prod(self.output_shape))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs `(..., *input_shape)` to outputs `(..., *output_shape)`."""
        rows, leading = as_rows(inputs, self.input_shapes)
        planes = []
        for x, shape in zip(rows, self.input_shapes, strict=True):
            if len(shape) != 3:
                x = x.flatten(1)[:, :, None, None].expand(-1, -1, *self.size)
            planes.append(x)
        h = self.head(self.stages(torch.cat(planes, 1)).flatten(1))
        return h.reshape(*leading, *self.output_shape)


class ConvDecoder(nn.Module):
    """A convolutional network that maps vectors to an image.

    A linear layer computes the smallest map; each transposed convolution doubles height and width,
    and the result is cropped to the size of the image. For an output of shape `(num_outputs,
    channels, H, W)` the outputs of one channel are next to each other.

    Args:
        input_shapes: shapes of the inputs, any; they are flattened.
        output_shape: `(..., H, W)`, with at least two dims.
        channels: channels of the maps, the smallest map first.
        activation: class of the nonlinearity before each transposed convolution.

    Raises:
        ValueError: the output is not an image.

    Example:
        >>> import torch, probgen as pg
        >>> network = pg.ConvDecoder([(2,)], (1, 1, 8, 8), channels=(8, 4))
        >>> network(torch.zeros(5, 2)).shape
        torch.Size([5, 1, 1, 8, 8])
    """

    leading_dims = True

    @one_at_a_time
    def __init__(
        self,
        input_shapes: Sequence[Shape],
        output_shape: Shape,
        channels: Sequence[int] = (64, 32),
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.input_shapes = [tuple(shape) for shape in input_shapes]
        self.output_shape = tuple(output_shape)
        if len(self.output_shape) < 3:
            raise ValueError(
                "ConvDecoder: the output must be an image, so that the variable has event shape "
                f"(channels, height, width); got output shape {self.output_shape}."
            )
        channels = as_widths(channels, "ConvDecoder: channels")
        if not channels:
            raise ValueError("ConvDecoder: channels must name at least one map, got ().")
        height, width = self.output_shape[-2:]
        scale = 2 ** len(channels)
        self.smallest_map = (channels[0], -(-height // scale), -(-width // scale))
        self.stem = nn.Linear(
            sum(math.prod(s) for s in self.input_shapes), math.prod(self.smallest_map)
        )
        outs = [*channels[1:], math.prod(self.output_shape[:-2])]
        stages: list[nn.Module] = []
        for fan_in, fan_out in zip(channels, outs, strict=True):
            stages += [
                as_activation(activation),
                nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=1),
            ]
        self.stages = nn.Sequential(*stages)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs `(..., *input_shape)` to outputs `(..., *output_shape)`."""
        rows, leading = as_rows(inputs, self.input_shapes)
        flat = torch.cat([x.flatten(1) for x in rows], 1)
        h = self.stages(self.stem(flat).unflatten(1, self.smallest_map))
        height, width = self.output_shape[-2:]
        return h[..., :height, :width].reshape(*leading, *self.output_shape)
