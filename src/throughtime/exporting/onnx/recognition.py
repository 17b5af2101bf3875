"""Whether a step is that of an LSTM, a GRU or a plain network, however it is written: then ONNX has an operator for it.

A program and the one of our own cell of the same sizes are set beside each other as equations in which what is linear in the
input and in the state (a matrix each, and a constant row) is one term, whichever products, pieces and constants it is made of,
and in which the order of sums and products does not count. Where they are the same but for the numbers, the numbers of a term
are the weights of a gate. Which gate, our own cell says itself: its weights are given the number of their gate for values.

Shapes: I input, N hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.cells import GRU, LSTM, Elman, ResetBeforeGRU
from throughtime.exporting.stack import Direction, Step
from throughtime.scanning.nodes import Node

COMMUTE = {"add", "mul", "minimum", "maximum", "largest"}
TEMPLATES: dict[str, tuple[tuple[Callable[..., nn.Module], dict[str, Any]], ...]] = {
    "LSTM": ((LSTM, {}),),
    "GRU": ((GRU, {"linear_before_reset": 1}), (nn.GRUCell, {"linear_before_reset": 1}), (ResetBeforeGRU, {})),
    "RNN": (
        (Elman, {"activations": ["Tanh"]}),
        (partial(Elman, nonlinearity="relu"), {"activations": ["Relu"]}),
    ),
}


@dataclass
class Gate:
    """The weights of a gate: [N, I], [N, N], and constant rows [N]: beside the product of the input, and beside that of the state
    alone."""

    input: Tensor
    state: Tensor
    input_bias: Tensor
    state_bias: Tensor


@dataclass(frozen=True)
class Known:
    """A step that is that of an operator. input: the number of the input that it reads. gates: in the order of our own cell's.
    attributes: those that the operator needs."""

    operator: str
    input: int
    gates: list[Gate]
    attributes: dict[str, Any]


def recognised(step: Step) -> Known | None:
    """The operator whose step this is, or None."""
    program = step.program
    if program.captured.constants.dtype != torch.float32:  # onnxruntime has no others of them
        return None
    hidden = program.state_widths[0]
    if len(program.arrays) != 1 or {*program.captured.state_shapes, *program.captured.shapes} != {(hidden,)}:
        return None
    sizes = (program.array_widths[0], hidden)
    for operator, templates in TEMPLATES.items():
        for make, attributes in templates:
            if (operator == "LSTM") == (len(program.states) == 2) and len(program.states) < 3:
                match = _Match(_numbered(make(*sizes), len(program.states)), _Linear(step), sizes)
                if match.found():
                    return Known(operator, program.arrays[0].attribute[1], match.gates, attributes)
    return None


def _numbered(cell: nn.Module, states: int) -> _Linear:
    """The step of a cell whose every weight is the number of its gate, counted from 1."""
    inputs, hidden = int(cell.input_size), int(cell.hidden_size)  # type: ignore[arg-type]
    for tensor in cell.parameters():
        numbers = torch.arange(len(tensor)) // hidden + 1
        tensor.data = numbers.reshape(-1, *[1] * (tensor.dim() - 1)).expand(tensor.shape).to(torch.float32).contiguous()
    state = (torch.zeros(1, hidden),) * states
    return _Linear(Direction(cell, torch.zeros(1, inputs), state if states > 1 else state[0]).step())


@dataclass
class Term:
    """What is linear: a matrix [k, width] for each row of numbers that is multiplied, and a constant row [width] or [1]."""

    factors: dict[Node, Tensor] = field(default_factory=dict)
    constant: Tensor = field(default_factory=lambda: torch.zeros(1))

    def plus(self, other: Term) -> Term:
        """The sum of two."""
        factors = dict(self.factors)
        for node, matrix in other.factors.items():
            factors[node] = factors[node] + matrix if node in factors else matrix
        return Term(factors, self.constant + other.constant)


class _Linear:
    """The linear terms of a step."""

    def __init__(self, step: Step) -> None:
        self.step, self._terms = step, dict[Node, Term | None]()
        for node in step.program.forward.nodes:
            self._terms[node] = self._made(node)

    def _made(self, node: Node) -> Term | None:
        match node.op:
            case "number":
                return Term(constant=torch.tensor([node.attribute[0]]))
            case "leaf" if node.attribute[0] == "v":
                _, index, offset = node.attribute
                return Term(constant=self.step.vectors[index][offset : offset + node.width])
            case "product":
                return self._product(node)
            case "slice":
                whole = self._terms[node.args[0]]
                return None if whole is None else _cut(whole, node.attribute, node.width)
            case "add":
                a, b = (self._terms[arg] for arg in node.args)
                return None if a is None or b is None else a.plus(b)
        return None

    def _product(self, node: Node) -> Term:
        matrix, start, term = torch.cat([self.step.matrices[w] for w in node.attribute], -1), 0, Term()
        for arg in node.args:
            term = term.plus(Term({arg: matrix[start : start + arg.width]}))
            start += arg.width
        return term

    def summed(self, node: Node) -> tuple[Term, list[Node]]:
        """A sum as its linear term and the rest of what is added."""
        total, rest, left = Term(), list[Node](), [node]
        while left:
            node = left.pop()
            term = self._terms[node]
            if term is not None:
                total = total.plus(term)
            elif node.op == "add":
                left += reversed(node.args)
            else:
                rest.append(node)
        return total, rest


def _cut(term: Term, offset: int, width: int) -> Term:
    constant = term.constant if len(term.constant) == 1 else term.constant[offset : offset + width]
    return Term({node: matrix[:, offset : offset + width] for node, matrix in term.factors.items()}, constant)


class _Match:
    """Whether two steps are the same equations. own: the one whose weights say which gate they are of."""

    def __init__(self, own: _Linear, other: _Linear, sizes: tuple[int, int]) -> None:
        self.own, self.other = own, other
        self._same: dict[Node, Node] = {}
        inputs, hidden = sizes
        count = max(len(v) for v in own.step.vectors) // hidden
        zeros = torch.zeros
        self.gates = [
            Gate(zeros(hidden, inputs), zeros(hidden, hidden), zeros(hidden), zeros(hidden)) for _ in range(count)
        ]

    def found(self) -> bool:
        """Whether they are; then the gates are filled in."""
        mine, others = ([*linear.step.program.states, *linear.step.program.extras] for linear in (self.own, self.other))
        return all(len(b) == 1 and self._alike(a[0], b[0]) for a, b in zip(mine, others, strict=True))

    def _alike(self, a: Node, b: Node) -> bool:
        """Whether a node of our own is one of the other."""
        if a in self._same:
            return self._same[a] is b
        kept = dict(self._same)
        self._same[a] = b
        if self._equal(a, b):
            return True
        self._same = kept
        return False

    def _equal(self, a: Node, b: Node) -> bool:
        if a.width != b.width:
            return False
        if a.op in ("leaf", "number"):
            return a.op == b.op and a.attribute == b.attribute
        (term, rest), (other, more) = self.own.summed(a), self.other.summed(b)
        if rest != [a] or more != [b]:  # sums
            return self._paired(rest, more) and self._filled(term, other)
        if a.op != b.op or a.attribute != b.attribute or len(a.args) != len(b.args):
            return False
        if a.op in COMMUTE:
            return self._paired(a.args, b.args)
        return all(map(self._alike, a.args, b.args))

    def _paired(self, some: Sequence[Node], others: Sequence[Node]) -> bool:
        """Whether they are alike in some order."""
        if len(some) != len(others):
            return False
        if not some:
            return True
        for i, other in enumerate(others):
            kept = dict(self._same)
            if self._alike(some[0], other) and self._paired(some[1:], [*others[:i], *others[i + 1 :]]):
                return True
            self._same = kept
        return False

    def _filled(self, own: Term, other: Term) -> bool:
        """Whether a linear term can stand for one of a gate; then its numbers are the gate's."""
        if not own.factors:
            return torch.equal(own.constant, other.constant) and not other.factors
        gate = self.gates[int(next(iter(own.factors.values()))[0, 0]) - 1]
        reads_input = False
        left = dict(other.factors)
        for factor in own.factors:
            is_input = factor.op == "leaf" and factor.attribute[0] == "a"
            reads_input |= is_input
            found = next((node for node in left if self._alike(factor, node)), None)
            name = "input" if is_input else "state"
            setattr(gate, name, torch.zeros_like(getattr(gate, name)) if found is None else left.pop(found).T)
        row = other.constant.expand(len(gate.input_bias))
        setattr(gate, "input_bias" if reads_input else "state_bias", row)
        return not left
