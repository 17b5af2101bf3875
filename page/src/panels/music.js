// Music: what was read and written as a piano roll and as sound, and what would have come had a moment of it been another.
import { useEffect, useRef, useState } from "preact/hooks";
import { html } from "../lib/html.js";
import { Fact, Panel, Refusal, Slider } from "../lib/parts.js";
import { set } from "../lib/route.js";
import { count, number, percent } from "../lib/words.js";
import { asUrl, Drop } from "./drop.js";
import { changesOf, useLatest, written } from "./latest.js";
import { moved, Roll } from "./music-roll.js";
import { Player, strike } from "./music-sound.js";

const BARS = 4, WAIT = 400;  // bars where the address says nothing; ms after which what is typed is read
let given = null;  // a file that was dropped

function Music({ model, params }) {
  const [file, take] = useState(given), notes = params.notes ?? "", [typed, type] = useState(notes);
  const bars = whole(params.bars, BARS), ahead = whole(params.ahead, BARS), seed = whole(params.seed, 1), changes = changesOf(params.changes);
  const body = notes.trim() || file || bars ? { model: model.name, notes: file?.url ?? notes, bars, ahead, seed, changes: [...changes].map(([time, keys]) => ({ time, notes: keys })) } : null;
  const [found, error, busy] = useLatest("/play/music", body);
  const at = found && Math.max(0, Math.min(found.present - 1, Number(params.at ?? lastKeys(found))));
  useEffect(() => { given = file; }, [file]);
  useEffect(() => {
    if (typed === notes) return;
    const due = setTimeout(() => set({ notes: typed || undefined, ...none }), WAIT);
    return () => clearTimeout(due);
  }, [typed]);
  const change = (t, keys) => {
    const made = new Map(changes);
    if (keys === null || keys === found.was.moments[t].keys) made.delete(t);
    else made.set(t, keys);
    set({ at: t, changes: written(made) });
  };
  return html`
    <${Refusal}>${error}<//>
    <div class="split"><div class="stack">
      ${found ? html`<${Line} title="As it was" line=${found.was} found=${found} at=${at} changes=${changes} onKeys=${change} busy=${busy} />
        ${found.now ? html`<${Line} title="After the change" line=${found.now} found=${found} at=${at} changes=${changes} onKeys=${change} busy=${busy} kind="now" />` : html`<p class="soft">Choose a moment and change its keys, by dragging a note up or down or at the side: both futures are shown, and can be heard.</p>`}
        <${Facts} found=${found} />` : html`<p class="empty">${body ? "The model is writing." : "Give it notes to begin with, a file, or bars to write."}</p>`}
    </div>
    <div class="stack">
      ${found && html`<${Moment} found=${found} at=${at} changes=${changes} onKeys=${change} />`}
      <${Panel} title="The past" class="later" about=${file ? file.name : "What was read, and written after it"}>
        <label class="field"><span>Notes to begin with</span>
          <input type="text" spellcheck=${false} autocomplete="off" placeholder="C4 E4 G4, at once C4+E4" value=${typed} disabled=${Boolean(file)} onInput=${e => type(e.target.value)} /></label>
        <${Drop} label="Choose or drop a file of MIDI or ABC" accept=".mid,.midi,.kar,.abc" onFile=${async chosen => { take({ name: chosen.name, url: await asUrl(chosen) }); set({ bars: 0, ...none }); }} />
        ${file && html`<div class="row"><button type="button" class="button" onClick=${() => { take(null); set({ bars: undefined, ...none }); }}>Without the file</button></div>`}
        <div class="controls"><${Slider} label="Bars written after" min="0" max="32" value=${bars} text=${String(bars)} onInput=${n => set({ bars: n, ...none })} /></div>
        <div class="row"><button type="button" class="button" onClick=${() => { type(notes); set({ seed: seed + 1, ...none }); }}>Another way</button></div>
      <//>
      <${Panel} title="The future" class="later">
        <div class="controls"><${Slider} label="Bars written on" min="0" max="32" value=${ahead} text=${String(ahead)} onInput=${n => set({ ahead: n })} /></div>
        ${found && html`<div><h3>Likeliest next, as it was</h3><ol class="next">${found.expected.map(([words, p]) => html`<li><span>${words}</span> <span class="n">${percent(p)}</span></li>`)}</ol></div>`}
      <//>
    </div></div>`;
}

const none = { changes: undefined, at: undefined };
const whole = (text, otherwise) => /^\d+$/.test(text ?? "") ? Number(text) : otherwise;

/** The last moment of the past that has keys. */
function lastKeys(found) {
  let t = found.present - 1;
  while (t > 0 && !found.was.moments[t].keys) t--;
  return t;
}

