// Forecast: a series, what comes of it, and what would come had a past value been another.
import { useEffect, useState } from "preact/hooks";
import { html } from "../lib/html.js";
import { Fact, Panel, Refusal, Tabs, Toggle } from "../lib/parts.js";
import { set } from "../lib/route.js";
import { count, number } from "../lib/words.js";
import { Drop } from "./drop.js";
import { Chart } from "./forecast-chart.js";
import { changesOf, useLatest, written } from "./latest.js";

const LEVELS = ["50", "80", "95"].map(value => ({ value, title: `${value} %` }));
let given = null;  // a table that was dropped: it is too long for an address

function Forecast({ model, params }) {
  const [table, take] = useState(given), changes = changesOf(params.changes), level = params.level ?? "80", hold = params.hold === "1";
  const ready = table !== null || model.example;
  const [found, error, busy] = useLatest("/play/forecast", ready ? {
    model: model.name, table, level, hold, series: params.series ?? null, changes: [...changes].map(([time, value]) => ({ time, value })),
  } : null);
  const at = found && Math.max(found.first, Math.min(found.time - 1, Number(params.at ?? found.time - 1)));
  const read = text => {
    given = text;
    take(text);
    set({ series: undefined, changes: undefined, at: undefined });
  };
  useEffect(() => () => { given = table; }, [table]);
  const change = (t, value) => {
    const made = new Map(changes);
    if (value === null || value === found.values[t - found.first]) made.delete(t);
    else made.set(t, value);
    set({ at: t, changes: written(made) });
  };
  return html`
    <${Refusal}>${error}<//>
    <div class="split"><div class="stack">
      ${found ? html`<${Panel} title=${found.name || "The series"} about=${`${count(found.time, "value")}, ${count(found.horizon, "step")} ahead${busy ? "; computing" : ""}`}>
        <${Chart} found=${found} changes=${changes} at=${at} onAt=${t => set({ at: t })} onValue=${change} />
        <${Key} found=${found} />
        <${Facts} found=${found} />
        ${found.notes.map(note => html`<p class="soft">${note}</p>`)}
      <//>` : html`<p class="empty">${ready ? "Reading the series." : "The files that this model was trained on are not where they were. Choose or drop a CSV of one of your series below, or paste it."}</p>`}
      ${found && html`<${Numbers} found=${found} />`}
    </div>
    <div class="stack">
      ${found && html`<${Value} found=${found} changes=${changes} at=${at} onValue=${change} />`}
      <${Panel} title="What is shown" class="later">
        ${found && found.names.length > 1 && html`<label class="field"><span>Series${found.count > found.names.length ? `, the first ${found.names.length} of ${found.count.toLocaleString("en")}` : ""}</span>
          <select value=${found.name} onChange=${e => set({ series: e.target.value, changes: undefined, at: undefined })}>
            ${found.names.map(name => html`<option value=${name}>${name}</option>`)}</select></label>`}
        <div class="row"><${Tabs} label="An interval that holds" value=${level} options=${LEVELS} onChange=${v => set({ level: v })} /></div>
        <div class="row"><${Toggle} label="Hide the end, and compare" on=${hold} onChange=${on => set({ hold: on ? "1" : undefined, changes: undefined, at: undefined })} /></div>
      <//>
      <${Panel} title="Your own series" class="later">
        <${Drop} label="Choose or drop a CSV" accept=".csv,.tsv,.txt" onFile=${async file => read(await file.text())} />
        <${Paste} onText=${read} />
        ${table !== null && model.example && html`<button type="button" class="button" onClick=${() => read(null)}>Back to what it was trained on</button>`}
      <//>
    </div></div>`;
}

/** The value at a time, to be changed by a slider or a number. */
function Value({ found, changes, at, onValue }) {
  const was = found.values[at - found.first], now = changes.get(at) ?? was;
  return html`<${Panel} title=${found.ds[at - found.first]} about="Drag its point, or type">
    ${was === null ? html`<p class="soft">This value is missing.</p>` : html`
      <label class="field"><span>Value</span>
        <input type="number" step="any" value=${now} onChange=${e => e.target.value !== "" && onValue(at, Number(e.target.value))} /></label>
      <p class="soft">${now === was ? "As it was." : html`It was <span class="n">${number(was, 5)}</span>.`}</p>
      ${changes.size > 0 && html`<div class="row">
        ${changes.has(at) && html`<button type="button" class="button" onClick=${() => onValue(at, null)}>Take back</button>`}
        <button type="button" class="button" onClick=${() => set({ changes: undefined })}>Take all back</button></div>`}`}
  <//>`;
}

