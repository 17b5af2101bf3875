// The panels of tasks that are no text, by task: each a screen (see screens/index.js), of which a model has one at most.
import { forecast } from "./forecast.js";
import { music } from "./music.js";
import { transcribe } from "./transcribe.js";

const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "panels.css" });
await new Promise(done => {
  style.onload = style.onerror = done;
  document.head.append(style);
});

export const panels = { forecast, music, transcribe };
