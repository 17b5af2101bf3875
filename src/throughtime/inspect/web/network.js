// The network, unrolled over the input.
const sizes = rows => rows.map(row => row.reduce((a, v) => a + Math.abs(v), 0) / row.length);

function drawNetwork() {
  const stacks = [...new Set(D.layers.map(l => l.stack))];
  add('<h2>The network, unrolled</h2><p class="soft">The same weights at every step. A box is the state after a step; arrows are what flows. Hover, tap or tab for values.</p>');
  for (const stack of stacks) {
    const rows = D.layers.filter(l => l.stack === stack);
    if (stacks.length > 1) add(`<h3>${esc(rows[0].title.replace(/,? ?(layer \d+)?,? ?(forwards|backwards)?$/, "") || stack)}</h3>`);
    drawStack(rows);
  }
}

function drawStack(rows) {
  const steps = rows[0].steps, W = 64, H = 62, left = widest([...rows.map(l => l.title), ...rows.map(l => `${l.cell}, ${l.hidden_size} units`), "x_t"]) + 16;
  const answers = steps.length === D.outputs.length, width = left + W * steps.length + 10, height = H * (rows.length + (answers ? 1 : 0)) + 64;
  const most = Math.max(...rows.map(l => Math.max(...sizes(Object.values(l.states)[0])))) || 1;
  const y = r => height - 40 - H * (r + 1), centre = t => left + W * t + 20, id = `arrow-${rows[0].stack.replace(/\W/g, "-")}`;
  let out = `<svg width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"><defs><marker id="${id}" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0 6 3 0 6z" fill="var(--soft)"/></marker></defs>`;
  const arrow = (x1, y1, x2, y2) => `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="var(--soft)" marker-end="url(#${id})"/>`;
  out += `<text class="soft" x="4" y="${height - 30}">${rows[0].reads_inputs ? "x_t" : "step"}</text>` + (answers ? `<text class="soft" x="4" y="${y(rows.length) + 14}">y_t</text>` : "");
  rows.forEach((l, r) => {
    const [name, h] = Object.entries(l.states)[0], mean = sizes(h), shift = l.reverse ? 26 : 14, above = rows.findIndex((o, i) => i >= r && o.depth === l.depth + 1);
    out += `<text x="4" y="${y(r) + 12}">${esc(l.title)}</text><text class="soft" x="4" y="${y(r) + 26}">${esc(l.cell)}, ${l.hidden_size} units</text>`;
    steps.forEach((s, t) => {
      const x = left + W * t, top = h[t].map((v, i) => [i, v]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 6);
      const gates = Object.entries(l.gate_means).map(([g, v]) => `${g} ${num(v[t])}`).join(", ");
      out += `<rect x="${x}" y="${y(r)}" width="40" height="30" rx="6" stroke="var(--soft)" fill="${share(mean[t], most)}" ${tipped(`${name}_${t} after ${seen(s)}\nmean size ${num(mean[t])}\nlargest: ${top.map(p => `unit ${p[0]}: ${num(p[1])}`).join(", ")}` + (gates ? `\ngates, on the mean: ${gates}` : "") + `\nsize of its input ${num(l.input_norms[t])}`)}/>`;
      const next = l.reverse ? t - 1 : t + 1;
      if (next >= 0 && next < steps.length) out += l.reverse ? arrow(x, y(r) + 15, x - W + 42, y(r) + 15) : arrow(x + 40, y(r) + 15, x + W - 2, y(r) + 15);
      if (l.depth === 0) out += arrow(x + shift, height - 44, x + shift, y(r) + 32);
      if (above >= 0) out += arrow(x + shift, y(r) - 1, x + shift, y(above) + 32);
      else if (answers) out += arrow(x + shift, y(r) - 1, x + shift, y(rows.length) + 22);
    });
  });
  steps.forEach((s, t) => {
    out += `<text x="${centre(t)}" y="${height - 30}" text-anchor="middle">${esc(fit(seen(s), W - 6))}<title>${esc(seen(s))}</title></text>`;
    if (answers) out += `<text x="${centre(t)}" y="${y(rows.length) + 14}" text-anchor="middle" ${tipped([`${answerName(t)}: ${likely(t)}`, ...ranked(t)].join("\n"))}>${esc(fit(seen(D.outputs[t]), W - 6))}</text>`;
  });
  add(`<p>${shareScale(most, "mean size of a unit of the state")}</p><div class="wide">${out}</svg></div>`);
}
