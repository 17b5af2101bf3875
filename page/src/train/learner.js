// A network that learns a problem: it steps, its weights are moved, and it is told how far back gradients reach.
import { Trainer } from "../../../src/throughtime/exporting/wasm/trainer.mjs";
import { PROBLEMS } from "./problems.js";
import { normal, uniform } from "./random.js";

const PROBE = 64, WRITES = 240;  // sequences that are looked at, always the same; characters that it writes
const KEPT = 20;  // gradient norms that are told where it breaks

/** settings: {problem, cell, lag, radius, rate, clip, method, seed, text}; clip is null for none. */
export class Learner {
  /** spec: of trainers.json. module: the WebAssembly.Module. */
  static async make(spec, module, settings) {
    const instances = await Promise.all([1, 2, 3].map(() => WebAssembly.instantiate(module, {})));
    return new Learner(spec, instances, settings);
  }

  constructor(spec, [own, looked, writing], settings) {
    this.settings = { ...settings };
    this.problem = new PROBLEMS[settings.problem](settings);
    this.draw = uniform(settings.seed);
    this.net = new Trainer(spec, this.problem.batchSize, own);
    this.net.weights = initial(spec, settings.radius, this.draw);
    this.probe = new Trainer(spec, settings.problem === "text" ? this.problem.batchSize : PROBE, looked);
    this.writer = settings.problem === "text" ? new Trainer(spec, 1, writing) : null;
    this.looked = this.problem.batch(uniform(~settings.seed), this.probe.batch, spec.input);
    this.steps = 0;
    this.norms = [];  // of the gradient, of the latest steps
    this.broke = null;
  }

  /** Change what may be changed while it learns: rate, clip, method. */
  change(settings) {
    Object.assign(this.settings, settings);
  }

  /** One step. Returns: {loss, norm}; where one of them is not finite nothing is moved, and `broke` says what happened. */
  step() {
    const { net, problem } = this, { x, targets } = problem.batch(this.draw, net.batch, net.inputSize);
    net.reset();
    const { loss, dy } = problem.loss(net.forward(x), targets, net.outputSize);
    net.backward(dy);
    const gradients = net.gradients, norm = Math.sqrt(gradients.reduce((sum, g) => sum + g * g, 0));
    this.steps++;
    if (!Number.isFinite(loss) || !Number.isFinite(norm)) {
      const odd = values => net.parts.find(p => values.subarray(p.offset, p.offset + size(p)).some(v => !Number.isFinite(v)))?.name;
      this.broke = { step: this.steps, loss: String(loss), norm: String(norm), where: odd(net.weights) ?? odd(gradients) ?? null, norms: this.norms.slice() };
      return { loss, norm };
    }
    const { rate, clip, method } = this.settings;
    net.update({ rate, method, clip: clip ?? Infinity });
    this.norms.push(norm);
    if (this.norms.length > KEPT) this.norms.shift();
    return { loss, norm };
  }

  /** How it does on sequences that are always the same: {score, pairs}, {reach} and what it writes. */
  look() {
    const { probe, problem } = this, { x, targets } = this.looked;
    probe.weights = this.net.weights;
    probe.reset();
    const y = probe.forward(x), found = { ...problem.scored(y, targets, probe.outputSize), reach: this.#reach(y, targets) };
    if (this.writer) {
      this.writer.weights = probe.weights;
      found.written = problem.written(this.writer, uniform(this.steps), WRITES);
    }
    return found;
  }

  /** The norm of the gradient of the loss at the last step by the state, by steps back, as a part of that at the last step: of each
   * the geometric mean over the sequences; what is 0 or no number in all of them is null. */
  #reach(y, targets) {
    const { probe, problem } = this, B = probe.batch, { outputSize: O, stateSize: S } = probe;
    const last = y.subarray(y.length - B * O), dy = new Float32Array(y.length);
    dy.set(problem.loss(last, targets.subarray(targets.length - B), O).dy, y.length - B * O);
    const out = probe.parts.find(p => p.name === "output_weight"), weights = probe.weights, count = problem.steps;
    const norms = Array.from({ length: count }, () => new Float64Array(B));
    for (let b = 0; b < B; b++) {
      let sum = 0;
      for (let n = 0; n < out.shape[0]; n++) {
        let g = 0;
        for (let k = 0; k < O; k++) g += weights[out.offset + n * out.stride + k] * dy[y.length - B * O + b * O + k];
        sum += g * g;
      }
      norms[0][b] = Math.sqrt(sum);
    }
    probe.backward(dy, (t, gradient) => {
      if (!t) return;
      for (let b = 0; b < B; b++) norms[count - t][b] = Math.sqrt(gradient.subarray(b * S, (b + 1) * S).reduce((sum, g) => sum + g * g, 0));
    });
    return norms.map(row => {
      const logs = Array.from(row, (v, b) => Math.log(v / norms[0][b])).filter(Number.isFinite);
      return logs.length ? Math.exp(logs.reduce((a, b) => a + b, 0) / logs.length) : null;
    });
  }
}

const size = ({ shape, stride }) => shape.length > 1 ? shape[0] * stride : stride;

/**
 * Weights as laboratory/network.py begins: uniform in ±1/√N, the recurrent weights of each gate orthogonal and the forget gate open.
 * radius: the modulus of the eigenvalues of the recurrent weights, all of which have one alike.
 */
export function initial(spec, radius, draw) {
  const weights = new Float32Array(spec.weights), N = spec.hidden, bound = 1 / Math.sqrt(N);
  for (const part of spec.parts) {
    for (let i = 0; i < size(part); i++) weights[part.offset + i] = (2 * draw() - 1) * bound;
    if (part.name === "cell_weight_hh") {
      for (let gate = 0; gate < spec.gates; gate++) {
        orthogonal(N, draw).forEach((row, k) => row.forEach((v, n) => { weights[part.offset + k * part.stride + gate * N + n] = radius * v; }));
      }
    }
    if (spec.gates === 4 && part.name.startsWith("cell_bias")) {  // of an LSTM, the second of four
      weights.fill(part.name === "cell_bias_ih" ? 1 : 0, part.offset + N, part.offset + 2 * N);
    }
  }
  return weights;
}

/** N rows that stand at right angles, each of length 1: Gram and Schmidt's, twice, as rounding needs. */
function orthogonal(N, draw) {
  const rows = [];
  while (rows.length < N) {
    const row = Float64Array.from({ length: N }, () => normal(draw));
    for (let again = 0; again < 2; again++) {
      for (const other of rows) {
        const along = row.reduce((sum, v, i) => sum + v * other[i], 0);
        for (let i = 0; i < N; i++) row[i] -= along * other[i];
      }
      const length = Math.sqrt(row.reduce((sum, v) => sum + v * v, 0));
      for (let i = 0; i < N; i++) row[i] /= length;
    }
    rows.push(row);
  }
  return rows;
}
