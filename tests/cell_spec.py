"""A random cell and its call as plain text and numbers, which can be sent, printed and shrunk."""

from __future__ import annotations

import linecache
import sys
import types
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from cell_tables import PRELUDE


@dataclass
class Spec:
    """A cell's source and a call of it; all of it plain, so that it can be sent, printed and shrunk."""

    seed: int
    dtype: str
    init: list[str]
    body: list[str]
    result: str
    inputs: str  # how x is put together of x0, x1 …
    state: str
    input_shapes: list[tuple[str, list[int]]]  # kind of number and what stands behind [T, B]
    state_shapes: list[tuple[str, list[int]]]
    has_output: bool
    alone: bool  # whether each sequence can be run by itself
    pure: bool  # whether all numbers are of the cell's type, so that in float64 it is the same cell
    record: list[str]
    changes: list[str]
    call: dict[str, Any]
    tags: list[str] = field(default_factory=list)
    starts: str = ""  # what the cell's own `initial_state` returns; it has none where this is empty

    def source(self) -> str:
        lines = [
            PRELUDE,
            "",
            "class FuzzCell(nn.Module):",
            "    beta = 0.7",
            "    watch = staticmethod(tt.cells.Cell.watch)",
            "",
        ]
        lines += ["    def __init__(self, dtype):", "        super().__init__()"]
        lines += ["        " + line for line in self.init]
        if self.starts:
            lines += ["", "    def initial_state(self, batch, *, device=None):", f"        return {self.starts}"]
        lines += ["", "    def helper(self, v):", "        return v * 0.6", "", "    def order_of(self, v):"]
        lines += ["        return torch.arange(v.shape[1]).flip(0)", "", "    def forward(self, x, h):"]
        lines += [f"        {self.inputs} = x", f"        {self.state} = h"]
        lines += ["        " + line for statement in self.body for line in statement.split("\n")]
        lines += [f"        return {self.result}", ""]
        return "\n".join(lines)

    def shown(self) -> str:
        """The class and the call, for a person."""
        text = self.source()
        return (
            text[text.index("class FuzzCell") :]
            + f"# {self.dtype}, call {self.call}, changes {self.changes}, alone {self.alone}"
        )

    def module(self) -> dict[str, Any]:
        """What the source defines, under a file name that has lines."""
        name, text = f"<cell {self.seed}>", self.source()
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        return run_as_module(compile(text, name, "exec"), "random_cell")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


LIVE = compile(
    PRELUDE + "\nclass Live(nn.Module):\n    beta = 0.7\n    watch = staticmethod(tt.cells.Cell.watch)\n"
    "    def helper(self, v):\n        return v * 0.6\n"
    "    def order_of(self, v):\n        return torch.arange(v.shape[1]).flip(0)\n",
    "<cell being made>",
    "exec",
)


def run_as_module(code: Any, name: str) -> dict[str, Any]:
    """What the code defines, in a module that others find by its name (as dataclasses and pickle do)."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(code, module.__dict__)
    return module.__dict__


def draw_tensor(kind: str, shape: list[int], seed: int, dtype: torch.dtype) -> Tensor:
    """Random numbers of a kind: float, int or bool."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if kind == "float":
        return (0.8 * values).to(dtype)
    return (values * 2).abs().long() if kind == "int" else values > 0
