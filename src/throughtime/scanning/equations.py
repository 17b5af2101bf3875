"""Nodes in words: a loop as lines of equations."""

from __future__ import annotations

from collections.abc import Sequence

from throughtime.scanning.nodes import Node, Row, ordered

_SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip


def describe(targets: Sequence[tuple[tuple[str, int], Row]]) -> list[str]:
    """A loop as lines of equations; equal loops give equal lines."""
    names: dict[Node, str] = {}
    lines: list[str] = []
    for node in ordered(n for _, row in targets for n in row):
        names[node] = f"t{len(lines)}"
        if node.op == "number":
            short = f"{node.attribute[0]:g}"
            names[node] = short if float(short) == node.attribute[0] else node.attribute[1]
        elif node.op == "leaf":
            names[node] = _leaf(node)
        else:
            lines.append(f"{names[node]} [{node.width}] = {_expression(node, names)}")
    for (kind, index), row in targets:
        lines.append(f"{kind}{index} <- " + ", ".join(names[n] for n in row))
    return lines


def phrase(node: Node) -> str:
    """One value as an expression within a line."""
    names: dict[Node, str] = {}
    for n in ordered([node]):
        if n.op == "leaf":
            names[n] = _leaf(n)
        elif n.op == "number":
            names[n] = f"{n.attribute[0]:g}"
        else:
            names[n] = _expression(n, names) if n is node else f"({_expression(n, names)})"
    return names[node]


def _leaf(node: Node) -> str:
    kind, index, offset = node.attribute
    return f"{kind}{index}[{offset}:{offset + node.width}]"


def _expression(node: Node, names: dict[Node, str]) -> str:
    args = [names[a] for a in node.args]
    if node.op in _SIGNS:
        return f"{args[0]} {_SIGNS[node.op]} {args[1]}"
    if node.op == "slice":
        return f"{args[0]}[{node.attribute}:{node.attribute + node.width}]"
    if node.op in ("product", "affine"):
        bias = args.pop() if node.op == "affine" else None
        weights = ", ".join(f"W{w}" if w >= 0 else f"W{-1 - w}.T" for w in node.attribute)
        return f"[{', '.join(args)}] @ [{weights}]" + (f" + {bias}" if bias else "")
    return f"{node.op}({', '.join(args)})"
