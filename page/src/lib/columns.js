// The columns of a text: what a network does with it at every time, asked of the server bit by bit as it is typed.
import { useEffect, useRef, useState } from "preact/hooks";
import { askNumbers } from "./api.js";

const TOP = 8;  // likeliest tokens

/** Rows of `width` numbers that grow and are cut. */
class Rows {
  constructor(width, Type) {
    this.width = width;
    this.Type = Type;
    this.values = new Type(64 * width);
  }

  /** Put rows in from row `since` on. */
  put(since, values) {
    const needed = since * this.width + values.length;
    if (needed > this.values.length) {
      const grown = new this.Type(Math.max(needed, 2 * this.values.length));
      grown.set(this.values);
      this.values = grown;
    }
    this.values.set(values, since * this.width);
  }

  row(t) {
    return this.values.subarray(t * this.width, (t + 1) * this.width);
  }
}

/**
 * What is known of a text. time: T, how many tokens it has; there are T + 1 columns, the first before anything is read.
 * rows: by name ("0.forget", "next.p", "p") the numbers of every time. changed: {version, since}: from which column on it is not
 * what it was at the version before. entries: token -> what it stands for.
 */
export class Columns {
  constructor() {
    this.time = -1;
    this.tokens = [];
    this.labels = [];
    this.unknown = [];
    this.entries = new Map();
    this.rows = {};
    this.version = 0;
    this.since = 0;
  }

  take({ head, arrays }) {
    for (const [name, { values, shape }] of Object.entries(arrays)) {
      this.rows[name] ??= new Rows(shape.slice(1).reduce((a, b) => a * b, 1), values.constructor);
      this.rows[name].put(head.since, values);
    }
    for (const [token, entry] of Object.entries(head.entries)) this.entries.set(Number(token), entry);
    Object.assign(this, { time: head.time, tokens: head.tokens, labels: head.labels, unknown: head.unknown, since: head.since });
    this.version++;
  }

  /** The numbers of a band at a time, [N]; empty where there are none yet. */
  at(key, t) {
    return t <= this.time && this.rows[key] ? this.rows[key].row(t) : [];
  }

  /** The token that was read to come to a time. */
  label(t) {
    return this.labels[t - 1] ?? "";
  }

  /** What is likeliest to come after a time: [{token, text, p}]. */
  next(t) {
    if (t > this.time) return [];
    const tokens = this.rows["next.token"].row(t), p = this.rows["next.p"].row(t);
    return Array.from(tokens, (token, k) => ({ token, text: this.entries.get(token), p: p[k] }));
  }
}

/** From which time on the columns of two pasts differ, where each token is a character; else 0. */
function parting(before, after) {
  if (!before || before.model !== after.model) return 0;
  const old = Array.from(before.text), now = Array.from(after.text);
  let same = 0;
  while (same < old.length && same < now.length && old[same] === now[same]) same++;
  const was = new Set(before.changes.map(c => JSON.stringify(c))), is = new Set(after.changes.map(c => JSON.stringify(c)));
  const times = [...before.changes, ...after.changes].filter(c => was.has(JSON.stringify(c)) !== is.has(JSON.stringify(c))).map(c => c.time);
  return Math.max(0, Math.min(same + 1, now.length, ...times));
}

/**
 * The columns of a text, with changes (see play/bodies.py) made to its past: [columns, error]. What has been typed on costs the
 * server as many steps; while it computes, what is newest waits, and what is in between is left out.
 */
export function useColumns(model, text, changes = NONE) {
  const held = useRef(null), [, redraw] = useState(0), [error, fail] = useState(null);
  held.current ??= { columns: new Columns(), known: null, wanted: null, busy: false };
  const written = JSON.stringify(changes);
  useEffect(() => {
    const here = held.current;
    here.wanted = { model: model.name, text, changes };
    if (here.busy) return;
    here.busy = true;
    (async () => {
      while (here.wanted) {
        const wanted = here.wanted, since = model.tokens === "characters" ? parting(here.known, wanted) : 0;
        here.wanted = null;
        try {
          const found = await askNumbers("/play/columns", { ...wanted, since, top: TOP });
          here.columns.take(found);
          here.known = wanted;
          fail(null);
          redraw(here.columns.version);
        } catch (wrong) {
          fail(wrong.message);
        }
      }
      here.busy = false;
    })();
  }, [model.name, text, written]);
  return [held.current.columns, error];
}

const NONE = [];
