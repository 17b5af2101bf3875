
const TEXT = {{tokens}};
const [UNKNOWN, START] = [0, 1]; // neither is ever written

/** A model that reads tokens and says what comes next. */
class TextNetwork extends Network {
  vocabulary = TEXT.entries; // what each token stands for
  start = START; // begins a document, and puts the state back
  #index = new Map(TEXT.entries.map((entry, token) => [entry, token]).filter(([, token]) => token !== START));
  #ranks = new Map(TEXT.merges.map(([a, b], rank) => [JSON.stringify([a, b]), rank]));

  /** The tokens of a text; what the vocabulary does not know is 0. */
  encode(text) {
    if (TEXT.kind === "bytes") return Array.from(new TextEncoder().encode(text), (byte) => byte + 2);
    let pieces = TEXT.kind === "characters" ? [...text] : (text.match(new RegExp(TEXT.pattern, "gu")) ?? []);
    if (TEXT.kind === "bpe") pieces = pieces.flatMap((piece) => this.#merged([...piece]));
    return pieces.map((piece) => this.#index.get(piece) ?? UNKNOWN);
  }

  /** A function that gives the text that one token after another adds. */
  decoder() {
    if (TEXT.kind === "bytes") {
      const utf8 = new TextDecoder();
      return (token) => (token > START ? utf8.decode(Uint8Array.of(token - 2), { stream: true }) : "");
    }
    if (!TEXT.spaced) return (token) => (token > START ? TEXT.entries[token] : "");
    let atStart = true;
    return (token) => {
      const entry = token === START ? "" : TEXT.entries[token];
      const text = atStart || entry === "\n" || !entry ? entry : " " + entry;
      atStart = entry === "\n" || (atStart && !entry);
      return text;
    };
  }

  /** A text that goes on from a prompt, of so many tokens. temperature: 0 takes the likeliest. The same seed writes the same. */
  write(prompt = "", options = {}) {
    return [...this.pieces(prompt, options)].join("");
  }

  /** The same, a piece after the other, as they are written. */
  *pieces(prompt = "", { length = 400, temperature = 0.8, seed = 0 } = {}) {
    for (const [name, value] of Object.entries({ length, temperature, seed })) {
      if (!(value >= 0 && Number.isFinite(value))) throw new RangeError(`${this.name}: ${name} is 0 or more, got ${value}`);
    }
    const decode = this.decoder(), random = chance(seed), stream = this.stream();
    const known = ["bpe", "characters"].includes(TEXT.kind) ? [...prompt].filter((c) => this.#index.has(c)).join("") : prompt;
    const [tokens, begun] = this.#reopened(this.encode(known), known);
    try {
      let logP = stream.read(START);
      for (const token of tokens) logP = stream.read(token, logP);
      if (TEXT.spaced) tokens.forEach(decode); // so that it knows whether the prompt ended a line
      if (begun) TEXT.entries.forEach((entry, token) => entry.startsWith(begun) || (logP[token] = -Infinity));
      for (let n = 0, tail = "", text = this.decoder(); n < length; n++) {
        logP[UNKNOWN] = logP[START] = -Infinity;
        const token = draw(logP, temperature, random);
        yield decode(token).slice(n ? 0 : begun.length);
        tail += text(token);
        const ended = TEXT.ends && tail.endsWith(TEXT.ends); // the next document begins without a memory of this one
        if (ended) tail = "";
        stream.read(ended ? START : token, logP);
      }
    } finally {
      stream.free();
    }
  }

  /** Take back the last piece of a prompt, which may be half a word: the first that is written then begins with it. */
  #reopened(tokens, prompt) {
    const last = TEXT.entries[tokens.at(-1)];
    if (!["bpe", "words"].includes(TEXT.kind) || TEXT.spaced || !tokens.length || !prompt.endsWith(last) || last === "\n") {
      return [tokens, ""];
    }
    return [tokens.slice(0, -1), last];
  }

  /** Characters, of which those merge first that were merged first in training. */
  #merged(parts) {
    for (;;) {
      const ranks = parts.slice(1).map((part, i) => this.#ranks.get(JSON.stringify([parts[i], part])) ?? Infinity);
      const least = Math.min(...ranks), at = ranks.indexOf(least);
      if (least === Infinity) return parts;
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
  }
}

/** A token, as likely as log p over the temperature says. */
function draw(logP, temperature, random) {
  const most = logP.reduce((a, b) => Math.max(a, b));
  if (temperature < 1e-6) return logP.indexOf(most);
  const p = Array.from(logP, (value) => Math.exp((value - most) / temperature));
  let left = random() * p.reduce((a, b) => a + b);
  const found = p.findIndex((value) => (left -= value) < 0);
  return found < 0 ? logP.indexOf(most) : found;
}

/** Numbers from 0 to 1, without 1. Source: Marsaglia (2003), Xorshift RNGs. */
function chance(seed) {
  let x = Math.imul(seed + 1, 0x9e3779b1) || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}
