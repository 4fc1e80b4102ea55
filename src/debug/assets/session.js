/** Who is there: the node's facts, read at the start and now and then; and the first reading of all. */
import { effect } from "./vendor/index.js";
import { Problem, get, setToken } from "./api.js";
import { load } from "./model.js";
import { link, needToken, node, recent, totals } from "./state.js";
import { begin } from "./stream.js";

let running = false;
let last = 0;

/** Reads the node, then the tree, then listens. Called again after a token was given. */
export async function start() {
  if (!(await facts())) return;
  needToken.value = null;
  await Promise.all([load(), news()]);
  begin(node.value?.seq ?? 0);
  if (running) return;
  running = true;
  setInterval(() => { if (!document.hidden) facts(); }, 5000);
  setInterval(() => { if (!document.hidden) load(); }, 20_000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) facts(), load(); });
  // What happened while nobody listened is only known by reading.
  effect(() => {
    const live = link.value === "live";
    if (live && last) load();
    last = live ? 0 : Date.now();
  });
}

async function facts() {
  try {
    node.value = await get("node");
    totals.value ??= node.value?.totals ?? null;
    return true;
  } catch (error) {
    if (!(error instanceof Problem && error.status === 401) && !running) setTimeout(start, 2000), (link.value = "reconnecting");
    return false;
  }
}

/** The last events from before the page was open. */
async function news() {
  const last = node.value?.seq ?? 0;
  const lines = await get("timeline", { since: Math.max(0, last - 40), limit: 40 }).catch(() => null);
  if (lines && !recent.value.length) recent.value = lines.events.reverse();
}

/** @param {string} token */
export function useToken(token) {
  setToken(token);
  return start();
}
