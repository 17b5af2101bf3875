// Tape: what is typed goes through the network, a column a token.
import { useState } from "preact/hooks";
import { useColumns } from "../lib/columns.js";
import { html } from "../lib/html.js";
import { Legend, Likeliest, Panel, Refusal, Slider, Tabs } from "../lib/parts.js";
import { set } from "../lib/route.js";
import { Strip } from "../lib/strip.js";
import { number, percent, seen, spoken } from "../lib/words.js";

/** The bands of a layer as a strip shows them. */
export const bandsOf = (model, layer) => model.columns.filter(b => b.layer === layer).map(b => ({
  ...b,
  kind: b.kind === "gate" ? "gate" : "signed",
  title: { gate: `${b.name} gate`, value: b.name, state: `state ${b.name}` }[b.kind] + (b.most === 1 ? "" : `, ±${number(b.most)}`),
}));

function Tape({ model, params }) {
  const text = params.text ?? model.opening, [columns, error] = useColumns(model, text);
  const [unit, choose] = useState(null);
  const last = Math.max(columns.time, 0), at = Math.min(Number(params.at ?? last) || 0, last), layer = Number(params.layer ?? 0);
  const layers = 1 + Math.max(...model.columns.map(b => b.layer)), bands = bandsOf(model, layer);
  const go = time => set({ at: time === last ? undefined : time });
  const write = more => set({ text: columns.labels.slice(0, at).join("") + more, at: undefined });
  return html`
    <label class="field"><span>Text</span>
      <textarea rows="2" spellcheck="false" autocomplete="off" value=${text} onInput=${e => set({ text: e.target.value, at: undefined })}></textarea></label>
    <${Refusal}>${error}<//>
    <div class="split">
      <${Panel} title="Step by step" class="wide">
        ${layers > 1 && html`<${Tabs} label="Layer" value=${layer} onChange=${l => set({ layer: l })}
          options=${Array.from({ length: layers }, (_, l) => ({ value: l, title: `layer ${l + 1}` }))} />`}
        <${Strip} columns=${columns} bands=${bands} at=${at} onAt=${go} unit=${unit} onUnit=${choose} label="Time in the text" />
        <${Slider} label="Time" min="0" max=${last} value=${at} text="${at} of ${last}" onInput=${go} />
        <p class="legends"><${Legend} kind="gate" label="gate" low="0" high="1" /><${Legend} kind="signed" label="value" low="−" high="+" /></p>
      <//>
      <${Panel} title="Next" about=${`after ${at ? "“" + seen(columns.label(at)) + "”" : "nothing"}`}>
        <${Likeliest} next=${columns.next(at)} onPick=${write} />
      <//>
    </div>`;
}

export const tape = {
  name: "tape",
  title: "Tape",
  about: "Type, and watch each character pass through the network: its gates, what it keeps, and what it expects.",
  without: model => model.columns ? null : `This model (${model.task}) is not read token by token here: ${model.why_not}.`,
  Screen: Tape,
};
