"""Whether a step is linear in its state, found from its nodes.

    h_t = a_t ⊙ h_{t-1} + b_t        a_t and b_t free of h

Each unit of such a state is a function of its own past alone, and steps can be put together before the state is known:

    a_2 ⊙ (a_1 ⊙ h + b_1) + b_2  =  (a_2 ⊙ a_1) ⊙ h + (a_2 ⊙ b_1 + b_2)

A state of several tensors is looked at tensor by tensor: what is linear may be read, in any way, by a and b of those that
come after it. So (h, c) with c_t = f ⊙ c_{t-1} + i and h_t = o ⊙ tanh(c_t) is linear where f, i and o hang on the input alone.
"""

from __future__ import annotations

from collections.abc import Callable

from throughtime.scanning.capture import Captured
from throughtime.scanning.nodes import POINTWISE, Graph, Node, Row, ordered

_PHRASES = {
    "product": "a product of matrices takes it",
    "slice": "a product of matrices takes it",
    "sum": "a sum over features takes it",
    "max": "a maximum over features takes it",
    "mul": "it is multiplied by itself",
    "div": "it divides",
    "select": "a choice hangs on it",
}


class NotLinear(Exception):
    """A node is not linear in the state."""

    def __init__(self, node: Node, what: str) -> None:
        super().__init__(what)
        self.node = node


def why_not_linear(captured: Captured) -> tuple[str | None, ...]:
    """For each tensor of the state, None where its new value is linear in it, or what breaks that and in which line."""
    reasons: list[str | None] = ["" for _ in captured.state]
    graph = captured.graph.fork()
    going = True
    while going:
        going = False
        settled = {k for k, reason in enumerate(reasons) if reason is None}
        for k, row in enumerate(captured.state):
            if k in settled:
                continue
            try:
                factors(graph, row, ("s", k), settled)
            except NotLinear as error:
                line = captured.graph.lines.get(error.node)
                reasons[k] = f"{error} at {line}" if line else str(error)
            else:
                reasons[k], going = None, True
    return tuple(reasons)


def factors(graph: Graph, row: Row, own: tuple[str, int], settled: set[int]) -> Row:
    """What a new tensor multiplies its old value by, a node for each piece of its row.

    Args: own: the kind and number of the leaves that are the old value. settled: numbers of other tensors of that kind which are
        known by then.
    Raises: NotLinear.
    """
    kind, _ = own
    hangs: dict[Node, bool] = {}
    for node in ordered(row):
        is_state = node.op == "leaf" and node.attribute[0] == kind and node.attribute[1] not in settled
        hangs[node] = is_state or any(hangs[a] for a in node.args)
    found, start = [], 0
    for piece in row:
        found.append(_factor(graph, piece, (*own, start), hangs))
        start += piece.width
    return tuple(found)


def _factor(graph: Graph, piece: Node, place: tuple[str, int, int], hangs: dict[Node, bool]) -> Node:
    """Of one piece of a row; place: the leaf that it may hang on, of its own width."""
    found: dict[Node, Node] = {}
    zero = graph.number(0)
    for node in ordered([piece], stop=lambda n: not hangs[n]):
        if not hangs[node]:
            found[node] = zero
        elif node.op == "leaf":
            found[node] = graph.number(1)
        else:
            for a in node.args:
                _check_leaf(a, node, place, hangs)
            if any(hangs[a] and a.width != node.width for a in node.args) and node.op in POINTWISE:
                raise NotLinear(node, "several units read one number of it")
            rule = _RULES.get(node.op)
            made = rule(graph, node, [hangs[a] for a in node.args], [found[a] for a in node.args]) if rule else None
            if made is None:
                raise NotLinear(node, _PHRASES.get(node.op, f"{node.op} takes it"))
            found[node] = made
    _check_leaf(piece, piece, place, hangs)
    return graph.expand(found[piece], piece.width)


def _check_leaf(node: Node, reader: Node, place: tuple[str, int, int], hangs: dict[Node, bool]) -> None:
    if node.op != "leaf" or not hangs[node] or node.attribute == place:
        return
    same = node.attribute[:2] == place[:2]
    what = "a unit reads another unit of it" if same else f"it reads tensor {node.attribute[1]} of the state"
    raise NotLinear(reader, what)


# What a node multiplies the old value by: of the node, which of its arguments hang on that, and what those multiply it by;
# None where it is not linear.
_Rule = Callable[[Graph, Node, list[bool], list[Node]], Node | None]


def _mul(graph: Graph, node: Node, hangs: list[bool], by: list[Node]) -> Node | None:
    if all(hangs):
        return None
    return graph.apply("mul", by[0], node.args[1]) if hangs[0] else graph.apply("mul", node.args[0], by[1])


_RULES: dict[str, _Rule] = {
    "add": lambda graph, node, hangs, by: graph.apply("add", *by),
    "sub": lambda graph, node, hangs, by: graph.apply("sub", *by),
    "neg": lambda graph, node, hangs, by: graph.apply("neg", *by),
    "detach": lambda graph, node, hangs, by: by[0],
    "mul": _mul,
    "div": lambda graph, node, hangs, by: None if hangs[1] else graph.apply("div", by[0], node.args[1]),
    "select": lambda graph, node, hangs, by: None if hangs[0] else graph.apply("select", node.args[0], *by[1:]),
}
