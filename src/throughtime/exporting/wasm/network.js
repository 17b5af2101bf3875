// {{heading}}
const SPEC = {{spec}};

// what WebAssembly has no instruction for
const LIBM = {{libm}};

const PAGE = 65536;

/** The network of a URL, a path (Node), the bytes of a .wasm file or a compiled WebAssembly.Module. */
export async function load(source = new URL(`${SPEC.name}.wasm`, import.meta.url)) {
  return new {{network}}(await WebAssembly.instantiate(await compile(source), { env: LIBM }));
}

export async function compile(source) {
  const code = typeof source === "string" || source instanceof URL ? await read(source) : source;
  return code instanceof WebAssembly.Module ? code : WebAssembly.compile(code);
}

async function read(source) {
  const url = String(source);
  if (typeof process !== "undefined" && process.versions?.node && !/^https?:/.test(url)) {
    const { readFile } = await import(/* webpackIgnore: true */ /* @vite-ignore */ "node:fs/promises");
    return readFile(url.startsWith("file:") ? new URL(url) : url);
  }
  const answer = await fetch(source);
  if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
  return answer.arrayBuffer();
}

const size = (shape) => shape.reduce((product, n) => product * n, 1);
const total = (tensors) => tensors.reduce((sum, { shape }) => sum + size(shape), 0);

class Network {
  name = SPEC.name;
  inputs = SPEC.inputs; // of a row of numbers: [{name, offset, shape}]
  states = SPEC.states;
  inputSize = total(SPEC.inputs); // numbers that a step reads
  outputSize = size(SPEC.output); // and gives
  stateSize = total(SPEC.states); // and carries on
  #wasm;
  #memory;
  #floats; // the whole memory; made anew when it has grown
  #holes; // what is free of it, in bytes, in order

  constructor(instance) {
    this.#wasm = instance.exports;
    this.#memory = this.#wasm.memory;
    this.#holes = [{ at: this.#wasm.__heap_base.value, end: this.#memory.buffer.byteLength }];
  }

  /** One stream, at the first state. */
  stream() {
    return this.streams(1);
  }

  /** Many streams that step together: their inputs, outputs and states are [count, size], row after row. */
  streams(count) {
    if (!Number.isInteger(count) || count < 1) throw new RangeError(`${this.name}: streams are 1 or more, got ${count}`);
    const sizes = [this.stateSize, this.inputSize, this.outputSize].map((size) => count * size);
    const bytes = Math.ceil((4 * (sizes[0] + sizes[1] + sizes[2])) / 16) * 16;
    const state = this.#take(bytes, count);
    return new Streams(this, count, {
      state, sizes, x: state + 4 * sizes[0], y: state + 4 * (sizes[0] + sizes[1]),
      init: this.#wasm[`${this.name}_init`], steps: this.#wasm[`${this.name}_steps`],{{read}}
      view: () => this.#view(), give: () => this.#give(state, bytes),
    });
  }

  #view() {
    const { buffer } = this.#memory;
    if (this.#floats?.buffer !== buffer) this.#floats = new Float32Array(buffer);
    return this.#floats;
  }

  #take(bytes, count) {
    let hole = this.#holes.find((h) => h.end - h.at >= bytes);
    if (!hole) {
      const end = this.#memory.buffer.byteLength;
      if (this.#holes.at(-1)?.end !== end) this.#holes.push({ at: end, end });
      hole = this.#holes.at(-1);
      const pages = Math.ceil((hole.at + bytes - end) / PAGE);
      try {
        this.#memory.grow(pages);
      } catch {
        throw new RangeError(`${this.name}: no memory for ${count} more streams, which take ${bytes} bytes`);
      }
      hole.end += pages * PAGE;
    }
    hole.at += bytes;
    return hole.at - bytes;
  }

  #give(at, bytes) {
    const holes = [...this.#holes, { at, end: at + bytes }].sort((a, b) => a.at - b.at);
    this.#holes = [];
    for (const hole of holes) {
      const last = this.#holes.at(-1);
      if (last?.end === hole.at) last.end = hole.end;
      else this.#holes.push(hole);
    }
  }
}

class Streams {
  #net;
  #own; // where it lies in memory, and what works on it; null once it is freed

  constructor(net, count, own) {
    this.#net = net;
    this.count = count;
    this.#own = own;
    this.reset();
  }

  /** One step. x: [count, inputSize]. Returns: [count, outputSize], in y where that is given. */
  step(x, y = new Float32Array(this.count * this.#net.outputSize)) {
    const { view, steps, state, sizes, x: at, y: to } = this.#alive();
    this.#check(x, sizes[1], "a step's input");
    this.#check(y, sizes[2], "a step's output");
    view().set(x, at / 4);
    steps(this.count, state, at, to);
    y.set(view().subarray(to / 4, to / 4 + sizes[2]));
    return y;
  }
{{reading}}
  /** The states, [count, stateSize], as a copy; set them to go on from others. */
  get state() {
    const { state, sizes, view } = this.#alive();
    return view().slice(state / 4, state / 4 + sizes[0]);
  }

  set state(values) {
    const { state, sizes, view } = this.#alive();
    this.#check(values, sizes[0], "the state");
    view().set(values, state / 4);
  }

  /** Put the first state back: in one stream, by its number, or in all. */
  reset(number) {
    const { state, init, view } = this.#alive();
    const size = this.#net.stateSize;
    if (number === undefined) {
      init(state);
      for (let i = 1; i < this.count; i++) view().copyWithin(state / 4 + i * size, state / 4, state / 4 + size);
    } else if (Number.isInteger(number) && number >= 0 && number < this.count) {
      init(state + 4 * number * size);
    } else {
      throw new RangeError(`${this.#net.name}: streams are numbered from 0 to ${this.count - 1}, got ${number}`);
    }
  }

  /** Give the memory back. */
  free() {
    this.#alive().give();
    this.#own = null;
  }

  #alive() {
    if (!this.#own) throw new Error(`${this.#net.name}: this stream was freed`);
    return this.#own;
  }

  #check(values, size, what) {
    if (values?.length !== size) {
      const got = values?.length === undefined ? typeof values : values.length;
      throw new RangeError(`${this.#net.name}: ${what} is ${size} numbers, got ${got}`);
    }
  }
}
{{text}}