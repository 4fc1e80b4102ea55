/** How the node is set up. */
import { html } from "../vendor/index.js";
import { get } from "../api.js";
import { node } from "../state.js";
import { Card, Table, Trouble, useRead } from "../components/bits.js";

const PROGRAMS = [["debug/v1/openapi.json", "the API"], ["debug/v1/metrics", "for Prometheus"], ["debug/v1/graph.svg", "the tree as a picture"], ["debug/v1/graph.dot", "the same for Graphviz"], ["debug/v1/graph.mmd", "the same for Mermaid"]];

export function ConfigView() {
  const { data, error, load } = useRead("config", () => get("config"), 0);
  const it = node.value;
  return html`<main class="view" id="main"><div class="view-head"><h1>Config</h1>${it && html`<span class="quiet">version ${it.version} · ${it.mode} · pid ${it.pid} · ${it.workers} workers</span>`}</div>
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data && html`<${Card} title="Settings" note="secrets are not shown"><${Table} label="All settings" head=${["name", "value"]} rows=${data.settings.map((/** @type {any} */ one) => [one.name, one.secret ? "hidden" : html`<code>${one.value}</code>`])} /><//>
    <${Card} title="For programs"><${Table} label="Addresses" head=${["address", "what"]} rows=${PROGRAMS.map(([at, what]) => [html`<a href=${at}>${at}</a>`, what])} /><//>`}
  </main>`;
}
