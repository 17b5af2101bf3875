// Fork: a past is changed, and both futures stand side by side.
import { useEffect, useRef, useState } from "preact/hooks";
import { ask } from "../lib/api.js";
import { Layers, Legends, bandsOf, layersOf } from "../lib/bands.js";
import { useColumns } from "../lib/columns.js";
import { Curve } from "../lib/curve.js";
import { html } from "../lib/html.js";
import { Fact, Likeliest, Panel, Refusal, Slider } from "../lib/parts.js";
import { set } from "../lib/route.js";
import { Strip } from "../lib/strip.js";
import { count, number, percent, seen, spoken } from "../lib/words.js";
import { Both, bandsOfBoth } from "./fork-both.js";

const WRITTEN = 60;  // tokens that each future is written on for
const COLOURS = ["b", "a", "c", "d", "e", "f"];

/** The changes that an address holds. */
function changesOf(params) {
  try {
    const found = JSON.parse(params.changes ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

/** A number of a state in the place of a unit's. */
const put = (time, band, unit, value) => ({ time, layer: band.layer, tensor: band.tensor, unit, value: Number(value.toPrecision(4)) });

/** Changes with another one, which takes the place of one of the same token or unit. */
function changed(changes, c) {
  const place = ({ time, layer, tensor, unit }) => [time, layer, tensor, unit].join();
  return [...changes.filter(d => place(d) !== place(c)), c];
}

function Fork({ model, params }) {
  const text = params.text ?? model.opening, changes = changesOf(params), layer = Number(params.layer ?? 0);
  const [one, wrong] = useColumns(model, text), [other, alsoWrong] = useColumns(model, text, changes);
  const [unit, choose] = useState(null), parting = useParting(model, text, changes, one, other);
  const last = Math.max(one.time, 0), at = Math.min(Number(params.at ?? Math.floor(last / 3)) || 0, last);
  const go = time => set({ at: time });
  const change = all => set({ changes: all.length ? JSON.stringify(all) : undefined, at });
  const held = useRef(0), bandOf = u => model.columns.find(b => b.key === u.key.split(" ")[1]);
  const drag = (time, u, up) => {  // a unit by the mouse: 100 px are as much as is mostly there
    const band = bandOf(u);
    if (up === null) held.current = other.at(band.key, time)[u.unit];
    else set({ at: time, changes: JSON.stringify(changed(changes, put(time, band, u.unit, held.current + up / 100 * band.most))) });
    choose({ key: band.key, unit: u.unit });
  };
  const bands = bandsOfBoth(model, layer), chosen = unit && { key: `one ${unit.key}`, unit: unit.unit };
  const marks = changes.map(c => c.token === undefined ? c.time : c.time + 1);
  return html`
    <label class="field"><span>Text, ${count(last, "token")}</span>
      <textarea rows="3" spellcheck=${false} autocomplete="off" autocapitalize="off" value=${text} onInput=${e => set({ text: e.target.value, changes: undefined, at: undefined })}></textarea></label>
    <${Refusal}>${wrong ?? alsoWrong ?? parting?.error}<//>
    <div class="split">
      <div class="stack">
        <${Panel} title="Two futures" about="the state as it was, the state after the change, and how far each unit is apart">
          <${Layers} model=${model} value=${layer} onChange=${l => set({ layer: l || undefined })} />
          <${Strip} columns=${new Both(one, other)} bands=${bands} at=${at} onAt=${go} unit=${chosen} marks=${marks} label="Time in the text"
            onUnit=${u => choose({ key: bandOf(u).key, unit: u.unit })} onDrag=${drag} />
          <${Slider} label="Time" min="0" max=${last} value=${at} text="${at} of ${last}" onInput=${go} />
          <${Legends} gate=${false} parting="+" />
        <//>
        <${Apart} model=${model} found=${parting} changes=${changes} last=${last} />
      </div>
      <div class="stack">
        <${Change} model=${model} one=${one} other=${other} at=${at} unit=${unit} changes=${changes} onChange=${change} />
        <${Panel} title="Next" about="after ${seen(one.label(at)) || "nothing"}: as it was, and after the change">
          <div class="pair"><${Likeliest} next=${one.next(at)} label="As it was" /><${Likeliest} next=${other.next(at)} label="After the change" /></div>
        <//>
      </div>
    </div>
    <${Written} model=${model} text=${text} changes=${changes} time=${marks.length ? Math.min(...marks) : at} ready=${one.time >= 0 && !wrong && !alsoWrong} />`;
}

/** What is asked of the server, once both columns are there. */
function useParting(model, text, changes, one, other) {
  const [found, take] = useState(null), written = JSON.stringify(changes);
  useEffect(() => {
    if (!changes.length || one.time < 0) {
      take(null);
      return;
    }
    const stop = new AbortController();
    ask("/play/parting", { model: model.name, one: { text }, other: { text, changes } }, stop.signal)
      .then(take, wrong => { if (wrong.name !== "AbortError") take({ error: wrong.message }); });
    return () => stop.abort();
  }, [model.name, text, written, one.version, other.version]);
  return found;
}

/** How to change what was read or remembered at a time. */
function Change({ model, one, other, at, unit, changes, onChange }) {
  const read = at - 1, band = unit && model.columns.find(b => b.key === unit.key && b.kind === "state");
  const make = c => onChange(changed(changes, c));
  const most = band ? Math.max(Math.abs(one.at(unit.key, at)[unit.unit] ?? 0), band.most, 1) * 1.5 : 1;
  const value = band ? other.at(unit.key, at)[unit.unit] ?? 0 : 0;
  return html`<${Panel} title="Change the past" about="at time ${at}">
    ${at > 0 ? html`<div class="change">
      <h3>What was read</h3>
      <p>It was <kbd class="sign">${seen(one.label(at))}</kbd>${other.label(at) !== one.label(at) && html`, now <kbd class="sign changed">${seen(other.label(at))}</kbd>`}. What it expected instead:</p>
      <div class="row" role="group" aria-label="Read instead">${one.next(read).filter(n => n.text !== one.label(at)).map(n => html`<button key=${n.token} type="button" class="chip"
        aria-pressed=${other.label(at) === n.text} onClick=${() => make({ time: read, token: n.token })}><span class="hidden">${spoken(n.text)}</span><kbd aria-hidden="true">${seen(n.text)}</kbd> ${percent(n.p)}</button>`)}</div>
      ${model.tokens === "characters" && html`<${Another} onPick=${token => make({ time: read, token })} model=${model} />`}
    </div>` : html`<p class="soft">Nothing has been read at time 0; go to a later one, or change a unit.</p>`}
    <div class="change">
      <h3>What was remembered</h3>
      ${band ? html`<${Slider} label="${band.name} of unit ${unit.unit}" min=${-most} max=${most} step=${most / 200} value=${value} text=${number(value)}
          onInput=${v => make(put(at, band, unit.unit, v))} />
          <p class="soft">It was ${number(one.at(unit.key, at)[unit.unit], 4)}.</p>`
        : html`<p class="soft">Drag a unit of the state up or down with the mouse; or choose one by a click, or the up and down keys, and drag its value here.</p>`}
    </div>
    ${changes.length > 0 && html`<ul class="changes">${changes.map((c, i) => html`<li key=${i}><span>${c.token === undefined
      ? `time ${c.time}: ${layersOf(model) > 1 ? `layer ${c.layer + 1}, ` : ""}unit ${c.unit} is ${number(c.value)}`
      : html`time ${c.time + 1}: <kbd>${seen(one.label(c.time + 1))}</kbd> is <kbd>${seen(other.label(c.time + 1))}</kbd>`}</span>
      <button type="button" class="chip" onClick=${() => onChange(changes.filter(d => d !== c))}>Take back</button></li>`)}</ul>`}
  <//>`;
}

/** Any other character. */
function Another({ model, onPick }) {
  const [error, fail] = useState(null);
  const typed = async e => {
    const sign = Array.from(e.target.value).at(-1);
    e.target.value = "";
    if (!sign) return;
    const { tokens } = await ask("/play/tokens", { model: model.name, text: sign });
    fail(tokens[0] === 0 ? `The model never saw ${seen(sign)}.` : null);
    if (tokens[0] !== 0) onPick(tokens[0]);
  };
  return html`<label class="row"><span class="soft">or type another</span><input type="text" class="one" autocomplete="off" autocapitalize="off" onInput=${typed} /></label><${Refusal}>${error}<//>`;
}

/** How far the two part, and for how long. */
function Apart({ model, found, changes, last }) {
  if (!changes.length || !found || found.error) return html`<${Panel} title="How far they part" class="later" about="change something in the past, and see for how long it is remembered" />`;
  const names = Array.from({ length: layersOf(model) }, (_, l) => layersOf(model) > 1 ? `layer ${l + 1}` : "state");
  const begun = found.parts, far = Math.max(0, ...found.states.flat()), divergence = found.divergence.map(d => d ?? NaN);
  const forgotten = found.forgotten === null ? "not yet" : count(found.forgotten - begun, "step");
  return html`<${Panel} title="How far they part" class="later" about="‖a − b‖ / max(‖a‖, ‖b‖) of the states at each time">
    <dl class="facts">
      <${Fact} label="parts at time" value=${begun ?? "–"} />
      <${Fact} label="forgotten after" value=${begun === null ? "–" : forgotten} about=${found.forgotten === null ? `still over ${found.threshold} at time ${last}` : `under ${found.threshold} from then on`} />
      <${Fact} label="furthest apart" value=${number(far)} about="of 2 at most" />
      <${Fact} label="another likeliest" value="${found.likeliest.filter(Boolean).length} of ${found.times.length}" about="times" />
    </dl>
    ${begun !== null && html`<${Curve} x=${found.times} log=${true} xLabel="time" yLabel="apart" label="How far the states are apart at each time"
      curves=${[...names.map((name, l) => ({ name, colour: COLOURS[l % 6], values: found.states.map(s => s[l] > 0 ? s[l] : null) })),
        { name: "forgotten", colour: "soft", dash: [4, 4], values: found.times.map(() => found.threshold) }]} />
    <${Curve} x=${found.times} xLabel="time" yLabel="KL, nats" height=${150} label="How far what is expected is apart at each time"
      curves=${[{ name: "KL(as it was ‖ after the change)", colour: "d", values: divergence }]} />`}
  <//>`;
}

/** What either future would be. */
function Written({ model, text, changes, time, ready }) {
  const [found, take] = useState(null), written = JSON.stringify(changes);
  useEffect(() => {
    if (!ready) return;
    const stop = new AbortController(), body = { model: model.name, text, time, length: WRITTEN };
    Promise.all([[], changes].map(c => ask("/play/written", { ...body, changes: c }, stop.signal))).then(all => take(all.map(f => f.text)), () => {});
    return () => stop.abort();
  }, [model.name, text, written, time, ready]);
  return html`<${Panel} title="What it would write" about="from time ${time} on, always the likeliest">
    <div class="pair futures"><div><h3>As it was</h3><pre>${found?.[0]}</pre></div><div><h3>After the change</h3><pre>${found?.[1]}</pre></div></div>
  <//>`;
}

export const fork = {
  name: "fork",
  title: "Fork",
  about: "Change one thing in the past, a character or the value of a unit, and see both futures: how far they part, and when the network has forgotten.",
  without: model => model.columns ? null : `This model (task ${model.task}) has no past to change here: ${model.why_not}.`,
  Screen: Fork,
};
