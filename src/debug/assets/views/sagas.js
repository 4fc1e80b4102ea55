/** Processes of several steps: where each stands, what happened to it, and what a person decides. */
import { html, useState } from "../vendor/index.js";
import { get, post } from "../api.js";
import { num, words } from "../format.js";
import { acting } from "../state.js";
import { Card, Empty, Table, Trouble, When, right, useRead } from "../components/bits.js";
import { askDecision } from "../components/dialog.js";

const STATES = ["", "running", "compensating", "parked", "completed", "compensated"];

export function SagasView() {
  const [status, setStatus] = useState(""), [after, setAfter] = useState(""), [open, setOpen] = useState("");
  const { data, error, load } = useRead(`sagas ${status} ${after}`, () => get("sagas", { status, after, limit: 50 }), 2000);
  const all = data?.sagas ?? [];
  const key = (/** @type {any} */ one) => `${one.name}/${encodeURIComponent(one.id)}`;
  const rows = all.map((/** @type {any} */ one) => [
    html`<button class="link" aria-expanded=${open === key(one)} onClick=${() => setOpen(open === key(one) ? "" : key(one))}>${one.name} ${one.id}</button>`,
    html`<span class=${one.status === "parked" ? "hot-text" : ""}>${words(one.status)}</span>`, one.step ?? "–",
    html`<${When} at=${one.started_at} />`, one.wake_at ? html`<${When} at=${one.wake_at} />` : "–", one.error ?? "",
  ]);
  return html`<main class="view" id="main"><div class="view-head"><h1>Sagas</h1>
      <div class="tools-inline"><select aria-label="State" value=${status} onChange=${(/** @type {any} */ e) => { setAfter(""); setStatus(e.currentTarget.value); }}>${STATES.map((one) => html`<option value=${one}>${one ? words(one) : "all states"}</option>`)}</select></div></div>
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data && html`<div class=${open ? "two" : ""}><${Card} title="Sagas" note=${num(all.length)}>
      ${rows.length ? html`<${Table} label="A page of sagas" head=${["saga", "now", "step", "begun", "goes on", "why"]} rows=${rows} keys=${all.map(key)} />` : html`<${Empty} title="No saga here">A saga runs its steps one after the other and undoes them in reverse if one cannot be done. Each stands here with its step, until it is completed, undone, or waits for a person.<//>`}
      <p class="buttons start">${after && html`<button onClick=${() => setAfter("")}>To the first</button>`}${data.next && html`<button onClick=${() => setAfter(data.next)}>Next</button>`}</p>
    <//>${open && html`<${Saga} key=${open} at=${open} />`}</div>`}
  </main>`;
}

/** @param {{at: string}} props */
function Saga({ at }) {
  const { data, error, load } = useRead(`saga ${at}`, () => get(`sagas/${at}`), 2000);
  const may = acting.value;
  const decide = (/** @type {string} */ action, /** @type {string} */ verb, /** @type {string} */ text) => askDecision({
    title: `${verb} ${data.name} ${data.id}`, text, verb, danger: action === "abort", run: (reason) => post(`sagas/${at}/${action}`, { reason }), done: load, said: `${data.name} ${data.id}: ${action}`,
  });
  if (!data) return error ? html`<${Trouble} error=${error} retry=${load} />` : null;
  const over = data.status === "completed" || data.status === "compensated";
  return html`<${Card} title=${`${data.name} ${data.id}`} note=${words(data.status)} actions=${over ? null : html`<span class="buttons">
      <button disabled=${!may.allowed} title=${may.allowed ? "" : may.why} onClick=${() => decide("retry", "Retry", "It goes on at once, with all its tries.")}>Retry …</button>
      <button class="danger" disabled=${!may.allowed} title=${may.allowed ? "" : may.why} onClick=${() => decide("abort", "Abort", "The steps that are done are undone, the last one first.")}>Abort …</button></span>`}>
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data.error && html`<p class="hot-text">${data.error}</p>`}
    <${Table} label="Steps" head=${["step", "now", right("tries"), "what was wrong"]} rows=${data.steps.map((/** @type {any} */ one) => [one.name, words(one.status), num(one.attempts + (one.undo_attempts ?? 0)), one.error ?? ""])} />
    <h3>History</h3>
    <${Table} label="History" head=${["when", "what", "more"]} rows=${data.history.map((/** @type {any} */ one) => [html`<${When} at=${one.at} />`, words(one.type.replace(/^saga\./, "")), one.text])} />
    <h3>Data</h3><pre tabindex="0">${JSON.stringify(data.data, null, 2)}</pre>
  <//>`;
}
