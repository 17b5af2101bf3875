// Columns side by side on a canvas: what was read, how likely it was, and the bands. Only what is seen is drawn.
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { html } from "./html.js";
import { scale, step, useTheme, variable } from "./colour.js";
import { useRedraw, useWidth } from "./redraw.js";
import { seen, spoken } from "./words.js";

const SIGNS = 30, CHANCES = 28;  // px: the row of what was read, and of how likely it was
const TOP = SIGNS + CHANCES + 4, GAP = 24;  // what stands above the bands, and the name over each
const TALLEST = 120, LEAST = 56;
const VARIABLES = ["ground", "card", "ink", "soft", "line", "mark", "on-mark", "mono", "sans"];

/** A band as a picture with a pixel a number, brought up to date where columns have changed. */
class Picture {
  constructor(band) {
    this.band = band;
    this.canvas = document.createElement("canvas");
    this.canvas.height = band.units;
    this.canvas.width = 0;
    this.brush = this.canvas.getContext("2d");
    this.colours = scale(band.kind);
    this.version = 0;  // of the columns that it shows; they begin at 0, with none
  }

  update(columns) {
    if (this.version === columns.version || columns.time < 0) return;
    let since = this.version === columns.version - 1 ? columns.since : 0;
    if (columns.time >= this.canvas.width) {
      this.canvas.width = Math.max(256, 2 * (columns.time + 1));  // which clears it
      since = 0;
    }
    const { units, order, key, most } = this.band, wide = columns.time + 1 - since;
    const image = this.brush.createImageData(wide, units), pixels = new Uint32Array(image.data.buffer);
    for (let x = 0; x < wide; x++) {
      const row = columns.at(key, since + x);
      for (let y = 0; y < units; y++) pixels[y * wide + x] = this.colours[step(row[order[y]] / most)];
    }
    this.brush.putImageData(image, since, 0);
    this.version = columns.version;
  }
}

/**
 * The columns of a text.
 *
 * columns: see columns.js. bands: [{key, title, units, order, kind: "gate" | "signed" | "parting", most}], from the top: how each is
 * coloured, and the number that has the full colour. at: the time that is shown. onAt: takes another. unit: {key, unit} that is
 * marked. onUnit: takes what is clicked. onDrag: takes (time, unit, px upwards) while a unit is dragged by a mouse, and px null where it
 * begins; undefined: nothing is dragged. label: of the whole. marks: times that are marked above.
 */
