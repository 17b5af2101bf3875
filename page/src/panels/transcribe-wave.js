// How loud what is heard is, and where the words are in it.
import { useRef } from "preact/hooks";
import { useTheme, variable } from "../lib/colour.js";
import { html } from "../lib/html.js";
import { useRedraw, useWidth } from "../lib/redraw.js";
import { number } from "../lib/words.js";

const STEP = 0.02, TALL = 96, NAMES = 20;  // s of a bar; px of the picture, and of the words above
const SHOWN = 12, QUIET = 0.02;  // s that are seen at a time; a bar so low is seen

/** The loudest sample of each step of a sound. */
export class Sound {
  constructor(rate) {
    Object.assign(this, { rate, count: 0, peaks: [] });
  }

  get seconds() {
    return this.count / this.rate;
  }

  put(samples) {
    const size = this.rate * STEP;
    for (const v of samples) {
      const k = Math.floor(this.count++ / size);
      this.peaks[k] = Math.max(this.peaks[k] ?? 0, Math.abs(v) / 32768);
    }
  }
}

/** sound: a Sound. live: whether it goes on. words: [{word, start, end}]. */
export function Wave({ sound, live, words }) {
  const box = useRef(null), canvas = useRef(null), width = useWidth(box);
  useTheme();
  const wide = Math.max(width, live ? width : Math.ceil(sound.seconds / SHOWN * width));
  useRedraw(box, () => {
    const to = canvas.current, dense = devicePixelRatio, brush = to.getContext("2d"), second = width / SHOWN;
    const from = live ? Math.max(0, sound.seconds - SHOWN) : box.current.scrollLeft / second, colour = name => variable(`--${name}`);
    to.width = Math.round(width * dense);
    to.height = Math.round(TALL * dense);
    to.style.width = `${width}px`;
    to.style.height = `${TALL}px`;
    brush.setTransform(dense, 0, 0, dense, 0, 0);
    const middle = NAMES + (TALL - NAMES) / 2, most = Math.max(0.1, ...sound.peaks);
    brush.fillStyle = colour("line");
    brush.fillRect(0, middle - 0.5, width, 1);
    brush.font = `12px ${colour("sans")}`;
    for (const w of words) {
      const x = (w.start - from) * second, across = Math.max(4, (w.end - w.start) * second);
      if (x > width || x + across < 0) continue;
      brush.fillStyle = colour("well");
      brush.fillRect(x, NAMES, across, TALL - NAMES);
      brush.fillStyle = colour("ink");
      brush.fillText(w.word, x, NAMES - 6);
    }
    brush.fillStyle = colour("a");
    for (let k = Math.max(0, Math.floor(from / STEP)); k < sound.peaks.length; k++) {
      const x = (k * STEP - from) * second;
      if (x > width) break;
      const tall = Math.max(QUIET, (sound.peaks[k] ?? 0) / most) * (TALL - NAMES) * 0.9;
      brush.fillRect(x, middle - tall / 2, Math.max(1, second * STEP - 0.6), tall);
    }
    return live;
  });
  return html`<div class="strip wave" ref=${box} role="img" aria-label=${`How loud it was: ${number(sound.seconds)} s, ${words.length} words in it`}><canvas ref=${canvas} aria-hidden="true"></canvas><${Across} wide=${wide} /></div>`;
}

/** As wide as all of the sound, so that its box scrolls. */
function Across({ wide }) {
  return html`<div class="spacer" ref=${box => box && (box.style.width = `${wide}px`)}></div>`;
}
