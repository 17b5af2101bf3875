// Trains beside the page: told {start: settings}, {change: settings} or {running}, it answers with what happened since the last answer.
import { Learner } from "./learner.js";

const SHARE = 60, LOOK = 300;  // ms that it steps on end, and between two looks at the reach of gradients
const FEW = 20;  // steps, of which each is shown by itself
const channel = new MessageChannel(), files = new Map();
let wanted = null, learner = null, running = false, going = false, looked = 0, number = 0, done = false;

/** A file of the folder trainers, fetched once. */
function file(name, made) {
  if (!files.has(name)) {
    files.set(name, fetch(`trainers/${name}`).then(made));
    files.get(name).catch(() => files.delete(name));
  }
  return files.get(name);
}

async function start(own) {
  learner = null;
  try {
    const name = `${wanted.cell}_${wanted.problem === "text" ? "text" : "problem"}`;
    const specs = await file("trainers.json", answer => answer.json());
    const module = await file(`${name}.wasm`, answer => WebAssembly.compileStreaming(answer));
    const made = await Learner.make(specs[name], module, wanted);
    if (own !== number) return;  // another was asked for meanwhile
    learner = made;
    done = false;
    learner.change(wanted);
    tell({ look: learner.look(), points: [], lag: learner.problem.lag, chance: learner.problem.chance });
    go();
  } catch (error) {
    if (own === number) postMessage({ number, error: error.message });
  }
}

const tell = more => postMessage({ number, steps: learner.steps, broke: learner.broke, rare: learner.problem.rare ?? 0, ...more });

function go() {
  if (!running || going || !learner) return;
  going = true;
  channel.port2.postMessage(null);  // what has been told meanwhile is heard first
}

/** Steps for a while; then it says what came of them. Of several steps it tells the mean loss and the largest norm. */
function some() {
  going = false;
  if (!running || !learner) return;
  const until = performance.now() + SHARE, taken = [], answer = {};
  do taken.push({ ...learner.step(), steps: learner.steps });
  while (!learner.broke && learner.steps > FEW && performance.now() < until);
  if (learner.broke) taken.pop();  // of which nothing can be drawn; what was seen before it stays
  else if (learner.steps <= FEW || performance.now() - looked > LOOK) {
    const look = learner.look();
    if (Number.isFinite(look.score)) answer.look = look;
    looked = performance.now();
    answer.learned = learner.problem.learned(look.score);
  }
  answer.stopped = Boolean(learner.broke || answer.learned && !done);  // by itself
  done ||= answer.learned;
  if (answer.stopped) running = false;
  tell({ ...answer, points: taken.length > 1 ? [together(taken)] : taken });
  go();
}

const together = taken => ({
  steps: taken.at(-1).steps,
  loss: taken.reduce((sum, { loss }) => sum + loss, 0) / taken.length,
  norm: Math.max(...taken.map(({ norm }) => norm)),
});

channel.port1.onmessage = some;
onmessage = ({ data }) => {
  if (data.start) {
    wanted = data.start;
    start(++number);
  }
  if (data.change) {
    wanted = { ...wanted, ...data.change };
    learner?.change(data.change);
  }
  if ("running" in data) running = data.running && !learner?.broke;
  go();
};
