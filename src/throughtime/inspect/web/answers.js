// What was found, the answers to choose from, and what each was made of.
const ANSWERS = new Map(D.influence.map(one => [one.output, one])), redraws = [];
let chosen = D.shown;
function onChoice(draw) { redraws.push(draw); draw(ANSWERS.get(chosen)); }
function choose(output) { if (!ANSWERS.has(output)) return; chosen = output; for (const draw of redraws) draw(ANSWERS.get(output)); }

const likely = o => D.discrete ? `p ${D.probabilities[o] > .9995 ? "over 0.999" : `= ${num(D.probabilities[o])}`}` : `density ${num(D.probabilities[o])}`;
const answerName = o => seen(D.outputs[o]) + (D.about ? ` for ${seen(D.about[o])}` : "");
const ranked = o => D.likeliest[o].map(p => `${seen(p[0])} ${chance(p[1])}`);

function drawFinding() {
  add(`<h1>What it remembers</h1><p class="soft">${esc(D.run)} · ${esc(D.task)} · ${D.layers.map(l => `${esc(l.title)}: ${esc(l.cell)} ${l.input_size} → ${l.hidden_size}`).join(" · ")}</p>`);
  const place = add('<p class="finding" aria-live="polite"></p>');
  onChoice(one => { place.textContent = `${one.finding} ${D.memory}`; });
  if (D.input_values) { add("<h2>The input</h2>"); add(course(D.input_values, D.inputs)); }
}

function drawAnswers() {
  const count = D.outputs.length;
  add(`<h2>${count > 1 ? "The answers" : "The answer"}</h2>`);
  if (count > 1) {
    add(`<p class="soft">Choose one, and all that depends on it is told of it${ANSWERS.size < count ? `; of ${count} answers ${ANSWERS.size} can be chosen (inspect --output N takes others)` : ""}.</p>`);
    const box = add('<div class="answers" role="group" aria-label="answers"></div>');
    D.outputs.forEach((s, o) => {
      const button = add(`<button data-output="${o}" ${ANSWERS.has(o) ? "" : "disabled"} data-tip="${esc([`${o}: ${answerName(o)}, ${likely(o)}`, ...ranked(o)].join("\n"))}">${D.about ? `<small>${esc(seen(D.about[o]))}</small>` : ""}${esc(seen(s))}</button>`, box);
      button.onclick = () => choose(o);
      button.onkeydown = e => {
        const to = {ArrowRight: o + 1, ArrowLeft: o - 1}[e.key];
        if (to !== undefined && ANSWERS.has(to)) { e.preventDefault(); choose(to); box.children[to].focus(); }
      };
    });
    onChoice(one => { for (const b of box.children) b.setAttribute("aria-pressed", String(+b.dataset.output === one.output)); });
  }
  const words = add("<p></p>");
  onChoice(({output: o}) => { words.innerHTML = `<b>${esc(answerName(o))}</b>, ${likely(o)}${D.likeliest[o].length ? ` <span class="soft">(likeliest: ${ranked(o).map(esc).join(", ")})</span>` : ""}`; });
}

const WAYS = [
  ["removal", "by taking it away", "log p as it is, less log p with the input unknown: over zero, the input made the answer likelier"],
  ["gradient", "by gradient × input", "what a small change would do, to first order"],
  ["attention", "by attention", "the weights with which the network looked at each input; they sum to 1"],
];

function drawMattered() {
  const heading = add("<h2></h2>"), place = add("<div></div>");
  onChoice(one => {
    heading.textContent = `What mattered for ${answerName(one.output)}`;
    place.innerHTML = "";
    const ways = WAYS.filter(([name]) => one[name] && one[name].some(v => v !== null));
    for (const [name, title, words] of ways) {
      const values = one[name], most = sizeOf(values), paint = name === "attention" ? share : signed;
      add(`<h3>${title}</h3><p class="soft">${words}. ${(name === "attention" ? shareScale(most, "") : signedScale(most, "nats"))}</p>`, place);
      add(coloured(INPUTS, values.map(v => paint(v || 0, most)), values.map((v, i) => `${seen(D.inputs[i])}: ${v === null ? "cannot be taken away" : num(v)}`)), place);
    }
    if (one.removal.every(v => v === null)) add('<p class="soft">No input can be taken away here: the task does not say what is left without one.</p>', place);
    else if (one.agreement !== null || one.disagree)
      add(`<p>${one.disagree ? `<b>${one.agreement >= .5 ? "The two name different inputs first" : "The two disagree"}</b>` : "The two agree"}${one.agreement === null ? "" : ` (rank correlation ${num(one.agreement)})`}: ${one.disagree ? "the gradient only sees small changes; removal is what happened. Believe removal." : "what the gradient says is what removal did."}</p>`, place);
    const columns = ways.map(([name, title]) => { const text = column(one[name]); return {name: title, n: true, sized: name !== "attention", key: i => one[name][i], text: i => text(one[name][i])}; });
    const order = {name: "step", n: true, key: i => -i, text: i => i};
    table([order, {name: "input", key: i => D.inputs[i], text: i => esc(seen(D.inputs[i]))}, ...columns], D.inputs.map((_, i) => i), place, 2, (v, c) => c.sized ? Math.abs(v) : v);
  });
}

function drawAlignment() {
  const rows = D.influence.filter(one => one.attention);
  if (rows.length < 2) return;
  add('<h2>Attention, as a whole</h2><p class="soft">A row an answer, a column an input: how much of its attention each answer gave to each input. Choose a row to have all told of it. ' + shareScale(1, "") + "</p>");
  const box = add('<div class="wide"></div>'), cell = 24, names = rows.map(r => fit(seen(D.outputs[r.output]), 110)), heads = D.inputs.map(s => fit(seen(s), 110));
  const left = widest(names) + 12, top = widest(heads) + 12, width = left + cell * heads.length + 4, height = top + cell * rows.length + 4;
  let out = `<svg class="alignment" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="group" aria-label="attention">`;
  heads.forEach((s, i) => { out += `<text transform="translate(${left + cell * i + cell / 2 + 4} ${top - 6}) rotate(-90)">${esc(s)}</text>`; });
  rows.forEach((r, k) => {
    out += `<g class="picked" data-row="${r.output}" tabindex="0" role="button" aria-label="${esc(names[k])}"><text x="${left - 6}" y="${top + cell * k + 16}" text-anchor="end">${esc(names[k])}</text>`;
    r.attention.forEach((v, i) => { out += `<rect x="${left + cell * i}" y="${top + cell * k}" width="${cell - 1}" height="${cell - 1}" fill="${share(v, 1)}" data-tip="${esc(`${names[k]} looks at ${heads[i]}: ${num(v)}`)}"/>`; });
    out += `<rect class="frame" x="${left - 1}" y="${top + cell * k - 1}" width="${cell * heads.length + 1}" height="${cell + 1}" fill="none" stroke="var(--c)" stroke-width="2" pointer-events="none"/></g>`;
  });
  box.innerHTML = out + "</svg>";
  for (const g of box.querySelectorAll("g")) { g.onclick = () => choose(+g.dataset.row); g.onkeydown = e => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); choose(+g.dataset.row); } }; }
  onChoice(one => { for (const g of box.querySelectorAll("g")) g.querySelector(".frame").style.display = +g.dataset.row === one.output ? "" : "none"; });
}
