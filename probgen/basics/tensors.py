"""Convert arrays of any kind to plain tensors, or refuse them: the only place that decides this."""

from __future__ import annotations

import contextlib
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

PLAIN = {
    torch.float64, torch.float32, torch.float16, torch.bool, torch.uint8,
    torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip
"""Element types that every operation on a CPU supports."""

WIDER = {
    torch.bfloat16: torch.float32, torch.uint16: torch.int32, torch.uint32: torch.int64,
    torch.float8_e4m3fn: torch.float32, torch.float8_e5m2: torch.float32,
}  # fmt: skip
"""Types that few operations support, and wider ones that hold their values exactly."""


def as_tensor(value: Any, name: str, owner: str = "Dataset") -> Tensor:
    """Convert an array of real numbers to a tensor with at least one dim, on its own device.

    Floats stay floats and integers stay integers. Types that few torch operations support become a wider
    one that holds their values. The tensor is detached from the graph of gradients.

    Args:
        value: a tensor, or anything that NumPy converts to an array of numbers.
        name: the variable, for messages.
        owner: the function that messages name.

    Raises:
        TypeError: values that are not numbers, or not plain ones: sparse, quantized, complex, with fields.
        ValueError: masked cells, rows of different lengths, or integers of 2**63 or more.
    """
    tensor = plain_tensor(value, name, owner)
    if tensor.dim() == 0:
        raise TypeError(
            f"{owner}: {name} must be an array whose first dim is the data, got a single "
            f"{tensor.dtype} of shape ()."
        )
    return tensor


def plain_tensor(value: Any, name: str, owner: str) -> Tensor:
    """Like `as_tensor`, but a single number is allowed."""
    if not isinstance(value, Tensor):
        return _of_array(_numbers(value, name, owner), name, owner)
    form, remedy = _special_form(value)
    if form:
        raise TypeError(f"{owner}: {name} is a {form} tensor; give a plain one{remedy}.")
    tensor = value.detach().resolve_conj().resolve_neg()
    if tensor.is_complex():
        raise TypeError(
            f"{owner}: {name} must be a real array, got {tensor.dtype}. Give real and imaginary parts as "
            "variables of their own."
        )
    if tensor.is_inference():
        with torch.inference_mode(False):
            tensor = tensor.clone()  # autograd does not accept tensors of inference mode
    if tensor.dtype in PLAIN:
        return tensor
    if tensor.dtype == torch.uint64:
        return _of_array(tensor.cpu().numpy(), name, owner).to(tensor.device)
    if tensor.dtype not in WIDER:
        raise TypeError(
            f"{owner}: {name} has elements of {tensor.dtype}; convert them, as in {name}.float()."
        )
    return tensor.to(WIDER[tensor.dtype])


def refuse_masked(value: Any, name: str, owner: str) -> None:
    """Refuse masked cells, whose mask NumPy would drop without a warning; other masked arrays pass.

    Raises:
        ValueError: there are masked cells.
    """
    cells = _masked_cells(value)
    if cells:
        raise ValueError(
            f"{owner}: {name} is a masked array with {cells} masked cells, whose mask would be lost. Fill "
            f"them ({name}.filled(0.0)), or drop their rows (np.ma.compress_rows). Mark unknown "
            f"labels: pg.Dataset(..., observed={{{name!r}: ~np.ma.getmaskarray({name})}})."
        )


def _masked_cells(value: Any) -> int:
    """The number of masked cells, also in nested lists and tuples of arrays."""
    if isinstance(value, np.ma.MaskedArray):
        return int(np.ma.count_masked(value))
    if not isinstance(value, (list, tuple)):
        return 0
    if set(map(type, value)) <= {int, float, bool}:  # a shortcut for long rows of plain numbers
        return 0
    return sum(map(_masked_cells, value))


def _special_form(value: Tensor) -> tuple[str, str]:
    """The form of a tensor that is not plain, and how to make it plain; both empty for a plain one."""
    if type(value).__name__ == "MaskedTensor":
        return "masked", ", with its cells filled or its rows dropped"
    if value.is_nested:
        return "nested", ", padded to one length"
    if value.layout is not torch.strided:
        return "sparse", ", as by .to_dense()"
    if value.is_quantized:
        return "quantized", ", as by .dequantize()"
    if value.is_meta:
        return "meta", " that has values"
    return "", ""


def _numbers(value: Any, name: str, owner: str) -> np.ndarray[Any, Any]:
    """Convert anything to a NumPy array of numbers."""
    refuse_masked(value, name, owner)
    try:
        array = np.asarray(value)
    except Exception as error:  # an object's own __array__ may raise anything
        kind = ValueError if isinstance(error, ValueError) else TypeError
        text = str(error).split("\n")[0].rstrip(".")
        raise kind(
            f"{owner}: {name} ({type(value).__name__}) cannot be converted to an array: {text}. Give "
            "rows of one length that hold numbers."
        ) from error
    if array.dtype.kind == "O":
        array = _plain_objects(array)
    if array.dtype.kind in "fiub":
        return array
    hints = {
        "O": "a value is missing, text, or a number that no float holds; choose columns of numbers, and "
        "convert them, as in .astype(float)",
        "M": "count days or seconds from a date of your own",
        "m": "divide by a unit, as in x / np.timedelta64(1, 's')",
        "c": "give real and imaginary parts as variables of their own",
        "V": "it has fields; give them as columns",
    }
    hint = hints.get(array.dtype.kind, "code text as numbers")
    raise TypeError(
        f"{owner}: {name} must hold numbers, got an array of {array.dtype} ({type(value).__name__}): {hint}."
    )


def _plain_objects(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Convert objects that are numbers to floats, as in a frame with columns of several types."""
    values = array.ravel().tolist()
    if array.ndim and all(isinstance(value, (Real, np.bool_)) for value in values):
        with contextlib.suppress(OverflowError):
            floats = array.astype(np.float64)
            if all(a == b or a != a for a, b in zip(values, floats.ravel().tolist(), strict=True)):
                return floats
    return array


def _of_array(array: np.ndarray[Any, Any], name: str, owner: str) -> Tensor:
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # infinity is refused later, by check_finite
            array = array.astype(np.float64)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        if array.dtype.itemsize == 8 and array.size and int(array.max()) >= 2**63:
            raise ValueError(
                f"{owner}: {name} holds {int(array.max())}, and torch's integers end at 2**63 - 1. Convert "
                "it to floats, or leave such columns out."
            )
        array = array.astype(np.int32 if array.dtype.itemsize == 2 else np.int64)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
