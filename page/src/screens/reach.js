// Reach: the gradient of an output runs back over the text, in this network and in three small ones.
import { useEffect, useMemo, useState } from "preact/hooks";
import { ask } from "../lib/api.js";
import { Curve } from "../lib/curve.js";
import { html } from "../lib/html.js";
import { Panel, Refusal, Slider } from "../lib/parts.js";
import { set } from "../lib/route.js";
import { count, number, percent, seen } from "../lib/words.js";
import { COLOURS, Rows } from "./reach-rows.js";

const WAIT = 120;  // ms after a key
const TASKS = ["text", "classify", "tag"];
const NAMES = { elman: "plain RNN", lstm: "LSTM", gru: "GRU" };

/** What the server says of an output; the answer before it stays until then. */
function useReach(model, text, output) {
  const [found, take] = useState(null), [error, fail] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    const due = setTimeout(async () => {
      try {
        take((await ask("/play/reach", { model: model.name, text, output, cells: model.tokens === "characters" }, stop.signal)).networks);
        fail(null);
      } catch (wrong) {
        if (wrong.name !== "AbortError") fail(wrong.message);
      }
    }, WAIT);
    return () => {
      clearTimeout(due);
      stop.abort();
    };
  }, [model.name, text, output]);
  return [found, error];
}

/** The lines of a table and rows of a picture: each layer of each network. */
const rowsOf = networks => networks.flatMap((network, n) => network.layers.map(layer => {
  const name = n ? NAMES[network.name] : network.name;
  return { ...layer, name: network.layers.length > 1 ? `${name}, ${layer.title}` : name, network };
}));

const after = (steps, row) => steps === null ? `more than ${count(row.norms.length - 1, "step")}` : `${number(steps)} steps`;

function Reach({ model, params }) {
  const text = params.text ?? model.opening ?? "What a fine day it was, and how little was left of it.";
  const asked = params.output === undefined ? undefined : Number(params.output), [networks, error] = useReach(model, text, asked);
  return html`
    <label class="field"><span>Text</span>
      <textarea rows="2" spellcheck=${false} autocomplete="off" value=${text} onInput=${e => set({ text: e.target.value, output: undefined })}></textarea></label>
    <${Refusal}>${error}<//>
    ${networks && html`<${Found} networks=${networks} asked=${asked} />`}`;
}

function Found({ networks, asked }) {
  const [own] = networks, last = own.outputs.length - 1, output = Math.min(asked ?? own.output, last);
  const rows = useMemo(() => rowsOf(networks), [networks]);
  const expects = own.verb === "expect", many = rows.slice(0, 4);
  const steps = own.layers[0].steps, aim = expects ? output + 1 : Math.min(output, steps.length - 1);
  const choose = to => set({ output: Math.max(0, Math.min(last, to)) });
  const sign = own.outputs[output], said = `“${seen(sign)}”, ${percent(own.p[output])}`;
  const what = own.about?.[output] ? ` of ${own.about[output]}` : "";
  const longest = Math.max(...many.map(r => r.norms.length)), x = useMemo(() => Array.from({ length: longest }, (_, k) => k), [longest]);
  const curves = useMemo(() => many.map((r, k) => ({
    name: r.name, colour: COLOURS[k], values: x.map(i => r.norms[i] > 1e-4 ? r.norms[i] : null),
  })), [rows, x]);
  return html`
    <${Panel} title="Back from ${said}" about="how much the state after each step matters to ${expects ? "this character or word" : "this answer" + what}; each line is a hundredth of the one above">
      <${Rows} rows=${many.map(r => ({ ...r, title: `${r.name}: 1 % after ${after(r.horizon_1, r)}` }))} steps=${steps} aim=${aim} ghost=${sign}
        onAim=${last ? to => choose(expects ? to - 1 : to) : null} label="Output in the text" spokenAim=${sign} again=${networks} />
      ${last > 0 && html`<${Slider} label="Output" min="0" max=${last} value=${output} text=${`${output} of ${last}`} onInput=${choose} />`}
      ${own.unknown.length > 0 && html`<p class="soft">Not in the vocabulary of ${own.name}: ${own.unknown.join(" ")}</p>`}
    <//>
    <div class="split">
      <${Panel} title="By steps back" about="the norm of the gradient, as a part of that at the output" class="wide">
        <${Curve} x=${x} curves=${curves} xLabel="steps back" yLabel="left of the gradient" log range=${[1e-4, 10 ** Math.ceil(Math.log10(Math.max(1, ...curves.flatMap(c => c.values))))]} height=${260} label="What is left of the gradient, by steps back" />
      <//>
      <${Panel} title="What it comes to">
        <p>${rows[0].name} is <strong>${rows[0].verdict}</strong>: ${rows[0].advice}.</p>
        <p class="soft">${rows[0].verdict === "vanishing" || rows[0].verdict === "exploding" ? "The verdict is that of this text and output alone." : ""}</p>
      <//>
    </div>
    <${Panel} title="Side by side" about=${networks.length > 1 && "three that come along, of 64 units each, trained on the same text by the same command"}>
      <div class="scroll" tabindex="0" role="region" aria-label="Side by side"><table>
        <thead><tr><th>network</th><th class="n">parameters</th><th class="n">how likely it is</th><th class="n">1/e is left after</th><th class="n">1 % after</th><th>verdict</th></tr></thead>
        <tbody>${rows.map(r => html`<tr key=${r.name}>
          <th scope="row">${r.name}</th><td class="n">${r.network.parameters.toLocaleString("en")}</td><td class="n">${percent(r.network.p[r.network.output])}</td>
          <td class="n">${after(r.horizon_e, r)}</td><td class="n">${after(r.horizon_1, r)}</td><td>${r.verdict}</td></tr>`)}</tbody>
      </table></div>
    <//>`;
}

export const reach = {
  name: "reach",
  title: "Reach",
  about: "Pick an output, and see how far back it reaches: its gradient runs over the text, from step to step.",
  without: model => !TASKS.includes(model.task) ? `This is shown of the tasks ${TASKS.join(", ")}; this model is of the task ${model.task}.`
    : model.kind === "transformer" || model.cell === "none" ? "This network has no state that a gradient could run back through." : null,
  Screen: Reach,
};
