// The columns of two futures as one, and how far each unit is apart in them.
import { bandsOf } from "../lib/bands.js";

/** Columns of two futures, of equally many tokens: "one KEY", "other KEY", "apart KEY". */
export class Both {
  constructor(one, other) {
    this.one = one;
    this.other = other;
    this.time = Math.min(one.time, other.time);
    this.labels = other.labels;
    this.version = one.version + other.version;
    this.since = 0;
  }

  label(t) {
    return this.other.label(t);
  }

  at(name, t) {
    const [whose, key] = name.includes(" ") ? name.split(" ") : ["other", name];
    if (whose !== "apart") return this[whose].at(key, t);
    const a = this.one.at(key, t), b = this.other.at(key, t);
    return a.map((v, i) => Math.abs(v - b[i]));
  }
}

/** Of each tensor of the state of a layer: as it was, after the change, and how far apart. */
export const bandsOfBoth = (model, layer) => bandsOf(model, layer).filter(b => b.tensor !== null).flatMap(b => [
  { ...b, key: `one ${b.key}`, title: `${b.title}: as it was` },
  { ...b, key: `other ${b.key}`, title: `${b.name}: after the change` },
  { ...b, key: `apart ${b.key}`, title: `${b.name}: apart, up to ${b.most}`, kind: "parting" },
]);
