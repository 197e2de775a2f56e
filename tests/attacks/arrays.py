"""Arrays and files of every kind: the numbers that were given, or an error that says why not."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import probgen as pg
from tests.attacks import Outcome

KINDS = (
    "f2", "f4", "f8", ">f4", ">f8", "longdouble", "i1", "i2", "i4", "i8", ">i4", "u1", "u2", "u4", "u8", ">u8",
    "bool", "complex64", "complex128", "M8[s]", "m8[s]", "U5", "S5", "object",
)  # fmt: skip
TENSORS = (
    "float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "uint8", "int8", "int16",
    "uint16", "int32", "uint32", "int64", "uint64", "bool", "complex64", "complex128",
)  # fmt: skip
ODD_FILES = ("bytes", "text", "cut", "table")

Array = Any


def attack(count: int, seed: int) -> Outcome:
    """Arrays into Dataset, scores, encode and fit, and every fifth time a file into load."""
    found = Outcome()
    torch.manual_seed(seed)
    pair = pg.models.FactorAnalysis(x=pg.Normal(2), z=pg.Normal(1))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index in range(count):
            rng = np.random.default_rng([seed, index])
            found.count += 1
            if index % 5 == 4:
                _file(found, Path(folder), rng, f"{seed}/{index}")
            else:
                _array(found, pair, rng, index, f"{seed}/{index}")
    return found


def _array(found: Outcome, pair: Any, rng: np.random.Generator, index: int, label: str) -> None:
    numbers = _numbers(rng)
    value, plain = _dressed(numbers, rng)
    label = f"{label} {type(value).__name__} {getattr(value, 'dtype', '')}"
    uses: list[Callable[[], Any]] = [
        lambda: pg.Dataset({"x": value})["x"],
        lambda: pg.log_marginal_likelihood(pair, {"x": value}, method="exact", device="cpu").log_prob,
        (
            lambda: pg.encode(pair, {"x": value}, device="cpu")["z"],
            lambda: pg.log_marginal_likelihood(
                pair, {"x": value}, num_samples=2, device="cpu", compile=False
            ).log_prob,
            lambda: pg.fit(
                pair, {"x": value}, num_epochs=1, device="cpu", compile=False, progress=False
            ).elbo,
        )[index % 3],
    ]  # fmt: skip
    before = {name: tensor.clone() for name, tensor in pair.state_dict().items()}
    for place, use in enumerate(uses):
        try:
            got = use()
        except (ValueError, TypeError) as error:
            if len(str(error)) < 25:
                found.wrong.append(f"{label}: no words: {error!r}")
            found.refused += place == 0
            if place == 0:
                return
        except FloatingPointError as error:  # of values whose squares are infinite
            if plain is None or not np.abs(plain.astype(np.float64)).max() > 1e15:
                found.wrong.append(f"{label}: {error}")
        except Exception as error:
            found.wrong.append(f"{label}: {type(error).__name__}: {str(error)[:150]}")
        else:
            if place == 0:
                if plain is None or not np.array_equal(
                    got.double().numpy(), plain.astype(np.float64), equal_nan=True
                ):
                    found.wrong.append(f"{label}: other numbers, or none were there")
            elif not np.isfinite(np.asarray(got, dtype=np.float64)).all():
                found.wrong.append(f"{label}: use {place} gave what is not finite")
            elif place == 1 and plain is not None:
                same = pg.log_marginal_likelihood(
                    pair, plain.astype(np.float32), method="exact", device="cpu"
                )
                if not np.array_equal(got, same.log_prob):
                    found.wrong.append(f"{label}: another score than that of the same values")
    pair.load_state_dict(before)


def _numbers(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Whole numbers that most types hold, sometimes of an odd shape or far from them."""
    shapes = [(1, 2), (0, 2), (6,), (), (2, 6), (6, 2, 1), (3, 0)]
    shape = shapes[rng.integers(len(shapes))] if rng.random() < 0.2 else (6, 2)
    numbers = rng.integers(0, 8, shape).astype(np.float64)
    odd = rng.integers(12)
    if odd == 0 and numbers.size:
        numbers.flat[rng.integers(numbers.size)] = [np.nan, np.inf, -np.inf][rng.integers(3)]
    elif odd == 1:
        numbers = numbers * [1e6, 1e12, 1e18, 1e25, 1e38, 1e300][rng.integers(6)]
    elif odd == 2:
        numbers = -numbers
    return numbers


