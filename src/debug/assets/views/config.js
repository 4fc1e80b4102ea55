/** How the node is set up. */
import { html } from "../vendor/index.js";
import { get } from "../api.js";
import { node } from "../state.js";
import { Card, Table, Trouble, useRead } from "../components/bits.js";

export function ConfigView() {
  const { data, error, load } = useRead("config", () => get("config"), 0);
  const it = node.value;
  return html`<main class="view" id="main"><div class="view-head"><h1>Config</h1>${it && html`<span class="quiet">version ${it.version} · ${it.mode} · pid ${it.pid} · ${it.workers} workers</span>`}</div>
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data && html`<${Card} title="Settings" note="secrets are not shown"><${Table} label="All settings" head=${["name", "value"]} rows=${data.settings.map((/** @type {any} */ one) => [one.name, one.secret ? "hidden" : html`<code>${one.value}</code>`])} /><//>
    <${Card} title="For programs"><ul class="plain"><li><a href="debug/v1/openapi.json">debug/v1/openapi.json</a> <span class="quiet">the API</span></li><li><a href="debug/v1/metrics">debug/v1/metrics</a> <span class="quiet">for Prometheus</span></li><li><a href="debug/v1/graph.svg">debug/v1/graph.svg</a> <span class="quiet">the tree as a picture</span></li><li><a href="debug/v1/graph.dot">debug/v1/graph.dot</a> <span class="quiet">for Graphviz</span></li><li><a href="debug/v1/graph.mmd">debug/v1/graph.mmd</a> <span class="quiet">for Mermaid</span></li></ul><//>`}
  </main>`;
}
