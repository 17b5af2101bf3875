// What a network in training answers: beside what is right, or what it writes.
import { html } from "../lib/html.js";
import { number, percent } from "../lib/words.js";

const SIDE = 8, LETTERS = "ABCDEFGH";

/** How many sequences with each marked symbol were answered by each: pairs [8][8]. */
export function Answers({ pairs, score }) {
  return html`<figure class="picture">
    <svg viewBox="-1.6 -1.6 9.8 9.8" role="img" aria-label="The symbol that was marked, and the one that is answered: ${percent(score)} are right">
      ${pairs.flatMap((row, marked) => row.map((many, answered) => html`
        <rect x=${answered + 0.04} y=${marked + 0.04} width=".92" height=".92" rx=".12" class=${!many ? "none" : marked === answered ? "right" : "wrong"}
          fill-opacity=${many ? 0.1 + 0.9 * many / row.reduce((a, b) => a + b, 0) : 1} />`))}
      ${Array.from(LETTERS, (letter, k) => html`<text x="-.45" y=${k + 0.66}>${letter}</text><text x=${k + 0.5} y="-.3">${letter}</text>`)}
      <text class="axis" x=${SIDE / 2} y="-1.1">answered</text>
      <text class="axis" x=${-SIDE / 2} y="-1.1" transform="rotate(-90)">marked</text>
    </svg></figure>`;
}

/** Sums, and what is answered: pairs [B][2]. */
export function Sums({ pairs, score }) {
  const inside = v => Math.max(-0.1, Math.min(2.1, v));
  return html`<figure class="picture">
    <svg viewBox="-.5 -.2 2.7 2.6" role="img" aria-label="The sums, and what is answered: the squared error is ${number(score)} in the mean">
      <path class="frame" d="M0 0V2H2" /><path class="frame even" d="M0 2L2 0" />
      ${pairs.map(([sum, answered], k) => html`<circle key=${k} cx=${sum} cy=${2 - inside(answered)} r=".035" class="dot" />`)}
      ${[0, 1, 2].map(v => html`<text x=${v} y="2.16">${v}</text><text x="-.1" y=${2.04 - v}>${v}</text>`)}
      <text class="axis" x="1" y="2.34">the sum</text><text class="axis" x="-1" y="-.28" transform="rotate(-90)">answered</text>
    </svg></figure>`;
}

/** What it writes by itself. */
export const Written = ({ text }) => html`<pre class="written" tabindex="0" aria-label="What it writes">${text}</pre>`;
