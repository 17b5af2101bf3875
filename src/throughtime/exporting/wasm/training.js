// {{heading}}
import { compile } from "./{{name}}.js";

const SPEC = {{spec}};

// what WebAssembly has no instruction for
const LIBM = {{libm}};

/** The network with weights of its own, at first those that were exported. batch: sequences side by side, B. */
export async function trainer(batch = 1, source = new URL(`${SPEC.name}_training.wasm`, import.meta.url)) {
  if (!Number.isInteger(batch) || batch < 1) throw new RangeError(`${SPEC.name}: sequences are 1 or more, got ${batch}`);
  return new Trainer(SPEC, batch, await WebAssembly.instantiate(await compile(source), { env: LIBM }));
}

{{trainer}}