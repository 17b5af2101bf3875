"""The README of an export as WebAssembly."""

from __future__ import annotations

from throughtime.exporting.dots_llvm import summed
from throughtime.exporting.evaluated import moved_by_eight_bits
from throughtime.exporting.interface import Interface
from throughtime.exporting.readme import shapes
from throughtime.exporting.stack import Stack
from throughtime.exporting.wasm.linking import WASM
from throughtime.exporting.wasm.node import OLDEST


def sections(
    name: str, stack: Stack, names: Interface, *, worst: float | None, eight: Stack | None, text: bool, train: bool
) -> list[tuple[str, str]]:
    """Its sections. worst: the largest difference where it was made, or None where it was not run. eight: the stack as eight bits
    tell it, where weights are of eight bits. text: whether it is a model that reads and writes. train: whether what moves its
    weights is there too."""
    weights = "weights included, in eight bits" if eight else "weights included"
    given = "one tensor after the other" if len(names.inputs) > 1 else "what a step is given"
    checked = _UNPROVEN if worst is None else (
        "Run in Node beside PyTorch: random inputs from random states, several lengths, many streams together, whole and cut in "
        f"two with the state carried. The largest difference was {worst:.2g}."
        + " Gradients of the weights, the input and the states were set beside autograd's." * train
    )  # fmt: skip
    about = f"""Weights are whole numbers from -127 to 127, each output's times a scale of its own; {summed(WASM)}.
{moved_by_eight_bits(stack, eight)}""" if eight else ""  # fmt: skip
    begin = [
        ("", f"""`{name}.wasm` holds one step, {weights}, in float32 with SIMD. `{name}.js` is an ES module without dependencies
that runs it in browsers (Chrome 91, Firefox 89, Safari 16.4 and later) and in Node {OLDEST} and later."""),
        *([("Reading and writing", _WRITING.replace("NAME", name))] if text else []),
        ("Use", _USE.replace("NAME", name).replace("GIVEN", given)),
        *([("Training", _TRAINING.replace("NAME", name))] if train else []),
        ("Shapes", f"""B streams; a row of a state or an input is its tensors one after the other.

{shapes(names, time=False)}"""),
    ]  # fmt: skip
    functions = f"`{name}_init(state)`, `{name}_step(state, x, y)`, `{name}_steps(count, state, x, y)`"
    functions += f", `{name}_read(state, token, log_p)`" * text
    training = (
        f"""
| `{name}_training.wasm` | `{name}_weights`, `{name}_forward`, `{name}_backward` |
| `{name}_training.js`, `{name}_training.d.ts` | the ES module that trains, and its types |"""
        * train
    )
    return [
        *begin,
        ("Files", f"""| file | |
|---|---|
| `{name}.wasm` | {functions}, of addresses; its memory |
| `{name}.js`, `{name}.d.ts` | the ES module, and its types |{training}
| `vectors.json` | inputs and states, and what comes out |
| `package.json` | says that the folder is a package of ES modules |"""),
        *([("Eight bits", about)] if eight else []),
        ("How it was checked", checked),
    ]  # fmt: skip


_UNPROVEN = """\
**It was linked, but not run where it was made: there was no Node.** Set it beside `vectors.json` before you rely on it."""

_USE = """\
```js
import { load } from "./NAME.js";

const net = await load();
const stream = net.stream();
const x = new Float32Array(net.inputSize);  // GIVEN
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
worker or an AudioWorklet. `net.inputs` and `net.states` say what lies where in a row."""

_WRITING = """\
```js
import { load } from "./NAME.js";

const net = await load();
console.log(net.write("The ", { length: 200, temperature: 0.8, seed: 1 }));
for (const piece of net.pieces("The ", { length: 200 })) console.log(piece);  // as they are written

const stream = net.stream();
let logP = stream.read(net.start);          // begins a document
for (const token of net.encode("The ")) logP = stream.read(token);
net.vocabulary[logP.indexOf(Math.max(...logP))];  // the likeliest token to come next
```

`stream.state`, a Float32Array, is all that it remembers of what it has read: set it to go back. Tokens 0 (unknown) and 1 (the
beginning of a document) are never written. What is under "Use" takes rows of the embedding and gives log p; `stream.read(token)` is
a step that takes a token."""

_TRAINING = """\
`NAME_training.js` has weights of its own, at first those above, and moves them by the gradients of a loss that is yours. A copy
of something heard four steps ago, for one:

```js
import { trainer } from "./NAME_training.js";

const batch = 8, steps = 20, net = await trainer(batch);  // sequences side by side
for (let n = 0; n < 300; n++) {
  const x = Float32Array.from({ length: steps * batch * net.inputSize }, () => Math.random() - 0.5);
  net.reset();                                            // else it goes on from the state that it is in
  const y = net.forward(x);                               // [T, B, outputSize]
  const back = 4 * batch, wanted = (i) => x[(Math.floor(i / net.outputSize) - back) * net.inputSize] ?? 0;
  const dy = y.map((value, i) => (i % net.outputSize ? 0 : 2 * (value - wanted(i)) / (steps * batch)));
  net.backward(dy);                                       // dy: the gradient of the loss; adds to the gradients
  net.update({ rate: 0.01, clip: 1 });                    // a step of Adam; method: "sgd", of gradient descent
}
```

`backward` gives the gradient of the input, and `net.stateGradient` that of the state before the first step; `net.backward(dy,
(step, gradient) => …)` shows it before every step, from the last to the first: how far back gradients reach. `net.weights` is a
copy of all weights, to keep and to set; `net.parts` says where each matrix [K, N] (a row of numbers times it) and each constant row
begins there. A long sequence is cut: `forward`, `backward` and `update` piece by piece, without `reset`, carry the state but no
gradient across."""
