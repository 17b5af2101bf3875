// Curves over steps, by uPlot.
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { useTheme, variable } from "./colour.js";
import { html } from "./html.js";
import { number } from "./words.js";

/** Ten to a power. */
const power = n => "10" + String(Math.round(n)).replace(/./g, c => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);

/**
 * Curves. x: [n]. curves: [{name, values: [n], colour: "a", dash}], colour a variable of the style, null where there is no value. x and
 * y: what the axes are called. log: whether y goes by factors of ten. range: [low, high] of y. height: px. label: all of it in words.
 */
export function Curve({ x, curves, xLabel, yLabel, log = false, range, height = 220, label }) {
  const box = useRef(null), plot = useRef(null), theme = useTheme();
  const shape = JSON.stringify([curves.map(c => [c.name, c.colour, c.dash]), xLabel, yLabel, log, range, height]);
  useLayoutEffect(() => {
    const colour = c => variable(`--${c}`), font = `12px ${variable("--sans")}`;
    const powers = (_, all) => all.map(v => Math.abs(Math.log10(v) % 1) < 1e-9 ? v : null);  // of ten, where y goes by factors
    const axis = (name, only) => ({ label: name, stroke: colour("soft"), font, labelFont: font, labelSize: 18, size: name === yLabel ? 46 : 30, gap: 4, grid: { stroke: colour("line"), width: 1, ...(only && { filter: powers }) }, ticks: { show: false }, values: (_, all) => all.map(v => v === null ? "" : only && (v < 1e-3 || v >= 1e4) ? power(Math.log10(v)) : number(v)) });
    plot.current = new uPlot({
      width: box.current.clientWidth,
      height,
      scales: { x: { time: false }, y: { distr: log ? 3 : 1, range: range && (() => range) } },
      axes: [axis(xLabel), axis(yLabel, log)],
      series: [{ label: xLabel }, ...curves.map(c => ({ label: c.name, stroke: colour(c.colour), width: 2, dash: c.dash, points: { show: false }, value: (_, v) => number(v) }))],
      cursor: { y: false, drag: { x: false, y: false } },
    }, [x, ...curves.map(c => c.values)], box.current);
    const watch = new ResizeObserver(() => plot.current.setSize({ width: box.current.clientWidth, height }));
    watch.observe(box.current);
    return () => {
      watch.disconnect();
      plot.current.destroy();
    };
  }, [shape, theme]);
  useEffect(() => plot.current.setData([x, ...curves.map(c => c.values)]), [x, curves]);
  return html`<div class="curve" role="img" aria-label=${label} ref=${box}></div>`;
}
