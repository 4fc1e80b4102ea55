/** Connections to stores and brokers. */
import { html } from "../vendor/index.js";
import { get } from "../api.js";
import { num } from "../format.js";
import { ActorLink, Card, Empty, Gauge, StateMark, Table, Trouble, When, right, useRead } from "../components/bits.js";

export function PoolsView() {
  const { data, error, load } = useRead("pools", () => get("pools"), 1000);
  const all = data?.pools ?? [];
  const rows = all.map((/** @type {any} */ one) => [
    html`<${ActorLink} path=${one.path} />`, one.kind, html`<${StateMark} state=${one.state} />`,
    one.size ? html`<${Gauge} value=${one.in_use} max=${one.size} />` : one.status ?? "–", num(one.restarts), html`<${When} at=${one.started_at} />`,
  ]);
  return html`<main class="view" id="main"><div class="view-head"><h1>Pools</h1></div>
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data && html`<${Card} title="Connections" note="each pool is an actor: what lives on it starts after it, and again with it">${rows.length
      ? html`<${Table} label="Pools" head=${["pool", "kind", "now", "in use", right("restarts"), "this life since"]} rows=${rows} keys=${all.map((/** @type {any} */ one) => one.path)} />`
      : html`<${Empty} title="No pool">A node without a store has none.<//>`}<//>`}
  </main>`;
}
