// Problems that only a memory solves, as laboratory/problems.py defines them, and texts. Rows have the widths of the network that is
// trained, and what a problem does not use of them is 0. Shapes: T steps, B sequences, I input, O output.
import { below } from "./random.js";

const SYMBOLS = 8, BEFORE = 10;

/** Symbols of eight, one of them marked after ten; `lag` more, and the marked one is to be named. */
export class Recall {
  chance = Math.log(SYMBOLS);
  scoreName = "right";
  batchSize = 64;

  constructor({ lag }) {
    this.lag = lag;
    this.steps = BEFORE + 1 + lag;
  }

  /** draw: of `uniform`. I: of the network. Returns: x [T, B, I], targets [B]. */
  batch(draw, size, I) {
    const x = new Float32Array(this.steps * size * I), targets = new Int32Array(size);
    for (let t = 0; t < this.steps; t++) {
      for (let b = 0; b < size; b++) {
        const symbol = below(draw, SYMBOLS), row = (t * size + b) * I;
        x[row + symbol] = 1;
        if (t !== BEFORE) continue;
        x[row + SYMBOLS] = 1;
        targets[b] = symbol;
      }
    }
    return { x, targets };
  }

  /** y: [T, B, O]. Returns: the cross entropy at the last step, a mean over the sequences, and its gradient. */
  loss(y, targets, O) {
    return crossEntropy(y, targets, O, SYMBOLS);
  }

  /** The share of the sequences that are answered rightly, and how many of each symbol were taken for each: pairs [8][8]. */
  scored(y, targets, O) {
    const pairs = Array.from({ length: SYMBOLS }, () => new Array(SYMBOLS).fill(0));
    const last = y.subarray(y.length - targets.length * O);
    targets.forEach((target, b) => pairs[target][largest(last.subarray(b * O, b * O + SYMBOLS))]++);
    return { score: pairs.reduce((sum, row, k) => sum + row[k], 0) / targets.length, pairs };
  }

  learned(score) {
    return score >= 0.95;
  }
}

/** Numbers from 0 to 1, two of them marked: the sum of these two. `lag` is the length of the sequence. */
export class Adding {
  chance = 1 / 6;
  scoreName = "squared error";
  batchSize = 32;

  constructor({ lag }) {
    this.lag = this.steps = lag;
  }

  batch(draw, size, I) {
    const x = new Float32Array(this.steps * size * I), targets = new Float32Array(size);
    for (let b = 0; b < size; b++) {
      for (let t = 0; t < this.steps; t++) x[(t * size + b) * I] = draw();
      const first = below(draw, this.steps), second = below(draw, this.steps - 1);
      for (const t of [first, second + (second >= first)]) {
        x[(t * size + b) * I + 1] = 1;
        targets[b] += x[(t * size + b) * I];
      }
    }
    return { x, targets };
  }

  loss(y, targets, O) {
    const dy = new Float32Array(y.length), first = y.length - targets.length * O;
    let sum = 0;
    targets.forEach((target, b) => {
      const wrong = y[first + b * O] - target;
      sum += wrong * wrong;
      dy[first + b * O] = 2 * wrong / targets.length;
    });
    return { loss: sum / targets.length, dy };
  }

  /** The mean of the squared error, and pairs of the sum and what is answered, [B][2]. */
  scored(y, targets, O) {
    const first = y.length - targets.length * O, pairs = Array.from(targets, (target, b) => [target, y[first + b * O]]);
    return { score: pairs.reduce((sum, [a, b]) => sum + (a - b) ** 2, 0) / pairs.length, pairs };
  }

  learned(score) {
    return score <= 1e-3;
  }
}

/** One's own text, in windows of `lag` characters: after each the next is to be named. */
export class Text {
  scoreName = "nats a character";
  batchSize = 16;

  /** Characters that are rarer than the network has room for are read as one sign. Raises: RangeError for too short a text. */
  constructor({ lag, text }, room = 64) {
    const signs = Array.from(text.normalize("NFC").replace(/\r\n?/g, "\n")), counts = new Map();
    if (signs.length < 2) throw new RangeError("a text of two characters or more is needed");
    for (const sign of signs) counts.set(sign, (counts.get(sign) ?? 0) + 1);
    const kept = [...counts].sort((a, b) => b[1] - a[1]).map(([sign]) => sign);
    this.rare = kept.length > room ? kept.length - room + 1 : 0;  // of them
    this.alphabet = this.rare ? [...kept.slice(0, room - 1), "\ufffd"] : kept;
    const numbers = new Map(this.alphabet.map((sign, k) => [sign, k]));
    this.signs = signs.map(sign => numbers.get(sign) ?? room - 1);
    this.lag = this.steps = Math.min(lag, signs.length - 1);
    this.chance = Math.log(this.alphabet.length);
  }

  batch(draw, size, I) {
    const x = new Float32Array(this.steps * size * I), targets = new Int32Array(this.steps * size);
    for (let b = 0; b < size; b++) {
      const first = below(draw, this.signs.length - this.steps);
      for (let t = 0; t < this.steps; t++) {
        x[(t * size + b) * I + this.signs[first + t]] = 1;
        targets[t * size + b] = this.signs[first + t + 1];
      }
    }
    return { x, targets };
  }

  loss(y, targets, O) {
    return crossEntropy(y, targets, O, this.alphabet.length);
  }

  scored(y, targets, O) {
    return { score: this.loss(y, targets, O).loss };
  }

  learned() {
    return false;
  }

  /** What a network of one sequence writes by itself, so many characters, from its first state on. */
  written(trainer, draw, length) {
    const { inputSize: I } = trainer, x = new Float32Array(I);
    let text = "", sign = this.signs[0];
    trainer.reset();
    for (let n = 0; n < length; n++) {
      x.fill(0);
      x[sign] = 1;
      const log = logSoftmax(trainer.forward(x).subarray(0, this.alphabet.length));
      let left = draw();
      sign = log.findIndex(v => (left -= Math.exp(v)) < 0);
      if (sign < 0) sign = largest(log);
      text += this.alphabet[sign];
    }
    return text;
  }
}

export const PROBLEMS = { recall: Recall, adding: Adding, text: Text };

/** The cross entropy of the last rows of y, as many as there are targets, over the first `classes` of their O numbers: {loss, dy}. */
function crossEntropy(y, targets, O, classes) {
  const dy = new Float32Array(y.length), first = y.length - targets.length * O;
  let sum = 0;
  targets.forEach((target, b) => {
    const row = y.subarray(first + b * O, first + b * O + classes), log = logSoftmax(row);
    sum -= log[target];
    log.forEach((v, k) => { dy[first + b * O + k] = (Math.exp(v) - (k === target)) / targets.length; });
  });
  return { loss: sum / targets.length, dy };
}

function logSoftmax(row) {
  const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = most + Math.log(row.reduce((a, v) => a + Math.exp(v - most), 0));
  return Float64Array.from(row, v => v - sum);
}

const largest = row => row.reduce((best, v, k) => v > row[best] ? k : best, 0);
