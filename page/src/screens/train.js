// Train: a small network learns in the page, and one sees how far back its gradients reach.
import { useMemo } from "preact/hooks";
import { Curve } from "../lib/curve.js";
import { html } from "../lib/html.js";
import { Fact, Panel, Refusal, Slider, Tabs, Toggle } from "../lib/parts.js";
import { set } from "../lib/route.js";
import { count, number, percent } from "../lib/words.js";
import { Answers, Sums, Written } from "./train-pictures.js";
import { useTraining } from "./train-run.js";

const SONNET = `Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimm'd;
And every fair from fair sometime declines,
By chance, or nature's changing course, untrimm'd;
But thy eternal summer shall not fade
Nor lose possession of that fair thou ow'st;
Nor shall Death brag thou wander'st in his shade,
When in eternal lines to time thou grow'st:
So long as men can breathe or eyes can see,
So long lives this, and this gives life to thee.
`;  // William Shakespeare, Sonnet 18 (1609)

const FIRST = { problem: "recall", cell: "lstm", lag: 20, radius: 1, rate: 0.01, clip: 1, method: "adam", seed: 1 };
const PRESETS = {
  "An LSTM recalls": {},
  "A plain RNN": { cell: "rnn", rate: 0.003 },
  "Too far back": { cell: "rnn", rate: 0.003, lag: 60, radius: 0.8 },
  "Adding": { problem: "adding", lag: 50 },
  "It explodes": { problem: "adding", cell: "relu", lag: 25, radius: 1.5, method: "sgd", clip: null, seed: 4 },
  "Your own text": { problem: "text", lag: 40 },
};
const CELLS = [["rnn", "RNN"], ["relu", "RNN, ReLU"], ["lstm", "LSTM"], ["gru", "GRU"]].map(([value, title]) => ({ value, title }));
const KINDS = {
  recall: { title: "recall", lags: [1, 120], what: "how many symbols back the one stands that is to be named", about: "One of many symbols is marked; steps later it is to be named." },
  adding: { title: "adding", lags: [2, 200], what: "how many numbers there are, two of them marked", about: "Numbers go by, two of them marked; at the end their sum is asked for." },
  text: { title: "your own text", lags: [4, 120], what: "how many characters are read at a time, through which gradients run", about: "It reads a text, and is to name the next character." },
};
const LEAST = 1e-6;  // of a gradient that is drawn
const WHERE = {
  cell_weight_ih: "the weights of the input", cell_weight_hh: "the recurrent weights", cell_bias_ih: "the biases of the cell",
  cell_bias_hh: "the biases of the cell", output_weight: "the weights of the answer", output_bias: "the biases of the answer",
};

/** Settings from the address; what is not there, or not known, is as in FIRST. */
export function settingsOf(params) {
  const one = (name, allowed) => allowed.includes(params[name]) ? params[name] : FIRST[name];
  const between = (name, low, high) => {
    const v = Number(params[name] ?? FIRST[name]);
    return v >= low && v <= high ? v : FIRST[name];
  };
  const problem = one("problem", Object.keys(KINDS)), [low, high] = KINDS[problem].lags;
  return {
    problem,
    cell: one("cell", CELLS.map(c => c.value)),
    lag: Math.round(between("lag", low, high)),
    radius: between("radius", 0.1, 2),
    rate: between("rate", 1e-4, 1),
    clip: params.clip === "none" ? null : between("clip", 0.01, 100),
    method: one("method", ["adam", "sgd"]),
    seed: Math.round(between("seed", 0, 2 ** 31)),
    text: problem === "text" ? params.text ?? SONNET : "",
  };
}

/** A preset as parameters of the address. */
const params = preset => Object.fromEntries(Object.entries({ ...FIRST, text: undefined, ...preset }).map(([k, v]) => [k, v === null ? "none" : v]));

/** How far the gradient reaches, in words. far: how many steps back something stands; what: stands there. */
function inWords(reach, far, what) {
  const most = reach.reduce((a, b) => Math.max(a, b ?? 0), 0), left = reach[far];
  if (left === null || left === undefined) return "No number can tell how far it reaches.";
  if (most > 10) return `Going back it grows to ${number(most)} times what it is at the end: it explodes.`;
  const there = left < 0.01 ? "hardly anything is learned from there" : "it can be learned from";
  return `At ${what}, ${count(far, "step")} back, ${left < LEAST ? "less than 0.0001" : number(100 * left)} % of it is left: ${there}.`;
}

