const PAGE = 65536;
const NUMBER = 4; // bytes

/** A network that is trained where it is: steps both ways, and its weights moved. */
export class Trainer {
  #memory;
  #functions;
  #sizes; // of its rows, in numbers
  #rows = {}; // name -> where it begins, in bytes, and how many numbers it has
  #steps = 0; // that are on the tape
  #updates = 0;

  /** spec: name, sizes and parts of the network. batch: B. Then an instance of its module. */
  constructor(spec, batch, { exports }) {
    this.name = spec.name;
    this.batch = batch;
    this.parts = spec.parts; // of the weights: [{name, offset, shape, stride, trained}]
    this.inputSize = spec.input;
    this.outputSize = spec.output;
    this.stateSize = spec.state;
    this.#memory = exports.memory;
    const named = ["init", "weights", "forward", "backward"].map((what) => [what, exports[`${spec.name}_${what}`]]);
    this.#functions = Object.fromEntries(named);
    this.#sizes = spec;
    const { weights, state } = spec;
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
    this.#check(values, this.#sizes.weights, "a network's weights are");
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
    this.#check(values, this.batch * this.stateSize, "the state is");
    this.#row("state").set(values);
  }

  /** After `backward`, the gradient of the states that the steps started from, [B, stateSize]. */
  get stateGradient() {
    return this.#row("dstate").slice();
  }

  /** Put the first state back in all sequences. */
  reset() {
    for (let b = 0; b < this.batch; b++) this.#functions.init(this.#rows.state.at + NUMBER * b * this.stateSize);
  }

  /** Steps from the present state on. x: [T, B, inputSize]. Returns: [T, B, outputSize]. */
  forward(x) {
    const steps = x?.length / (this.batch * this.inputSize);
    if (!Number.isInteger(steps) || steps < 1) {
      const wanted = `steps of ${this.batch} times ${this.inputSize} numbers`;
      throw new RangeError(`${this.name}: the input is ${wanted}, got ${x?.length ?? typeof x}`);
    }
    this.#steps = 0;
    const count = steps * this.batch, { at: before, size } = this.#rows.dstate;
    this.#place(before + NUMBER * size, {
      x: count * this.inputSize, y: count * this.outputSize, tape: count * this.#sizes.tape,
    });
    this.#row("x").set(x);
    const weights = this.#rows.weights.at, own = this.#of("state"), given = this.#of("x"), y = this.#of("y"), tape = this.#of("tape");
    for (let k = 0; k < count; k++) {
      this.#functions.forward(weights, own(k % this.batch), given(k), y(k), tape(k));
    }
    this.#steps = steps;
    return this.#row("y").slice();
  }

  /** The same steps backwards; what they say of the weights is added to the gradients. dy: the gradient of what `forward` gave,
   * [T, B, outputSize]. each: called after each step, from the last to the first, with its number and the gradient of the states
   * before it, [B, stateSize], which the next step writes over. Returns: the gradient of the input, [T, B, inputSize]. */
  backward(dy, each) {
    if (!this.#steps) throw new Error(`${this.name}: there are no steps to go back over; call forward first`);
    this.#check(dy, this.#steps * this.batch * this.outputSize, "the gradient of the output is");
    this.#row("y").set(dy);
    this.#row("dstate").fill(0);
    const { weights, gradients } = this.#rows;
    const own = this.#of("dstate"), dx = this.#of("x"), y = this.#of("y"), tape = this.#of("tape");
    for (let t = this.#steps - 1; t >= 0; t--) {
      for (let b = this.batch - 1; b >= 0; b--) {
        const k = t * this.batch + b;
        this.#functions.backward(weights.at, gradients.at, tape(k), y(k), own(b), dx(k));
      }
      each?.(t, this.#row("dstate"));
    }
    return this.#row("x").slice();
  }

  /** Move the weights, and begin new gradients. method: "adam" (Kingma, Ba 2015, algorithm 1), or "sgd": each by its gradient times
   * the rate. clip: gradients of a larger norm are made so short. Returns: their norm. */
  update({ method = "adam", rate = 1e-3, clip = Infinity, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 } = {}) {
    if (method !== "adam" && method !== "sgd") throw new RangeError(`${this.name}: the method is "adam" or "sgd", got ${method}`);
    const [weights, gradients, means, squares] = ["weights", "gradients", "means", "squares"].map((row) => this.#row(row));
    const norm = Math.sqrt(gradients.reduce((sum, g) => sum + g * g, 0)), scale = norm > clip ? clip / norm : 1;
    if (method === "sgd") {
      for (let i = 0; i < weights.length; i++) weights[i] -= rate * scale * gradients[i];
    } else {
      this.#updates++;
      const step = rate / (1 - beta1 ** this.#updates), bias = Math.sqrt(1 - beta2 ** this.#updates);
      for (let i = 0; i < weights.length; i++) {
        const g = gradients[i] * scale;
        means[i] += (1 - beta1) * (g - means[i]);
        squares[i] += (1 - beta2) * (g * g - squares[i]);
        weights[i] -= (step * means[i]) / (Math.sqrt(squares[i]) / bias + epsilon);
      }
    }
    gradients.fill(0);
    this.#steps = 0;
    return norm;
  }

  /** Where the rows of a step, or of a sequence, begin: a function of its number. */
  #of(name) {
    const { at } = this.#rows[name];
    const width = NUMBER * { state: this.stateSize, dstate: this.stateSize, x: this.inputSize, y: this.outputSize, tape: this.#sizes.tape }[name];
    return (k) => at + k * width;
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
      throw new RangeError(`${this.name}: no memory for so much, which takes ${at} bytes; take fewer steps or sequences at a time`);
    }
  }

  #check(values, size, what) {
    if (values?.length !== size) {
      throw new RangeError(`${this.name}: ${what} ${size} numbers, got ${values?.length ?? typeof values}`);
    }
  }
}
