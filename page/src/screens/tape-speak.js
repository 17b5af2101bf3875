// A line to speak to the tape as one does to `throughtime travel`, and what it answers.
import { useState } from "preact/hooks";
import { ask } from "../lib/api.js";
import { html } from "../lib/html.js";
import { Panel, Refusal } from "../lib/parts.js";
import { set } from "../lib/route.js";
import { number, percent, seen } from "../lib/words.js";

const EXAMPLES = ["back 3", "write 20", "set 1 h", "futures", "diff", "help"];

export function Speak({ model, text, at, original }) {
  const [line, type] = useState(""), [said, answer] = useState(null), [error, fail] = useState(null), [past, keep] = useState([]);
  const speak = async words => {
    if (!words.trim()) return;
    keep([...past.filter(p => p !== words), words]);
    type("");
    try {
      const found = await ask("/play/spoken", { model: model.name, line: words, text, time: at, original });
      answer({ words, values: found.values });
      fail(null);
      set({ text: found.text, at: found.time, original: found.original ?? undefined });
    } catch (wrong) {
      answer(null);
      fail(wrong.message);
    }
  };
  const recall = e => {
    const by = { ArrowUp: -1, ArrowDown: 1 }[e.key];
    if (!by) return;
    e.preventDefault();
    const now = past.includes(line) ? past.indexOf(line) : past.length;
    type(past[now + by] ?? (by < 0 ? line : ""));
  };
  return html`<${Panel} title="Speak to it" about="as one does to throughtime travel">
    <form class="row speak" onSubmit=${e => { e.preventDefault(); speak(line); }}>
      <input type="text" aria-label="A command" autocomplete="off" spellcheck=${false} placeholder="help lists what can be done" value=${line} onInput=${e => type(e.target.value)} onKeyDown=${recall} />
      <button class="button main">Do it</button>
    </form>
    <div class="row" role="group" aria-label="Examples">${EXAMPLES.map(words => html`<button key=${words} type="button" class="chip" onClick=${() => speak(words)}>${words}</button>`)}</div>
    ${original !== undefined && html`<p class="soft">Beside the original: <kbd>${seen(original.slice(-60))}</kbd></p>`}
    <${Refusal}>${error}<//>
    <div aria-live="polite">${said && html`<${Said} ...${said} />`}</div>
  <//>`;
}

/** What a command gave. */
function Said({ words, values }) {
  const kind = Object.keys(KINDS).find(k => k in values);
  return html`<div class="said"><h3><kbd>${words}</kbd></h3>${kind ? KINDS[kind](values) : html`<p class="soft">done</p>`}</div>`;
}

const KINDS = {
  help: ({ help }) => html`<dl class="help">${Object.entries(help).map(([name, about]) => html`<div key=${name}><dt><kbd>${name}</kbd></dt><dd>${about}</dd></div>`)}</dl>`,
  futures: ({ futures }) => html`<div class="wide"><table><thead><tr><th></th>${Object.keys(futures).map(name => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead><tbody>
    <tr><th scope="row">read</th>${Object.values(futures).map(f => html`<td><kbd>${seen(f.read.slice(-40))}</kbd></td>`)}</tr>
    <tr><th scope="row">next</th>${Object.values(futures).map(f => html`<td>${f.next.map(([token, p]) => html`<kbd>${seen(token)}</kbd> ${percent(p)} `)}</td>`)}</tr>
    <tr><th scope="row">writes</th>${Object.values(futures).map(f => html`<td><kbd>${seen(f.writes)}</kbd></td>`)}</tr></tbody></table></div>`,
  diff: ({ diff }) => html`<div class="wide tall" tabindex="0" role="group" aria-label="Differences"><table><thead><tr>${["time", "original", "here", "log p original", "log p here", "states apart", "KL nats", "likeliest"].map(name => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead>
    <tbody>${diff.map((row, t) => html`<tr key=${t}><td class="n">${t}</td><td><kbd>${seen(row.original)}</kbd></td><td><kbd>${seen(row.here)}</kbd></td>
      ${row.log_probability.map(p => html`<td class="n">${number(p)}</td>`)}<td class="n">${row.states.map(s => number(s)).join(", ")}</td><td class="n">${number(row.divergence)}</td><td>${row.likeliest_changed ? "another" : ""}</td></tr>`)}</tbody></table></div>`,
  state: ({ state }) => html`<div class="wide"><table><thead><tr>${["layer", ...Object.keys(state[0])].map(name => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead>
    <tbody>${state.map((layer, i) => html`<tr key=${i}><td class="n">${i}</td>${Object.values(layer).map(v => html`<td class="n">${number(v, 4)}</td>`)}</tr>`)}</tbody></table></div>`,
  words: ({ words, present }) => html`<p class="soft">time ${present} of ${words.length}</p>`,
};
