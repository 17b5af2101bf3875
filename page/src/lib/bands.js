// What of a model's layers is shown, and its parts that several screens have.
import { html } from "./html.js";
import { Legend, Tabs } from "./parts.js";
import { number } from "./words.js";

/** How many layers have columns. */
export const layersOf = model => 1 + Math.max(...model.columns.map(b => b.layer));

/** What a band is called. */
export const titleOf = band => ({ gate: `${band.name} gate`, value: `${band.name} value`, state: `state ${band.name}` })[band.kind];

/** The bands of a layer as a strip shows them. */
export const bandsOf = (model, layer) => model.columns.filter(b => b.layer === layer).map(b => ({
  ...b,
  kind: b.kind === "gate" ? "gate" : "signed",
  name: titleOf(b),
  title: titleOf(b) + (b.kind === "gate" ? "" : `, ±${number(b.most)}`),
}));

/** Which layer is shown; nothing where there is one. */
export const Layers = ({ model, value, onChange }) => layersOf(model) > 1 && html`<${Tabs} label="Layer" value=${value} onChange=${onChange}
  options=${Array.from({ length: layersOf(model) }, (_, l) => ({ value: l, title: `layer ${l + 1}` }))} />`;

/** What the colours of a strip stand for. */
export const Legends = ({ gate = true, parting }) => html`<p class="legends">${gate && html`<${Legend} kind="gate" label="gate" low="0" high="1" />`}
  <${Legend} kind="signed" label="value, state" low="−" high="+" />${parting && html`<${Legend} kind="parting" label="apart" low="0" high=${parting} />`}</p>`;
