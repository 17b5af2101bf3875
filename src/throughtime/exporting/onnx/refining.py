"""A step's nodes made fit for a runtime that takes a microsecond for each and rounds some of them coarsely.

Pieces of one value to which the same is done become one operation on the whole of it (the gates of a cell, say), and a sigmoid
whose size counts, however small it is, is written so that it has one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from throughtime.scanning.nodes import COMPARISONS, POINTWISE, Graph, Node, Row, ordered, regrouped, substituted

# to these a number near 0 is another than 0; onnxruntime's sigmoid is 0 from -18 on
SIZED = {"log", "div", "sqrt", "rsqrt", "inverse_root", "pow", "sign"} | COMPARISONS

Widths = Callable[[str, int], int]  # of the whole tensor of a leaf, by kind and number


def refined(graph: Graph, rows: Sequence[Row], widths: Widths) -> list[Row]:
    """Rows of nodes as rows of the same values, made of others."""
    flat = [node for row in rows for node in row]
    return regrouped(_whole(graph, _with_exact_sigmoids(graph, flat), widths), rows)


def _with_exact_sigmoids(graph: Graph, roots: list[Node]) -> list[Node]:
    """The sigmoids that are worked out to their last digits: e / (1 + e) of a negative number, of others 1 / (1 + e), with e the
    exponential of what is not positive."""
    while True:
        sized = [n for n in ordered(roots) if n.op in SIZED]
        new = {}
        for node in ordered([a for n in sized for a in n.args], stop=lambda n: n.op == "product"):
            if node.op == "sigmoid":
                (x,) = node.args
                e = graph.apply("exp", graph.apply("neg", graph.apply("abs", x)))
                top = graph.apply("select", graph.apply("lt", x, graph.number(0)), e, graph.number(1))
                new[node] = graph.apply("div", top, graph.apply("add", e, graph.number(1)))
        if not new:
            return roots
        roots = substituted(graph, roots, new)


def _whole(graph: Graph, roots: list[Node], widths: Widths) -> list[Node]:
    """Operations on pieces as pieces of operations on the whole, where at least half of the whole is wanted."""
    made: list[Node] = []
    while True:
        groups: dict[tuple[str, tuple[Node, ...]], list[tuple[Node, int]]] = defaultdict(list)
        for node in ordered(roots):
            found = _pieces(graph, node, widths)
            if found is not None:
                wholes, offset = found
                groups[node.op, wholes].append((node, offset))
        for (op, wholes), pieces in groups.items():  # the first one: all that it hangs on has been looked at
            width = max(w.width for w in wholes)
            if len(pieces) > 1 and 2 * sum(node.width for node, _ in pieces) >= width:
                whole = graph.node(op, wholes, width)
                made.append(whole)
                graph = graph.fork(made)
                new = {n: graph.node("slice", (whole,), n.width, offset) for n, offset in pieces if n is not whole}
                roots = substituted(graph, roots, new)
                break
        else:
            return roots


def _pieces(graph: Graph, node: Node, widths: Widths) -> tuple[tuple[Node, ...], int] | None:
    """What a pointwise node's arguments are the same piece of, and where that begins; None where they are not.

    An argument that is one number a row stands for itself.
    """
    if node.op not in POINTWISE or node.op == "expand":
        return None
    wholes, offsets = list[Node](), set[int]()
    for arg in node.args:
        if arg.width == 1:
            wholes.append(arg)
        elif arg.op == "slice":
            wholes.append(arg.args[0])
            offsets.add(arg.attribute)
        elif arg.op == "leaf":
            kind, index, offset = arg.attribute
            wholes.append(graph.leaf(kind, index, widths(kind, index), 0, arg.flags))
            offsets.add(offset)
        else:
            return None
    sizes = {w.width for w, arg in zip(wholes, node.args, strict=True) if arg.width > 1}
    return (tuple(wholes), offsets.pop()) if len(offsets) == len(sizes) == 1 else None
