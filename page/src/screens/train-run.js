// A training that runs beside the page, in a worker, and what is known of it.
import { useEffect, useRef, useState } from "preact/hooks";

const MOST = 1200;  // points of a curve; from then on two become one
const DRAG = 60;  // ms that a control has to rest before a network begins anew

class Course {
  points = { step: [], loss: [], norm: [] };
  told = null;  // the latest answer: {steps, broke, rare, …}
  look = null;
  about = {};  // {lag, chance}
  early = [];  // [{steps, reach}], after 0, 10, 20, 40, 80 … steps
  learned = null;  // after how many steps

  take(answer) {
    const { look, ...told } = answer;
    if (!this.look) this.about = { lag: told.lag, chance: told.chance };
    this.told = told;
    for (const { steps, loss, norm } of told.points) {
      this.points.step.push(steps);
      this.points.loss.push(loss);
      this.points.norm.push(norm);
    }
    if (this.points.step.length > MOST) this.#thin();
    if (!look) return;
    this.look = look;
    if (told.learned) this.learned ??= told.steps;
    const due = this.early.length ? 10 * 2 ** (this.early.length - 1) : 0;
    if (told.steps >= due) this.early.push({ steps: told.steps, reach: look.reach });
  }

  #thin() {
    const { step, loss, norm } = this.points, halves = Array.from({ length: step.length >> 1 }, (_, k) => 2 * k);
    this.points = {
      step: halves.map(k => step[k + 1]),
      loss: halves.map(k => (loss[k] + loss[k + 1]) / 2),
      norm: halves.map(k => Math.max(norm[k], norm[k + 1])),
    };
  }
}

/**
 * A training of these settings: {course, running, error, run, again}. It begins anew where what a network begins with has changed, and
 * goes on where rate, clip and method have.
 */
export function useTraining(settings) {
  const held = useRef(null), [, redraw] = useState(0), [error, fail] = useState(null), [turn, begin] = useState(0);
  const { rate, clip, method, ...first } = settings, identity = JSON.stringify(first);
  held.current ??= { worker: null, course: new Course(), number: 0, running: false };
  const here = held.current;
  useEffect(() => {
    here.worker = new Worker("train.js", { type: "module" });
    here.worker.onerror = e => fail(e.message || "what trains could not be loaded; reload the page");
    here.worker.onmessage = ({ data }) => {
      if (data.number !== here.number) return;  // of a network that was given up
      if (data.error) return fail(data.error);
      here.course.take(data);
      if (data.stopped) here.running = false;
      redraw(n => n + 1);
    };
    return () => here.worker.terminate();
  }, []);
  useEffect(() => {
    const due = setTimeout(() => {
      here.number++;
      here.course = new Course();
      fail(null);
      here.worker.postMessage({ start: settings, running: here.running });
    }, DRAG);
    return () => clearTimeout(due);
  }, [identity, turn]);
  useEffect(() => here.worker.postMessage({ change: { rate, clip, method } }), [rate, clip, method]);
  const run = running => {
    here.running = running;
    here.worker.postMessage({ running });
    redraw(n => n + 1);
  };
  const again = running => {
    here.running = running;
    begin(n => n + 1);
  };
  return { course: here.course, running: here.running, error, run, again };
}
