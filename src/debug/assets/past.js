/** Time travel: the tree as it was after an event, kept in the address as `?at=`. */
import { effect, signal } from "./vendor/index.js";
import { Problem, get } from "./api.js";
import { past, say } from "./state.js";
import { route, tune } from "./router.js";

/** @import { ActorNode, Tree } from "./types.js" */

/** The tree of the moment that is looked at. */
export const pastRoot = signal(/** @type {ActorNode | null} */ (null));
let asked = 0;

/** Looks at the moment after `seq`; null returns to now. @param {number | null} seq */
export function travel(seq) {
  tune({ at: seq === null ? null : String(seq) });
}

effect(() => {
  const text = route.value.query.get("at");
  const seq = text && /^\d+$/.test(text) ? Number(text) : null;
  if (seq === (past.peek()?.seq ?? null)) return;
  if (seq === null) { past.value = null; pastRoot.value = null; asked++; return; }
  past.value = { seq, at: past.peek()?.at ?? null };
  read(seq);
});

/** The moment stays while the view changes: links carry no `at`. */
addEventListener("hashchange", () => {
  const kept = past.peek();
  if (kept && !location.hash.includes("at=")) tune({ at: String(kept.seq) });
}, { capture: true });

/** @param {number} seq */
async function read(seq) {
  const mine = ++asked;
  try {
    /** @type {Tree} */
    const tree = await get(`at/${seq}`, { children: 500 });
    if (mine !== asked) return;
    pastRoot.value = tree.root;
    past.value = { seq, at: tree.at };
  } catch (error) {
    if (mine !== asked) return;
    say(error instanceof Problem ? error.message : "that moment cannot be read", "bad");
    travel(null);
  }
}
