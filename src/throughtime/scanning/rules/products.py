"""Products of what changes from step to step and a constant matrix."""

from __future__ import annotations

from typing import Any

from throughtime.scanning import symbols
from throughtime.scanning.lowering import Constant, Lowering, rule
from throughtime.scanning.rules.shapes import squeeze, transposed
from throughtime.scanning.symbols import Symbol, Unsupported


@rule("mm")
def _mm(low: Lowering, a: Any, b: Any, bias: Constant | None = None) -> Symbol:
    if isinstance(a, Constant):  # W @ h.T is (h @ W.T).T
        weight = low.constants.derived(a, ".t", lambda w: w.t())
        return transposed(low, _mm(low, transposed(low, b), weight))  # type: ignore[no-any-return]
    if not isinstance(b, Constant):
        raise Unsupported("a product of two values that change from step to step")
    if a.axes == "be":
        a = symbols.reshaped(low.graph, symbols.inserted(a, 1), a.shape)
    if a.axes not in ("bl", "be"):
        raise Unsupported(f"a product of a tensor {list(a.shape)} whose first axis is not the batch")
    row = symbols.flat_row(low.graph, low.as_number(a))
    return Symbol((a.shape[0], b.shape[1]), "bl", symbols.whole(low.product(row, b, bias)))


@rule("addmm")
def _addmm(low: Lowering, c: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Symbol:
    if (
        isinstance(c, Constant)
        and isinstance(b, Constant)
        and beta == alpha == 1
        and c.shape in ((b.shape[1],), (1, b.shape[1]))
    ):
        return _mm(low, a, b, c)  # type: ignore[no-any-return]
    made = _mm(low, a, b)
    made = made if alpha == 1 else low.op("mul", made, alpha)
    return low.op("add", made, c if beta == 1 else low.op("mul", c, beta))


@rule("mv")
def _mv(low: Lowering, a: Any, b: Any) -> Symbol:
    if not isinstance(b, Constant) or isinstance(a, Constant):
        raise Unsupported("a product of two values that change from step to step")
    return squeeze(low, _mm(low, a, low.constants.derived(b, ".unsqueeze(1)", lambda w: w.unsqueeze(1))), 1)  # type: ignore[no-any-return]
