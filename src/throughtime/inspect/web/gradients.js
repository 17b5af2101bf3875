// Gradients through time, and how a step stretches the state.
const LAYERS = D.layers.filter(l => D.gradients[l.name]);
const TONE = {healthy: "good", vanishing: "bad", exploding: "bad", broken: "bad", "mostly the newest step": "bad"};
const reach = (v, g) => v === null ? (g.norms.length > 1 ? `over ${g.norms.length - 1}` : "–") : v.toFixed(2);

function drawGradients() {
  add(`<h2>Gradients through time</h2><p class="soft">How much an answer would still change by a nudge to the state some steps before it: the norm of ∂(−log p)/∂h, as a part of what it is at the answer. Where it is 0.01, training hardly learns from what stood so far back. Lines: the mean of the logarithm over ${D.averaged_over} input${D.averaged_over > 1 ? "s, with its standard deviation" : ""}${D.outputs.length > 1 ? "; dashed: of the answer chosen above" : ""}. Where an answer is made of all steps (a label, an attention), what comes through the last step alone.</p>`);
  const followed = LAYERS.filter(l => D.gradients[l.name].norms.length > 1);
  if (followed.length) {
    const place = add('<div class="wide"></div>'), mean = followed.map((l, i) => ({name: l.title, colour: COLOURS[i % 6], points: D.gradients[l.name].norms.map((v, k) => [k, v, D.gradients[l.name].spread[k]])}));
    onChoice(one => {
      const own = D.outputs.length < 2 ? [] : followed.map((l, i) => ({name: "", colour: COLOURS[i % 6], dashed: true, points: one.through_time[l.name].map((v, k) => [k, v])})).filter(c => c.points.length > 1);
      place.innerHTML = chart({log: true, x: "steps back", y: "gradient left", width: 1080, height: 300, curves: [...mean, ...own]});
    });
  } else add("<p>The input has one step: there is nothing behind it to follow a gradient to.</p>");
  add("<div class='wide'><table><tr><th>layer</th><th>verdict</th><th class=n>left by each step back</th><th class=n>steps to 1/e</th><th class=n>steps to 1 %</th></tr>" +
    LAYERS.map(l => { const g = D.gradients[l.name]; return `<tr><td>${esc(l.title)}</td><td><span class="verdict ${TONE[g.verdict] || ""}">${esc(g.verdict)}</span></td><td class=n>${g.rate === null ? "–" : percent(g.rate)}</td><td class=n>${reach(g.horizon_e, g)}</td><td class=n>${reach(g.horizon_1, g)}</td></tr>`; }).join("") + "</table></div>");
  for (const [verdict, advice] of new Map(LAYERS.map(l => [D.gradients[l.name].verdict, D.gradients[l.name].advice]))) add(`<p><span class="verdict ${TONE[verdict] || ""}">${esc(verdict)}</span>: ${esc(advice)}.</p>`);
  const stretched = D.layers.filter(l => l.stretching);
  if (!stretched.length) return;
  const fold = add("<details><summary>How a step stretches the state: Lyapunov exponents and singular values</summary></details>");
  add('<p class="soft">Run the network twice, from two states that differ a very little: the largest Lyapunov exponent says by how many nats a step the difference grows (over 0: small differences take over) or shrinks (under 0: at −0.1 a step leaves 90 % of it, and the network forgets where it came from). The singular values say the same of t steps taken together, for each direction of the state by itself: near 1, what the first state held in that direction is still there after t steps; near 0, it is gone.</p>', fold);
  const text = column(stretched.flatMap(l => l.stretching.exponents.slice(0, 5)));
  add("<div class='wide'><table><tr><th>layer</th><th class=n>largest exponent (nats a step)</th><th>the next</th></tr>" + stretched.map(l => `<tr><td>${esc(l.title)}</td><td class=n>${text(l.stretching.exponents[0])}</td><td>${l.stretching.exponents.slice(1, 5).map(text).join(", ")}</td></tr>`).join("") + "</table></div>", fold);
  const pair = add('<div class="pair"></div>', fold);
  for (const l of stretched.filter(l => l.stretching.steps.length > 1))
    add(`<div class="wide"><b>${esc(l.title)}</b>${chart({log: true, x: "steps t", y: "singular values", width: 400, height: 220, curves: [0, 1, 2, 3].filter(k => l.stretching.singular[0].length > k).map(k => ({name: ["largest", "2nd", "3rd", "4th"][k], colour: COLOURS[k], points: l.stretching.steps.map((t, i) => [t, Math.exp(Math.max(l.stretching.singular[i][k], -69))])}))})}</div>`, pair);
}
