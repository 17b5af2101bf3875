// A piano roll: the keys from low to high, time to the right; below it what each moment cost.
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { html } from "../lib/html.js";
import { number } from "../lib/words.js";

const ROW = 7, SECOND = 90, LEFT = 34, COST = 40, GAP = 8;  // px: a key, a second, the names of keys, the costs
const FAR = 64;  // px of the note that is read at the present, from the left
const NAMES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];

/** What a key is called, of its number in MIDI. */
export const keyOf = pitch => NAMES[pitch % 12] + (Math.floor(pitch / 12) - 1);

/** The number of a key, as it is called; NaN where it is none. */
export function pitchOf(name) {
  const [, letter, sign, octave] = /^([A-G])([#b]?)(-?\d+)$/i.exec(name.trim()) ?? [];
  return NAMES.indexOf(letter?.toUpperCase()) + (sign === "#" ? 1 : sign === "b" ? -1 : 0) + 12 * (Number(octave) + 1);
}

/** Keys (C4+E4) so many semitones higher, within a piano. */
export const moved = (keys, by) => {
  const pitches = keys.split(/[+ ]/).filter(Boolean).map(pitchOf), least = Math.min(...pitches), most = Math.max(...pitches);
  return pitches.map(p => keyOf(p + Math.max(21 - least, Math.min(108 - most, by)))).join("+");
};

/** Keys with one of them moved. */
const one = (keys, pitch, by) => [...new Set(keys.split("+").map(pitchOf).map(p => p === pitch ? Math.max(21, Math.min(108, p + by)) : p))].sort((a, b) => a - b).map(keyOf).join("+");

/**
 * line: {moments, notes, seconds} of /play/music. present: how many moments are the past. at: the moment that is chosen. changes: moment ->
 * keys. head: is given a function that shows where sound is, in seconds. onAt, onKeys: take another moment, and (moment, keys).
 */
export function Roll({ line, present, at, changes, kind, head, label, onAt, onKeys }) {
  const box = useRef(null), picture = useRef(null), mark = useRef(null);
  const pitches = line.notes.filter(n => n.program < 128).map(n => n.pitch), least = Math.min(69, ...pitches), highest = Math.max(least + 12, ...pitches), low = least - 3, high = highest + 3;
  const end = Math.max(line.seconds, 1), wide = LEFT + end * SECOND + 12, roll = (high - low + 1) * ROW, tall = roll + GAP + COST + 14;
  const x = s => LEFT + s * SECOND, y = pitch => (high - pitch) * ROW, ends = t => line.moments[t + 1]?.seconds ?? line.seconds;
  const now = line.moments[present]?.seconds ?? line.seconds, most = Math.max(8, ...line.moments.map(m => m.nats ?? 0));
  const keys = t => changes.get(t) ?? line.moments[t].keys;
  useLayoutEffect(() => {
    head.current = s => {
      mark.current?.setAttribute("transform", `translate(${x(s)} 0)`);
      mark.current?.classList.toggle("on", s !== null);
      if (s !== null && box.current && (x(s) > box.current.scrollLeft + box.current.clientWidth - FAR || x(s) < box.current.scrollLeft)) box.current.scrollLeft = x(s) - FAR;
    };
    head.current(null);
    return () => { head.current = null; };
  }, [line]);
  useEffect(() => {
    const left = x(line.moments[at]?.seconds ?? 0), seen = box.current.scrollLeft;
    if (left < seen + LEFT || left > seen + box.current.clientWidth - FAR) box.current.scrollLeft = left - box.current.clientWidth / 2;
  }, [at]);
  const momentAt = s => {
    let t = line.moments.findLastIndex(m => m.seconds <= s + 1e-6);
    t = Math.max(0, Math.min(present - 1, t));
    return t;
  };
  const press = e => {
    const r = picture.current.getBoundingClientRect(), note = line.notes[e.target.dataset?.note], s = (e.clientX - r.left - LEFT) / SECOND, from = e.clientY;
    const t = momentAt(s);
    onAt(t);
    if (!note || s >= now || e.pointerType !== "mouse") return;
    const held = line.moments[t].keys.split("+").map(pitchOf).includes(note.pitch) ? t : momentAt(note.start), began = keys(held);
    if (!began.split("+").map(pitchOf).includes(note.pitch)) return;
    e.preventDefault();
    picture.current.focus({ preventScroll: true });
    let by = 0;
    const stop = new AbortController();
    addEventListener("pointermove", m => {
      const moved = Math.round((from - m.clientY) / ROW);
      if (moved !== by) onKeys(held, one(began, note.pitch, by = moved));
    }, { signal: stop.signal });
    for (const over of ["pointerup", "pointercancel"]) addEventListener(over, () => stop.abort(), { signal: stop.signal });
  };
  const press_ = e => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -8, PageDown: 8, Home: -Infinity, End: Infinity }[e.key], up = { ArrowUp: 1, ArrowDown: -1 }[e.key];
    if (!by && !up) return;
    e.preventDefault();
    if (by) onAt(Math.max(0, Math.min(present - 1, at + by)));
    else if (keys(at)) onKeys(at, moved(keys(at), up * (e.shiftKey ? 12 : 1)));
  };
  const bars = line.moments.map((m, t) => [m, t]).filter(([m, t]) => m.bar > (line.moments[t - 1]?.bar ?? 0));
  const chosen = line.moments[at];
  return html`<div class="roll" ref=${box}>
    <svg ref=${picture} width=${wide} height=${tall} viewBox=${`0 0 ${wide} ${tall}`} tabindex="0" role="slider" aria-label=${label} aria-valuemin="0" aria-valuemax=${present - 1} aria-valuenow=${at}
      aria-valuetext=${`moment ${at} of ${present}, bar ${chosen?.bar}: ${chosen?.words}; ${number(chosen?.nats)} nats`} onPointerDown=${press} onKeyDown=${press_}>
      ${Array.from({ length: high - low + 1 }, (_, i) => high - i).map(p => html`<g>${[1, 3, 6, 8, 10].includes(p % 12) && html`<rect class="black" x=${LEFT} y=${y(p)} width=${wide - LEFT} height=${ROW} />`}
        ${p % 12 === 0 && html`<line class="grid" x1=${LEFT} x2=${wide} y1=${y(p) + ROW} y2=${y(p) + ROW} /><text class="tick side" x=${LEFT - 6} y=${y(p) + ROW - 1}>${keyOf(p)}</text>`}</g>`)}
      <rect class="ahead" x=${x(now)} y="0" width=${Math.max(0, wide - x(now))} height=${roll} />
      ${bars.map(([m]) => html`<line class="bar-line" x1=${x(m.seconds)} x2=${x(m.seconds)} y1="0" y2=${roll} />${(m.bar - 1) % 4 === 0 && html`<text class="tick" x=${x(m.seconds) + 9} y=${tall - 2}>${m.bar}</text>`}`)}
      ${chosen && html`<rect class="moment" x=${x(chosen.seconds)} y="0" width=${Math.max(3, (ends(at) - chosen.seconds) * SECOND)} height=${tall - 14} />`}
      ${line.notes.map((n, k) => n.program < 128 ? html`<rect key=${k} data-note=${k} class=${`note ${n.start >= now - 1e-6 ? kind : "past"}`} x=${x(n.start)} y=${y(n.pitch) + 0.5} width=${Math.max(2, (n.end - n.start) * SECOND - 1)} height=${ROW - 1} rx="2" />`
        : html`<circle key=${k} class="note drum" cx=${x(n.start) + 3} cy=${roll - 4} r="2.5" />`)}
      ${[...changes.keys()].filter(t => t < present).map(t => html`<path class="put" d=${`M${x(line.moments[t].seconds) - 4} 0h8l-4 7z`} />`)}
      ${line.moments.map((m, t) => html`<rect key=${`c${t}`} class=${`cost ${t < present ? "past" : kind}`} x=${x(m.seconds) + 0.5} y=${roll + GAP + COST * (1 - m.nats / most)} width=${Math.max(1.5, Math.min(14, (ends(t) - m.seconds) * SECOND - 1))} height=${COST * m.nats / most} />`)}
      <g class="playhead" ref=${mark}><line x1="0" x2="0" y1="0" y2=${roll + GAP + COST} /></g>
    </svg></div>`;
}
