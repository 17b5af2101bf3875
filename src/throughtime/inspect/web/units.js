// Gates over the input, a unit over the text, states and gates of all units.
const picker = (name, options, to) => add(`<label>${name} <select>${options}</select></label>`, to).querySelector("select");
const layerOptions = layers => layers.map(l => `<option value="${D.layers.indexOf(l)}">${esc(l.title)}</option>`).join("");

function drawGatesOverWords() {
  const layers = D.layers.filter(l => Object.keys(l.gate_means).length);
  if (!layers.length) return;
  add('<h2>Gates over the input</h2><p class="soft">How far each gate stands open at each step, on the mean over the units of a layer: 0 shuts, 1 lets all through. A forget gate that drops is a network that clears its memory there.</p>');
  const select = picker("layer", layerOptions(layers), add("<p></p>")), place = add('<div class="wide"></div>');
  const draw = () => {
    const l = D.layers[select.value], names = l.steps.map(seen), gates = Object.entries(l.gate_means), steps = stepsOf(l);
    const W = Math.max(14, Math.min(64, widest(names) + 8)), left = widest([...gates.map(g => g[0]), "values"]) + 34, row = 52, top = steps.curve ? row : 0, height = top + row * gates.length + 22, width = left + W * names.length + 8;
    let out = `<svg class="gates" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-label="gates of ${esc(l.title)}">`;
    gates.forEach(([name, values], g) => {
      const base = top + row * (g + 1) - 4, tall = row - 14;
      out += `<text x="4" y="${base - tall / 2 + 4}">${esc(name)}</text>`;
      for (const v of [0, 1]) out += `<text class="soft" x="${left - 6}" y="${base - tall * v + 4}" text-anchor="end">${v}</text><line x1="${left}" x2="${width - 8}" y1="${base - tall * v}" y2="${base - tall * v}" stroke="var(--line)"/>`;
      values.forEach((v, t) => { out += `<rect x="${left + W * t + 1}" width="${W - 2}" y="${base - tall * v}" height="${tall * v}" fill="${COLOURS[g % 6]}" ${tipped(`${name} after ${names[t]}: ${num(v)}`)}/>`; });
    });
    names.forEach((s, t) => { out += `<text x="${left + W * (t + .5)}" y="${height - 6}" text-anchor="middle">${esc(fit(s, W - 2))}</text>`; });
    if (steps.curve) {
      const flat = steps.curve.flat(), low = Math.min(...flat), high = Math.max(...flat), Y = v => row - 8 - (v - low) / (high - low || 1) * (row - 14);
      out += `<text x="4" y="${row / 2 + 4}">values</text>` + steps.curve[0].map((_, k) => `<polyline points="${steps.curve.map((r, t) => `${(left + W * (t + .5)).toFixed(1)},${Y(r[k]).toFixed(1)}`).join(" ")}" fill="none" stroke="var(--soft)" stroke-width="1.5"/>`).join("");
    }
    place.innerHTML = out + "</svg>";
  };
  select.onchange = draw; draw();
}

function drawUnitOverText() {
  add('<h2>A unit over the input</h2><p class="soft">What one number of the state is after each step. Units that follow something one can read off the input come first.</p>');
  const box = add("<p></p>"), layer = picker("layer", layerOptions(D.layers), box), unit = picker("unit", "", box), place = add("<div></div>");
  const best = D.layers.map((l, i) => [l.follows.length ? Math.abs(l.follows[0].correlation) : 0, -i]).sort((a, b) => b[0] - a[0] || b[1] - a[1])[0];
  layer.value = -best[1];
  const draw = () => {
    const l = D.layers[layer.value], [name, rows] = Object.entries(l.states)[0], values = rows.map(r => r[unit.value]), most = sizeOf(values), steps = stepsOf(l);
    place.innerHTML = `<p>${signedScale(most, esc(`unit ${unit.value} of ${name}`))}</p>${coloured(steps, values.map(v => signed(v, most)), values.map((v, t) => `after ${seen(l.steps[t])}: ${num(v)}`))}`;
  };
  const fill = () => {
    const l = D.layers[layer.value];
    unit.innerHTML = (l.follows.length ? `<optgroup label="that follow something">${l.follows.map(f => `<option value="${f.unit}">${f.unit}: ${esc(f.feature)} (${num(f.correlation)})</option>`).join("")}</optgroup>` : "") +
      `<optgroup label="all units">${Array.from({length: l.hidden_size}, (_, u) => `<option value="${u}">${u}</option>`).join("")}</optgroup>`;
    unit.selectedIndex = 0; draw();
  };
  layer.onchange = fill; unit.onchange = draw; fill();
}

function drawStates() {
  add('<h2>States and gates of all units</h2>');
  for (const l of D.layers) {
    const fold = add(`<details ${l === D.layers[0] ? "open" : ""}><summary>${esc(l.title)}: ${esc(l.cell)}, ${l.hidden_size} units</summary></details>`);
    for (const [name, rows] of Object.entries(l.states)) drawHeat(l, name, rows, fold);
    drawOpenness(l, fold);
    if (l.follows.length) {
      add('<p class="soft">Units that follow something: the closest of all units for each; among many units over few steps some will seem to by chance.</p>', fold);
      table([{name: "what it follows", key: f => f.feature, text: f => esc(f.feature)}, {name: "unit", n: true, key: f => f.unit, text: f => f.unit}, {name: "correlation", n: true, key: f => Math.abs(f.correlation), text: f => f.correlation.toFixed(2)}], l.follows, fold, 2);
    }
  }
  if (D.layers.every(l => !l.follows.length)) add('<p class="soft">No unit was found to follow anything that can be read off the input (it takes at least 12 steps).</p>');
}

