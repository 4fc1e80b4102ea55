/** Paths of actors: `/` and `%` inside an id are `%2F` and `%25` in a path; in a URL each id is encoded whole. */

/** @param {string} path */
export function toUrl(path) {
  return path.split("/").map((segment) => encodeURIComponent(idOf(segment))).join("/");
}

/** @param {string} url */
export function fromUrl(url) {
  const ids = url.split("/").filter(Boolean).map(decode);
  return "/" + ids.map((id) => id.replaceAll("%", "%25").replaceAll("/", "%2F")).join("/");
}

/** @param {string} segment */
function idOf(segment) {
  return segment.replaceAll(/%2F/gi, "/").replaceAll("%25", "%");
}

/** @param {string} text */
export function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

/** The path above, or null for the root. @param {string} path */
export function parentOf(path) {
  if (path === "/") return null;
  return path.slice(0, path.lastIndexOf("/")) || "/";
}

/** The id at the end of a path. @param {string} path */
export function nameOf(path) {
  return path === "/" ? "/" : idOf(path.slice(path.lastIndexOf("/") + 1));
}

/** The path and all above it, the root first. @param {string} path */
export function chain(path) {
  const all = [path];
  for (let up = parentOf(path); up !== null; up = parentOf(up)) all.unshift(up);
  return all;
}

/** @param {string} path @param {string} above */
export function within(path, above) {
  return above === "/" || path === above || path.startsWith(above + "/");
}
