"""Rows of numbers in LLVM assembly: constants, arrays on the stack, and what is done to a row as a whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from throughtime.scanning.cpu.assembly import Assembly, Module

ATTRIBUTES = 'nounwind "no-builtins"'  # no loop becomes a call of memcpy


def padded(width: int, lanes: int) -> int:
    """A width, up to whole vectors."""
    return -(-width // lanes) * lanes


def widened(matrix: Tensor, lanes: int) -> Tensor:
    """[..., N], up to whole vectors, with zeros."""
    return torch.nn.functional.pad(matrix, (0, padded(matrix.shape[-1], lanes) - matrix.shape[-1]))


def packed(matrix: Tensor, wide: int) -> Tensor:
    """A matrix [K, N, ...] as panels of so many columns, one after the other, the last as wide as is left."""
    return torch.cat([panel.reshape(-1) for panel in torch.split(matrix, wide, 1)])


def constant(module: Module, name: str, values: Tensor) -> str:
    """Numbers as a constant of the text, as bytes: a text of numbers is slow to read."""
    data = values.detach().cpu().contiguous().reshape(-1).numpy().tobytes()
    text = "\\" + data.hex("\\") if data else ""
    module.functions[name] = f'@{name} = internal constant [{len(data)} x i8] c"{text}", align 64'
    return f"@{name}"


def reserve(code: Assembly, width: int) -> str:
    """So many numbers on the stack."""
    name = code.name()
    code.slots.append(f"  {name} = alloca [{width} x {code.dtype}], align {bytes_of(code)}")
    return name


def copy(code: Assembly, source: str, to: str, width: int) -> None:
    """Copy a row of numbers."""
    sweep(
        code,
        width,
        lambda j, count: code.store_vector(code.load_vector(code.at(source, j), count), code.at(to, j), count),
    )


def add(code: Assembly, x: str, y: str, width: int) -> None:
    """y += x, rows of numbers."""

    def some(j: str, count: int | None) -> None:
        at = code.at(y, j)
        total = code.binary("fadd", code.load_vector(at, count), code.load_vector(code.at(x, j), count))
        code.store_vector(total, at, count)

    sweep(code, width, some)


def sweep(code: Assembly, width: int, some: Callable[[str, int | None], None]) -> None:
    """A row in whole vectors, each from a number on, and what is left of one."""
    whole = width - width % code.lanes
    if whole:
        with code.loop(whole, step=code.lanes) as j:
            some(j, None)
    if width > whole:
        some(str(whole), width - whole)


def whole_number(code: Assembly, number: str) -> str:
    """An i32, not negative, as the module's whole number."""
    return number if code.whole == "i32" else code.let(f"zext i32 {number} to {code.whole}")


def bytes_of(code: Assembly) -> int:
    """Of a vector: what arrays of the code's own are aligned to."""
    return code.lanes * code.bytes


def whole_vector(code: Assembly, pointer: str) -> str:
    """A vector of an array of the code's own."""
    return code.load(code.vector, pointer, bytes_of(code))
