// Curves and dots over two axes, and what a sequence holds step by step.
function niceTicks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find(m => m * power >= raw * 0.6) * power, found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}
const raised = n => [...String(n)].map(c => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] || "⁻").join("");
const logLabel = v => { const e = Math.round(Math.log10(v)); return v >= 1e-4 && v < 1e5 ? String(+v.toPrecision(2)) : `10${raised(e)}`; };
function logTicks(low, high) {  // of logarithms to base 10
  for (const marks of [[1], [1, 3], [1, 2, 5]]) {
    const found = [];
    for (let e = Math.floor(low); e <= high; e++) for (const m of marks) { const at = e + Math.log10(m); if (at >= low - 1e-9 && at <= high + 1e-9) found.push(+(m * 10 ** e).toPrecision(3)); }
    const every = Math.ceil(found.length / 7);
    if (found.length >= 3 || marks.length === 3) return found.length > 1 ? found.filter((_, i) => i % every === 0) : [10 ** low, 10 ** high];
  }
}

/** curves: {name, points: [[x, y, spread of ln y, words]], colour, dots, dashed}. xRange, yRange: what an axis shows; else what there is. */
function chart({curves, x, y, log = false, width = 520, height = 240, xRange, yRange}) {
  width = Math.min(width, room());
  if (log) { const lowest = 1e-6 * Math.max(...curves.flatMap(c => c.points.map(p => p[1]))); curves = curves.map(c => ({...c, points: c.points.filter(p => p[1] >= lowest)})); }
  const points = curves.flatMap(c => c.points), top = Math.max(...points.map(p => p[1]), 1e-300), floor = top * 1e-6;
  const f = v => log ? Math.log10(Math.max(v, floor)) : v;
  const ys = points.flatMap(p => p[2] ? [f(p[1] * Math.exp(-p[2])), f(p[1] * Math.exp(p[2]))] : [f(p[1])]);
  let [x0, x1] = xRange || [Math.min(...points.map(p => p[0])), Math.max(...points.map(p => p[0]))];
  let [y0, y1] = yRange || [Math.min(...ys), Math.max(...ys)];
  if (x1 === x0) x1 = x0 + 1;
  if (y1 - y0 < 1e-9) { const half = log ? .5 : Math.max(.05 * Math.abs(y0), 1e-6); y0 -= half; y1 += half; }
  const across = niceTicks(x0, x1, Math.min(8, width / 60)).filter(t => !xRange && x0 >= 0 && x1 - x0 >= 2 ? Number.isInteger(t) : true);
  const up = log ? logTicks(y0, y1) : niceTicks(y0, y1, 4), label = log ? logLabel : v => num(v);
  const left = 12 + widest(up.map(label)), right = 10 + measure(num(across.at(-1))) / 2, head = 26, foot = 36;
  const X = v => left + 4 + (v - x0) / (x1 - x0) * (width - left - 4 - right), Y = v => head + (y1 - Math.min(y1, Math.max(y0, f(v)))) / (y1 - y0) * (height - foot - head);
  let out = `<svg width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="${esc(`${y} against ${x}`)}"><text class="soft" x="4" y="12">${esc(y)}</text>`;
  for (const t of up) out += `<line x1="${left}" x2="${width - right}" y1="${Y(t)}" y2="${Y(t)}" stroke="var(--line)"/><text class="soft" x="${left - 5}" y="${Y(t) + 4}" text-anchor="end">${label(t)}</text>`;
  for (const t of across) out += `<text class="soft" x="${X(t)}" y="${height - foot + 17}" text-anchor="middle">${num(t)}</text>`;
  out += `<text class="soft" x="${(left + width - right) / 2}" y="${height - 5}" text-anchor="middle">${esc(x)}</text>`;
  for (const c of curves) {
    const at = c.points.map(p => [X(p[0]).toFixed(1), Y(p[1]).toFixed(1)]);
    if (c.points.some(p => p[2])) {
      const band = [...c.points.map(p => [X(p[0]), Y(p[1] * Math.exp(p[2]))]), ...c.points.map(p => [X(p[0]), Y(p[1] * Math.exp(-p[2]))]).reverse()];
      out += `<polygon points="${band.map(p => p.map(v => v.toFixed(1)).join()).join(" ")}" fill="${c.colour}" opacity=".13"/>`;
    }
    if (c.dots) out += at.map(([a, b], i) => `<circle cx="${a}" cy="${b}" r="3" fill="${c.colour}" opacity=".6" ${tipped(c.points[i][3])}/>`).join("");
    else out += `<polyline points="${at.map(p => p.join()).join(" ")}" fill="none" stroke="${c.colour}" stroke-width="1.8" ${c.dashed ? 'stroke-dasharray="5 4"' : ""}/>`;
    if (!c.dots && !c.dashed) out += at.map(([a, b], i) => `<circle cx="${a}" cy="${b}" r="${at.length < 15 ? 3 : 5}" fill="${at.length < 15 ? c.colour : "transparent"}" ${tipped(`${c.name}\n${x}: ${num(c.points[i][0])}\n${y}: ${num(c.points[i][1])}`)}/>`).join("");
  }
  return out + "</svg>" + (curves.some(c => c.name) ? `<p class="soft">${curves.filter(c => c.name).map(c => `<span style="color:${c.colour}">●</span> ${esc(c.name)}`).join(" &nbsp; ")}</p>` : "");
}

