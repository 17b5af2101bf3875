// A file that is chosen, or dropped anywhere on the page.
import { useEffect, useId, useState } from "preact/hooks";
import { html } from "../lib/html.js";

/** onFile: takes what was chosen. accept: endings, as of <input type=file>. */
export function Drop({ label, accept, onFile }) {
  const id = useId(), [over, tell] = useState(false);
  useEffect(() => {
    const stop = new AbortController(), has = e => e.dataTransfer?.types.includes("Files");
    const on = (name, act) => addEventListener(name, e => { if (has(e)) { e.preventDefault(); act(e); } }, { signal: stop.signal });
    on("dragover", () => tell(true));
    addEventListener("dragleave", e => { if (!e.relatedTarget) tell(false); }, { signal: stop.signal });
    on("drop", e => {
      tell(false);
      if (e.dataTransfer.files[0]) onFile(e.dataTransfer.files[0]);
    });
    return () => stop.abort();
  });
  return html`<label class="drop" data-over=${over} for=${id}>
    <input id=${id} type="file" accept=${accept} onChange=${e => e.target.files[0] && onFile(e.target.files[0])} /><span>${label}</span>
  </label>`;
}

/** A file as a data URL. */
export const asUrl = file => new Promise((done, fail) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result.replace(/^data:[^,]*,/, "data:;base64,"));
  reader.onerror = () => fail(reader.error);
  reader.readAsDataURL(file);
});
