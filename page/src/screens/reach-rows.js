// The gradient of an output over the text, a row of bars for each network.
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { useTheme, variable } from "../lib/colour.js";
import { html } from "../lib/html.js";
import { useRedraw, useWidth } from "../lib/redraw.js";
import { number, seen, spoken } from "../lib/words.js";

export const COLOURS = ["a", "b", "c", "d"];
const DECADES = 4, TALL = 54, NAME = 22, TOP = 30;  // of the norms that are drawn; px of a row, of its name, of the signs
const RUN = 900;  // ms in which the gradient runs back over what is seen
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** A part of the norm at the output as a height from 0 to 1, by factors of ten. */
export const height = part => part > 0 ? Math.max(0, Math.min(1.12, 1 + Math.log10(part) / DECADES)) : 0;

/**
 * rows: [{title, norms, begins, reverse}]: norms by steps back from the step `begins`. steps: what each step reads. aim: the column of
 * what the output is; ghost: its sign where it is past the last step. onAim: takes another column. key: changes where the gradient
 * is to run again.
 */
export function Rows({ rows, steps, aim, ghost, onAim, label, spokenAim, again }) {
  const box = useRef(null), canvas = useRef(null), spacer = useRef(null), width = useWidth(box);
  useTheme();
  const began = useRef(0);
  const signs = steps.map((s, i) => s === "" && !i ? "⊢" : seen(s)), count = Math.max(steps.length, aim + 1);
  const longest = Math.min(10, signs.reduce((most, s) => Math.max(most, s.length), 1)), wide = Math.max(15, 8 * longest + 6);
  const tall = TOP + rows.length * (TALL + NAME) + 6;
  useLayoutEffect(() => {
    spacer.current.style.width = `${count * wide}px`;
    canvas.current.style.width = `${width}px`;
    canvas.current.style.height = box.current.style.height = `${tall}px`;
  }, [count, wide, width, tall]);
  useEffect(() => {
    if (!box.current) return;  // it is gone already
    const low = box.current.scrollLeft, x = aim * wide;
    if (x < low + wide || x > low + width - 2 * wide) box.current.scrollLeft = x - width + 4 * wide;
  }, [aim, wide, width]);
  useEffect(() => { began.current = still.matches ? 0 : performance.now(); }, [again]);
  useRedraw(box, () => {
    const gone = began.current ? (performance.now() - began.current) / RUN : 1;
    paint(canvas.current, box.current.scrollLeft, Math.min(1, gone) * Math.max(8, width / wide));
    if (gone >= 1) began.current = 0;
    return gone < 1;
  });

  /** reached: how many steps back the gradient has run; all of it once it has run over what is seen. */
  function paint(to, left, reached) {
    const dense = devicePixelRatio, brush = to.getContext("2d"), x = t => t * wide - left;
    to.width = Math.round(width * dense);
    to.height = Math.round(tall * dense);
    brush.setTransform(dense, 0, 0, dense, 0, 0);
    const first = Math.max(0, Math.floor(left / wide)), last = Math.min(count - 1, Math.ceil((left + width) / wide));
    const colour = name => variable(`--${name}`);
    brush.textBaseline = "middle";
    brush.textAlign = "center";
    brush.font = `14px ${colour("mono")}`;
    brush.fillStyle = colour("mark");
    if (aim >= first && aim <= last) {
      brush.beginPath();
      brush.roundRect(x(aim), 2, wide, 24, 6);
      brush.fill();
    }
    for (let t = first; t <= last; t++) {
      const sign = signs[t] ?? seen(ghost ?? "");
      brush.fillStyle = colour(t === aim ? "on-mark" : t > aim || sign !== steps[t] ? "soft" : "ink");
      brush.fillText(sign.slice(0, longest), x(t) + wide / 2, 14.5, wide - 2);
    }
    rows.forEach((row, r) => {
      const base = TOP + (r + 1) * (TALL + NAME) - 2;
      brush.strokeStyle = colour("line");
      brush.lineWidth = 1;
      for (let decade = 0; decade < DECADES; decade++) {
        const y = Math.round(base - TALL / 1.12 * (1 - decade / DECADES)) + 0.5;
        brush.beginPath();
        brush.moveTo(0, y);
        brush.lineTo(width, y);
        if (decade % 2 === 0) brush.stroke();
      }
      brush.fillStyle = colour(COLOURS[r]);
      for (let t = first; t <= Math.min(last, steps.length - 1); t++) {
        const back = row.reverse ? t - row.begins : row.begins - t, far = Math.abs(back) - reached;
        if (back < 0 || back >= row.norms.length || far > 0 && began.current) continue;
        const h = TALL / 1.12 * height(row.norms[back]);
        brush.fillRect(x(t) + 1.5, base - h, wide - 3, h);
      }
      brush.fillStyle = colour("edge");
      brush.fillRect(0, base, width, 1);
      brush.textAlign = "left";
      brush.font = `12px ${colour("sans")}`;
      const measured = brush.measureText(row.title).width;
      brush.fillStyle = colour("card");
      brush.fillRect(0, base - TALL - NAME + 4, measured + 8, 16);
      brush.fillStyle = colour("soft");
      brush.fillText(row.title, 2, base - TALL - NAME + 13);
      brush.textAlign = "center";
    });
  }

  const press = e => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[e.key];
    if (!by || !onAim) return;
    e.preventDefault();
    onAim(aim + by);
  };
  const pick = e => onAim?.(Math.floor((e.clientX - canvas.current.getBoundingClientRect().left + box.current.scrollLeft) / wide));
  const left = rows[0]?.norms.at(-1);
  return html`<div class="strip" ref=${box}>
    <canvas ref=${canvas} tabindex="0" role="slider" aria-label=${label} aria-valuemin="0" aria-valuemax=${count - 1} aria-valuenow=${aim}
      aria-valuetext="${spoken(spokenAim)}; ${number(100 * left)} % of its gradient is left at the beginning" onKeyDown=${press} onClick=${pick}></canvas>
    <div class="spacer" ref=${spacer}></div>
  </div>`;
}
