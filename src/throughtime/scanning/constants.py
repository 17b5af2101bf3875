"""What hangs on nothing but the cell: its tensors, and what is made of them before the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.scanning.lowering import Constant
from throughtime.scanning.signature import NOT_SETTINGS


class Constants:
    """The cell's own tensors, and what is made of them before the loop, in PyTorch and with its gradients."""

    def __init__(self, names: list[str], dtype: torch.dtype) -> None:
        self.names = names  # of the tensors that `values` is given, in order
        self.dtype = dtype  # of the rows and matrices
        self._recipes: list[Callable[[list[Tensor]], Any]] = []  # how number len(names) + i is made of earlier ones
        self._known: dict[Any, Constant] = {}
        self.vectors: list[tuple[int, tuple[int, ...]]] = []  # (constant, order of its axes), flattened
        self.matrices: list[int] = []
        self.text: list[str] = []

    def derived(self, source: Constant, text: str, function: Callable[[Tensor], Tensor]) -> Constant:
        key = (source.index, text)
        if key not in self._known:
            with torch.device("meta"):
                shape = function(torch.empty(source.shape)).shape
            self._known[key] = self.recipe(
                lambda values: function(values[source.index]), f"#{source.index}{text}", shape, source.dtype
            )
        return self._known[key]

    def recipe(
        self, make: Callable[[list[Tensor]], Any], text: str, shape: Sequence[int], dtype: torch.dtype
    ) -> Constant:
        self._recipes.append(make)
        self.text.append(text)
        return Constant(len(self.names) + len(self._recipes) - 1, shape, dtype)

    def vector(self, index: int, order: Sequence[int]) -> int:
        entry = (index, tuple(order))
        if entry not in self.vectors:
            self.vectors.append(entry)
        return self.vectors.index(entry)

    def matrix(self, index: int) -> int:
        if index not in self.matrices:
            self.matrices.append(index)
        return self.matrices.index(index)

    def made_of(self, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The constant rows and the matrices, of the cell's tensors as they are now; all of one type of number."""
        values: list[Any] = list(tensors)
        for make in self._recipes:
            values.append(make(values))
        vectors = [self._number(_row(values[i], order)) for i, order in self.vectors]
        return vectors, [self._number(values[i]) for i in self.matrices]

    def _number(self, value: Tensor) -> Tensor:
        return value if value.dtype is self.dtype else value.to(self.dtype)


def _row(value: Tensor, order: tuple[int, ...]) -> Tensor:
    return value if value.dim() == 1 else value.permute(order).reshape(-1)


def own_tensors(cell: nn.Module) -> dict[str, Tensor]:
    """Every tensor that is an attribute of the cell or of a module in it, by its path."""
    found: dict[str, Tensor] = {}

    def look(module: nn.Module, path: str) -> None:
        for name, value in module.__dict__.items():
            if name not in NOT_SETTINGS and isinstance(value, Tensor):
                found[path + name] = value
        for where in (module._parameters, module._buffers):
            for name, value in where.items():
                if value is not None:
                    found.setdefault(path + name, value)
        for name, child in module._modules.items():
            if child is not None:
                look(child, f"{path}{name}.")

    look(cell, "")
    return found