function Train({ params: given }) {
  const settings = settingsOf(given), { course, running, error, run, again } = useTraining(settings);
  const kind = KINDS[settings.problem], broke = course.told?.broke;
  const chosen = Object.values(PRESETS).findIndex(p => JSON.stringify(settingsOf(params(p))) === JSON.stringify(settings));
  return html`
    <div class="row"><${Tabs} label="To begin with" value=${chosen} options=${Object.keys(PRESETS).map((title, value) => ({ value, title }))}
      onChange=${k => set(params(Object.values(PRESETS)[k]))} /></div>
    <div class="split">
      <div class="stack">
        <div class="row">
          <button type="button" class="button main" disabled=${Boolean(broke)} onClick=${() => run(!running)}>${running ? "Pause" : course.told?.steps ? "Go on" : "Train"}</button>
          <button type="button" class="button" onClick=${() => again(running)}>Begin again</button>
          <button type="button" class="button" onClick=${() => set({ seed: settings.seed + 1 })}>Other weights</button>
          <p class="soft" role="status">${broke ? "It broke." : course.learned && !running ? `Learned after ${count(course.learned, "step")}.` : ""}</p>
        </div>
        <${Refusal}>${error}<//>
        ${broke && html`<${Broke} broke=${broke} settings=${settings} again=${again} />`}
        ${course.told?.rare > 0 && html`<p class="soft">${count(course.told.rare, "character")} that are rarest are read as one, �.</p>`}
        ${course.look && html`<${Shown} course=${course} settings=${settings} />`}
      </div>
      <${Controls} settings=${settings} kind=${kind} />
    </div>`;
}

function Controls({ settings, kind }) {
  const power = v => Math.log10(v), round = v => Number((10 ** v).toPrecision(2));
  const change = problem => set({ problem, lag: undefined, text: undefined, ...(problem === "recall" ? {} : { lag: problem === "adding" ? 50 : 40 }) });
  return html`<${Panel} title="What is trained" about=${kind.about}>
    <div class="controls">
      <${Tabs} label="Problem" value=${settings.problem} onChange=${change} options=${Object.entries(KINDS).map(([value, { title }]) => ({ value, title }))} />
      <${Tabs} label="Cell" value=${settings.cell} options=${CELLS} onChange=${cell => set({ cell })} />
      <${Slider} label="Lag" min=${kind.lags[0]} max=${kind.lags[1]} value=${settings.lag} text=${String(settings.lag)} onInput=${lag => set({ lag })} />
      <p class="soft">${kind.what}</p>
      <${Slider} label="Radius" min=".1" max="2" step=".05" value=${settings.radius} text=${number(settings.radius)} onInput=${radius => set({ radius })} />
      <p class="soft">of the recurrent weights at the beginning: by what a step multiplies what is held</p>
      <${Tabs} label="Weights are moved by" value=${settings.method} onChange=${method => set({ method })}
        options=${[{ value: "adam", title: "Adam" }, { value: "sgd", title: "gradient descent" }]} />
      <${Slider} label="Learning rate" min="-4" max="0" step=".1" value=${power(settings.rate)} text=${number(settings.rate)} onInput=${v => set({ rate: round(v) })} />
      <${Toggle} label="Clip" on=${settings.clip !== null} onChange=${on => set({ clip: on ? 1 : "none" })} />
      ${settings.clip === null ? html`<p class="soft">gradients are taken as they are</p>`
        : html`<${Slider} label="at a norm of" min="-2" max="2" step=".1" value=${power(settings.clip)} text=${number(settings.clip)} onInput=${v => set({ clip: round(v) })} />`}
    </div>
    ${settings.problem === "text" && html`<label class="field"><span>Text</span>
      <textarea rows="4" spellcheck=${false} autocomplete="off" value=${settings.text} onInput=${e => set({ text: e.target.value })}></textarea></label>`}
  <//>`;
}

/** What happened where a number ceased to be one, and what can be done. */
function Broke({ broke, settings, again }) {
  const what = broke.loss === "NaN" || broke.loss === "Infinity" ? `the loss became ${broke.loss}` : `the norm of the gradient became ${broke.norm}`;
  const before = broke.norms.slice(-5).map(n => number(n)).join(", ");
  return html`<div class="panel broke" role="alert">
    <p><strong>It broke at step ${broke.step}: ${what}${broke.where ? `, first in ${WHERE[broke.where]}` : ""}.</strong>
      ${before ? ` The norm of the gradient in the steps before: ${before}.` : ""} One update of such a length throws the weights where nothing can be worked out any more.
      ${settings.clip === null ? " Clipping makes a gradient that is too long shorter and keeps its direction." : " A smaller learning rate, clip or radius would hold it."}</p>
    <div class="row">
      ${settings.clip === null && html`<button type="button" class="button main" onClick=${() => { set({ clip: 1 }); again(true); }}>The same, clipped at 1</button>`}
      ${settings.radius > 1 && html`<button type="button" class="button" onClick=${() => { set({ radius: 1 }); again(true); }}>The same from a radius of 1</button>`}
    </div>
  </div>`;
}

