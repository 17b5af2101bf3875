// Transcribe: speech from the microphone or a recording, and the words that are heard in it as they come.
import { useEffect, useRef, useState } from "preact/hooks";
import { ask } from "../lib/api.js";
import { html } from "../lib/html.js";
import { Bar, Panel, Refusal } from "../lib/parts.js";
import { count, number, percent } from "../lib/words.js";
import { Drop } from "./drop.js";
import { Hearing, Microphone } from "./hearing.js";
import { Sound, Wave } from "./transcribe-wave.js";
import { asWav, samplesOf } from "./wav.js";

const LOUD = 0.1;  // under which words are called unsure: how likely at most

/** What is heard: of utterances that have ended their words, and of the one that goes on what is heard so far. */
const NOTHING = { ended: [], partial: "", time: 0 };

function Transcribe({ model }) {
  const [state, be] = useState("still"), [heard, take] = useState(NOTHING), [error, fail] = useState(null), [name, call] = useState("");
  const sound = useRef(new Sound(16000)), microphone = useRef(null), session = useRef(null), kept = useRef([]), run = useRef(0);
  const events = list => take(before => list.reduce((h, event) => "partial" in event ? { ...h, partial: event.partial, time: event.time } : { ...h, ended: event.text ? [...h.ended, event] : h.ended, partial: "" }, before));
  const broke = (message, mine) => {
    if (mine !== run.current) return;
    fail(message);
    stop(true);
  };
  useEffect(() => () => {
    run.current++;
    microphone.current?.close();
    session.current?.finish().catch(() => null);
  }, []);

  const begin = (title, rate) => {
    sound.current = new Sound(rate);
    kept.current = [];
    call(title);
    take(NOTHING);
    fail(null);
    return ++run.current;
  };
  const whole = async (samples, rate, mine) => {
    be("hearing");
    const { answers } = await ask("/v1/predict", { model: model.name, inputs: [asWav(samples, rate)] });
    if (mine === run.current) take({ ...NOTHING, ended: answers.filter(one => one.text) });
  };
  const listen = async () => {
    const mine = begin("the microphone", 48000);
    be("asking");
    try {
      let open = null;
      const made = microphone.current = await Microphone.open(samples => {
        sound.current.put(samples);
        if (open) open.hear(samples);
        else kept.current.push(samples);
      });
      sound.current = new Sound(made.rate);
      if (model.streaming) open = session.current = await Hearing.open(model.name, made.rate, events, message => broke(message, mine));
      if (mine !== run.current) return void stop(true);
      made.begin();
      be("listening");
    } catch (wrong) {
      broke(wrong.message, mine);
    }
  };
  const stop = async (failed = false) => {
    const made = microphone.current, open = session.current, mine = failed ? ++run.current : run.current;
    microphone.current = session.current = null;
    made?.close();
    try {
      if (open) await open.finish();
      else if (made && !failed && kept.current.length) {
        const all = new Int16Array(kept.current.reduce((sum, part) => sum + part.length, 0));
        kept.current.reduce((at, part) => (all.set(part, at), at + part.length), 0);
        await whole(all, made.rate, mine);
      }
    } catch (wrong) {
      fail(wrong.message);
    }
    if (mine === run.current) be("still");
  };
  const read = async file => {
    if (state !== "still") await stop();
    const mine = begin(file.name, 16000);
    be("hearing");
    try {
      const recording = await samplesOf(file);
      sound.current = new Sound(recording.rate);
      sound.current.put(recording.samples);
      if (model.streaming) {
        const open = session.current = await Hearing.open(model.name, recording.rate, events, message => broke(message, mine));
        await open.hearAll(recording, () => mine === run.current);
        if (mine === run.current) await stop();
      } else await whole(recording.samples, recording.rate, mine);
    } catch (wrong) {
      broke(wrong.message, mine);
    }
    if (mine === run.current) be("still");
  };
  const words = heard.ended.flatMap(one => one.words), live = state === "listening";
  return html`
    <${Refusal}>${error}<//>
    <div class="split"><div class="stack">
      <${Panel} title="What is heard" about=${name ? `from ${name}` : ""}>
        <div class="row">
          <button type="button" class="button main" disabled=${state === "asking"} onClick=${() => live || state === "hearing" ? stop(state === "hearing") : listen()}>${live || state === "hearing" ? "Stop" : "Listen"}</button>
          <p class="soft" role="status">${{ still: name ? "Done." : "", asking: "The browser asks whether it may use the microphone.", listening: model.streaming ? "Listening: speak." : "Listening: speak, and stop to read it.", hearing: "Hearing the recording." }[state]}</p>
        </div>
        <${Wave} sound=${sound.current} live=${live || state === "hearing"} words=${words} />
        <div class="heard" aria-live="polite" aria-atomic="false">
          ${heard.ended.map(one => html`<p>${one.words.map(word => html`<${Word} word=${word} /> `)}</p>`)}
          ${heard.partial && html`<p class="partial" aria-hidden="true">${heard.partial}</p>`}
          ${!heard.ended.length && !heard.partial && html`<p class="soft">${state === "still" && name ? "No words." : "Nothing yet."}</p>`}
        </div>
      <//>
      ${words.length > 0 && html`<${Numbers} words=${words} />`}
    </div>
    <div class="stack">
      <${Panel} title="A recording" class="later"><${Drop} label="Choose or drop a file of sound" accept=".wav,audio/*" onFile=${read} /><//>
      <${Panel} title="How it hears" class="later">
        <p class="soft">${model.streaming ? "This network reads in one direction: words come while they are spoken. What an utterance will be is shown soft until it ends, with a pause." : "This network reads from both ends, so it reads what is said when it is over: stop, and the words are there. One that was trained with --model.streaming gives them while they are spoken."}</p>
        <p class="soft">The bar under a word is how sure the network is of it: of the least certain unit in it. All of this stays on this machine.</p>
      <//>
    </div></div>`;
}

function Word({ word }) {
  return html`<span class="word" data-unsure=${word.confidence < LOUD}><span>${word.word}</span><${Bar} part=${word.confidence} /><span class="hidden">, ${percent(word.confidence)}</span></span>`;
}

function Numbers({ words }) {
  return html`<${Panel} title="Words" about=${count(words.length, "word")}><div class="wide tall" tabindex="0" role="region" aria-label="The words as numbers"><table>
    <thead><tr><th scope="col">word</th><th scope="col" class="n">from, s</th><th scope="col" class="n">to, s</th><th scope="col" class="n">sure</th></tr></thead>
    <tbody>${words.map(w => html`<tr><th scope="row">${w.word}</th><td class="n">${number(w.start, 4)}</td><td class="n">${number(w.end, 4)}</td><td class="n">${percent(w.confidence)}</td></tr>`)}</tbody>
  </table></div><//>`;
}

export const transcribe = {
  name: "transcribe",
  title: "Transcribe",
  about: "Speak, and see the words come, each with how sure the network is of it.",
  without: () => null,
  Screen: Transcribe,
};
