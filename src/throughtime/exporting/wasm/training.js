// {{heading}}
import { compile } from "./{{name}}.js";

const SPEC = {{spec}};

// what WebAssembly has no instruction for
const LIBM = {{libm}};

const PAGE = 65536;
const NUMBER = 4; // bytes
const [INPUT, OUTPUT, STATE, TAPE] = [SPEC.input, SPEC.output, SPEC.state, SPEC.tape].map((size) => NUMBER * size);

/** The network with weights of its own, at first those that were exported. batch: sequences side by side, B. */
export async function trainer(batch = 1, source = new URL(`${SPEC.name}_training.wasm`, import.meta.url)) {
  if (!Number.isInteger(batch) || batch < 1) throw new RangeError(`${SPEC.name}: sequences are 1 or more, got ${batch}`);
  return new Trainer(batch, await WebAssembly.instantiate(await compile(source), { env: LIBM }));
}

class Trainer {
  name = SPEC.name;
  parts = SPEC.parts; // of the weights: [{name, offset, shape, stride, trained}]
  inputSize = SPEC.input;
  outputSize = SPEC.output;
  stateSize = SPEC.state;
  #memory;
  #functions;
  #rows = {}; // name -> where it begins, in bytes, and how many numbers it has
  #steps = 0; // that are on the tape
  #updates = 0;

  constructor(batch, { exports }) {
    this.batch = batch;
    this.#memory = exports.memory;
    const named = ["init", "weights", "forward", "backward"].map((what) => [what, exports[`${SPEC.name}_${what}`]]);
    this.#functions = Object.fromEntries(named);
    const { weights, state } = SPEC;
    // means, squares: of the gradients, as Adam carries them
    this.#place(exports.__heap_base.value, {
      weights, gradients: weights, means: weights, squares: weights, state: batch * state, dstate: batch * state,
    });
    for (const row of Object.keys(this.#rows)) this.#row(row).fill(0);
    this.#functions.weights(this.#rows.weights.at);
    this.reset();
  }

  /** The weights, as a copy; set them to go on from others. */
  get weights() {
    return this.#row("weights").slice();
  }

  set weights(values) {
    this.#check(values, SPEC.weights, "a network's weights are");
    this.#row("weights").set(values);
    this.#steps = 0; // what is on the tape was done with other weights
  }

  /** What `backward` has added up since the last update; they lie as the weights do. */
  get gradients() {
    return this.#row("gradients").slice();
  }

  /** The states, [B, stateSize], as a copy; set them to go on from others. */
  get state() {
    return this.#row("state").slice();
  }

  set state(values) {
    this.#check(values, this.batch * SPEC.state, "the state is");
    this.#row("state").set(values);
  }

  /** After `backward`, the gradient of the states that the steps started from, [B, stateSize]. */
  get stateGradient() {
    return this.#row("dstate").slice();
  }

  /** Put the first state back in all sequences. */
  reset() {
    for (let b = 0; b < this.batch; b++) this.#functions.init(this.#rows.state.at + NUMBER * b * SPEC.state);
  }

  /** Steps from the present state on. x: [T, B, inputSize]. Returns: [T, B, outputSize]. */
  forward(x) {
    const steps = x?.length / (this.batch * SPEC.input);
    if (!Number.isInteger(steps) || steps < 1) {
      const wanted = `steps of ${this.batch} times ${SPEC.input} numbers`;
      throw new RangeError(`${SPEC.name}: the input is ${wanted}, got ${x?.length ?? typeof x}`);
    }
    this.#steps = 0;
    const count = steps * this.batch, end = this.#rows.dstate.at + STATE * this.batch;
    this.#place(end, { x: count * SPEC.input, y: count * SPEC.output, tape: count * SPEC.tape });
    this.#row("x").set(x);
    const { weights, state, x: given, y, tape } = this.#rows;
    for (let k = 0; k < count; k++) {
      const own = state.at + (k % this.batch) * STATE;
      this.#functions.forward(weights.at, own, given.at + k * INPUT, y.at + k * OUTPUT, tape.at + k * TAPE);
    }
    this.#steps = steps;
    return this.#row("y").slice();
  }

  /** The same steps backwards; what they say of the weights is added to the gradients. dy: the gradient of what `forward` gave,
   * [T, B, outputSize]. Returns: that of its input, [T, B, inputSize]. */
  backward(dy) {
    if (!this.#steps) throw new Error(`${SPEC.name}: there are no steps to go back over; call forward first`);
    const count = this.#steps * this.batch;
    this.#check(dy, count * SPEC.output, "the gradient of the output is");
    this.#row("y").set(dy);
    this.#row("dstate").fill(0);
    const { weights, gradients, dstate, x: dx, y, tape } = this.#rows;
    for (let k = count - 1; k >= 0; k--) {
      const own = dstate.at + (k % this.batch) * STATE;
      this.#functions.backward(weights.at, gradients.at, tape.at + k * TAPE, y.at + k * OUTPUT, own, dx.at + k * INPUT);
    }
    return this.#row("x").slice();
  }

  /** Move the weights by Adam (Kingma, Ba 2015, algorithm 1), and begin new gradients. clip: gradients of a larger norm are made
   * so short. Returns: their norm. */
  update({ rate = 1e-3, clip = Infinity, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 } = {}) {
    const [weights, gradients, means, squares] = ["weights", "gradients", "means", "squares"].map((row) => this.#row(row));
    const norm = Math.sqrt(gradients.reduce((sum, g) => sum + g * g, 0)), scale = norm > clip ? clip / norm : 1;
    this.#updates++;
    const step = rate / (1 - beta1 ** this.#updates), bias = Math.sqrt(1 - beta2 ** this.#updates);
    for (let i = 0; i < weights.length; i++) {
      const g = gradients[i] * scale;
      means[i] += (1 - beta1) * (g - means[i]);
      squares[i] += (1 - beta2) * (g * g - squares[i]);
      weights[i] -= (step * means[i]) / (Math.sqrt(squares[i]) / bias + epsilon);
    }
    gradients.fill(0);
    this.#steps = 0;
    return norm;
  }

  #row(name) {
    const { at, size } = this.#rows[name];
    return new Float32Array(this.#memory.buffer, at, size);
  }

  /** Give rows their places, one after the other. */
  #place(start, sizes) {
    let at = start;
    for (const [name, size] of Object.entries(sizes)) {
      this.#rows[name] = { at, size };
      at += NUMBER * size;
    }
    const missing = Math.ceil((at - this.#memory.buffer.byteLength) / PAGE);
    if (missing <= 0) return;
    try {
      this.#memory.grow(missing);
    } catch {
      throw new RangeError(`${SPEC.name}: no memory for so much, which takes ${at} bytes; take fewer steps or sequences at a time`);
    }
  }

  #check(values, size, what) {
    if (values?.length !== size) {
      throw new RangeError(`${SPEC.name}: ${what} ${size} numbers, got ${values?.length ?? typeof values}`);
    }
  }
}