const CURVES = 8, EDGE = 24;  // curves that can be told apart: more are drawn as a picture; room beside it
/** Numbers that a sequence holds, [T][F], as curves with time across, or where they are many as a picture; each step's background, or a
    strip under the picture, in its colour. */
function course(curve, labels, colours, tips) {
  if (curve[0].length > CURVES) return spectrogram(curve, labels, colours, tips);
  const count = curve.length, flat = curve.flat(), ys = niceTicks(Math.min(...flat), Math.max(...flat) + (sizeOf(flat) * 1e-6 || 1e-6), 4);
  const y0 = Math.min(...flat), y1 = Math.max(...flat), left = 12 + widest(ys.map(num)), height = 180, foot = 42, head = 10;
  const W = Math.max(6, Math.min(60, (room() - left - 24) / count)), width = left + W * count + 24;
  const X = t => left + W * (t + .5), Y = v => head + (y1 === y0 ? .5 : (y1 - v) / (y1 - y0)) * (height - head - foot);
  let out = `<svg class="course" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`;
  for (let t = 0; t < count; t++) out += `<rect x="${left + W * t}" y="${head - 6}" width="${W + .3}" height="${height - head - foot + 12}" fill="${colours ? colours[t] : "transparent"}" ${tipped(tips ? tips[t] : `${seen(labels[t])}: ${curve[t].map(num).join(", ")}`)}/>`;
  for (const v of ys) out += `<text class="soft" x="${left - 5}" y="${Y(v) + 4}" text-anchor="end">${num(v)}</text>`;
  for (const t of niceTicks(0, Math.max(1, count - 1), Math.min(10, W * count / 50)).filter(t => Number.isInteger(t) && t < count)) out += `<text class="soft" x="${X(t)}" y="${height - foot + 20}" text-anchor="middle">${t}</text>`;
  out += `<text class="soft" x="${(left + width) / 2}" y="${height - 4}" text-anchor="middle">step</text>`;
  for (let k = 0; k < curve[0].length; k++) out += `<polyline pointer-events="none" points="${curve.map((row, t) => `${X(t).toFixed(1)},${Y(row[k]).toFixed(1)}`).join(" ")}" fill="none" stroke="${COLOURS[(k + 2) % 6]}" stroke-width="1.8"/>`;
  return `<div class="wide">${out}</svg></div>`;
}

/** Many numbers a step, [T][F], the first at the bottom: the darker, the larger. */
function spectrogram(curve, labels, colours, tips) {
  const count = curve.length, rows = curve[0].length, sorted = curve.flat().sort((a, b) => a - b), at = q => sorted[Math.floor(q * (sorted.length - 1))];
  const low = at(.02), high = Math.max(at(.995), low + 1e-9), canvas = document.createElement("canvas"), strip = colours ? 16 : 0;
  canvas.width = count; canvas.height = rows;
  const context = canvas.getContext("2d"), pixels = context.createImageData(count, rows);
  curve.forEach((row, t) => row.forEach((v, k) => pixels.data.set([20, 40, 90, 255 * Math.max(0, Math.min(1, (v - low) / (high - low)))], 4 * ((rows - 1 - k) * count + t))));
  context.putImageData(pixels, 0, 0);
  const W = Math.max(3, Math.min(12, (room() - 2 * EDGE) / count)), width = W * count + 2 * EDGE, height = 160, foot = 34;
  let out = `<svg class="course" width="${width}" height="${height + strip + foot}" viewBox="0 0 ${width} ${height + strip + foot}"><rect x="${EDGE}" width="${W * count}" height="${height}" fill="#fff"/><image href="${canvas.toDataURL()}" x="${EDGE}" y="0" width="${W * count}" height="${height}" preserveAspectRatio="none" style="image-rendering:pixelated"/>`;
  for (let t = 0; t < count; t++) out += `<rect x="${EDGE + W * t}" y="${colours ? height + 2 : 0}" width="${W + .3}" height="${colours ? strip - 2 : height}" fill="${colours ? colours[t] : "transparent"}" ${tipped(tips ? tips[t] : seen(labels[t]))}/>`;
  for (const t of niceTicks(0, Math.max(1, count - 1), Math.min(10, W * count / Math.max(80, 8 * Math.max(...labels.map(l => l.length))))).filter(t => Number.isInteger(t) && t < count)) out += `<text class="soft" x="${EDGE + W * (t + .5)}" y="${height + strip + 16}" text-anchor="middle">${esc(labels[t])}</text>`;
  return `<div class="wide">${out}</svg></div>`;
}

/** A sequence with the background of each step in a colour: its text, its labels, or its curve. steps: {labels, texts, curve}. */
function coloured(steps, colours, tips) {
  if (steps.curve) return course(steps.curve, steps.labels, colours, tips);
  const span = (s, t) => `<span style="background:${colours[t]}" ${tipped(tips[t])}>${esc(s)}</span>`;
  if (!steps.texts) return `<p class="tokens">${steps.labels.map((s, t) => span(seen(s), t)).join(" ")}</p>`;
  const written = steps.texts.map((s, t) => s === "" ? span(seen(steps.labels[t]), t) : span(flow(s), t) + (s.includes("\n") ? "<br>" : ""));
  return `<p class="tokens">${written.join("")}</p>`;
}
const INPUTS = {labels: D.inputs, texts: D.input_texts, curve: D.input_values};
const stepsOf = l => l.reads_inputs ? {labels: l.steps, ...Object.fromEntries(["texts", "curve"].map(k => [k, INPUTS[k] && INPUTS[k].filter((_, i) => i % l.stride === 0)]))} : {labels: l.steps};