export function Strip({ columns, bands, at, onAt, unit, onUnit = () => {}, onDrag, label, marks = [] }) {
  const box = useRef(null), canvas = useRef(null), pictures = useRef(new Map()), theme = useTheme();
  const width = useWidth(box);
  const signs = useMemo(() => columns.labels.map(seen), [columns, columns.version]);
  const colours = useMemo(() => Object.fromEntries(VARIABLES.map(name => [name, variable(`--${name}`)])), [theme]);
  const longest = useMemo(() => signs.reduce((most, sign) => Math.max(most, sign.length), 1), [signs]);
  const wide = Math.max(15, Math.min(72, 8 * longest + 6));  // px a column
  const tall = bands.map(b => Math.max(LEAST, Math.min(TALLEST, b.units)));
  const tops = tall.map((_, i) => TOP + tall.slice(0, i).reduce((sum, t) => sum + t + GAP, GAP));
  const height = TOP + tall.reduce((sum, t) => sum + t + GAP, 0) + 4;

  useLayoutEffect(() => pictures.current.clear(), [theme]);

  useEffect(() => {  // what is shown is to be seen
    if (!box.current) return;  // it is gone already
    const low = box.current.scrollLeft, x = at * wide;
    if (x < low) box.current.scrollLeft = x - width / 2;
    else if (x > low + width - 2 * wide) box.current.scrollLeft = x - width + 4 * wide;
  }, [at, wide, width]);

  useRedraw(box, paint);

  function paint() {
    const to = canvas.current, left = box.current.scrollLeft, dense = devicePixelRatio, brush = to.getContext("2d");
    if (to.width !== Math.round(width * dense) || to.height !== Math.round(height * dense)) {
      to.width = Math.round(width * dense);
      to.height = Math.round(height * dense);
    }
    brush.setTransform(dense, 0, 0, dense, 0, 0);
    brush.clearRect(0, 0, width, height);
    const first = Math.max(0, Math.floor(left / wide)), last = Math.min(columns.time, Math.ceil((left + width) / wide));
    const x = t => t * wide - left;
    brush.imageSmoothingEnabled = false;
    bands.forEach((band, i) => {
      const name = `${band.key} ${band.kind} ${band.most}`;
      if (!pictures.current.has(name)) pictures.current.set(name, new Picture(band));
      const picture = pictures.current.get(name);
      picture.update(columns);
      if (last >= first) brush.drawImage(picture.canvas, first, 0, last - first + 1, band.units, x(first), tops[i], (last - first + 1) * wide, tall[i]);
    });
    brush.fillStyle = colours.card;  // between columns, that each is seen
    for (let t = first; t <= last + 1; t++) for (const [i, top] of tops.entries()) brush.fillRect(x(t) - 0.5, top, 1, tall[i]);
    drawSigns(brush, first, last, x);
    if (at >= first && at <= last) {
      brush.strokeStyle = colours.mark;
      brush.lineWidth = 2;
      brush.strokeRect(x(at), SIGNS, wide, height - SIGNS - 2);
    }
    drawNames(brush);
  }

  function drawSigns(brush, first, last, x) {
    const base = TOP - 4;
    brush.fillStyle = colours.mark;
    if (at >= first && at <= last) {
      brush.beginPath();
      brush.roundRect(x(at), 3, wide, SIGNS - 6, 6);
      brush.fill();
    }
    for (const t of marks) brush.fillRect(x(t) + 2, SIGNS - 3, wide - 4, 3);
    brush.textAlign = "center";
    brush.textBaseline = "middle";
    brush.font = `14px ${colours.mono}`;
    for (let t = Math.max(first, 1); t <= last; t++) {
      brush.fillStyle = t === at ? colours["on-mark"] : signs[t - 1] === columns.label(t) ? colours.ink : colours.soft;
      brush.fillText(signs[t - 1], x(t) + wide / 2, SIGNS / 2 + 0.5, wide - 1);
    }
    brush.fillStyle = colours.soft;
    for (let t = Math.max(first, 1); t <= last; t++) {
      const p = columns.at("p", t)[0] ?? 0;
      brush.fillRect(x(t) + 2, base - CHANCES * p, wide - 4, Math.max(1, CHANCES * p));
    }
    brush.fillStyle = colours.line;
    brush.fillRect(0, base, width, 1);
  }

  function drawNames(brush) {
    brush.textAlign = "left";
    brush.font = `12px ${colours.sans}`;
    bands.forEach((band, i) => {
      brush.fillStyle = colours.card;
      brush.fillRect(0, tops[i] - 19, brush.measureText(band.title).width + 10, 16);
      brush.fillStyle = colours.soft;
      brush.fillText(band.title, 2, tops[i] - 10);
      if (unit?.key !== band.key) return;
      brush.strokeStyle = colours.ink;
      brush.lineWidth = 1;
      const y = Math.round(tops[i] + band.order.indexOf(unit.unit) / band.units * tall[i]);
      brush.strokeRect(-2, y - 0.5, width + 4, Math.max(3, Math.round(tall[i] / band.units) + 1));
    });
  }

  /** What lies at a place: {t, unit}, unit null where there is no band. */
  const under = e => {
    const r = canvas.current.getBoundingClientRect(), y = e.clientY - r.top;
    const t = Math.floor((e.clientX - r.left + box.current.scrollLeft) / wide), i = tops.findIndex((top, k) => y >= top && y < top + tall[k]);
    return { t, unit: i < 0 ? null : { key: bands[i].key, unit: bands[i].order[Math.min(bands[i].units - 1, Math.floor((y - tops[i]) / tall[i] * bands[i].units))] } };
  };
  const pick = e => {
    const { t, unit: found } = under(e);
    if (t >= 0 && t <= columns.time) onAt(t);
    if (found) onUnit(found);
  };
  const drag = e => {
    const { t, unit: found } = under(e), from = e.clientY;
    if (!onDrag || e.pointerType !== "mouse" || !found || t > columns.time) return;
    let begun = false;
    const stop = new AbortController();
    addEventListener("pointermove", m => {
      if (!begun && Math.abs(m.clientY - from) < 4) return;
      if (!begun) onDrag(t, found, null);
      begun = true;
      onDrag(t, found, from - m.clientY);
    }, { signal: stop.signal });
    addEventListener("pointerup", () => {
      stop.abort();
      if (begun) addEventListener("click", c => c.stopPropagation(), { capture: true, once: true });
    }, { signal: stop.signal });
  };
  const press = e => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[e.key];
    if (by) {
      e.preventDefault();
      onAt(Math.max(0, Math.min(columns.time, at + by)));
    } else if ((e.key === "ArrowUp" || e.key === "ArrowDown") && bands.length) {
      e.preventDefault();
      onUnit(nextUnit(bands, unit, e.key === "ArrowUp" ? -1 : 1));
    }
  };
  return html`<div class="strip" ref=${box}>
    <canvas ref=${canvas} tabindex="0" role="slider" aria-label=${label} aria-valuemin="0" aria-valuemax=${Math.max(columns.time, 0)}
      aria-valuenow=${at} aria-valuetext="time ${at} of ${columns.time}, after ${spoken(columns.label(at))}"
      onClick=${pick} onPointerDown=${drag} onKeyDown=${press}></canvas>
    <${Spacer} width=${(columns.time + 1) * wide} height=${height} canvas=${canvas} visible=${width} />
  </div>`;
}

/** As wide as all columns, so that the box scrolls over what is not drawn. */
function Spacer({ width, height, canvas, visible }) {
  const box = useRef(null);
  useLayoutEffect(() => {
    box.current.style.width = `${width}px`;
    canvas.current.style.width = `${visible}px`;
    canvas.current.style.height = `${height}px`;
  }, [width, height, visible]);
  return html`<div class="spacer" ref=${box}></div>`;
}

/** The unit above or below, going on from one band to the next. */
function nextUnit(bands, unit, by) {
  let i = bands.findIndex(b => b.key === unit?.key);
  if (i < 0) return { key: bands[0].key, unit: bands[0].order[0] };
  let place = bands[i].order.indexOf(unit.unit) + by;
  if (place < 0 || place >= bands[i].units) {
    i = (i + by + bands.length) % bands.length;
    place = by > 0 ? 0 : bands[i].units - 1;
  }
  return { key: bands[i].key, unit: bands[i].order[place] };
}