def _dressed(numbers: np.ndarray[Any, Any], rng: np.random.Generator) -> tuple[Any, Any]:
    """The numbers in some array's clothes, and what is to be found in them (`None`: nothing plain)."""
    if rng.integers(2):
        return _tensor(numbers, rng)
    kind = KINDS[rng.integers(len(KINDS))]
    with np.errstate(all="ignore"):
        try:
            array = numbers.astype(kind)
        except (ValueError, OverflowError):
            array = numbers
    plain = array if array.dtype.kind in "fiub" else None
    if array.dtype.kind == "O":
        plain = numbers
    if plain is not None and plain.dtype.itemsize > 8:
        plain = plain.astype(np.float64)
    dress = rng.integers(12)
    if dress == 0:
        mask = rng.random(array.shape) < 0.3
        return np.ma.array(array, mask=mask), None if mask.any() else plain
    if dress == 1 and array.ndim:
        return array[::-1].copy()[::-1], plain
    if dress == 2 and array.ndim:
        return np.repeat(array, 2, 0)[::2], plain
    if dress == 3 and array.ndim == 2 and array.dtype.kind in "fiub" and array.dtype.itemsize <= 8:
        return pd.DataFrame(array.astype(array.dtype.newbyteorder("="))), plain
    if dress == 4:
        frame = pd.DataFrame({"a": list("ab" * 3), "b": pd.date_range("2020", periods=6)})
        return frame if rng.integers(2) else frame.assign(a=frame["a"].astype("category")), None
    if dress == 5 and array.dtype.kind in "fiub" and array.ndim:
        return array.tolist(), np.asarray(array.tolist())
    if dress == 6:
        return [[1.0], [2.0, 3.0], [4.0]][: rng.integers(2, 4)], None
    if dress == 7:
        return np.zeros(6, [("a", "f4"), ("b", "f4")]), None
    if dress == 8:
        odd = (
            None,
            "text",
            b"bytes",
            {"a": 1},
            object(),
            {1, 2},
            range(3).__iter__(),
            1.5,
            lambda: 0,
        )
        return odd[rng.integers(len(odd))], None
    return array, plain


def _tensor(numbers: np.ndarray[Any, Any], rng: np.random.Generator) -> tuple[Any, Any]:
    kind = getattr(torch, TENSORS[rng.integers(len(TENSORS))])
    tensor = torch.as_tensor(np.nan_to_num(numbers) if not kind.is_floating_point else numbers).to(
        kind
    )
    plain = None if kind.is_complex else tensor.double().numpy()
    if kind == torch.uint64 and plain is not None and (plain >= 2**63).any():
        plain = None
    dress = rng.integers(14)
    floats = kind in (torch.float32, torch.float64)
    if dress == 0 and floats:
        return tensor.requires_grad_(), plain
    if dress == 1 and tensor.dim():
        return tensor.to_sparse() if floats else tensor.to("meta"), None
    if dress == 2:
        return tensor.to("meta"), None
    if dress == 3 and floats:
        return torch.quantize_per_tensor(tensor.float(), 0.5, 0, torch.quint8), None
    if dress == 4 and floats:
        return torch.complex(torch.zeros_like(tensor), -tensor).conj().imag, plain
    if dress == 5 and tensor.dim() == 2 and tensor.numel():
        return tensor.t().contiguous().t(), plain
    if dress == 6:
        with torch.inference_mode():
            return tensor.clone(), plain
    if dress == 7 and floats:
        return torch.nn.Parameter(tensor), plain
    if dress == 8 and floats and tensor.dim() == 2 and len(tensor):
        return torch.nested.nested_tensor([tensor[0], tensor[0, :1]]), None
    if dress == 9 and floats:
        return torch.masked.masked_tensor(tensor, tensor > 3), None
    if dress == 10 and tensor.dim():
        return list(tensor), plain
    return tensor, plain


def _file(found: Outcome, folder: Path, rng: np.random.Generator, label: str) -> None:
    """A file of random content: never another exception, never a line less than it has."""
    kind = ODD_FILES[rng.integers(len(ODD_FILES))]
    suffix = (".npy", ".npz", ".csv")[rng.integers(3)] if kind != "table" else ".csv"
    path = folder / f"data{suffix}"
    lines: int | None = None
    if kind == "bytes":
        path.write_bytes(rng.bytes(int(rng.integers(80))))
    elif kind == "text":
        letters = list('0123456789.,,,,-e\n\n\n"ab ')
        path.write_text("".join(rng.choice(letters, int(rng.integers(80)))))
    elif kind == "cut":
        write = np.savez if suffix == ".npz" else np.save
        if suffix == ".csv":
            path.write_text("a,b\n1,2\n")
        else:
            write(path, rng.normal(size=(4, 2)))
        content = bytearray(path.read_bytes())
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(content[: int(rng.integers(1, len(content) + 1))]))
    else:
        cells = ["1", "2.5", "NA", "?", "low", "1990", "1991", "1e5", "", "007"]
        rows = [[str(cell) for cell in rng.choice(cells[:2] if i else cells, 2)] for i in range(4)]
        named = not any(cell[:1].isdigit() or cell in ("", "NA", "?") for cell in rows[0])
        lines = 3 if named else 4
        path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    try:
        data = pg.load(path, split=(0, 0), labels=[None, "a", "0"][rng.integers(3)])
    except (ValueError, TypeError) as error:
        found.refused += 1
        if len(str(error)) < 25:
            found.wrong.append(f"{label} {kind}{suffix}: no words: {error!r}")
    except Exception as error:
        found.wrong.append(f"{label} {kind}{suffix}: {type(error).__name__}: {str(error)[:150]}")
    else:
        if not bool(torch.isfinite(data.train["x"]).all()):
            found.wrong.append(f"{label} {kind}{suffix}: loaded what is not finite")
        if lines is not None and len(data.train) != lines:
            found.wrong.append(f"{label} {kind}{suffix}: {len(data.train)} of {lines} lines")
