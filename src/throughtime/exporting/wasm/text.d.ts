
export interface Writing {
  /** Tokens to write; 400. */
  length?: number;
  /** Under 1 is safer, over 1 wilder; 0 takes the likeliest; 0.8. */
  temperature?: number;
  /** The same seed writes the same; 0. */
  seed?: number;
}

export interface TextNetwork extends Network {
  /** What each token stands for; 0 is what is not known, 1 begins a document. */
  readonly vocabulary: string[];
  readonly start: number;
  /** The tokens of a text; what the vocabulary does not know is 0. */
  encode(text: string): number[];
  /** A function that gives the text that one token after another adds. */
  decoder(): (token: number) => string;
  /** A text that goes on from a prompt. */
  write(prompt?: string, options?: Writing): string;
  /** The same, a piece after the other, as they are written. */
  pieces(prompt?: string, options?: Writing): Generator<string>;
}
