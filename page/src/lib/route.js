// The address holds what is shown: #/tape?text=…&at=3. A screen reads it by useRoute, and changes it by go and set.
import { useEffect, useState } from "preact/hooks";

const WAIT = 250;  // ms until what has changed is in the address: browsers refuse it at every key

let now = read(), due = 0;
const listeners = new Set();

function read() {
  const [name, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { name, params: Object.fromEntries(new URLSearchParams(query)) };
}

function written({ name, params }) {
  const query = new URLSearchParams(params).toString();
  return `#/${name}${query && "?" + query}`;
}

function tell(route) {
  now = route;
  for (const listener of listeners) listener(route);
}

function keep() {
  clearTimeout(due);
  due = 0;
  if (written(now) !== location.hash) history.replaceState(null, "", written(now));
}

/** The address of a screen with parameters, for a link. */
export const address = (name, params = {}) => written({ name, params });

/** Show another screen; one can go back to this one. */
export function go(name, params = {}) {
  keep();
  history.pushState(null, "", written({ name, params }));
  tell({ name, params });
}

/** Change parameters of the screen that is shown: {at: 3, text: undefined} sets one and takes one away. */
export function set(params) {
  const all = Object.entries({ ...now.params, ...params }).filter(([, value]) => value !== undefined);
  tell({ name: now.name, params: Object.fromEntries(all.map(([key, value]) => [key, String(value)])) });
  due ||= setTimeout(keep, WAIT);
}

addEventListener("popstate", () => {
  clearTimeout(due);
  due = 0;
  tell(read());
});
addEventListener("pagehide", keep);

/** {name, params}: the screen that is shown, and what it shows; all parameters are texts. */
export function useRoute() {
  const [route, show] = useState(now);
  useEffect(() => {
    listeners.add(show);
    show(now);
    return () => listeners.delete(show);
  }, []);
  return route;
}
