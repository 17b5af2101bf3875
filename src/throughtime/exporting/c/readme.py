"""The README of an export as C."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from throughtime.exporting.c.checking import Export
from throughtime.exporting.c.files import Sizes
from throughtime.exporting.evaluated import moved_by_eight_bits
from throughtime.exporting.interface import interface_of
from throughtime.exporting.readme import write_readme
from throughtime.exporting.targets import TOGETHER


@dataclass(frozen=True)
class Made:
    """What was written. target: in words. worst: the largest difference. how: it was checked. libm: functions of the C library that
    it calls. size: bytes of the object, or of the source. before: those with float32 weights, where these are of eight bits. sums:
    of products with these, in words."""

    target: str
    sizes: Sizes
    worst: float
    how: str
    libm: tuple[str, ...]
    size: int
    before: int
    source: bool
    sums: str = "sums are in float32"


def write(folder: Path, export: Export, made: Made) -> None:
    """Write README.md."""
    name, stack = export.name, export.stack
    files = f"`{name}.h`, " + (f"`{name}.c`, `{name}_weights.h`" if made.source else f"`{name}.o`")
    cells = ", ".join(d.name for d in stack.directions)
    about = (
        f"{cells}, a step or a block of steps at a time for one stream, in float32: {files}, for {made.target}. It takes no "
        "memory, changes nothing but what it is given, waits for nothing and asks nothing of the system: it may run in an audio "
        "thread. Different streams have states of their own, and may run at the same time."
    )
    sections = [
        ("", about),
        ("Use", _use(export, made)),
        ("What goes in and comes out", _table(export, made.sizes.own)),
    ]
    if export.reading is not None:
        linked = f"{name}.c" if made.source else f"{name}.o"
        text = WRITER.replace("ENDED", ENDED.get(export.documents, "")).replace("LINKED", linked)
        sections.append(("A program that writes", text.replace("NAME", name.upper()).replace("name", name)))
    if made.before:
        sections.append(("Eight bits", _eight_bits(export, made)))
    sections.append(("How it was checked", _checked(made)))
    write_readme(folder, f"{name}: {stack.name} in C", sections)


def _use(export: Export, made: Made) -> str:
    name, big = export.name, export.name.upper()
    linked = f"{name}.c" if made.source else f"{name}.o"
    needs = (
        f" -lm` (it calls {', '.join(f'`{f}`' for f in made.libm)})" if made.libm else "`; it needs no other library"
    )
    size = f"{made.size:,} bytes of source" if made.source else f"the object has {made.size:,} bytes"
    return f"""\
```c
#include "{name}.h"

float state[{big}_STATE], x[{big}_INPUTS], y[{big}_OUTPUTS];
{name}_init(state);          /* once for a sequence */
{name}_step(state, x, y);    /* for each step: reads x, writes y, replaces the state */

float xs[64][{big}_INPUTS], ys[64][{big}_OUTPUTS];
{name}_block(state, xs[0], ys[0], 64);    /* 64 steps, of any number: ys and the state are to the bit what steps make of them */
```

Compiled with `cc -O2 main.c {linked}{needs}. The arrays may not overlap. A step's own arrays take {made.sizes.stack} bytes of
the stack, a block's {made.sizes.block}; {size}. {BLOCK[made.sizes.block > made.sizes.stack]}"""


def _table(export: Export, own: int) -> str:
    names, big = interface_of(export.stack), export.name.upper()
    rows, before = ["| where | numbers | shape | what it is |", "|---|---|---|---|"], 0

    def row(where: str, start: int, width: int, shape: tuple[int, ...], said: str) -> None:
        rows.append(f"| `{where}[{start}]` to `[{start + width - 1}]` | {width} | {list(shape)} | {said} |")

    for given in names.inputs:
        row("x", before, given.width, given.shape, given.meaning)
        before += given.width
    row("y", 0, names.output.width, names.output.shape, names.output.meaning)
    before = 0
    for state in names.states:
        row("state", before, state.width, state.shape, state.meaning)
        before += state.width
    if own:
        rows.append(f"| `state[{before}]` | {own} | [{own}] | the step's own: begins as 0, and may be anything |")
    sizes = f"`{big}_INPUTS`, `{big}_OUTPUTS` and `{big}_STATE` are the lengths of `x`, `y` and `state`."
    return (
        "\n".join(rows)
        + f"\n\nTensors lie row by row. {sizes} `vectors.json` holds inputs and states with what comes of them."
    )


def _checked(made: Made) -> str:
    return (
        f"{made.how[0].upper()}{made.how[1:]}, beside PyTorch: random inputs from random states, several lengths, whole and cut in "
        f"two with the state carried. The largest difference was {made.worst:.2g}."
    )


def _eight_bits(export: Export, made: Made) -> str:
    """What eight bits save, and what they change."""
    return (
        f"Weights are whole numbers from -127 to 127, each output's times a scale of its own; {made.sums}. "
        f"{made.before:,} bytes with weights in float32, {made.size:,} so. {moved_by_eight_bits(export.stack, export.right)}"
    )


BLOCK = {
    True: f"A block reads weights that only meet what it is given once for {TOGETHER} steps.",
    False: "A block is its steps one after the other, and takes as long.",
}
ENDED = {
    "line": " A document is a line here: after `\\n` read `NAME_START`, or the next line is written with the last in mind.",
    "paragraph": " A document is a paragraph here: after an empty line read `NAME_START`, or the last stays in mind.",
}
WRITER = """\
`name_read` reads a token, and says how likely each entry is to come next; `name_text` is what an entry adds to a text.
`NAME_START` begins a document. Entries 0 (unknown) and `NAME_START` are never written. `vocabulary.json` holds the entries and
how a text is cut into them.ENDED As `main.c`, this is compiled with `cc -O2 main.c LINKED -o write -lm`:

```c
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "name.h"

static float state[NAME_STATE], log_p[NAME_VOCABULARY];

static int draw(float temperature)          /* an entry, as likely as the model says */
{
    float p[NAME_VOCABULARY], left = 0;
    for (int i = 2; i < NAME_VOCABULARY; i++)
        left += p[i] = expf(log_p[i] / temperature);
    left *= (float)rand() / (float)RAND_MAX;
    for (int i = 2; i < NAME_VOCABULARY; i++)
        if ((left -= p[i]) <= 0) return i;
    return NAME_VOCABULARY - 1;
}

int main(int count, char **words)           /* ./write [prompt [seed]] */
{
    const char *prompt = count > 1 ? words[1] : "";
    srand(count > 2 ? (unsigned)atoi(words[2]) : 1);
    name_read(state, NAME_START, log_p);
    for (int i = 2; *prompt && i < NAME_VOCABULARY; i++) {   /* the entry that the prompt goes on with */
        size_t length = strlen(name_text(i));
        if (length && !strncmp(prompt, name_text(i), length)) {
            name_read(state, i, log_p);
            printf("%s", name_text(i));
            prompt += length, i = 1;
        }
    }
    for (int n = 0; n < 400; n++) {
        int token = draw(0.8f);
        printf("%s", name_text(token));
        name_read(state, token, log_p);
    }
    puts("");
}
```
"""
