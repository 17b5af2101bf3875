// How numbers and signs are written.
const SIGNS = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "\u00a0": "␣", "\u3000": "␣" };

/** A token so that it is seen. */
export const seen = text => text.replace(/[ \n\t\r\u00a0\u3000]/g, c => SIGNS[c]).replace(/\p{C}/gu, c => "U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0"));

/** A token as it is spoken. */
export const spoken = text => ({ " ": "space", "\n": "new line", "\t": "tab", "": "the beginning" })[text] ?? text;

/** A number to so many digits. */
export function number(v, digits = 3) {
  if (v === null || v === undefined || Number.isNaN(v)) return "–";
  return v === 0 || Math.abs(v) >= 1e-4 && Math.abs(v) < 1e6 ? String(+v.toPrecision(digits)).replace("-", "−") : v.toExponential(digits - 1).replace("-", "−");
}

/** A probability as a share of a hundred. */
export const percent = p => Number.isNaN(p) ? "–" : p >= 0.0005 ? (100 * p).toFixed(1) + " %" : "< 0.1 %";

/** One or several of a thing. */
export const count = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
