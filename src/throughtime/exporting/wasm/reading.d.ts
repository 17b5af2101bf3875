  /** Read a token. Returns: log p of each that may come next, in `logP` where that is given. */
  read(token: number, logP?: Float32Array): Float32Array;
