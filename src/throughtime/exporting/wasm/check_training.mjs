// Runs a network that is trained on what comes from standard input, until that ends: int32 T and B, float32 x [T, B, I], states
// [B, S], and the gradient of the output [T, B, O]. Answers: y, the states, the gradients of weights, of x and of the states.
import { pathToFileURL } from "node:url";
import { read, write } from "./pipes.mjs";

const { trainer } = await import(pathToFileURL(process.argv[2]));

for (;;) {
  const [steps, batch] = new Int32Array(read(8)), net = await trainer(batch);
  const x = new Float32Array(read(4 * steps * batch * net.inputSize));
  net.state = new Float32Array(read(4 * batch * net.stateSize));
  const dy = new Float32Array(read(4 * steps * batch * net.outputSize));
  write(net.forward(x));
  write(net.state);
  const dx = net.backward(dy);
  [net.gradients, dx, net.stateGradient].forEach(write);
}
