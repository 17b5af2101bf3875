// Runs an exported network on what comes from standard input, until that ends: int32 T and B, float32 x [T, B, I] and states
// [B, S]. Answers on standard output: the state of a new stream; then for each y [T, B, O] and states [B, S]. Where B is 0, one
// stream reads tokens, int32 [T].
import { pathToFileURL } from "node:url";
import { read, write } from "./pipes.mjs";

const { load } = await import(pathToFileURL(process.argv[2]));
const net = await load();

write(net.stream().state);
for (;;) {
  const [steps, count] = new Int32Array(read(8)), wide = count * net.inputSize;
  const given = read(4 * steps * (wide || 1));
  const streams = net.streams(count || 1);
  streams.state = new Float32Array(read(4 * (count || 1) * net.stateSize));
  const step = count
    ? (t) => streams.step(new Float32Array(given, 4 * t * wide, wide))
    : (t) => streams.read(new Int32Array(given)[t]);
  for (let t = 0; t < steps; t++) write(step(t));
  write(streams.state);
  streams.free();
}
