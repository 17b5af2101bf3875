"""The files of an export as C: the header, and the source with its weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.exporting.c.functions import HELPERS, LIBM, literal
from throughtime.exporting.c.source import LayerSource, Used
from throughtime.exporting.names import KEYWORDS
from throughtime.exporting.plan import plans_of
from throughtime.exporting.reading import Reading
from throughtime.exporting.stack import Stack
from throughtime.scanning.int8 import quantised

WIDE = 110  # characters of a line of numbers
TAKEN = (
    KEYWORDS
    | set(HELPERS)
    | set(LIBM.values())
    | {"x", "y", "state", "steps", "j", "left", "token", "log_p", "initial_state", "main"}
)


@dataclass(frozen=True)
class Sizes:
    """Numbers of a step: what it is given, what it gives, its state, of which the last `own` are nobody else's; and bytes of its
    own arrays on the stack, and of a block's."""

    inputs: int
    outputs: int
    state: int
    stack: int
    block: int
    own: int = 0


def header(name: str, stack: Stack, sizes: Sizes, note: str, reading: Reading | None, libm: Sequence[str]) -> str:
    """NAME.h. note: of how it was made. libm: the functions of the C library that are called."""
    big = name.upper()
    layers = ", ".join(d.name for d in stack.directions)
    library = f"Needs the C library's mathematics (-lm): {', '.join(libm)}." if libm else "Needs no library."
    lines = [
        f"/* {stack.name} ({layers}), a step or a block of steps at a time, for one stream. Written by throughtime. {note}",
        "",
        "   No memory is taken, nothing but the arguments is changed, nothing is waited for: a step may run where sound is made.",
        f"   Arrays may not overlap. A step's own arrays take {sizes.stack} bytes of the stack, a block's {sizes.block}.",
        f"   {library} */",
        f"#ifndef {big}_H",
        f"#define {big}_H",
        "",
        f"#define {big}_INPUTS {sizes.inputs}",
        f"#define {big}_OUTPUTS {sizes.outputs}",
        f"#define {big}_STATE {sizes.state}",
    ]
    if reading is not None:
        lines += [f"#define {big}_VOCABULARY {len(reading.texts)}", f"#define {big}_START {reading.start}"]
    lines += [
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"/* The state that a sequence starts from, {big}_STATE numbers. */",
        f"void {name}_init(float *state);",
        "",
        f"/* One step: x holds {big}_INPUTS numbers, y is given {big}_OUTPUTS, the state goes on. */",
        f"void {name}_step(float *state, const float *x, float *y);",
        "",
        f"/* A block of steps: x is [steps][{big}_INPUTS], y [steps][{big}_OUTPUTS]. y and the state are to the bit what",
        f"   as many calls of {name}_step make of them; of 0 steps or less nothing is done. */",
        f"void {name}_block(float *state, const float *x, float *y, int steps);",
    ]
    if reading is not None:
        lines += [
            "",
            f"/* Read a token: log_p is given the logarithm of how likely each of the {big}_VOCABULARY entries is to come next.",
            f"   {big}_START begins a document: it puts the state back. What is no token is read as 0, the unknown. */",
            f"void {name}_read(float *state, int token, float *log_p);",
            "",
            "/* What an entry adds to a text that is written, in UTF-8. What is no token adds nothing. */",
            f"const char *{name}_text(int token);",
        ]
    lines += ["", "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""]
    return "\n".join(lines)


def sources(
    name: str, stack: Stack, note: str, reading: Reading | None, *, int8: bool
) -> tuple[dict[str, str], Sizes, list[str]]:
    """NAME.h, NAME.c and NAME_weights.h by name; their sizes; and the functions of the C library that they call."""
    used, constants = Used(), _Constants(int8)
    plans = plans_of(stack)
    functions = []
    for plan in plans:
        before = f"layer{plan.number}_" if len(plans) > 1 else ""
        vectors = {i: constants.vector(before + plan.vector_name(i), v) for i, v in plan.vectors.items()}
        matrices = {
            i: constants.matrix(before + plan.matrix_name(i), plan.matrix(i))
            for i in range(len(plan.schedule.loop.products))
        }
        functions.append(LayerSource(plan, vectors, matrices, used, int8=int8).text())
    between = [plan.outputs for plan in plans[:-1]]
    first = torch.cat([torch.zeros(0), *(s.reshape(-1) for s in stack.states)])
    own = 4 * (max(sum(plan.scratch.values()) for plan in plans) + sum(between))
    sizes = Sizes(plans[0].inputs, plans[-1].outputs, len(first), own, own)
    functions.append(_init(name, first, constants))
    functions.append(
        _step(name, stack, between, [plan.outputs for plan in plans], [sum(plan.states) for plan in plans])
    )
    functions.append(_block(name, sizes))
    if reading is not None:
        functions.append(_read(name, reading, constants, int8=int8))
    text = "\n\n".join(
        [
            f"/* {stack.name}, as {name}.h says. Each t is a value of the step's equations, row by row. */\n\n"
            f'#include "{name}.h"\n\n#include <float.h>\n#include <math.h>\n#include <stdint.h>\n\n#include "{name}_weights.h"',
            *([used.text] if used.helpers else []),
            *functions,
        ]
    )
    files = {f"{name}.h": header(name, stack, sizes, note, reading, sorted(used.libm)), f"{name}.c": text + "\n",
             f"{name}_weights.h": constants.file(name)}  # fmt: skip
    return files, sizes, sorted(used.libm)


def _init(name: str, first: Tensor, constants: _Constants) -> str:
    if not len(first):
        return f"void {name}_init(float *state)\n{{\n    (void)state;\n}}"
    if bool((first == 0).all()):
        return f"void {name}_init(float *state)\n{{\n    for (int j = 0; j < {len(first)}; j++)\n        state[j] = 0.0f;\n}}"
    row = constants.vector("initial_state", first)
    return f"void {name}_init(float *state)\n{{\n    for (int j = 0; j < {len(first)}; j++)\n        state[j] = {row}[j];\n}}"


def _step(name: str, stack: Stack, between: list[int], outputs: list[int], states: list[int]) -> str:
    lines = [f"float between_{i}[{width}];" for i, width in enumerate(between)]
    names = ["x", *(f"between_{i}" for i in range(len(between))), "y"]
    before = 0
    for i, layer in enumerate(stack.layers):
        where = f"state + {before}" if before else "state"
        lines.append(f"layer_{i}({where}, {names[i]}, {names[i + 1]});")
        if layer.residual:
            lines += [f"for (int j = 0; j < {outputs[i]}; j++)", f"    {names[i + 1]}[j] += {names[i]}[j];"]
        before += states[i]
    body = "\n".join("    " + line for line in lines)
    return f"void {name}_step(float *state, const float *x, float *y)\n{{\n{body}\n}}"


def _block(name: str, sizes: Sizes) -> str:
    return (
        f"void {name}_block(float *state, const float *x, float *y, int steps)\n{{\n"
        f"    for (; steps > 0; steps--, x += {sizes.inputs}, y += {sizes.outputs})\n"
        f"        {name}_step(state, x, y);\n}}"
    )


def _read(name: str, reading: Reading, constants: _Constants, *, int8: bool) -> str:
    table = constants.rows("embedding", *reading.quantised()) if int8 else constants.matrix("embedding", reading.table)
    count, wide = reading.table.shape
    data, starts = reading.text_bytes()
    constants.add(f"static const char texts[{len(data)}]", [str(b if b < 128 else b - 256) for b in data])
    constants.add(f"static const int32_t text_starts[{count}]", [str(s) for s in starts])
    given = f"{table}[token]"
    lines = [f"if (token < 0 || token >= {count}) token = 0;", f"if (token == {reading.start}) {name}_init(state);"]
    if int8:
        lines += [
            f"float x[{wide}];",
            f"for (int j = 0; j < {wide}; j++)",
            f"    x[j] = (float){given}[j] * {table}_scales[token];",
        ]
        given = "x"
    lines.append(f"{name}_step(state, {given}, log_p);")
    body = "\n".join("    " + line for line in lines)
    return (
        f"void {name}_read(float *state, int token, float *log_p)\n{{\n{body}\n}}\n\n"
        f"const char *{name}_text(int token)\n{{\n"
        f'    return token < 0 || token >= {count} ? "" : texts + text_starts[token];\n}}'
    )


class _Constants:
    """The arrays of a file of weights."""

    def __init__(self, int8: bool) -> None:
        self.int8 = int8
        self.names: set[str] = set()
        self.parts: list[str] = []

    def vector(self, name: str, values: Tensor) -> str:
        """A row of numbers. Returns: its name."""
        name = self._unique(name)
        self.add(f"static const float {name}[{len(values)}]", [literal(v) for v in values.tolist()])
        return name

    def matrix(self, name: str, values: Tensor) -> str:
        """A matrix [K, N], of int8 with a scale for each column where that was asked for. Returns: its name."""
        if self.int8:
            return self.rows(name, *quantised(values))
        return self._table(self._unique(name), "float", [[literal(v) for v in row] for row in values.tolist()])

    def rows(self, name: str, whole: Tensor, scales: Tensor) -> str:
        """A matrix of int8, and its scales."""
        name = self._unique(name)
        self._table(name, "int8_t", [[str(v) for v in row] for row in whole.tolist()])
        self.add(f"static const float {name}_scales[{len(scales)}]", [literal(v) for v in scales.tolist()])
        return name

    def add(self, declaration: str, values: list[str]) -> None:
        """An array of one row."""
        self.parts.append(f"{declaration} = {{\n{_lines(values)}\n}};")

    def file(self, name: str) -> str:
        """NAME_weights.h."""
        return (
            "\n\n".join(
                [
                    f"/* The numbers of {name}.c, which alone includes this: matrices as [K][N], a row of them times one. */",
                    *self.parts,
                ]
            )
            + "\n"
        )

    def _table(self, name: str, kind: str, rows: list[list[str]]) -> str:
        inner = ",\n".join(f"    {{\n{_lines(row, 8)}\n    }}" for row in rows)
        self.parts.append(f"static const {kind} {name}[{len(rows)}][{len(rows[0])}] = {{\n{inner}\n}};")
        return name

    def _unique(self, name: str) -> str:
        while name in self.names | TAKEN or re.fullmatch(
            r"t\d+|(by|new_state|left|kept|between|layer)_.*|text.*|[0-9].*", name
        ):
            name = f"w_{name}" if not name.startswith("w_") else f"{name}_"
        self.names.add(name)
        return name


def _lines(values: list[str], indent: int = 4) -> str:
    """Numbers, as many on a line as it holds."""
    lines, line = [], ""
    for value in values:
        if len(line) + len(value) + 2 > WIDE - indent:
            lines.append(line.rstrip())
            line = ""
        line += f"{value}, "
    lines.append(line.rstrip().removesuffix(","))
    return "\n".join(" " * indent + text for text in lines)