/** What the lines stand for. */
function Key({ found }) {
  const lines = [["past", "past"], ["was", `forecast, ${found.level} % interval`], ["naive", "naive: the last season again"], ...(found.now ? [["now", "forecast after the change"]] : []), ...(found.truth.length ? [["truth", "what came"]] : [])];
  return html`<p class="legends key">${lines.map(([kind, title]) => html`<span class="legend"><i class=${kind} aria-hidden="true"></i>${title}</span>`)}</p>`;
}

function Facts({ found }) {
  const { was, now, truth, naive } = found, first = was.forecast[0];
  const far = now && was.forecast.map((v, h) => Math.abs(v - now.forecast[h])), most = far && far.indexOf(Math.max(...far));
  const error = values => truth.length ? truth.reduce((sum, v, h) => sum + Math.abs((v ?? values[h]) - values[h]), 0) / truth.filter(v => v !== null).length : null;
  return html`<dl class="facts" aria-live="polite">
    <${Fact} label="next" value=${number(first, 5)} about=${`${number(was.low[0], 5)} to ${number(was.high[0], 5)}`} />
    ${now && html`<${Fact} label="after the change" value=${number(now.forecast[0], 5)} about=${`${number(now.low[0], 5)} to ${number(now.high[0], 5)}`} />
      <${Fact} label="furthest apart" value=${number(far[most], 5)} about=${`at ${found.ds[found.time - found.first + most]}`} />`}
    ${truth.length > 0 && html`<${Fact} label="mean error" value=${number(error(was.forecast), 4)} about=${`naive ${number(error(naive), 4)}`} />`}
  </dl>`;
}

/** All of it as a table. */
function Numbers({ found }) {
  const { was, now, naive, truth } = found, rows = was.forecast.map((_, h) => [found.ds[found.time - found.first + h], was.forecast[h], was.low[h], was.high[h], ...(now ? [now.forecast[h], now.low[h], now.high[h]] : []), naive[h], ...(truth.length ? [truth[h]] : [])]);
  const heads = ["time", "forecast", "low", "high", ...(now ? ["after", "low", "high"] : []), "naive", ...(truth.length ? ["came"] : [])];
  return html`<details class="panel table"><summary>As numbers</summary><div class="wide" tabindex="0" role="region" aria-label="The forecast as numbers"><table>
    <thead><tr>${heads.map((name, k) => html`<th scope="col" class=${k ? "n" : ""}>${name}</th>`)}</tr></thead>
    <tbody>${rows.map(([when, ...values]) => html`<tr><th scope="row">${when}</th>${values.map(v => html`<td class="n">${number(v, 6)}</td>`)}</tr>`)}</tbody>
  </table></div></details>`;
}

function Paste({ onText }) {
  const [text, type] = useState("");
  return html`<label class="field"><span>Or paste it</span>
    <textarea rows="4" spellcheck=${false} autocomplete="off" placeholder=${"ds,y\n2024-01,112\n2024-02,118"} value=${text} onInput=${e => type(e.target.value)}></textarea></label>
    <div class="row"><button type="button" class="button" disabled=${!text.trim()} onClick=${() => onText(text)}>Forecast it</button></div>`;
}

export const forecast = {
  name: "forecast",
  title: "Forecast",
  about: "What comes next, and how sure the model is. Drag a past value up or down: what would it have said then?",
  without: () => null,
  Screen: Forecast,
};
