// What all of the page is drawn with.
const D = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main"), tip = document.getElementById("tip");
const COLOURS = ["a", "b", "c", "d", "e", "f"].map(c => `var(--${c})`);
const MIXED = 70;  // per cent of a colour at most, that text over it is read
const esc = s => String(s).replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}[c]));
const SIGNS = {"\t": "⇥", "\n": "⏎", "\r": "␍", "\u3000": "·", "\xa0": "·"};
const numbered = s => "U+" + s.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
const flow = s => s.replace(/[\t\n\r\u3000\xa0]/g, c => SIGNS[c]).replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, numbered);
const seen = s => flow(s.replace(/^ +| +$/g, m => "·".repeat(m.length))) || "·";
const num = v => v === null || v === undefined ? "–" : Math.abs(v) >= 1e-6 && Math.abs(v) < 1e6 || v === 0 ? String(+v.toPrecision(3)) : v.toExponential(2);
const chance = p => p > .9995 && p < 1 ? "over 0.999" : p < 5e-4 ? "under 0.001" : p.toFixed(3);
const percent = v => (100 * v).toFixed(1) + " %";
const sizeOf = values => values.reduce((most, v) => Math.max(most, Math.abs(v || 0)), 0);

/** Numbers of a column, all with the decimals that three digits of the largest take. */
function column(values) {
  const most = sizeOf(values), decimals = most > 0 ? Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(most)))) : 0;
  return v => v === null || v === undefined ? "–" : (+v.toFixed(decimals) === 0 ? 0 : v).toFixed(decimals);
}

const pen = document.createElement("canvas").getContext("2d");
function measure(text) { pen.font = "11px system-ui, sans-serif"; return pen.measureText(text).width * 1.04; }
const widest = labels => Math.max(0, ...labels.map(measure));
function fit(text, width) {
  if (measure(text) <= width) return text;
  const signs = [...text];
  while (signs.length > 1 && measure(signs.join("") + "…") > width) signs.pop();
  return signs.join("") + "…";
}

const add = (html, to = main) => { const e = document.createElement("div"); e.innerHTML = html; while (e.firstChild) to.append(e.firstChild); return to.lastElementChild; };
const tipped = text => `data-tip="${esc(text)}" tabindex="0"`;
const room = () => Math.max(260, Math.min(1080, document.documentElement.clientWidth - 62));  // within a box

function show(e) {
  const at = e.target.closest("[data-tip]");
  if (!at) { tip.style.display = "none"; return; }
  tip.textContent = at.dataset.tip; tip.style.display = "block";
  const r = at.getBoundingClientRect(), t = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(innerWidth - t.width - 4, r.left)) + "px";
  tip.style.top = (r.bottom + t.height + 8 < innerHeight ? r.bottom + 6 : Math.max(4, r.top - t.height - 6)) + "px";
}
for (const kind of ["mouseover", "click", "focusin"]) document.addEventListener(kind, show);

// ---- colours, and the scales that say what they stand for
const mixed = (colour, part) => `color-mix(in srgb, ${colour} ${Math.round(MIXED * part)}%, var(--back))`;
const signed = (v, most) => mixed(v < 0 ? "var(--down)" : "var(--up)", most ? Math.min(1, Math.abs(v) / most) : 0);
const share = (v, most) => mixed("var(--a)", most ? Math.min(1, v / most) : 0);
const bar = (colours, low, high, words) => `<span class="scale"><span>${low} <i style="background:linear-gradient(to right, ${colours})"></i> ${high}</span> ${words}</span>`;
const signedScale = (most, words) => bar([-1, 0, 1].map(v => signed(v, 1)), num(-most), "+" + num(most), words);
const shareScale = (most, words) => bar([0, 1].map(v => share(v, 1)), "0", num(most), words);

/** A table that is sorted by the heading that is clicked. columns: {name, key: row -> number or text, text: row -> html, n: numbers}. */
function table(columns, rows, to, by, size = v => v) {
  const holder = add('<div class="tall"></div>', to);
  let down = true;
  const draw = () => {
    const key = columns[by].key, order = [...rows].sort((a, b) => { const [x, y] = [key(a), key(b)].map(v => v === null ? -Infinity : size(v, columns[by])); return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1); });
    holder.innerHTML = `<table><thead><tr>${columns.map((c, i) => `<th class="${c.n ? "n" : ""}" ${i === by ? `aria-sort="${down ? "descending" : "ascending"}"` : ""}><button>${esc(c.name)}</button></th>`).join("")}</tr></thead><tbody>` +
      order.map(r => `<tr>${columns.map(c => `<td class="${c.n ? "n" : ""}">${c.text(r)}</td>`).join("")}</tr>`).join("") + "</tbody></table>";
    holder.querySelectorAll("th button").forEach((b, i) => b.onclick = () => { down = i === by ? !down : Boolean(columns[i].n); by = i; draw(); holder.querySelectorAll("th button")[i].focus(); });
  };
  draw();
}
