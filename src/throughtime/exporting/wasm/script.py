"""The ES module that runs what was exported, and what its README says of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from throughtime.exporting.interface import Interface, Named
from throughtime.exporting.readme import shapes
from throughtime.exporting.stack import Stack
from throughtime.exporting.wasm.linking import LIBM
from throughtime.exporting.wasm.node import OLDEST

TEMPLATE = Path(__file__).with_name("network.js")
TYPES = Path(__file__).with_name("network.d.ts")


def es_module(name: str, stack: Stack, names: Interface, libm: Iterable[str]) -> str:
    """The text of NAME.js. libm: the functions that NAME.wasm asks for."""
    import throughtime

    spec = {
        "name": name,
        "inputs": _rows(names.inputs),
        "output": list(names.output.shape),
        "states": _rows(names.states),
    }
    parts = {
        "heading": f"{stack.name} as {name}.wasm, by throughtime {throughtime.__version__}; README.md tells how it is used.",
        "spec": json.dumps(spec, ensure_ascii=False),
        "libm": "{" + "".join(f"\n  {function}: {LIBM[function]},\n" for function in libm) + "}",
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for part, value in parts.items():
        text = text.replace("{{" + part + "}}", value)
    return text


def _rows(tensors: Sequence[Named]) -> list[dict[str, Any]]:
    """Tensors, and where each begins in the row that they make."""
    starts = accumulate((n.width for n in tensors), initial=0)
    return [{"name": n.name, "offset": at, "shape": list(n.shape)} for n, at in zip(tensors, starts, strict=False)]


def sections(name: str, names: Interface, *, ran: bool, int8: bool) -> list[tuple[str, str]]:
    """The sections of the README."""
    weights = "weights included, in eight bits with a scale for each output" if int8 else "weights included"
    unproven = "" if ran else (
        " **It was linked, but not run where it was made: there was no Node.** Set it beside `vectors.json` before you rely on it."
    )  # fmt: skip
    return [
        ("", f"""`{name}.wasm` holds one step, {weights}, in float32 with SIMD. `{name}.js` is an ES module without dependencies
that runs it in browsers (Chrome 91, Firefox 89, Safari 16.4 and later) and in Node {OLDEST} and later.{unproven}"""),
        ("Use", f"""```js
import {{ load }} from "./{name}.js";

const net = await load();
const stream = net.stream();
const x = new Float32Array(net.inputSize);  // what a step is given{", one tensor after the other" * (len(names.inputs) > 1)}
const y = stream.step(x);                   // Float32Array of net.outputSize; stream.step(x, y) writes into y
const state = stream.state;                 // Float32Array of net.stateSize, a copy
stream.state = state;                       // goes on from there
stream.reset();                             // begins again
stream.free();                              // gives its memory back
```

Many streams that step together, their inputs, outputs and states [count, size], row after row; each gives what it gives
alone, to the bit:

```js
const many = net.streams(1000);
const y = many.step(new Float32Array(1000 * net.inputSize));
many.reset(17);                             // one of them begins again
```

A page loads it from a server (`python -m http.server`), not from a file, and a server that forbids `eval` must allow
`wasm-unsafe-eval`. `load` also takes a URL, a path (Node), bytes, or a compiled `WebAssembly.Module`, which can be sent to a
worker or an AudioWorklet. `net.inputs` and `net.states` say what lies where in a row."""),
        ("Shapes", f"""B streams; a row of a state or an input is its tensors one after the other.

{shapes(names, time=False)}"""),
        ("Files", f"""| file | |
|---|---|
| `{name}.wasm` | `{name}_init(state)`, `{name}_step(state, x, y)`, `{name}_steps(count, state, x, y)`, of addresses; its memory |
| `{name}.js`, `{name}.d.ts` | the ES module, and its types |
| `vectors.json` | inputs and states, and what comes out |
| `package.json` | says that the folder is a package of ES modules |"""),
    ]  # fmt: skip
