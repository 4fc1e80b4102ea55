/** The one stream: lifecycle events and sums, read with fetch because a header carries the token. */
import { Problem, request } from "./api.js";
import { applyLife, applyStats, load } from "./model.js";
import { history } from "./history.js";
import { link, needToken, node, recent, say, totals } from "./state.js";

/** @import { Life, Stats } from "./types.js" */

const KEEP = 300;
const SILENCE = 40_000;

/** @type {AbortController | null} */ let current = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */ let timer;
let last = 0;
let tries = 0;
let heard = 0;
/** @type {Set<string>} */ let paths = new Set();
/** @type {Set<(event: Life) => void>} */ const listeners = new Set();

/** Calls back for each lifecycle event; returns how to stop. @param {(event: Life) => void} call */
export function onLife(call) {
  listeners.add(call);
  return () => void listeners.delete(call);
}

/** Whose numbers are wanted. A smaller wish changes nothing; a new path opens the stream anew, soon. @param {string[]} list */
export function watch(list) {
  if (list.every((path) => paths.has(path)) && paths.size < list.length * 3) return;
  paths = new Set(list.slice(0, 80));
  clearTimeout(timer);
  timer = setTimeout(open, current ? 400 : 0);
}

/** Opens the stream; an older one is closed when the new one answers, so that nothing is missed. */
export async function open() {
  clearTimeout(timer);
  const before = current, mine = new AbortController();
  current = mine;
  if (!before) link.value = tries ? "reconnecting" : "connecting";
  const query = new URLSearchParams({ topics: "life,stats", paths: [...paths].join(",") });
  if (last) query.set("since", String(last));
  try {
    const response = await request(`stream?${query}`, { signal: mine.signal, headers: { Accept: "text/event-stream" }, cache: "no-store" });
    before?.abort();
    link.value = "live";
    tries = 0;
    heard = Date.now();
    await read(/** @type {ReadableStream<Uint8Array>} */ (response.body));
  } catch (error) {
    before?.abort();
    if (mine.signal.aborted && current !== mine) return;
    if (error instanceof Problem && error.status === 401) { current = null; return; }
  }
  if (current !== mine) return;
  current = null;
  link.value = "reconnecting";
  timer = setTimeout(open, Math.min(8000, 400 * 2 ** tries++) * (0.75 + Math.random() / 2));
}

/** @param {ReadableStream<Uint8Array>} body */
async function read(body) {
  const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard = Date.now();
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop() ?? "";
    for (const block of blocks) take(block);
  }
}

/** @param {string} block */
function take(block) {
  let kind = "message", data = "";
  for (const line of block.split(/\r?\n/)) {
    if (line.startsWith("event:")) kind = line.slice(6).trim();
    else if (line.startsWith("data:")) data += line.slice(5).trim();
  }
  if (!data) return;
  const body = JSON.parse(data);
  if (kind === "life") takeLife(body);
  else if (kind === "stats") takeStats(body);
  else if (kind === "gap") takeGap(body);
}

/** @param {Life} event */
function takeLife(event) {
  // Two streams overlap while one takes over from the other.
  if (event.seq <= last) return;
  last = event.seq;
  recent.value = [event, ...recent.value].slice(0, KEEP);
  applyLife(event);
  for (const listener of listeners) listener(event);
}

/** @param {Stats} stats */
function takeStats(stats) {
  if (stats.totals) {
    totals.value = stats.totals;
    history.see("", { handled: stats.totals.handled, depth: 0 });
  }
  applyStats(stats);
}

/** @param {{from: number, to: number}} gap */
async function takeGap(gap) {
  link.value = "gap";
  last = Math.max(last, gap.to);
  await load();
  say(`${gap.to - gap.from + 1} events were missed; the tree was read again`);
  if (current) link.value = "live";
}

/** From where to listen: what a first reading has shown is not told again. @param {number} seq */
export function begin(seq) {
  last = seq;
  tries = 0;
  if (!current) open();
}

setInterval(() => {
  if (current && link.value === "live" && Date.now() - heard > SILENCE) current.abort(), (current = null), open();
}, 5000);
addEventListener("online", () => { if (!current && node.value && !needToken.value) open(); });
