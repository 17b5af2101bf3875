// Colours of numbers, from the style's variables: 256 steps from nothing to most, for both signs.
import { useEffect, useState } from "preact/hooks";

export const dark = matchMedia("(prefers-color-scheme: dark)");

/** "dark" or "light": what is shown; it changes with the system's, and with the switch. */
export function useTheme() {
  const told = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  const [theme, show] = useState(told());
  useEffect(() => {
    const again = () => show(told());
    dark.addEventListener("change", again);
    addEventListener("theme", again);
    return () => {
      dark.removeEventListener("change", again);
      removeEventListener("theme", again);
    };
  }, []);
  return theme;
}

export const variable = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function rgb(name) {
  const hex = variable(name);
  return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
}

/**
 * Little-endian RGBA of the 513 steps from -1 to 1 (256 is 0) of a kind of number: "gate" from 0 to 1, "parting" likewise, "signed"
 * for all else.
 */
export function scale(kind) {
  const zero = rgb("--cell"), up = rgb({ gate: "--gate", parting: "--parting" }[kind] ?? "--up"), down = rgb("--down");
  return Uint32Array.from({ length: 513 }, (_, i) => {
    const v = (i - 256) / 256, to = v < 0 ? down : up, part = Math.abs(v);
    const [r, g, b] = zero.map((z, c) => Math.round(z + (to[c] - z) * part));
    return (255 << 24 | b << 16 | g << 8 | r) >>> 0;
  });
}

/** A number from -1 to 1 as the place in a scale. */
export const step = v => 256 + Math.max(-256, Math.min(256, Math.round(256 * v)));