function Shown({ course, settings }) {
  const { told, look, points, about, early } = course, { reach } = look;
  const far = settings.problem === "recall" ? about.lag : reach.length - 1;
  const what = { recall: "the marked symbol", adding: "the first number", text: "the first character" }[settings.problem];
  const x = useMemo(() => Array.from(reach, (_, k) => k), [reach.length]);
  const drawn = reach => Array.from(reach, v => v === null || !(v > LEAST) ? null : Math.min(v, 1e12));
  const past = early.slice(0, -1).filter((_, k, all) => k === 0 || k >= all.length - 3);
  const reaches = [
    ...past.map(({ steps, reach }, k) => ({ name: k ? `after ${steps}` : "at the start", colour: k ? "edge" : "soft", dash: k ? [2, 4] : [6, 4], values: drawn(reach) })),
    { name: "now", colour: "a", values: drawn(reach) },
  ];
  const all = reaches.flatMap(c => c.values.filter(v => v !== null));
  const finite = values => values.map(v => Number.isFinite(v) && v > 0 ? v : null);
  const losses = [{ name: "loss", colour: "a", values: finite(points.loss) }, { name: "by chance", colour: "soft", dash: [6, 4], values: points.step.map(() => about.chance) }];
  const norms = [{ name: "norm", colour: "b", values: finite(points.norm) }];
  if (settings.clip !== null) norms.push({ name: "clipped at", colour: "soft", dash: [6, 4], values: points.step.map(() => settings.clip) });
  const score = { recall: percent(look.score), adding: number(look.score), text: number(look.score) }[settings.problem];
  const named = { recall: "right", adding: "squared error", text: "nats a character" }[settings.problem];
  return html`
    <dl class="facts">
      <${Fact} label="steps" value=${told.steps.toLocaleString("en")} />
      <${Fact} label=${named} value=${score} />
      <${Fact} label="loss" value=${number(points.loss.at(-1))} />
      <${Fact} label="norm of the gradient" value=${number(points.norm.at(-1))} />
    </dl>
    <div class="two">
      <${Panel} title="How far back gradients reach" about=${inWords(reach, far, what)}>
        <${Curve} x=${x} curves=${reaches} log range=${decades(all)} xLabel="steps back" yLabel="left of the gradient" label=${`What is left of the gradient by steps back. ${inWords(reach, far, what)}`} />
      <//>
      <${Panel} title=${settings.problem === "text" ? "What it writes" : "What it answers"} about=${settings.problem === "text" ? "" : "to 64 sequences that it never saw"}>
        ${settings.problem === "recall" ? html`<${Answers} pairs=${look.pairs} score=${look.score} />`
          : settings.problem === "adding" ? html`<${Sums} pairs=${look.pairs} score=${look.score} />` : html`<${Written} text=${look.written} />`}
      <//>
      <${Panel} title="Loss" about=${settings.problem === "adding" ? "squared error" : "nats"}>
        <${Curve} x=${points.step} curves=${losses} xLabel="steps" yLabel="loss" log range=${decades([...losses[0].values.filter(v => v !== null), about.chance])} label="The loss of every step" />
      <//>
      <${Panel} title="Norm of the gradient" about="before it is clipped">
        <${Curve} x=${points.step} curves=${norms} xLabel="steps" yLabel="norm" log range=${decades([...norms[0].values.filter(v => v !== null), settings.clip ?? 1])} label="The norm of the gradient at every step" />
      <//>
    </div>`;
}

/** Powers of ten around positive numbers. */
function decades(values) {
  const low = values.reduce((a, b) => Math.min(a, b), Infinity), high = values.reduce((a, b) => Math.max(a, b), 0);
  return values.length ? [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.0001))] : [0.1, 10];
}

export const train = {
  name: "train",
  title: "Train",
  about: "A small network learns in this page. Watch its gradients reach further back, vanish or explode.",
  without: () => null,
  Screen: Train,
};
