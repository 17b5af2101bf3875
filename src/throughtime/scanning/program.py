"""A step of a cell, divided into what is done before the loop over time, in it, and after it. No device is in it.

Leaves, by kind:

    a  an array made before the loop, [T, B, n]     v  a constant row [n]             s  the state before the step
    u  a product of such an array, made a chunk of time at a time, just before the loop runs through it
    i  the initial state                            r  whether to put it back (with resets)
    n  the state after the step                     o  another value of the loop that is wanted outside

Only the backward loop reads

    k  a value saved by the forward loop    g  the gradient of an output    c  that of the state, carried from step to step
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from throughtime.scanning import equations
from throughtime.scanning.capture import Captured
from throughtime.scanning.nodes import Graph, Node, Row, ordered, width_of

Array = tuple[str, int]  # its kind and number
Wanted = frozenset[Array]  # gradients: of "a", "v", "i" and of matrices, "w"
SUMMED = "+"  # at the end of a kind: the loop adds its steps up


@dataclass(frozen=True)
class Hoisted:
    """A product that leaves the loop: array `a` number `array` times matrices, plus a constant row; leaf `u`."""

    array: int
    weights: tuple[int, ...]
    bias: int | None
    width: int


@dataclass(frozen=True, eq=False)
class Loop:
    """One loop over time: rows of nodes to work out and the arrays they go to; and the products among the nodes.

    halved: the arrays that lie in bfloat16.
    """

    targets: tuple[tuple[Array, Row], ...]
    products: tuple[Node, ...]
    halved: frozenset[Array] = frozenset()

    @classmethod
    def of(cls, targets: Iterable[tuple[Array, Row]], halved: frozenset[Array] = frozenset()) -> Loop:
        targets = tuple(targets)
        products = tuple(n for n in ordered(n for _, row in targets for n in row) if n.op == "product")
        return cls(targets, products, halved)

    @property
    def nodes(self) -> list[Node]:
        """All that it works out or reads, arguments first."""
        return ordered(n for _, row in self.targets for n in row)

    @cached_property
    def by_kind(self) -> dict[str, list[int]]:
        """The numbers of the arrays it writes."""
        found: dict[str, list[int]] = {}
        for (kind, index), _ in self.targets:
            found.setdefault(kind, []).append(index)
        return found

    @cached_property
    def weights(self) -> int:
        """How many numbers a step reads of the matrices of its products."""
        return sum(width_of(p.args) * p.width for p in self.products)

    @cached_property
    def written(self) -> int:
        """How many numbers a step writes of each sequence."""
        return sum(width_of(row) for _, row in self.targets)


@dataclass(frozen=True, eq=False)
class Program:
    """One step of a cell, ready to be compiled. Made by `divide`.

    states: the rows of the new state's tensors, arrays "n". extras: other values of the loop that are wanted outside, arrays
    "o". outputs: what the cell gives, worked out after the loop. arrays: what is made before the loop, leaves "a". hoisted:
    leaves "u". resets: whether the initial state may be put back before a step.
    """

    captured: Captured
    graph: Graph
    resets: bool
    states: tuple[Row, ...]
    extras: tuple[Row, ...]
    outputs: tuple[Row, ...]
    arrays: tuple[Node, ...]
    hoisted: tuple[Hoisted, ...]

    @cached_property
    def state_widths(self) -> list[int]:
        return [width_of(row) for row in self.captured.state]

    @cached_property
    def extra_widths(self) -> list[int]:
        return [width_of(row) for row in self.extras]

    @cached_property
    def array_widths(self) -> list[int]:
        return [n.width for n in self.arrays]

    @cached_property
    def made_before(self) -> list[Row]:
        """The arrays that no input is as it is: worked out before the loop."""
        return [(n,) for n in self.arrays if n.op != "leaf"]

    @cached_property
    def operands(self) -> frozenset[int]:
        """The arrays that hoisted products are of, whose steps and rows lie evenly."""
        return frozenset(h.array for h in self.hoisted)

    @cached_property
    def vector_widths(self) -> dict[int, int]:
        """How much of every constant row the loop reads."""
        widths: dict[int, int] = {}
        for node in self.forward.nodes:
            if node.op == "leaf" and node.attribute[0] == "v":
                _, index, offset = node.attribute
                widths[index] = max(widths.get(index, 0), offset + node.width)
        return widths

    @cached_property
    def forward(self) -> Loop:
        return self.forward_saving(())

    def forward_saving(self, saved: Iterable[Row]) -> Loop:
        """The forward loop that also writes what a backward one reads, as arrays "k"."""
        kinds = (("n", self.states), ("o", self.extras), ("k", saved))
        return Loop.of(((kind, i), row) for kind, rows in kinds for i, row in enumerate(rows))

    def whole(self, row: Row) -> Array | None:
        """The array of the program that a row is, all of it: a state before or after the step, or an array "a"."""
        if len(row) != 1 or row[0].op != "leaf":
            return None
        kind, index, offset = row[0].attribute
        widths = {"s": self.state_widths, "n": self.state_widths, "a": self.array_widths}.get(kind)
        return (kind, index) if widths is not None and (offset, row[0].width) == (0, widths[index]) else None

    @cached_property
    def whole_outputs(self) -> list[Array | None]:
        """For each output, the array that it is."""
        return [self.whole(row) for row in self.outputs]

    def __str__(self) -> str:
        constants = self.captured.constants
        lines = ["before the loop:"]
        lines += [f"    #{len(constants.names) + i} = {text}" for i, text in enumerate(constants.text)]
        lines += [f"    a{i} [T, B, {node.width}] = {equations.phrase(node)}" for i, node in enumerate(self.arrays)]
        for i, h in enumerate(self.hoisted):
            weights, bias = ", ".join(f"W{w}" for w in h.weights), "" if h.bias is None else f" + v{h.bias}"
            lines.append(f"    u{i} [T, B, {h.width}] = a{h.array} @ [{weights}]{bias}")
        lines += [
            "in the loop:",
            *("    " + line for line in equations.describe(self.forward.targets)),
            "after the loop:",
        ]
        for i, row in enumerate(self.outputs):
            kind, index = self.whole_outputs[i] or ("", 0)
            said = f"state {index}" if kind == "n" else ", ".join(map(equations.phrase, row))
            lines.append(f"    output {i} = {said}")
        return "\n".join(lines)
