/** The log, what is in it, and how far the read models are. */
import { html, useState } from "../vendor/index.js";
import { get, post } from "../api.js";
import { bytes, num } from "../format.js";
import { acting } from "../state.js";
import { ActorLink, Card, Empty, Table, Trouble, When, doing, right, useRead } from "../components/bits.js";
import { askDecision } from "../components/dialog.js";

export function StoreView() {
  const { data, error, load } = useRead("store", async () => {
    const [store, projections] = await Promise.all([get("store"), get("projections")]);
    return { store, projections: projections.projections };
  });
  return html`<main class="view" id="main"><div class="view-head"><h1>Store</h1></div>
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data && html`<${Log} store=${data.store} /><${Projections} all=${data.projections} load=${load} /><${Streams} />`}
  </main>`;
}

/** @param {{store: any}} props */
function Log({ store }) {
  return html`<div class="tiles">
    <div><span class="dt">${store.kind}</span><span class="dd">${num(store.head)}</span><p>events, without a gap, in the order of their commits</p></div>
    <div><span class="dt">types of events</span><span class="dd">${num(store.event_types.length)}</span><p class="clip">${store.event_types.map((/** @type {any} */ one) => one.name).join(", ")}</p></div>
    <div><span class="dt">where</span><span class="dd">${store.bytes === null ? "–" : bytes(store.bytes)}</span><p><code>${store.url}</code>${store.shared ? " · shared with other nodes" : ""}</p></div>
  </div>`;
}

/** @param {{all: any[], load: () => void}} props */
function Projections({ all, load }) {
  const may = acting.value;
  const ask = (/** @type {any} */ one, /** @type {string} */ action, /** @type {string} */ verb, /** @type {string} */ text) => askDecision({
    title: `${verb} ${one.name}`, text, verb, run: (reason) => post(`projections/${encodeURIComponent(one.name)}/${action}`, { reason }), done: load, said: `${one.name}: ${action} is done or under way`,
  });
  const button = (/** @type {any} */ one, /** @type {string} */ action, /** @type {string} */ verb, /** @type {string} */ text) => html`<button disabled=${!may.allowed} title=${may.allowed ? "" : may.why} onClick=${() => ask(one, action, verb, text)}>${verb} …</button>`;
  const rows = all.map((one) => [
    html`<b>${one.name}</b> <span class="quiet">version ${one.version}</span><br />${one.paths.map((/** @type {string} */ path) => html`<${ActorLink} key=${path} path=${path} /> `)}`,
    num(one.position), num(one.lag), one.parked ? html`<b class="warm-text">${num(one.parked)}</b>` : "0", one.paused ? "paused" : one.status,
    html`<span class="buttons">${one.paused ? button(one, "resume", "Resume", "It goes on where it was.") : button(one, "pause", "Pause", "It applies nothing more until it is resumed; its readers see it as it is.")}${button(one, "rebuild", "Rebuild", "It is made of the whole log again, beside the one that is read; then the new one takes its place at once.")}</span>`,
  ]);
  return html`<${Card} title="Projections" note="read models of the log"><${Table} label="All projections" head=${["name", right("position"), right("behind"), right("parked"), "now", doing]} rows=${rows} keys=${all.map((one) => one.name)} /><//>`;
}

function Streams() {
  const [after, setAfter] = useState(""), [open, setOpen] = useState("");
  const { data, error, load } = useRead(`streams ${after}`, () => get("streams", { after, limit: 50 }), 5000);
  const rows = (data?.streams ?? []).map((/** @type {any} */ one) => [
    html`<button class="link" onClick=${() => setOpen(open === one.id ? "" : one.id)} aria-expanded=${open === one.id}>${one.id}</button>`,
    num(one.events), html`<${When} at=${one.first_at} />`, html`<${When} at=${one.last_at} />`,
  ]);
  return html`<${Card} title="Streams" note="by name">
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data && (rows.length ? html`<${Table} label="A page of streams" head=${["stream", right("events"), "first", "last"]} rows=${rows} keys=${data.streams.map((/** @type {any} */ one) => one.id)} />` : html`<${Empty} title="No stream yet">A stream is the life of one aggregate; its first event makes it.<//>`)}
    <p class="buttons start">${after && html`<button onClick=${() => setAfter("")}>To the first</button>`}${data?.next && html`<button onClick=${() => setAfter(data.next)}>Next</button>`}</p>
    ${open && html`<${Stream} id=${open} />`}
  <//>`;
}

/** @param {{id: string}} props */
function Stream({ id }) {
  const { data, error, load } = useRead(`stream ${id}`, () => get(`streams/${encodeURIComponent(id)}`, { limit: 100 }), 5000);
  return html`<section aria-label=${`Events of ${id}`}><h3>${id}</h3>
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data && html`<${Table} label=${`Events of ${id}`} head=${[right("version"), right("position"), "type", "when", "payload"]} rows=${data.events.map((/** @type {any} */ one) => [num(one.version), num(one.position), one.type, html`<${When} at=${one.at} />`, html`<code>${JSON.stringify(one.payload)}</code>`])} />`}
  </section>`;
}
