/** The tree in memory: read once, then changed by what the stream says, and read again when that is not enough. */
import { signal } from "./vendor/index.js";
import { get } from "./api.js";
import { history } from "./history.js";
import { parentOf } from "./paths.js";

/** @import { ActorNode, Life, Stats, Tree } from "./types.js" */

const FIRST = 50;
const MORE = 200;

/** Grows with each change that can be seen. */
export const version = signal(0);
export const root = signal(/** @type {ActorNode | null} */ (null));
export const problem = signal(/** @type {Error | null} */ (null));
/** How the live tree is narrowed and ordered. */
export const filter = signal({ q: "", state: "", component: "", sort: "worst" });

/** @type {Map<string, ActorNode>} */ let index = new Map();
/** How many children of a dynamic supervisor are wanted. @type {Map<string, number>} */
const wanted = new Map();
/** When a path began its present life, for the glow. @type {Map<string, number>} */
export const glowing = new Map();
let queued = false;
let asked = 0;
/** @type {ReturnType<typeof setTimeout> | undefined} */ let again;

/** @param {string} path */
export function find(path) {
  return index.get(path);
}

/** Many changes, one drawing. */
export function changed() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; version.value++; });
}

/** @param {ActorNode} node @param {Map<string, ActorNode>} into */
function enter(node, into) {
  into.set(node.path, node);
  for (const child of node.nodes ?? []) enter(child, into);
}

/** Reads the tree; an answer that was overtaken is dropped. */
export async function load() {
  const mine = ++asked;
  clearTimeout(again);
  again = undefined;
  const { q, state, component, sort } = filter.peek();
  try {
    /** @type {Tree} */
    const tree = await get("tree", { children: FIRST, q, state, component, sort });
    const deep = await Promise.all([...wanted].map(([path, children]) => get("tree", { path, children, q, state, component, sort }).catch(() => null)));
    if (mine !== asked) return;
    const next = new Map();
    enter(tree.root, next);
    for (const part of deep) if (part) graft(part.root, next);
    index = next;
    root.value = tree.root;
    problem.value = null;
    changed();
  } catch (error) {
    if (mine === asked) problem.value = /** @type {Error} */ (error);
  }
}

/** Reads again soon; many wishes are one reading. */
export function loadSoon(ms = 1500) {
  again ??= setTimeout(load, ms);
}

/** @param {ActorNode} node @param {Map<string, ActorNode>} into */
function graft(node, into) {
  const old = into.get(node.path);
  if (!old) return;
  Object.assign(old, { nodes: node.nodes, children: node.children });
  for (const child of node.nodes ?? []) enter(child, into);
}

/** More children of a folded supervisor. @param {string} path */
export async function more(path) {
  const node = index.get(path);
  wanted.set(path, (wanted.get(path) ?? node?.nodes?.length ?? FIRST) + MORE);
  await load();
}

/** Narrows or orders. @param {Partial<typeof filter.value>} by */
export function narrow(by) {
  filter.value = { ...filter.value, ...by };
  return load();
}

const AFTER = /** @type {Record<string, ActorNode["state"]>} */ ({
  started: "up", restarted: "up", resumed: "up", failed: "failed", start_failed: "backing_off",
  backing_off: "backing_off", stopped: "down", suspended: "suspended", escalated: "failed",
});

/** @param {Life} event */
export function applyLife(event) {
  const node = index.get(event.path);
  if (event.kind === "restarted") {
    glowing.set(event.path, Date.now());
    if (glowing.size > 400) glowing.delete(/** @type {string} */ (glowing.keys().next().value));
  }
  for (const path of event.decision?.affected ?? []) {
    const hit = index.get(path);
    if (hit && path !== event.path && hit.state === "up") { hit.state = "down"; changed(); }
  }
  if (!node) {
    // A child that is folded away changes its supervisor's sums, and a new one is not known yet.
    const up = parentOf(event.path);
    if (up !== null) loadSoon(event.kind === "failed" ? 300 : 1500);
    return;
  }
  const to = AFTER[event.kind];
  if (to) move(node, to);
  if (event.kind === "restarted") node.restarts++;
  if (to === "up" && event.kind !== "resumed") Object.assign(node, { started_at: event.at, up_ms: 0 });
  if (event.kind === "suspended" || event.kind === "resumed") node.suspended = event.kind === "suspended";
  node.life = event.life;
  if (event.kind === "failed") node.last_failure = { at: event.at, life: event.life, reason: event.reason ?? "", seq: event.seq };
  changed();
}

/** @param {ActorNode} node @param {ActorNode["state"]} to */
function move(node, to) {
  const above = index.get(parentOf(node.path) ?? "")?.children?.by_state;
  if (above && node.state !== to) {
    above[node.state] = Math.max(0, (above[node.state] ?? 1) - 1);
    above[to] = (above[to] ?? 0) + 1;
  }
  node.state = to;
}

/** @param {Stats} stats */
export function applyStats(stats) {
  let any = false;
  for (const [path, stat] of Object.entries(stats.nodes)) {
    const node = index.get(path);
    history.see(path, stat);
    if (!node) continue;
    any = true;
    move(node, stat.state);
    node.restarts = Math.max(node.restarts, stat.restarts);
    if (node.mailbox) node.mailbox.depth = stat.depth;
    if (node.handling) Object.assign(node.handling, { handled: stat.handled, busy_ms: stat.busy_ms });
  }
  if (any) changed();
}
