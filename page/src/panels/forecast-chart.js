// A series and its forecasts as a picture, in which past values are dragged.
import { useRef } from "preact/hooks";
import { html } from "../lib/html.js";
import { useWidth } from "../lib/redraw.js";
import { number } from "../lib/words.js";

const TALL = 340, LEFT = 52, RIGHT = 10, TOP = 12, LOW = 26;  // px
const NEAR = 28, LEAST = 4;  // px from a point that is caught; from one value to the next, so that it can be
const STEPS = 60;  // presses of a key from the lowest of the picture to the highest

/** Round numbers between two, about so many. */
function ticks(low, high, about = 5) {
  const rough = (high - low) / about, power = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].find(m => m * power >= rough) * power;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

/** found: as /play/forecast answers. changes: time -> value. at: the time that is chosen. onAt, onValue: take another, and (time, value). */
export function Chart({ found, changes, at, onAt, onValue }) {
  const box = useRef(null), picture = useRef(null), width = useWidth(box), dragged = useRef(null);
  const { time, was, now, naive, truth, horizon } = found, last = time + horizon - 1, inner = Math.max(width - LEFT - RIGHT, 50);
  const first = Math.max(found.first, Math.min(at, time - Math.max(2 * horizon, Math.floor(inner / LEAST))));
  const values = found.values.slice(first - found.first), when = found.ds.slice(first - found.first), x = t => LEFT + (t - first) / Math.max(last - first, 1) * inner;
  const seen = [...values, ...was.low, ...was.high, ...naive, ...truth, ...changes.values()].filter(v => v !== null);
  const spread = Math.max(...seen) - Math.min(...seen) || 1;
  const scale = dragged.current ?? [Math.min(...seen) - 0.12 * spread, Math.max(...seen) + 0.12 * spread];
  const [low, high] = scale, y = v => TOP + (high - v) / (high - low) * (TALL - TOP - LOW), valueAt = px => high - (px - TOP) / (TALL - TOP - LOW) * (high - low);
  const round = v => Number(v.toPrecision(5)), changed = values.map((v, i) => changes.get(first + i) ?? v);
  const clamp = (t, least = first) => Math.max(least, Math.min(time - 1, t));

  const line = (numbers, from) => numbers.reduce(([path, pen], v, i) => v === null ? [path, "M"] : [`${path}${pen}${x(from + i).toFixed(1)} ${y(v).toFixed(1)}`, "L"], ["", "M"])[0];
  const joined = future => line([changed.at(-1), ...future], time - 1);
  const area = ({ low: under, high: over }) => "M" + [...over.map((v, h) => [x(time + h), y(v)]), ...under.map((v, h) => [x(time + h), y(v)]).reverse()].map(p => p.map(n => n.toFixed(1)).join(" ")).join("L") + "Z";

  const place = e => {
    const r = picture.current.getBoundingClientRect();
    return [clamp(Math.round(first + (e.clientX - r.left - LEFT) / inner * (last - first))), e.clientY - r.top];
  };
  const press = e => {
    const [t, py] = place(e), value = changed[t - first], caught = e.target.classList.contains("grip");
    onAt(caught ? at : t);
    if (value === null || !caught && (e.pointerType !== "mouse" || Math.abs(y(value) - py) > NEAR)) return;
    e.preventDefault();
    picture.current.focus();
    const held = caught ? at : t, from = py - y(changed[held - first]), stop = new AbortController();
    dragged.current = scale;
    addEventListener("pointermove", m => onValue(held, round(valueAt(Math.max(2, Math.min(TALL - LOW, place(m)[1] - from))))), { signal: stop.signal });
    for (const end of ["pointerup", "pointercancel"]) {
      addEventListener(end, () => {
        dragged.current = null;
        stop.abort();
        onAt(held);
      }, { signal: stop.signal });
    }
  };
  const keys = e => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[e.key], up = { ArrowUp: 1, ArrowDown: -1 }[e.key];
    if (!by && !up) return;
    e.preventDefault();
    if (by) onAt(clamp(at + by, found.first));
    else if (changed[at - first] !== null) onValue(at, round(changed[at - first] + up * (e.shiftKey ? 5 : 1) * spread / STEPS));
  };
  const here = changed[at - first], labels = ticks(first, last, Math.max(2, Math.floor(inner / 110))).map(Math.round);
  return html`<div class="chart" ref=${box}>
    <svg ref=${picture} width=${width} height=${TALL} viewBox=${`0 0 ${Math.max(width, 1)} ${TALL}`} tabindex="0" role="slider" aria-orientation="vertical"
      aria-label="A value of the past: left and right choose which, up and down change it" aria-valuemin=${round(low)} aria-valuemax=${round(high)} aria-valuenow=${here ?? 0}
      aria-valuetext=${`${when[at - first]}: ${here === null ? "missing" : number(here, 5)}${changes.has(at) ? `, was ${number(values[at - first], 5)}` : ""}; then ${number((now ?? was).forecast[0], 5)}`}
      onPointerDown=${press} onKeyDown=${keys}>
      ${ticks(low, high).map(v => html`<g><line class="grid" x1=${LEFT} x2=${width - RIGHT} y1=${y(v)} y2=${y(v)} /><text x=${LEFT - 8} y=${y(v)} class="tick side">${number(v, 4)}</text></g>`)}
      ${labels.map(t => html`<text x=${Math.max(LEFT + 28, Math.min(width - 34, x(t)))} y=${TALL - 8} class="tick">${when[t - first]}</text>`)}
      <rect class="ahead" x=${x(time - 1)} y=${TOP} width=${Math.max(0, width - RIGHT - x(time - 1))} height=${TALL - TOP - LOW} />
      <path class="band was" d=${area(was)} />${now && html`<path class="band now" d=${area(now)} />`}
      <path class="line naive" d=${line(naive, time)} />
      ${truth.length > 0 && html`<path class="line truth" d=${line([values.at(-1), ...truth], time - 1)} />`}
      ${changes.size > 0 && html`<path class="line before" d=${line(values, first)} />`}
      <path class="line past" d=${line(changed, first)} />
      <path class="line was" d=${line([values.at(-1), ...was.forecast], time - 1)} />${now && html`<path class="line now" d=${joined(now.forecast)} />`}
      ${[...changes].filter(([t]) => t >= first && t < time).map(([t, v]) => html`<circle class="put" cx=${x(t)} cy=${y(v)} r="4" />`)}
      <line class="chosen" x1=${x(at)} x2=${x(at)} y1=${TOP} y2=${TALL - LOW} />
      ${here !== null && html`<circle class="handle" cx=${x(at)} cy=${y(here)} r="7" /><circle class="grip" cx=${x(at)} cy=${y(here)} r="22" />`}
    </svg>
  </div>`;
}
