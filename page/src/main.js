// The page: its head, the screen that the address names, and what stands where there is none.
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import "./style.css";
import { ask } from "./lib/api.js";
import { dark, useTheme } from "./lib/colour.js";
import { html } from "./lib/html.js";
import { Refusal } from "./lib/parts.js";
import { address, useRoute } from "./lib/route.js";
import { count } from "./lib/words.js";
import { screens } from "./screens/index.js";

const THEME = "throughtime.theme", PANELS = ["forecast", "music", "transcribe"];

/** The model, and the panel that its task has; that comes in a script of its own. */
async function known() {
  const [model] = (await ask("/play/models")).models;
  return { model, panel: PANELS.includes(model.task) && (await import("./panels/index.js")).panels[model.task] };
}

function Page() {
  const { name, params } = useRoute(), [{ model, panel }, take] = useState({}), [error, fail] = useState(null);
  useEffect(() => { known().then(take, wrong => fail(wrong.message)); }, []);
  const all = panel ? [panel, ...screens] : screens, screen = all.find(s => s.name === name) ?? all.find(s => !model || !s.without(model));
  useEffect(() => { document.title = `${screen.title} · throughtime`; }, [screen]);
  const why = model && screen.without(model);
  return html`
    <a class="skip" href="#main" onClick=${e => { e.preventDefault(); document.getElementById("main").focus(); }}>To the content</a>
    <header class="head">
      <a class="mark" href=${address("")}>throughtime</a>
      <nav aria-label="Screens">${all.filter(s => !panel || !s.without(model)).map(s => html`<a href=${address(s.name)} aria-current=${s === screen ? "page" : undefined}>${s.title}</a>`)}</nav>
      <${Theme} />
    </header>
    <main id="main" tabindex="-1">
      <div class="lead"><h1>${screen.title}</h1><p>${screen.about}</p>${model && html`<${About} model=${model} />`}</div>
      <${Refusal}>${error}<//>
      ${model?.instead && html`<p class="instead">${model.instead}.</p>`}
      ${model && (why ? html`<p class="empty">${why}</p>` : html`<${screen.Screen} key=${screen.name} model=${model} params=${params} />`)}
    </main>`;
}

function About({ model }) {
  const parts = [model.cell && model.units && `${model.cell} ${model.layers} × ${model.units}`, count(model.parameters, "parameter")];
  return html`<p class="soft">${model.name}: ${[model.task, ...parts.filter(Boolean)].join(", ")}</p>`;
}

function Theme() {
  const theme = useTheme();
  const change = () => {
    const other = theme === "dark" ? "light" : "dark";
    const system = dark.matches ? "dark" : "light";
    if (other === system) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = other;
    localStorage.setItem(THEME, other === system ? "" : other);
    dispatchEvent(new Event("theme"));
  };
  return html`<button type="button" class="chip" aria-pressed=${theme === "dark"} onClick=${change}>Dark</button>`;
}

const chosen = localStorage.getItem(THEME);
if (chosen) document.documentElement.dataset.theme = chosen;
render(html`<${Page} />`, document.getElementById("page"));
