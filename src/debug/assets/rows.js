/** The tree as a list of lines: what is unfolded, in order, with the place of each among its siblings. */
import { signal } from "./vendor/index.js";

/** @import { ActorNode } from "./types.js" */
/** @typedef {{key: string, path: string, node: ActorNode | null, level: number, size: number, place: number, open: boolean | null, left: number}} Row */

/** What a person has folded or unfolded; the rest follows a rule. */
export const folds = signal(/** @type {Map<string, boolean>} */ (new Map()));

/** @param {ActorNode} node @param {boolean} narrowed */
export function isOpen(node, narrowed) {
  if (!node.nodes?.length) return false;
  const said = folds.value.get(node.path);
  if (said !== undefined) return said;
  return narrowed || node.path === "/" || node.kind !== "dynamic_supervisor" || (node.children?.total ?? node.nodes.length) <= 8;
}

/** @param {string[]} paths @param {boolean} open */
export function fold(paths, open) {
  const next = new Map(folds.value);
  for (const path of paths) next.set(path, open);
  folds.value = next;
}

/** @param {ActorNode} root @param {boolean} narrowed @returns {Row[]} */
export function flatten(root, narrowed) {
  /** @type {Row[]} */ const rows = [];
  const walk = (/** @type {ActorNode} */ node, /** @type {number} */ level, /** @type {number} */ size, /** @type {number} */ place) => {
    const has = Boolean(node.nodes?.length);
    const open = has ? isOpen(node, narrowed) : null;
    rows.push({ key: node.path, path: node.path, node, level, size, place, open, left: 0 });
    if (!open) return;
    const children = node.nodes ?? [];
    const left = Math.max(0, (node.children?.total ?? 0) - children.length);
    const size2 = children.length + (left ? 1 : 0);
    children.forEach((child, i) => walk(child, level + 1, size2, i + 1));
    if (left) rows.push({ key: `${node.path}\n`, path: node.path, node: null, level: level + 1, size: size2, place: size2, open: null, left });
  };
  walk(root, 1, 1, 1);
  return rows;
}

/** What a key does to the chosen line. @param {Row[]} rows @param {number} at @param {string} key @param {number} page @returns {number | "open" | "close" | null} */
export function step(rows, at, key, page) {
  const row = rows[at], last = rows.length - 1;
  switch (key) {
    case "ArrowDown": return Math.min(last, at + 1);
    case "ArrowUp": return Math.max(0, at - 1);
    case "PageDown": return Math.min(last, at + page);
    case "PageUp": return Math.max(0, at - page);
    case "Home": return 0;
    case "End": return last;
    case "ArrowRight": return row?.open === false ? "open" : row?.open ? at + 1 : null;
    case "ArrowLeft": {
      if (row?.open) return "close";
      for (let i = at - 1; i >= 0; i--) if (rows[i].level < (row?.level ?? 0)) return i;
      return null;
    }
    default: return null;
  }
}

/** The next line whose name begins with `text`. @param {Row[]} rows @param {number} at @param {string} text */
export function ahead(rows, at, text) {
  const from = text.length > 1 ? at : at + 1;
  for (let n = 0; n < rows.length; n++) {
    const i = (from + n) % rows.length;
    if (rows[i].node?.id.toLowerCase().startsWith(text)) return i;
  }
  return null;
}
