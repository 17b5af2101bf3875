// Recordings: files of sound as samples of 16 bits, and samples as a file.

/** A WAV of 16 bits and one channel as it stands in the file, {rate, samples}; null where it is something else. */
export function plainWav(buffer) {
  const view = new DataView(buffer), name = at => String.fromCharCode(...new Uint8Array(buffer, at, 4));
  if (buffer.byteLength < 44 || name(0) !== "RIFF" || name(8) !== "WAVE") return null;
  let rate = 0;
  for (let at = 12; at + 8 <= buffer.byteLength; at += 8 + view.getUint32(at + 4, true) + view.getUint32(at + 4, true) % 2) {
    const size = Math.min(view.getUint32(at + 4, true), buffer.byteLength - at - 8);
    if (name(at) === "fmt ") {
      if (view.getUint16(at + 8, true) !== 1 || view.getUint16(at + 10, true) !== 1 || view.getUint16(at + 22, true) !== 16) return null;
      rate = view.getUint32(at + 12, true);
    } else if (name(at) === "data" && rate) {
      return { rate, samples: new Int16Array(buffer.slice(at + 8, at + 8 + size - size % 2)) };
    }
  }
  return null;
}

/** A file of sound that the browser can read, {rate, samples}: channels mixed, at 16,000 Hz where it is no plain WAV. */
export async function samplesOf(file) {
  const buffer = await file.arrayBuffer(), plain = plainWav(buffer);
  if (plain) return plain;
  const rate = 16000, decoded = await new OfflineAudioContext(1, 1, rate).decodeAudioData(buffer).catch(() => null);
  if (!decoded) throw new Error(`${file.name}: the browser cannot read it as sound; give a WAV`);
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, c) => decoded.getChannelData(c));
  return { rate, samples: Int16Array.from(channels[0], (_, i) => Math.max(-32768, Math.min(32767, Math.round(32768 * channels.reduce((sum, c) => sum + c[i], 0) / channels.length)))) };
}

/** Samples as a WAV, in base64. */
export function asWav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length)), write = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  write(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  write(8, "WAVEfmt ");
  [[16, 4], [1, 2], [1, 2], [rate, 4], [2 * rate, 4], [2, 2], [16, 2]].reduce((at, [value, size]) => (size === 4 ? view.setUint32(at, value, true) : view.setUint16(at, value, true), at + size), 16);
  write(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((v, i) => view.setInt16(44 + 2 * i, v, true));
  const bytes = new Uint8Array(view.buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}
