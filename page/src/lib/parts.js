// What several screens show: panels, sliders, tabs, legends, numbers.
import { useEffect, useId, useRef } from "preact/hooks";
import { html } from "./html.js";
import { scale, useTheme } from "./colour.js";
import { number, seen, percent, spoken } from "./words.js";

/** A box with a heading. level: of the heading. */
export function Panel({ title, about, level = 2, class: more = "", children }) {
  const id = useId(), Heading = `h${level}`;
  return html`<section class="panel ${more}" aria-labelledby=${id}>
    <header><${Heading} id=${id}>${title}<//>${about && html`<p class="soft">${about}</p>`}</header>
    ${children}
  </section>`;
}

/** A number that is dragged. text: what it says beside itself, and to those who listen. */
export function Slider({ label, value, min, max, step = 1, text, onInput, ...more }) {
  const id = useId(), part = max > min ? (value - min) / (max - min) : 0, track = useRef(null);
  useEffect(() => track.current.style.setProperty("--part", part), [part]);
  return html`<div class="slider">
    <label for=${id}>${label}</label>
    <input id=${id} ref=${track} type="range" min=${min} max=${max} step=${step} value=${value} aria-valuetext=${text}
      onInput=${e => onInput(Number(e.target.value))} ...${more} />
    <output for=${id}>${text ?? number(value)}</output>
  </div>`;
}

/** One of several. options: [{value, title}]. */
export function Tabs({ label, value, options, onChange }) {
  const list = useRef(null);
  const move = e => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
    if (!by) return;
    e.preventDefault();
    const at = (options.findIndex(o => o.value === value) + by + options.length) % options.length;
    onChange(options[at].value);
    list.current.children[at].focus();
  };
  return html`<div class="tabs" role="radiogroup" aria-label=${label} ref=${list} onKeyDown=${move}>
    ${options.map(o => html`<button type="button" role="radio" aria-checked=${o.value === value}
      tabindex=${o.value === value ? 0 : -1} onClick=${() => onChange(o.value)}>${o.title}</button>`)}
  </div>`;
}

/** On or off. */
export const Toggle = ({ label, on, onChange }) =>
  html`<button type="button" class="chip" aria-pressed=${on} onClick=${() => onChange(!on)}>${label}</button>`;

/** What the colours of a kind of number stand for ("signed", "gate", "parting"). */
export function Legend({ kind, low, high, label }) {
  const canvas = useRef(null), theme = useTheme();
  useEffect(() => {
    const brush = canvas.current.getContext("2d"), image = brush.createImageData(96, 1), all = scale(kind);
    const first = kind === "signed" ? 0 : 256;
    new Uint32Array(image.data.buffer).forEach((_, x, pixels) => { pixels[x] = all[first + Math.round(x / 95 * (512 - first))]; });
    brush.putImageData(image, 0, 0);
  }, [kind, theme]);
  return html`<span class="legend"><span>${label}</span> <span class="n">${low}</span>
    <canvas ref=${canvas} width="96" height="1" aria-hidden="true"></canvas> <span class="n">${high}</span></span>`;
}

/** A number with what it is. */
export const Fact = ({ label, value, about }) =>
  html`<div class="fact"><dt>${label}</dt><dd class="n">${value}</dd>${about && html`<dd class="soft">${about}</dd>`}</div>`;

/** Tokens and how likely each is, as bars; onPick: takes one that is chosen. */
export function Likeliest({ next, onPick, label = "What comes next" }) {
  return html`<ol class="likeliest" aria-label=${label}>
    ${next.map(({ token, text, p }) => html`<li key=${token}>
      <button type="button" onClick=${() => onPick(text)} disabled=${!onPick}>
        <span class="hidden">${onPick && "write "}${spoken(text)}</span><kbd aria-hidden="true">${seen(text)}</kbd><${Bar} part=${p} /><span class="n">${percent(p)}</span>
      </button></li>`)}
  </ol>`;
}

/** A share of 1. */
export function Bar({ part }) {
  const box = useRef(null);
  useEffect(() => box.current.style.setProperty("--part", part), [part]);
  return html`<span class="bar" ref=${box} aria-hidden="true"></span>`;
}

/** What went wrong, or cannot be. */
export const Refusal = ({ children }) => children ? html`<p class="refusal" role="alert">${children}</p>` : null;
