/** Dialogs: an action with its dry run and a reason; a plain decision; the keys. */
import { html, useEffect, useRef, useState } from "../vendor/index.js";
import { actorUrl, get, post } from "../api.js";
import { num, span } from "../format.js";
import { nameOf } from "../paths.js";
import { acting, dialog, recent, say } from "../state.js";
import { onLife } from "../stream.js";
import { Crumbs, Gauge, Trouble } from "./bits.js";

/** @import { ActorNode, Plan } from "../types.js" */
/** @typedef {{title: string, text: any, verb: string, danger?: boolean, run: (reason: string) => Promise<unknown>, done?: () => void, said: string}} Decision */

/** @param {ActorNode} node @param {string} action */
export function askAction(node, action) {
  if (!acting.value.allowed) return say(`not possible: ${acting.value.why}`, "bad");
  dialog.value = { kind: "action", path: node.path, action, life: node.life };
}

/** @param {Decision} decision */
export function askDecision(decision) {
  if (!acting.value.allowed) return say(`not possible: ${acting.value.why}`, "bad");
  dialog.value = { kind: "decision", ...decision };
}

export function Dialogs() {
  const open = dialog.value;
  if (!open) return null;
  if (open.kind === "keys") return html`<${Keys} />`;
  return open.kind === "action" ? html`<${Action} ...${open} />` : html`<${Plain} ...${open} />`;
}

const close = () => { dialog.value = null; };

/** @param {{title: string, children?: any, class?: string}} props */
function Frame({ title, children }) {
  const frame = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => { frame.current?.showModal(); }, []);
  const outside = (/** @type {MouseEvent} */ event) => { if (event.target === frame.current) close(); };
  return html`<dialog ref=${frame} aria-label=${title} onClose=${close} onClick=${outside}><div class="dialog"><h2>${title}</h2>${children}</div></dialog>`;
}

/** @param {{verb: string, danger?: boolean, ready: boolean, busy: boolean, submit: (reason: string) => void, error: any}} props */
function Reason({ verb, danger = false, ready, busy, submit, error }) {
  const [reason, setReason] = useState("");
  const send = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (reason.trim() && ready && !busy) submit(reason.trim());
  };
  return html`<form onSubmit=${send}>
    <label class="field">Reason <span class="quiet">kept with the event</span><input value=${reason} onInput=${(/** @type {any} */ e) => setReason(e.currentTarget.value)} maxlength="200" required autofocus placeholder="why, for whoever reads the timeline" /></label>
    ${error && html`<${Trouble} error=${error} />`}
    <div class="buttons"><button type="button" onClick=${close}>Cancel</button><button type="submit" class=${danger ? "danger" : "primary"} disabled=${!ready || busy || !reason.trim()}>${busy ? "…" : verb}</button></div>
  </form>`;
}

const VERBS = /** @type {Record<string, string>} */ ({ kill: "Kill", restart: "Restart", stop: "Stop", start: "Start", suspend: "Suspend", resume: "Resume" });
const DONE = /** @type {Record<string, string>} */ ({ kill: "was killed", restart: "is being restarted", stop: "was stopped", start: "was started", suspend: "is suspended", resume: "goes on" });

/** @param {{path: string, action: string, life: number}} props */
function Action({ path, action, life }) {
  const [plan, setPlan] = useState(/** @type {Plan | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const read = () => get(actorUrl(path, "plan"), { action }).then(setPlan, setError);
  useEffect(() => { read(); }, []);
  const verb = `${VERBS[action]} ${nameOf(path)}`;
  const submit = async (/** @type {string} */ reason) => {
    setBusy(true);
    try {
      const began = Date.now();
      const done = await post(actorUrl(path, action), { reason, expect_life: plan?.life ?? life });
      say(`${nameOf(path)} ${DONE[action]}`);
      if (action === "kill" || action === "restart") tellHealing(path, done.seq ?? 0, began);
      close();
    } catch (problem) { setError(problem); setBusy(false); setPlan(null); read(); }
  };
  return html`<${Frame} title=${verb}>
    <p class="dialog-path"><${Crumbs} path=${path} /></p>
    ${plan ? html`<${PlanView} plan=${plan} />` : error ? null : html`<p class="quiet">the dry run is being read …</p>`}
    <${Reason} verb=${verb} danger=${action === "kill" || action === "stop"} ready=${Boolean(plan?.allowed)} busy=${busy} submit=${submit} error=${error} />
  <//>`;
}

