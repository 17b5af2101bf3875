// Tape: what is typed goes through the network, a column a token.
import { useState } from "preact/hooks";
import { Layers, Legends, bandsOf } from "../lib/bands.js";
import { useColumns } from "../lib/columns.js";
import { Curve } from "../lib/curve.js";
import { html } from "../lib/html.js";
import { Likeliest, Panel, Refusal, Slider, Toggle } from "../lib/parts.js";
import { go, set } from "../lib/route.js";
import { Strip } from "../lib/strip.js";
import { count, number, percent, seen, spoken } from "../lib/words.js";
import { Speak } from "./tape-speak.js";

function Tape({ model, params }) {
  const text = params.text ?? model.opening, [columns, error] = useColumns(model, text), [unit, choose] = useState(null);
  const last = Math.max(columns.time, 0), at = Math.min(Number(params.at ?? last) || 0, last), layer = Number(params.layer ?? 0);
  const hidden = new Set((params.hide ?? "").split(",")), bands = bandsOf(model, layer), shown = bands.filter(b => !hidden.has(b.key));
  const move = time => set({ at: time === last ? undefined : time });
  const write = more => set({ text: textUntil(model, columns, text, at) + more, at: undefined });
  const show = (key, on) => {
    on ? hidden.delete(key) : hidden.add(key);
    set({ hide: [...hidden].filter(Boolean).join(",") || undefined });
  };
  return html`
    <${Field} model=${model} text=${text} columns=${columns} last=${last} />
    <${Refusal}>${error}<//>
    ${columns.unknown.length > 0 && html`<p class="soft">The model never saw ${columns.unknown.map(u => html`<kbd>${seen(u)}</kbd> `)}and reads it as unknown.</p>`}
    <div class="split">
      <${Panel} title="Step by step" about="what was read, how likely it was, and what it did">
        <div class="row"><${Layers} model=${model} value=${layer} onChange=${l => set({ layer: l || undefined, hide: undefined })} />
          <div class="row" role="group" aria-label="Bands">${bands.map(b => html`<${Toggle} key=${b.key} label=${b.name} on=${!hidden.has(b.key)} onChange=${on => show(b.key, on)} />`)}</div></div>
        <${Strip} columns=${columns} bands=${shown} at=${at} onAt=${move} unit=${unit} onUnit=${choose} label="Time in the text" />
        <${Slider} label="Time" min="0" max=${last} value=${at} text="${at} of ${last}" onInput=${move} />
        <${Legends} />
      <//>
      <div class="stack">
        <${Panel} title="Next" about=${at ? html`after <kbd>${seen(columns.label(at))}</kbd>, which had ${percent(columns.at("p", at)[0] ?? NaN)}` : "before anything is read"}>
          <${Likeliest} next=${columns.next(at)} onPick=${write} />
          <button type="button" class="button" onClick=${() => go("fork", { text, at })}>Change what was read here</button>
        <//>
        <${Unit} columns=${columns} bands=${bands} unit=${unit} at=${at} />
      </div>
    </div>
    <${Speak} model=${model} text=${text} at=${at} original=${params.original} />`;
}

/** Where one types; the caret is the present. */
function Field({ model, text, columns, last }) {
  const place = caret => model.tokens === "characters" ? Array.from(text.slice(0, caret)).length : null;
  const moved = e => {
    const time = place(e.target.selectionStart);
    if (time !== null && e.target.value === text) set({ at: time >= last ? undefined : time });
  };
  const typed = e => set({
    text: e.target.value,
    at: model.tokens === "characters" && e.target.selectionStart < e.target.value.length ? Array.from(e.target.value.slice(0, e.target.selectionStart)).length : undefined,
  });
  return html`<label class="field"><span>Text, ${count(last, "token")}</span>
    <textarea rows="3" spellcheck=${false} autocomplete="off" autocapitalize="off" value=${text} onInput=${typed} onKeyUp=${moved} onClick=${moved}></textarea></label>`;
}

/** The text up to a time: by its characters, or by what its tokens stand for. */
function textUntil(model, columns, text, time) {
  return model.tokens === "characters" ? Array.from(text).slice(0, time).join("") : columns.labels.slice(0, time).join("");
}

/** The numbers of a unit at a time, and its course through the text. */
function Unit({ columns, bands, unit, at }) {
  const band = bands.find(b => b.key === unit?.key);
  if (!band) return html`<${Panel} title="A unit" about="click one, or go to it with the up and down keys" />`;
  const times = Array.from({ length: columns.time + 1 }, (_, t) => t);
  return html`<${Panel} title="Unit ${unit.unit}" about="after ${spoken(columns.label(at))}">
    <table class="numbers"><tbody>${bands.filter(b => b.units === band.units).map(b => html`<tr key=${b.key}><th scope="row">${b.name}</th>
      <td class="n">${number(columns.at(b.key, at)[unit.unit], 4)}</td></tr>`)}</tbody></table>
    <${Curve} x=${times} xLabel="time" yLabel=${band.name} height=${170} label="${band.name} of unit ${unit.unit} at every time"
      curves=${[{ name: band.name, colour: band.kind === "gate" ? "c" : "b", values: times.map(t => columns.at(band.key, t)[unit.unit]) }]} />
  <//>`;
}

export const tape = {
  name: "tape",
  title: "Tape",
  about: "Type, and watch each character pass through the network: what its gates let through, what it keeps, and what it expects to come.",
  without: model => model.columns ? null : `This model (task ${model.task}) is not read token by token here: ${model.why_not}.`,
  Screen: Tape,
};
