// Story: the article in eight steps, each with the live thing beside it.
import { useEffect, useRef, useState } from "preact/hooks";
import { html } from "../lib/html.js";
import { address, go, set } from "../lib/route.js";
import { steps } from "./story-steps.js";

const DONE = 2000;  // ms that a button says what it did

/** The screens that a step may show; they are given here, since the list of all of them has this one in it. */
export function storyOf(screens) {
  function Story({ model, params }) {
    const { step: key, ...own } = params, number = Math.max(0, steps.findIndex(s => s.key === key)), step = steps[number];
    const shown = screens.find(s => s.name === step.screen), why = shown.without(model), heading = useRef(null), first = useRef(true);
    useEffect(() => {
      if (first.current) first.current = false;
      else heading.current.focus();
    }, [step.key]);
    return html`<div class="story">
      <nav class="steps" aria-label="Steps"><ol>${steps.map((s, k) => html`<li key=${s.key}>
        <a href=${address("story", { step: s.key })} aria-current=${s === step ? "step" : undefined}><span class="n" aria-hidden="true">${k + 1}</span> ${s.title}</a></li>`)}</ol></nav>
      <article>
        <h2 ref=${heading} tabindex="-1">${step.title}</h2>
        ${step.says.map(said => said.startsWith("=") ? html`<p class="equation">${said.slice(1)}</p>` : html`<p>${said}</p>`)}
        ${step.others && html`<div class="row">${Object.entries(step.others).map(([title, other]) => html`<button type="button" class="button" onClick=${() => set(other)}>${title}</button>`)}</div>`}
        <${Code} text=${step.python(model)} />
        <p class="row ends">
          ${number > 0 && html`<a href=${address("story", { step: steps[number - 1].key })}>← ${steps[number - 1].title}</a>`}
          ${number < steps.length - 1 ? html`<a class="button main" href=${address("story", { step: steps[number + 1].key })}>${steps[number + 1].title} →</a>`
            : html`<button type="button" class="button main" onClick=${() => go("tape")}>Now play →</button>`}
        </p>
      </article>
      <div class="live" role="region" aria-label=${`${shown.title}, live`}>
        ${why ? html`<p class="empty">${why}</p>` : html`<${shown.Screen} key=${step.key} model=${model} params=${{ ...step.preset, ...own }} />`}
      </div>
    </div>`;
  }
  return {
    name: "story",
    title: "Story",
    about: "Why networks with a memory are as they are, in eight steps. Each is live: change whatever you like.",
    without: () => null,
    Screen: Story,
  };
}

/** What does the same in Python, to be copied. */
function Code({ text }) {
  const [said, say] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      say("The browser does not let it be copied; mark it and copy.");
    }
    setTimeout(() => say(""), DONE);
  };
  return html`<details class="python"><summary>As Python</summary>
    <pre tabindex="0" aria-label="Python that does the same"><code>${text}</code></pre>
    <div class="row"><button type="button" class="chip" onClick=${copy}>Copy</button><span class="soft" role="status">${said}</span></div>
  </details>`;
}
