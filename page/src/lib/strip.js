// Columns side by side on a canvas: what was read, how likely it was, and the bands. Only what is seen is drawn.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { html } from "./html.js";
import { scale, step, useTheme, variable } from "./colour.js";
import { seen, spoken } from "./words.js";

const TOP = 62, GAP = 24;  // px: signs and how likely they were, and the name over a band
const TALLEST = 120, LEAST = 56;

/** A band as a picture with a pixel a number, brought up to date where columns have changed. */
class Picture {
  constructor(band, kind) {
    this.band = band;
    this.kind = kind;
    this.canvas = document.createElement("canvas");
    this.canvas.height = band.units;
    this.canvas.width = 0;
    this.brush = this.canvas.getContext("2d");
    this.colours = scale(kind);
    this.version = 0;  // of the columns that it shows; they begin at 0, with none
  }

  update(columns) {
    if (this.version === columns.version) return;
    const follows = this.version === columns.version - 1;
    let since = follows ? columns.since : 0;
    if (columns.time >= this.canvas.width) {
      this.canvas.width = Math.max(256, 2 * (columns.time + 1));  // which clears it
      since = 0;
    }
    const { units, order, key, most = 1 } = this.band, wide = columns.time + 1 - since;
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
 * marked. onUnit: takes what is clicked. label: of the whole. marks: times that are marked above.
 */
export function Strip({ columns, bands, at, onAt, unit, onUnit = () => {}, label, marks = [] }) {
  const box = useRef(null), canvas = useRef(null), pictures = useRef(new Map()), theme = useTheme();
  const [width, resize] = useState(0);
  const longest = columns.labels.reduce((most, l) => Math.max(most, seen(l).length), 1);
  const wide = Math.max(15, Math.min(72, 8 * longest + 6));  // px a column
  const tall = bands.map(b => Math.max(LEAST, Math.min(TALLEST, b.units)));
  const tops = tall.map((_, i) => TOP + tall.slice(0, i).reduce((sum, t) => sum + t + GAP, GAP));
  const height = TOP + tall.reduce((sum, t) => sum + t + GAP, 0) + 4;

  useLayoutEffect(() => {
    const watch = new ResizeObserver(() => resize(box.current.clientWidth));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  useEffect(() => pictures.current.clear(), [theme]);

  useEffect(() => {  // what is shown is to be seen
    const low = box.current.scrollLeft, x = at * wide;
    if (x < low + wide || x > low + width - 3 * wide) box.current.scrollLeft = x - width + (x < low + wide ? width / 2 : 4 * wide);
  }, [at, wide, width]);

  useEffect(() => {
    let due = 0;
    const draw = () => {
      due = 0;
      paint(canvas.current, box.current.scrollLeft);
    };
    const later = () => { due ||= requestAnimationFrame(draw); };
    later();
    const scrolled = box.current;
    scrolled.addEventListener("scroll", later, { passive: true });
    return () => {
      cancelAnimationFrame(due);
      scrolled.removeEventListener("scroll", later);
    };
  });

  function paint(to, left) {
    const dense = devicePixelRatio, brush = to.getContext("2d");
    if (to.width !== Math.round(width * dense) || to.height !== Math.round(height * dense)) {
      to.width = Math.round(width * dense);
      to.height = Math.round(height * dense);
    }
    brush.setTransform(dense, 0, 0, dense, 0, 0);
    brush.clearRect(0, 0, width, height);
    const first = Math.max(0, Math.floor(left / wide)), last = Math.min(columns.time, Math.ceil((left + width) / wide));
    const ink = variable("--ink"), soft = variable("--soft"), mark = variable("--mark"), line = variable("--line");
    brush.imageSmoothingEnabled = false;
    bands.forEach((band, i) => {
      const name = `${band.key} ${band.kind} ${band.most}`;
      if (!pictures.current.has(name)) pictures.current.set(name, new Picture(band, band.kind));
      const picture = pictures.current.get(name);
      picture.update(columns);
      if (last >= first) brush.drawImage(picture.canvas, first, 0, last - first + 1, band.units, first * wide - left, tops[i], (last - first + 1) * wide, tall[i]);
    });
    // between columns, that each is seen
    brush.fillStyle = variable("--ground");
    for (let t = first; t <= last + 1; t++) for (const [i, top] of tops.entries()) brush.fillRect(t * wide - left - 0.5, top, 1, tall[i]);
    brush.fillStyle = mark;
    if (at >= first && at <= last) roundRect(brush, at * wide - left, 2, wide, 24, 6);
    brush.textAlign = "center";
    brush.textBaseline = "middle";
    brush.font = `14px ${variable("--mono")}`;
    for (let t = Math.max(first, 1); t <= last; t++) {
      const sign = seen(columns.label(t)), blank = sign !== columns.label(t);
      brush.fillStyle = t === at ? variable("--on-mark") : blank ? soft : ink;
      brush.fillText(sign.length > longest ? sign.slice(0, longest) : sign, t * wide - left + wide / 2, 14.5, wide - 1);
    }
    brush.fillStyle = soft;
    for (let t = Math.max(first, 1); t <= last; t++) {  // how likely it was, before it was read
      const p = columns.at("p", t)[0];
      brush.fillRect(t * wide - left + 2, 58 - 26 * p, wide - 4, Math.max(1, 26 * p));
    }
    brush.fillStyle = line;
    brush.fillRect(0, 58.5, width, 1);
    brush.fillStyle = mark;
    for (const t of marks) brush.fillRect(t * wide - left + 2, 28, wide - 4, 2);
    if (at >= first && at <= last) {
      brush.strokeStyle = mark;
      brush.lineWidth = 1.5;
      brush.strokeRect(at * wide - left - 0.5, 30, wide + 1, height - 32);
    }
    brush.textAlign = "left";
    brush.font = `12px ${variable("--sans")}`;
    bands.forEach((band, i) => {
      const measured = brush.measureText(band.title).width;
      brush.fillStyle = variable("--card");
      brush.fillRect(0, tops[i] - 19, measured + 10, 16);
      brush.fillStyle = soft;
      brush.fillText(band.title, 2, tops[i] - 10);
      if (unit?.key === band.key) {
        const y = tops[i] + band.order.indexOf(unit.unit) / band.units * tall[i];
        brush.strokeStyle = ink;
        brush.lineWidth = 1;
        brush.strokeRect(-2, Math.round(y) - 0.5, width + 4, Math.max(3, Math.round(tall[i] / band.units) + 1));
      }
    });
  }

  const pick = e => {
    const r = canvas.current.getBoundingClientRect(), y = e.clientY - r.top;
    const t = Math.floor((e.clientX - r.left + box.current.scrollLeft) / wide);
    if (t >= 0 && t <= columns.time) onAt(t);
    const i = tops.findIndex((top, k) => y >= top && y < top + tall[k]);
    if (i >= 0) onUnit({ key: bands[i].key, unit: bands[i].order[Math.min(bands[i].units - 1, Math.floor((y - tops[i]) / tall[i] * bands[i].units))] });
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
      onClick=${pick} onKeyDown=${press}></canvas>
    <${Spacer} width=${(columns.time + 1) * wide} height=${height} canvas=${canvas} visible=${width} />
  </div>`;
}

/** As wide as all columns, so that the box scrolls over what is not drawn. */
function Spacer({ width, height, canvas, visible }) {
  const box = useRef(null);
  useLayoutEffect(() => {
    box.current.style.width = `${width}px`;
    canvas.current.style.width = `${visible}px`;
    canvas.current.style.height = box.current.parentElement.style.height = `${height}px`;
  }, [width, height, visible]);
  return html`<div class="spacer" ref=${box}></div>`;
}

function roundRect(brush, x, y, w, h, r) {
  brush.beginPath();
  brush.roundRect(x, y, w, h, r);
  brush.fill();
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
