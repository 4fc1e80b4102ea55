/** What the page knows, as signals. Who changes what: each signal names the one module that writes it. */
import { computed, signal } from "./vendor/index.js";

/** @import { NodeInfo, Life, Totals } from "./types.js" */

/** The node's facts; `session.js`. */
export const node = signal(/** @type {NodeInfo | null} */ (null));
/** Sums that move four times a second; `stream.js`. */
export const totals = signal(/** @type {Totals | null} */ (null));
/** The last lifecycle events, newest first; `stream.js`. */
export const recent = signal(/** @type {Life[]} */ ([]));
/** How the stream is; `stream.js`. */
export const link = signal(/** @type {"connecting" | "live" | "reconnecting" | "gap"} */ ("connecting"));
/** Set when the node asks for a token; `api.js`. */
export const needToken = signal(/** @type {{refused: boolean, detail: string} | null} */ (null));
/** The moment that is looked at, or null for now; `past.js`. */
export const past = signal(/** @type {{seq: number, at: string | null} | null} */ (null));
/** Which dialog is open; `components/dialog.js`. */
export const dialog = signal(/** @type {any} */ (null));
/** A clock for relative times, once a second. */
export const now = signal(Date.now());

/** Whether a person may act, and if not, why. */
export const acting = computed(() => {
  if (past.value) return { allowed: false, why: "this is the past; return to now to act" };
  return node.value?.actions ?? { allowed: false, why: "the node has not said yet who may act" };
});

/** @typedef {{id: number, text: string, tone: "good" | "bad" | "calm"}} Toast */
/** What is said at the edge for a while. */
export const toasts = signal(/** @type {Toast[]} */ ([]));
let toastId = 0;

/** @param {string} text @param {Toast["tone"]} [tone] */
export function say(text, tone = "calm") {
  const id = ++toastId;
  toasts.value = [...toasts.value.slice(-3), { id, text, tone }];
  setTimeout(() => { toasts.value = toasts.value.filter((one) => one.id !== id); }, tone === "bad" ? 9000 : 5000);
}

setInterval(() => { if (!document.hidden) now.value = Date.now(); }, 1000);
