// Runs an exported network on what comes from standard input, until that ends: int32 T and B, float32 x [T, B, I] and states
// [B, S]; and answers on standard output: float32 y [T, B, O] and states [B, S].
import { readSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { load } = await import(pathToFileURL(process.argv[2]));
const net = await load();

function read(bytes) {
  const data = new Uint8Array(bytes);
  for (let have = 0, got; have < bytes; have += got) {
    got = readSync(0, data, have, bytes - have);
    if (!got) process.exit();
  }
  return data.buffer;
}

function write(values) {
  const data = new Uint8Array(values.buffer);
  for (let done = 0; done < data.length; ) done += writeSync(1, data, done);
}

for (;;) {
  const [steps, count] = new Int32Array(read(8));
  const x = new Float32Array(read(4 * steps * count * net.inputSize));
  const streams = count === 1 ? net.stream() : net.streams(count);
  streams.state = new Float32Array(read(4 * count * net.stateSize));
  const wide = count * net.inputSize;
  for (let t = 0; t < steps; t++) write(streams.step(x.subarray(t * wide, (t + 1) * wide)));
  write(streams.state);
  streams.free();
}
