"""A step as C99 that one can read: a loop for each sweep of a layer's plan, each value under its number in the program's equations.

A value that is used once stands where it is used, as far as a line can be read.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace

from throughtime.exporting.c.functions import HELPERS, LIBM, Expression, applied, helper_of, literal
from throughtime.exporting.plan import LayerPlan
from throughtime.scanning.nodes import REDUCTIONS, Node, Row, ordered, width_of
from throughtime.scanning.program import Array
from throughtime.scanning.schedule import Stage, Work

LONG = 70  # characters of an expression that still stands within another
ZERO = {"sum": "0.0f", "max": "-INFINITY"}


@dataclass
class Used:
    """What the functions of a file call: helpers of `HELPERS`, functions of the C library."""

    helpers: set[str] = field(default_factory=set)
    libm: set[str] = field(default_factory=set)

    def note(self, op: str) -> None:
        """An op that is written."""
        if (helper := helper_of(op)) is not None:
            self.call(helper)
        elif op in LIBM:
            self.libm.add(LIBM[op])

    def call(self, helper: str) -> None:
        """A helper, and those that it calls."""
        self.helpers.add(helper)
        for other in HELPERS[helper].calls:
            self.call(other)

    @property
    def text(self) -> str:
        """The helpers, in their order."""
        return "\n\n".join(helper.text for name, helper in HELPERS.items() if name in self.helpers)


class LayerSource:
    """Writes one layer as a function of C.

    vectors, matrices: what constants are called in the file, by number; matrices by that of their product. int8: whether there
    are scales beside matrices, NAME_scales.
    """

    def __init__(
        self, plan: LayerPlan, vectors: dict[int, str], matrices: dict[int, str], used: Used, *, int8: bool
    ) -> None:
        self.plan, self.vectors, self.matrices, self.used, self.int8 = plan, vectors, matrices, used, int8
        self.lines: list[str] = []
        self.arrays: dict[Array, None] = {}  # those of the layer's own that are used
        self.scalars: dict[Node, Expression] = {}  # values that are the same along a row and have been worked out
        self.spilled: set[Node] = set()
        self.names = _numbered(plan)
        self.uses = Counter(a for node in plan.schedule.nodes for a in node.args)

    def text(self) -> str:
        """The function."""
        plan = self.plan
        for stage in plan.schedule.stages:
            for i in stage.products:
                self._product(i)
            self._sweeps(stage)
        for k, width in enumerate(plan.states):
            self._loop(width, [f"{self._at(('s', k), 0, width)} = {self._at(('n', k), 0, width)};"])
        declared = [f"float {self._called(array)}[{self.plan.scratch[array]}];" for array in self.arrays]
        unused = [f"(void){n};" for n in ("state", "x") if not any(re.search(rf"\b{n}\b", line) for line in self.lines)]
        body = "\n".join("    " + line for line in [*declared, *unused, *self.lines])
        head = f"/* {plan.name}: {plan.inputs} in, {plan.outputs} out, {sum(plan.states)} of state */"
        return f"{head}\nstatic void layer_{plan.number}(float *state, const float *x, float *y)\n{{\n{body}\n}}"

    def _called(self, array: Array) -> str:
        kind, number = array
        if kind == "product":
            return f"by_{self.matrices[number]}"
        return f"{ {'lhs': 'left', 'spilled': 'kept', 'n': 'new_state'}[kind] }_{number}"

    def _place(self, array: Array) -> tuple[str, int]:
        """What an array is called, and how many numbers lie before it there."""
        if array in self.plan.passed:
            return self.plan.passed[array]
        if array[0] == "v":
            return self.vectors[array[1]], 0
        self.arrays.setdefault(array)
        return self._called(array), 0

    def _at(self, array: Array, offset: int, width: int) -> str:
        """A number of an array, at the loop's or, of a single one, at its place."""
        name, before = self._place(array)
        offset += before
        if width == 1:
            return f"{name}[{offset}]"
        return f"{name}[{offset} + j]" if offset else f"{name}[j]"

    def _loop(self, width: int, lines: list[str]) -> None:
        if width == 1:
            self.lines += lines if len(lines) == 1 else ["{", *("    " + line for line in lines), "}"]
        else:
            self.lines += [f"for (int j = 0; j < {width}; j++) {{", *("    " + line for line in lines), "}"]

    def _product(self, i: int) -> None:
        node, name = self.plan.schedule.loop.products[i], self.matrices[i]
        helper, scales = ("product_int8", f"{name}_scales, ") if self.int8 else ("product", "")
        self.used.call(helper)
        left, before = self._place(self.plan.schedule.lhs[i])
        out, _ = self._place(("product", i))
        begin = f"{left} + {before}" if before else left
        self.lines.append(f"{helper}({begin}, {width_of(node.args)}, &{name}[0][0], {scales}{node.width}, {out});")

    def _sweeps(self, stage: Stage) -> None:
        for phase in stage.phases:
            # a reduction that an earlier stage has done is there
            works = [replace(w, reductions=[r for r in w.reductions if r[0] not in self.scalars]) for w in phase]
            for reduction in dict.fromkeys(reduction for work in works for reduction, _ in work.reductions):
                self.lines.append(f"float {self.names[reduction]} = {ZERO[reduction.op]};")
                self.scalars[reduction] = Expression(self.names[reduction])
            for work in works:
                if work.roots:
                    self._sweep(work)

    def _sweep(self, work: Work) -> None:
        """A loop over the features of a row, after what is the same for all of them."""
        single = [n for root in work.roots for n in ordered([root], stop=self._known) if self._is_scalar(n)]
        self._define(list(dict.fromkeys(single)), self.scalars, self.lines)
        values: dict[Node, Expression] = {}
        lines: list[str] = []
        inner = ordered(work.roots, stop=lambda n: self._known(n) or n in self.scalars)
        uses = Counter(a for n in inner if n not in self.scalars for a in n.args) + Counter(work.roots)
        for node in inner:
            if node not in self.scalars and node.op != "number":
                self._value(node, uses[node], values, lines)
        seen = {**self.scalars, **values}
        for node, array, offset in work.stores:
            lines.append(f"{self._at(array, offset, work.width)} = {self._shown(node, seen).text};")
        for reduction, node in work.reductions:
            name, value = self.names[reduction], self._shown(node, seen).text
            if reduction.op == "sum":
                lines.append(f"{name} += {value};")
            else:
                self.used.call("maximum")
                lines.append(f"{name} = maximum({name}, {value});")
        self._loop(work.width, lines)
        self.spilled.update(n for n in values if n in self.plan.schedule.spilled)

    def _value(self, node: Node, uses: int, values: dict[Node, Expression], lines: list[str]) -> None:
        """A value of a sweep: within what uses it, or under its name."""
        if (found := self._memory(node)) is not None:
            values[node] = found
            return
        seen = {**self.scalars, **values}
        made = applied(node.op, [self._shown(a, seen) for a in node.args])
        self.used.note(node.op)
        spilled = self.plan.schedule.spilled.get(node)
        if (uses > 1 and node.op not in ("detach", "expand")) or len(made.text) > LONG or spilled is not None:
            kind = "int" if node.boolean else "float"
            lines.append(f"const {kind} {self.names[node]} = {made.text};")
            made = Expression(self.names[node])
        if spilled is not None:
            lines.append(f"{self._at(spilled, 0, node.width)} = {made.text};")
        values[node] = made

    def _define(self, nodes: list[Node], values: dict[Node, Expression], lines: list[str]) -> None:
        """Values of one number each, before a loop."""
        for node in nodes:
            if node not in values and node.op != "number":
                self._value(node, self.uses[node], values, lines)

    def _shown(self, node: Node, seen: dict[Node, Expression]) -> Expression:
        return Expression(literal(node.attribute[0])) if node.op == "number" else seen[node]

    def _memory(self, node: Node) -> Expression | None:
        """Where a value lies, if it does."""
        if node.op == "leaf":
            kind, index, offset = node.attribute
            return Expression(self._at((kind, index), offset, node.width))
        if node.op in ("product", "slice"):
            product = self.plan.schedule.product_of[node.args[0] if node.op == "slice" else node]
            offset = node.attribute if node.op == "slice" else 0
            return Expression(self._at(("product", product), offset, node.width))
        if node in self.spilled:
            return Expression(self._at(self.plan.schedule.spilled[node], 0, node.width))
        return None

    def _known(self, node: Node) -> bool:
        """Whether a value is there, so that nothing below it is looked at."""
        return node.op in REDUCTIONS or node.op in ("product", "slice") or node in self.spilled

    def _is_scalar(self, node: Node) -> bool:
        return node.width == 1 and node.op not in ("expand", "number") and node not in self.scalars


def _numbered(plan: LayerPlan) -> dict[Node, str]:
    """Each value's name: its number in the program's equations."""
    names: dict[Node, str] = {}
    targets: list[Row] = [row for _, row in plan.schedule.loop.targets]
    for node in ordered(n for row in targets for n in row):
        if node.op not in ("number", "leaf"):
            names[node] = f"t{len(names)}"
    return names