function drawHeat(l, name, rows, to) {
  const units = rows[0].length, cell = Math.max(8, Math.min(40, Math.floor(900 / rows.length))), tall = units > 300 ? 1 : units > 100 ? 2 : units > 12 ? 4 : 12;
  const order = l.order.length === units ? l.order : [...Array(units).keys()], most = Math.max(...rows.map(sizeOf)) || 1, every = Math.ceil(34 / cell);
  // colours go with the root, that small values are seen: the scale's numbers do too
  add(`<p class="soft">${esc(name)}: a line a unit (those that move alike together), a column a step. ${bar([-1, -.5, 0, .5, 1].map(v => signed(v, 1)), num(-most), "+" + num(most), `half as strong: ±${num(most / 4)}`)}</p>`, to);
  const box = add('<div class="wide"></div>', to), canvas = document.createElement("canvas"), dark = matchMedia("(prefers-color-scheme: dark)");
  canvas.width = rows.length; canvas.height = units; canvas.style.width = cell * rows.length + "px"; canvas.style.height = tall * units + "px";
  canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", name + " of all units at all steps");
  const draw = () => {
    const brush = canvas.getContext("2d"), image = brush.createImageData(rows.length, units);
    const [z, u, d] = dark.matches && !matchMedia("print").matches ? [[20, 24, 29], [224, 117, 47], [74, 143, 216]] : [[255, 255, 255], [217, 100, 31], [42, 114, 192]];
    order.forEach((unit, y) => rows.forEach((row, t) => { const v = row[unit] / most, a = MIXED / 100 * Math.sqrt(Math.abs(v)), to = v < 0 ? d : u; for (let c = 0; c < 3; c++) image.data[4 * (y * rows.length + t) + c] = z[c] + (to[c] - z[c]) * a; image.data[4 * (y * rows.length + t) + 3] = 255; }));
    brush.putImageData(image, 0, 0);
  };
  draw(); dark.addEventListener("change", draw); box.append(canvas);
  canvas.addEventListener("mousemove", e => {
    const r = canvas.getBoundingClientRect(), t = Math.floor((e.clientX - r.left) / r.width * rows.length), u = order[Math.floor((e.clientY - r.top) / r.height * units)];
    if (rows[t] === undefined || u === undefined) return;
    canvas.dataset.tip = `unit ${u}, after ${seen(l.steps[t])}: ${num(rows[t][u])}`;
    tip.textContent = canvas.dataset.tip; tip.style.display = "block"; tip.style.left = Math.min(e.clientX + 12, innerWidth - tip.offsetWidth - 4) + "px"; tip.style.top = e.clientY + 12 + "px";
  });
  add(`<div style="display:flex;width:${cell * rows.length}px">${l.steps.filter((_, t) => t % every === 0).map(s => `<span style="width:${cell * every}px;flex:none;overflow:hidden;font-size:10px;white-space:nowrap" title="${esc(seen(s))}">${esc(seen(s))}</span>`).join("")}</div>`, box);
}

function drawOpenness(l, to) {
  const gates = Object.entries(l.gates), mean = a => percent(a.reduce((s, x) => s + x, 0) / a.length);
  if (!gates.length) return;
  add("<div class='wide'><table><tr><th>gate</th><th class=n>open, on the mean</th><th class=n>shut (under 0.1)</th><th class=n>open (over 0.9)</th></tr>" + gates.map(([g, v]) => `<tr><td>${esc(g)}</td><td class=n>${mean(v.mean)}</td><td class=n>${mean(v.closed)}</td><td class=n>${mean(v.open)}</td></tr>`).join("") + "</table></div>", to);
  const pair = add('<div class="pair"></div>', to), whole = [0, 1];
  gates.forEach(([g, v], i) => add(`<div class="wide"><b>${esc(g)}</b><span class=soft>a dot a unit</span>${chart({x: "share of steps wide open (over 0.9)", y: "share of steps shut (under 0.1)", width: 300, height: 230, xRange: whole, yRange: whole, curves: [{name: "", dots: true, colour: COLOURS[i % 6], points: v.open.map((o, u) => [o, v.closed[u], undefined, `unit ${u}: open ${percent(o)}, shut ${percent(v.closed[u])}`])}]})}</div>`, pair));
  if (!l.time_constants) return;
  const sorted = l.time_constants.map((v, u) => [v, u]).sort((a, b) => a[0] - b[0]);
  add(`<div class="wide"><b>time constants</b><span class=soft>steps until 1/e of what a unit holds is left</span>${chart({log: true, x: "units, from short to long", y: "steps", width: 300, height: 230, curves: [{name: "", dots: true, colour: "var(--c)", points: sorted.map((p, i) => [i, p[0], undefined, `unit ${p[1]}: ${num(p[0])} steps`])}]})}</div>`, pair);
}
