/** Messages that somebody could not handle, and what a person decides about them. */
import { html, useState } from "../vendor/index.js";
import { get, post } from "../api.js";
import { num, words } from "../format.js";
import { acting } from "../state.js";
import { Card, Empty, Table, Trouble, When, doing, right, useRead } from "../components/bits.js";
import { askDecision } from "../components/dialog.js";

export function LettersView() {
  const [origin, setOrigin] = useState(""), [after, setAfter] = useState(""), [open, setOpen] = useState("");
  const { data, error, load } = useRead(`letters ${origin} ${after}`, () => get("dead-letters", { origin, after, limit: 50 }), 2000);
  const all = data?.dead_letters ?? [];
  const rows = all.map((/** @type {any} */ one) => [
    html`<button class="link" aria-expanded=${open === one.id} onClick=${() => setOpen(open === one.id ? "" : one.id)}>${one.event_type}</button><br /><code class="quiet">${one.subject}</code>`,
    one.origin, html`${one.reason} <span class="quiet">${words(one.cause)}</span>`, num(one.attempts), words(one.state), html`<${When} at=${one.kept_at} />`,
    html`<${Buttons} letter=${one} load=${load} />`,
  ]);
  return html`<main class="view" id="main"><div class="view-head"><h1>Dead letters</h1>
      <div class="tools-inline"><input type="search" aria-label="Origin" placeholder="of one subscriber" value=${origin} onChange=${(/** @type {any} */ e) => { setAfter(""); setOrigin(e.currentTarget.value.trim()); }} /></div></div>
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data && html`<${Card} title="Waiting" note=${num(all.length)}>
      ${rows.length ? html`<${Table} label="Dead letters" head=${["message", "whose", "why", right("tries"), "now", "since", doing]} rows=${rows} keys=${all.map((/** @type {any} */ one) => one.id)} />` : html`<${Empty} title="No dead letters">A message that a subscriber could not handle, after all its tries, is kept here with its cause, until a person sends it again or gives it up.<//>`}
      <p class="buttons start">${after && html`<button onClick=${() => setAfter("")}>To the first</button>`}${data.next && html`<button onClick=${() => setAfter(data.next)}>Next</button>`}</p>
    <//>`}
    ${open && html`<${Letter} key=${open} id=${open} />`}
  </main>`;
}

/** @param {{letter: any, load: () => void}} props */
function Buttons({ letter, load }) {
  const may = acting.value, id = encodeURIComponent(letter.id);
  const ask = (/** @type {string} */ action, /** @type {string} */ verb, /** @type {string} */ text) => askDecision({
    title: `${verb} ${letter.event_type}`, text, verb, danger: action === "purge", run: (reason) => post(`dead-letters/${id}/${action}`, { reason }), done: load, said: action === "requeue" ? `it was sent to ${letter.origin} again` : "it was given up",
  });
  const off = { disabled: !may.allowed, title: may.allowed ? "" : may.why };
  return html`<span class="buttons"><button ...${off} onClick=${() => ask("requeue", "Requeue", `It is sent to ${letter.origin} again, and settled when that one acknowledges it.`)}>Requeue …</button><button ...${off} onClick=${() => ask("purge", "Purge", "It is given up for good. Its events stay in the log.")}>Purge …</button></span>`;
}

/** @param {{id: string}} props */
function Letter({ id }) {
  const { data, error, load } = useRead(`letter ${id}`, () => get(`dead-letters/${encodeURIComponent(id)}`), 0);
  if (!data) return error ? html`<${Trouble} error=${error} retry=${load} />` : null;
  const { message, ...facts } = data;
  return html`<${Card} title="The whole message" note=${data.subject}><div class="two">
    <dl class="pairs">${Object.entries(facts).filter(([, value]) => value !== null && typeof value !== "object").map(([name, value]) => html`<div key=${name}><dt>${words(name)}</dt><dd>${String(value)}</dd></div>`)}</dl>
    <pre tabindex="0">${JSON.stringify(message, null, 2)}</pre></div><//>`;
}
