/** A matrix [K, N] or a row [N] among the weights; stride: numbers from one row of a matrix to the next. */
export interface Weight {
  name: string;
  offset: number;
  shape: number[];
  stride: number;
  trained: boolean;
}

/** How weights are moved: by Adam [default], or each by its gradient times the rate. clip: gradients of a larger norm are made so short. */
export interface Settings {
  method?: "adam" | "sgd";
  rate?: number;
  clip?: number;
  beta1?: number;
  beta2?: number;
  epsilon?: number;
}

export interface Trainer {
  readonly name: string;
  readonly batch: number;
  readonly parts: Weight[];
  readonly inputSize: number;
  readonly outputSize: number;
  readonly stateSize: number;
  /** The weights, as a copy; set them to go on from others. */
  get weights(): Float32Array;
  set weights(values: ArrayLike<number>);
  /** What `backward` has added up since the last update; they lie as the weights do. */
  readonly gradients: Float32Array;
  /** The states, [B, stateSize], as a copy; set them to go on from others. */
  get state(): Float32Array;
  set state(values: ArrayLike<number>);
  /** After `backward`, the gradient of the states that the steps started from, [B, stateSize]. */
  readonly stateGradient: Float32Array;
  /** Put the first state back in all sequences. */
  reset(): void;
  /** Steps from the present state on. x: [T, B, inputSize]. Returns: [T, B, outputSize]. */
  forward(x: ArrayLike<number>): Float32Array;
  /** The same steps backwards. dy: [T, B, outputSize]. each: called after each step, from the last to the first, with its number and
   * the gradient of the states before it, [B, stateSize], which the next step writes over. Returns: the gradient of the input,
   * [T, B, inputSize]. */
  backward(dy: ArrayLike<number>, each?: (step: number, gradient: Float32Array) => void): Float32Array;
  /** Move the weights, and begin new gradients. Returns: the norm of the gradients. */
  update(settings?: Settings): number;
}

/** The network with weights of its own, at first those that were exported. batch: sequences side by side, B. */
export function trainer(batch?: number, source?: string | URL | BufferSource | WebAssembly.Module): Promise<Trainer>;
