// What is asked of the server again and again while somebody drags.
import { useEffect, useRef, useState } from "preact/hooks";
import { ask } from "../lib/api.js";

/** The answer to a body, [found, error, busy]; while one is computed the newest waits, and those between are left out. null: nothing is
 * asked. What was answered stays until the next is. */
export function useLatest(path, body) {
  const held = useRef({ wanted: null, busy: false }), [found, take] = useState(null), [error, fail] = useState(null), [busy, tell] = useState(false);
  const written = JSON.stringify(body);
  useEffect(() => {
    const here = held.current;
    here.wanted = body && written;
    if (here.busy || !body) return;
    here.busy = true;
    tell(true);
    (async () => {
      while (here.wanted) {
        const wanted = here.wanted;
        here.wanted = null;
        try {
          const answer = await ask(path, JSON.parse(wanted));
          take({ ...answer, asked: JSON.parse(wanted) });
          fail(null);
        } catch (wrong) {
          fail(wrong.message);
        }
      }
      here.busy = false;
      tell(false);
    })();
  }, [path, written]);
  return [found, error, busy];
}

/** Changes that the address holds, [[time, what], …], by time. */
export function changesOf(text) {
  try {
    return new Map(JSON.parse(text ?? "[]").filter(c => Number.isInteger(c[0])));
  } catch {
    return new Map();
  }
}

/** As the address holds them. */
export const written = changes => changes.size ? JSON.stringify([...changes].sort((a, b) => a[0] - b[0])) : undefined;