/** A line of time: its roll, and its sound. */
function Line({ title, line, found, at, changes, onKeys, busy, kind = "was" }) {
  const player = useRef(null), roll = useRef(null), [playing, tell] = useState(false);
  useEffect(() => () => player.current?.stop(), [line]);
  const play = from => {
    player.current?.stop();
    player.current = new Player(line.notes, from, s => roll.current?.(s), () => tell(false));
    tell(true);
  };
  const present = line.moments[found.present]?.seconds ?? line.seconds;
  return html`<${Panel} title=${title} about=${`${count(line.moments.length, "moment")}, ${count(line.notes.length, "note")}, ${number(line.seconds)} s${busy ? "; writing" : ""}`} class="music">
    <div class="row">
      <button type="button" class="button main" aria-label=${`${playing ? "Stop" : "Play"}, ${title.toLowerCase()}`} onClick=${() => playing ? player.current.stop() : play(0)}>${playing ? "Stop" : "Play"}</button>
      <button type="button" class="button" disabled=${present >= line.seconds} onClick=${() => play(Math.max(0, present - 0.01))}>Play what it writes on</button>
      <button type="button" class="button" onClick=${() => play(Math.max(0, line.moments[at].seconds - 0.01))}>From the moment</button>
    </div>
    <${Roll} line=${line} present=${found.present} at=${at} changes=${changes} kind=${kind} head=${roll} label=${`Moments, ${title.toLowerCase()}: left and right choose one, up and down move its keys`}
      onAt=${t => set({ at: t })} onKeys=${onKeys} />
  <//>`;
}

/** What a moment is, to be changed. */
function Moment({ found, at, changes, onKeys }) {
  const was = found.was.moments[at], now = found.now?.moments[at] ?? was, keys = changes.get(at) ?? was.keys, [typed, type] = useState(keys);
  useEffect(() => type(keys), [keys, at]);
  const put = text => {
    onKeys(at, text);
    strike(text);
  };
  return html`<${Panel} title=${`Moment ${at}`} about=${`bar ${was.bar}, ${number(was.seconds)} s`}>
    ${was.keys ? html`<form class="field" onSubmit=${e => { e.preventDefault(); put(typed.trim()); }}>
        <label class="field"><span>Its keys</span><input type="text" spellcheck=${false} autocomplete="off" value=${typed} onInput=${e => type(e.target.value)} /></label>
        <div class="row"><button type="submit" class="button main">Change</button>
          ${[[12, "An octave up"], [1, "Up"], [-1, "Down"], [-12, "An octave down"]].map(([by, name]) => html`<button type="button" class="chip" onClick=${() => put(moved(keys, by))}>${name}</button>`)}</div>
      </form>` : html`<p class="soft">${was.words}: no key is struck here.</p>`}
    <dl class="facts"><${Fact} label="its cost" value=${number(was.nats)} about="nats, −log p" />
      ${found.now && html`<${Fact} label="after the change" value=${number(now.nats)} about=${now.words} />`}</dl>
    <div class="row"><button type="button" class="button" disabled=${!keys} onClick=${() => strike(keys)}>Hear it</button>
      ${changes.has(at) && html`<button type="button" class="button" onClick=${() => onKeys(at, null)}>Take back</button>`}
      ${changes.size > 0 && html`<button type="button" class="button" onClick=${() => set({ changes: undefined })}>Take all back</button>`}</div>
  <//>`;
}

function Facts({ found }) {
  const far = found.states?.at(-1), apart = far && Math.max(...far);
  return html`<${Panel} title="What it cost the model" class="later" about="−log p of the past, in nats: what surprises it costs much">
    <dl class="facts" aria-live="polite"><${Fact} label="the past as it was" value=${number(found.was.nats, 4)} about=${count(found.present, "moment")} />
      ${found.now && html`<${Fact} label="the changed past" value=${number(found.now.nats, 4)} about=${found.parts === null ? "the same" : `apart from moment ${found.parts} on`} />
        <${Fact} label="states apart at the end" value=${number(apart)} about="‖a − b‖ / max(‖a‖, ‖b‖)" />`}</dl>
    <details class="table"><summary>As words</summary><div class="wide tall" tabindex="0" role="region" aria-label="The moments as words"><table>
      <thead><tr><th scope="col" class="n">moment</th><th scope="col">as it was</th><th scope="col" class="n">nats</th>${found.now && html`<th scope="col">after</th><th scope="col" class="n">nats</th>`}</tr></thead>
      <tbody>${Array.from({ length: Math.max(found.was.moments.length, found.now?.moments.length ?? 0) }, (_, t) => [found.was.moments[t], found.now?.moments[t], t]).map(([a, b, t]) => html`<tr>
        <th scope="row" class="n">${t}</th><td>${a?.words ?? ""}</td><td class="n">${a ? number(a.nats) : ""}</td>${found.now && html`<td>${b?.words ?? ""}</td><td class="n">${b ? number(b.nats) : ""}</td>`}</tr>`)}</tbody>
    </table></div></details>
  <//>`;
}

export const music = {
  name: "music",
  title: "Music",
  about: "What the model has read and written, and how it goes on. Change a note in the past, and hear both futures.",
  without: () => null,
  Screen: Music,
};
