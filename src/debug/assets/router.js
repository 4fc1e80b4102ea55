/** Hash routes: `#/tree/domain/aggregates?q=order`. Paths stand in the address as they stand in the API. */
import { signal } from "./vendor/index.js";
import { decode, fromUrl, toUrl } from "./paths.js";

/** @typedef {{view: string, rest: string[], path: string, query: URLSearchParams}} Route */

export const route = signal(parse(location.hash));

/** @param {string} hash @returns {Route} */
export function parse(hash) {
  const [where = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [view = "", ...rest] = where.split("/");
  return { view: view || "tree", rest: rest.filter(Boolean).map(decode), path: fromUrl(rest.join("/")), query: new URLSearchParams(search) };
}

/** @param {string} view @param {string} path of an actor */
export function href(view, path) {
  return `#/${view}${path === "/" ? "" : toUrl(path)}`;
}

/** @param {string} to */
export function go(to) {
  location.hash = to;
}

/** Changes the query of this route without a step in the history. @param {Record<string, string | null>} changes */
export function tune(changes) {
  const [where] = location.hash.split("?", 1);
  const query = new URLSearchParams(route.value.query);
  for (const [name, value] of Object.entries(changes)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  replace((where || "#/") + (query.size ? `?${query}` : ""));
}

/** @param {string} hash */
export function replace(hash) {
  if (hash === location.hash) return;
  history.replaceState(null, "", hash);
  route.value = parse(hash);
}

addEventListener("hashchange", () => { route.value = parse(location.hash); });
