"""Arrays of a loop that lie in bfloat16, where the operands of products do: rounded once, where they are written.

h      a state, beside the one in float32 or in its place, as products read it and as it is given back, [T, B, n]
H      the same of the step before
d, U   gradients of what products gave: operands of the backward's own products and of the gradients of weights
d+, U+ their sums over the steps of a chunk, [B, n], in float32, where gradients of constant rows are wanted
g      gradients of states that were given back in bfloat16
"""

from __future__ import annotations

from collections.abc import Collection

from throughtime.scanning.backward import Backward
from throughtime.scanning.nodes import Node, width_of
from throughtime.scanning.program import SUMMED, Array, Loop, Program, Wanted
from throughtime.scanning.schedule import array_of


class HalvedLoops:
    """The loops of a program that have arrays in bfloat16, each made once. rounded: the states that are given back so."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._forward: dict[tuple[Backward | None, frozenset[int]], Loop] = {}
        self._backward: dict[tuple[Backward, frozenset[int]], Loop] = {}

    def forward(self, plan: Backward | None, rounded: frozenset[int]) -> Loop:
        """That of a call that saves what a plan needs."""
        key = plan, rounded
        return self._forward.get(key) or self._forward.setdefault(key, forward(self.program, plan, rounded))

    def backward(self, plan: Backward, wanted: Wanted, rounded: frozenset[int]) -> Loop:
        """That of a plan."""
        key = plan, rounded
        return self._backward.get(key) or self._backward.setdefault(key, backward(self.program, plan, wanted, rounded))


def forward(program: Program, plan: Backward | None, rounded: Collection[int]) -> Loop:
    """The forward loop that writes its states in bfloat16 where products read them so, or where they are wanted so (`rounded`).

    A state that is wanted in bfloat16 alone, and that only products read, is not written in float32.
    """
    loop = plan.forward if plan else program.forward
    read = {array[1] for p in loop.products if (array := _operand(program, p)) is not None}
    halves = sorted(read.union(rounded))
    alone = {k for k in halves if k in rounded and not _is_read(program, plan, loop, k)}
    targets = [(array, row) for array, row in loop.targets if array[0] != "n" or array[1] not in alone]
    targets += [(("h", k), program.states[k]) for k in halves]
    return Loop.of(targets, frozenset([("h", k) for k in halves] + [("H", k) for k in read]))


def backward(program: Program, plan: Backward, wanted: Wanted, rounded: Collection[int]) -> Loop:
    """The backward loop that writes operands in bfloat16, and reads gradients so where states were given back so (`rounded`)."""
    loop = plan.loop
    as_they_are = {plan.shared[key] for key in plan.shared if key[0] == "I"}
    halves = [a for a, row in loop.targets if a[0] in ("d", "U") and a not in as_they_are and width_of(row) % 2 == 0]
    sums = {plan.shared.get(key, key) for key in _constants(program, plan, wanted)}
    rows = dict(loop.targets)
    targets = [*loop.targets, *(((a[0] + SUMMED, a[1]), rows[a]) for a in halves if a in sums)]
    operands = {array_of(p.args) for p in loop.products}
    gradients = {("g", k) for k in rounded} - operands
    return Loop.of(targets, frozenset([*halves, *gradients]))


def _operand(program: Program, product: Node) -> Array | None:
    """The state that a product reads whole words of."""
    array = array_of(product.args)
    if array is None or array[0] != "s" or width_of(product.args) % 2 or program.state_widths[array[1]] % 2:
        return None
    return array


def _is_read(program: Program, plan: Backward | None, loop: Loop, k: int) -> bool:
    """Whether a state is read otherwise than as words."""
    rows = [row for _, row in loop.targets]
    rows += [n.args for n in loop.nodes if n.op != "product" or _operand(program, n) is None]
    if plan is not None:
        rows += [(n,) for n in plan.loop.nodes]
    return any(n.op == "leaf" and n.attribute[:2] in (("s", k), ("n", k)) for row in rows for n in row)


def _constants(program: Program, plan: Backward, wanted: Wanted) -> list[Array]:
    """The arrays whose sums over steps are gradients of constant rows."""
    biases = [("U", u) for u, h in enumerate(program.hoisted) if h.bias is not None and ("v", h.bias) in wanted]
    return [key for key in plan.widths if key[0] == "V" or key in biases]
