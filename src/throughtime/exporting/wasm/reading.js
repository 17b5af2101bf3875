
  /** Read a token. Returns: log p of each that may come next, in `logP` where that is given. */
  read(token, logP = new Float32Array(this.#net.outputSize)) {
    const { read, state, sizes, y: to, view } = this.#alive();
    if (this.count > 1) throw new RangeError(`${this.#net.name}: one stream reads tokens, not ${this.count} together`);
    if (!Number.isInteger(token) || token < 0 || token >= sizes[2]) {
      throw new RangeError(`${this.#net.name}: tokens are numbered from 0 to ${sizes[2] - 1}, got ${token}`);
    }
    this.#check(logP, sizes[2], "log p");
    read(state, token, to);
    logP.set(view().subarray(to / 4, to / 4 + sizes[2]));
    return logP;
  }
