// What the page asks its server.

/** What the server refuses, in its words. */
export class Refused extends Error {}

async function asked(path, body, signal) {
  let answer;
  try {
    answer = await fetch(path, body === undefined ? { signal } : {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the server does not answer: it was stopped; start `throughtime play` again, and reload");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  throw new Refused(said?.error?.message ?? `the server answered ${answer.status}`);
}

/** An answer in JSON; with a body the request is a POST. Raises: Refused. */
export const ask = async (path, body, signal) => (await asked(path, body, signal)).json();

/** An answer in binary, as `packed` in play/columns.py writes it: {head, arrays: name -> {values, shape}}. Raises: Refused. */
export async function askNumbers(path, body, signal) {
  const buffer = await (await asked(path, body, signal)).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  let at = 4 + length;
  for (const { name, type, shape } of head.arrays) {
    const size = shape.reduce((product, n) => product * n, 1);
    arrays[name] = { values: new (type === "i4" ? Int32Array : Float32Array)(buffer, at, size), shape };
    at += 4 * size;
  }
  return { head, arrays };
}
