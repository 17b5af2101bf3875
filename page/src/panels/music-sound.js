// Notes as sound: a few harmonics that fade, made in the page.
import { pitchOf } from "./music-roll.js";

const AHEAD = 0.4, EVERY = 100;  // s that are told to the sound in advance; ms between two looks
const HARMONICS = [0, 1, 0.45, 0.22, 0.1, 0.05];
let here = null, wave = null;

function sound() {
  if (!here) {
    here = new AudioContext();
    wave = here.createPeriodicWave(new Float32Array(HARMONICS.length), Float32Array.from(HARMONICS));
    const soft = here.createDynamicsCompressor();
    soft.connect(here.destination);
    here.out = soft;
  }
  if (here.state === "suspended") here.resume();
  return here;
}

/** Let a note sound from a time of the sound's clock on, for so many seconds. Returns: what stops it. */
function note(context, pitch, velocity, when, seconds) {
  const made = context.createOscillator(), loud = context.createGain(), level = 0.22 * (velocity / 127) ** 1.5;
  made.setPeriodicWave(wave);
  made.frequency.value = 440 * 2 ** ((pitch - 69) / 12);
  loud.gain.setValueAtTime(0, when);
  loud.gain.linearRampToValueAtTime(level, when + 0.008);
  loud.gain.setTargetAtTime(level * 0.45, when + 0.01, 0.5);
  loud.gain.setTargetAtTime(0, when + seconds, 0.05);
  made.connect(loud).connect(context.out);
  made.start(when);
  made.stop(when + seconds + 0.35);
  return made;
}

/** A drum: a short noise, deep for low keys. */
function drum(context, pitch, velocity, when) {
  const made = context.createBufferSource(), loud = context.createGain(), filter = context.createBiquadFilter();
  made.buffer = context.createBuffer(1, context.sampleRate * 0.12, context.sampleRate);
  const data = made.buffer.getChannelData(0);
  data.forEach((_, i) => { data[i] = (Math.random() * 2 - 1) * (1 - i / data.length) ** 3; });
  filter.type = pitch < 40 ? "lowpass" : "bandpass";
  filter.frequency.value = pitch < 40 ? 160 : pitch < 42 ? 1200 : 6000;
  loud.gain.value = 0.5 * (velocity / 127) ** 1.5;
  made.connect(filter).connect(loud).connect(context.out);
  made.start(when);
  return made;
}

/** Plays notes from a time of theirs on, in seconds. onTime: is told where it is, null at the end; onEnd: that it has ended. */
export class Player {
  constructor(notes, from, onTime, onEnd) {
    this.context = sound();
    this.left = notes.filter(n => n.start >= from).sort((a, b) => a.start - b.start);
    this.end = Math.max(from, ...notes.map(n => n.end));
    this.zero = this.context.currentTime + 0.08 - from;  // of the sound's clock, when the notes' is 0
    Object.assign(this, { onTime, onEnd, made: new Set() });
    this.timer = setInterval(() => this.tell(), EVERY);
    this.tell();
    const draw = () => {
      if (!this.timer) return;
      this.onTime(Math.max(from, this.context.currentTime - this.zero));
      requestAnimationFrame(draw);
    };
    draw();
  }

  tell() {
    const now = this.context.currentTime - this.zero;
    while (this.left.length && this.left[0].start < now + AHEAD) {
      const n = this.left.shift(), when = Math.max(this.context.currentTime, this.zero + n.start);
      const made = n.program === 128 ? drum(this.context, n.pitch, n.velocity, when) : note(this.context, n.pitch, n.velocity, when, n.end - n.start);
      this.made.add(made);
      made.onended = () => this.made.delete(made);
    }
    if (now > this.end + 0.2) this.stop();
  }

  stop() {
    if (!this.timer) return;
    clearInterval(this.timer);
    this.timer = null;
    for (const one of this.made) one.stop();
    this.onTime(null);
    this.onEnd();
  }
}

/** Let keys (C4+E4) sound for a moment. */
export function strike(keys) {
  const context = sound(), pitches = keys.split(/[+ ]/).map(pitchOf).filter(p => p >= 0);
  for (const pitch of pitches) note(context, pitch, 80, context.currentTime + 0.02, 0.5);
}
