// A stream of speech, to the server's session of it over a WebSocket; and the microphone.
import { ask, Refused } from "../lib/api.js";

const PART = 0.25;  // s of a recording that are sent at a time
const UNDERWAY = 4;  // parts that are not answered yet

/** A session of speech. onEvents: takes what is heard, as the server's events; onError: why it broke. */
export class Hearing {
  static async open(model, rate, onEvents, onError) {
    const { id } = await ask("/v1/sessions", { model, rate }), made = new Hearing();
    Object.assign(made, { id, time: 0, waiting: [], onEvents, onError, ended: false });
    made.socket = new WebSocket(`${location.origin.replace("http", "ws")}/v1/stream`);
    made.socket.binaryType = "arraybuffer";
    await new Promise((done, fail) => {
      made.socket.onopen = done;
      made.socket.onerror = () => fail(new Refused("the server does not answer: it was stopped; start `throughtime play` again, and reload"));
    });
    made.socket.onmessage = ({ data }) => made.answered(JSON.parse(data));
    made.socket.onclose = () => made.ended || onError("the connection to the server broke; begin again");
    await made.send(JSON.stringify({ open: [id] }));
    return made;
  }

  answered(said) {
    const waits = this.waiting.shift();
    if (said.error) {
      this.ended = true;
      this.onError(said.error.message);
    } else if (said.events) this.onEvents(said.events);
    waits?.();
  }

  send(data) {
    return new Promise(done => {
      this.waiting.push(done);
      this.socket.send(data);
    });
  }

  /** Let it hear samples. Returns: a promise that is kept when it has. */
  hear(samples) {
    if (this.ended || !samples.length) return Promise.resolve();
    const data = new ArrayBuffer(16 + 2 * samples.length), view = new DataView(data);
    view.setUint32(0, 1, true);
    view.setBigUint64(8, BigInt(this.time), true);
    new Int16Array(data, 16).set(samples);
    this.time += samples.length;
    return this.send(data);
  }

  /** All of a recording, some parts underway at a time; it stops where `going` says so. */
  async hearAll({ samples, rate }, going) {
    const size = Math.round(PART * rate), underway = [];
    for (let at = 0; at < samples.length && going() && !this.ended; at += size) {
      underway.push(this.hear(samples.subarray(at, at + size)));
      if (underway.length >= UNDERWAY) await underway.shift();
    }
    await Promise.all(underway);
  }

  /** The end: what is heard then is told, and the session is forgotten. */
  async finish() {
    if (!this.ended) await this.send(JSON.stringify({ session: this.id, first: this.time, last: true }));
    this.ended = true;
    this.socket.close();
    fetch(`/v1/sessions/${this.id}`, { method: "DELETE" }).catch(() => null);
  }
}

/** The microphone. onSamples: takes samples of 16 bits as they come. Raises: why it cannot be had. */
export class Microphone {
  static async open(onSamples) {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error("this browser gives no page a microphone here; choose or drop a recording");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    } catch (error) {
      throw new Error(error.name === "NotAllowedError" ? "the browser was not allowed to use the microphone: allow it beside the address, and listen again" : `there is no microphone to be had (${error.name}); choose or drop a recording`);
    }
    const made = new Microphone();
    made.stream = stream;
    made.context = new AudioContext();
    await made.context.audioWorklet.addModule("microphone.js");
    const node = new AudioWorkletNode(made.context, "microphone", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => made.context.state !== "closed" && onSamples(data);
    made.begin = () => made.context.createMediaStreamSource(stream).connect(node);
    return made;
  }

  /** Hz. */
  get rate() {
    return this.context.sampleRate;
  }

  close() {
    for (const track of this.stream.getTracks()) track.stop();
    this.context.close();
  }
}