/** @param {{plan: Plan}} props */
function PlanView({ plan }) {
  const list = (/** @type {any[]} */ all, /** @type {(one: any) => any} */ show) => html`<ol>${all.slice(0, 8).map((one) => html`<li>${show(one)}</li>`)}${all.length > 8 && html`<li class="quiet">and ${num(all.length - 8)} more</li>`}</ol>`;
  return html`<div class="plan" role="group" aria-label="Dry run">
    <p class="plan-text">${plan.text}</p>
    ${!plan.allowed && html`<p class="warn">Not allowed: ${plan.why}</p>`}
    ${plan.escalates && html`<p class="warn">The intensity is used up: the supervisor gives up and its own supervisor decides.</p>`}
    ${(plan.stops.length > 0 || plan.starts.length > 0) && html`<div class="plan-lists">
      <div><h3>Stops, in this order</h3>${plan.stops.length ? list(plan.stops, (one) => html`<code>${one.path}</code> <span class="quiet">${one.how}</span>`) : html`<p class="quiet">nothing</p>`}</div>
      <div><h3>Starts</h3>${plan.starts.length ? list(plan.starts, (one) => html`<code>${one}</code>`) : html`<p class="quiet">nothing; it stays down</p>`}</div>
    </div>`}
    <p class="plan-facts">${plan.backoff_ms ? html`<span>back-off <b>${span(plan.backoff_ms)}</b></span>` : null}${plan.intensity ? html`<${Gauge} label="restarts then used" value=${plan.intensity.used} max=${plan.intensity.max} />` : null}<span>life <b>${plan.life}</b></span></p>
  </div>`;
}

/**
 * Says when what was killed is up again. It may be so before the answer to the kill is here.
 * @param {string} path @param {number} seq of the kill @param {number} began
 */
function tellHealing(path, seq, began) {
  const healed = (/** @type {import("../types.js").Life} */ event) => event.path === path && event.kind === "restarted" && event.seq > seq;
  const tell = (/** @type {import("../types.js").Life} */ event) => say(`${nameOf(path)} is up again, life ${event.life}, after ${span(Date.now() - began)}`, "good");
  const already = recent.value.find(healed);
  if (already) return tell(already);
  const stop = onLife((event) => {
    if (!healed(event)) return;
    tell(event);
    stop();
  });
  setTimeout(stop, 60_000);
}

/** @param {Decision} props */
function Plain({ title, text, verb, danger, run, done, said }) {
  const [error, setError] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const submit = async (/** @type {string} */ reason) => {
    setBusy(true);
    try { await run(reason); say(said, "good"); close(); done?.(); } catch (problem) { setError(problem); setBusy(false); }
  };
  return html`<${Frame} title=${title}><div class="plan" role="group" aria-label="What happens"><p class="plan-text">${text}</p></div><${Reason} verb=${verb} danger=${danger} ready=${true} busy=${busy} submit=${submit} error=${error} /><//>`;
}

const KEYS = [
  ["↑ ↓", "up and down the tree"], ["→ ←", "unfold, fold, to the parent"], ["Home End", "first and last line"], ["PgUp PgDn", "a page"], ["a … z", "type ahead: the next name that begins so"],
  ["*", "unfold all on this level"], ["Space", "fold or unfold"], ["Enter", "open the actor"], ["Del", "kill it, after the dry run"], ["/", "search"], ["?", "these keys"], ["Esc", "close; return from the past"],
];
function Keys() {
  return html`<${Frame} title="Keys"><dl class="keys">${KEYS.map(([key, text]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${text}</dd></div>`)}</dl><div class="buttons"><button onClick=${close}>Close</button></div><//>`;
}
