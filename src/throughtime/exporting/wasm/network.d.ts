/** A part of a row of numbers. */
export interface Part {
  name: string;
  offset: number;
  shape: number[];
}

export interface Streams {
  readonly count: number;
  /** One step. x: [count, inputSize]. Returns: [count, outputSize], in y where that is given. */
  step(x: ArrayLike<number>, y?: Float32Array): Float32Array;
{{reading}}  /** The states, [count, stateSize], as a copy; set them to go on from others. */
  get state(): Float32Array;
  set state(values: ArrayLike<number>);
  /** Put the first state back: in one stream, by its number, or in all. */
  reset(number?: number): void;
  /** Give the memory back. */
  free(): void;
}

export interface Network {
  readonly name: string;
  readonly inputs: Part[];
  readonly states: Part[];
  /** Numbers that a step of a stream reads, gives and carries on. */
  readonly inputSize: number;
  readonly outputSize: number;
  readonly stateSize: number;
  /** One stream, at the first state. */
  stream(): Streams;
  /** Many streams that step together: their inputs, outputs and states are [count, size], row after row. */
  streams(count: number): Streams;
}
{{text}}
/** The network of a URL, a path (Node), the bytes of a .wasm file or a compiled WebAssembly.Module. */
export function load(source?: string | URL | BufferSource | WebAssembly.Module): Promise<{{network}}>;
