// In the thread of sound: what the microphone hears, as samples of 16 bits, a tenth of a second at a time.

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = new Int16Array(Math.round(sampleRate / 10));
    this.count = 0;
  }

  process([channels]) {
    const [first] = channels;
    if (!first) return true;
    for (let i = 0; i < first.length; i++) {
      const mean = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
      this.samples[this.count++] = Math.max(-32768, Math.min(32767, Math.round(32768 * mean)));
      if (this.count === this.samples.length) {
        this.port.postMessage(this.samples.slice());
        this.count = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
