// Numbers drawn by a seed: the same in every browser.

/** A function that gives numbers from 0 up to 1. Source: the generator sfc32 of PractRand (Doty-Humphrey). */
export function uniform(seed) {
  let a = 0, b = 0, c = seed | 0, d = 1;
  const next = () => {
    const sum = (a + b | 0) + d | 0;
    d = d + 1 | 0;
    a = b ^ b >>> 9;
    b = c + (c << 3) | 0;
    c = (c << 21 | c >>> 11) + sum | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 12; i++) next();
  return next;
}

/** A whole number from 0 up to n. */
export const below = (draw, n) => Math.floor(draw() * n);

/** A number of mean 0 and deviation 1. Source: Box, Muller (1958). */
export const normal = draw => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
