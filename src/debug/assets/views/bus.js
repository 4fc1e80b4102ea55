/** Messages: who subscribes to what, how full they are, how late, and what goes out. */
import { html } from "../vendor/index.js";
import { get } from "../api.js";
import { micros, num } from "../format.js";
import { ActorLink, Card, Empty, Table, Trouble, right, useRead } from "../components/bits.js";

export function BusView() {
  const { data, error, load } = useRead("bus", async () => {
    const [bus, outbox, consumers] = await Promise.all([get("bus"), get("outbox"), get("consumers")]);
    return { ...bus, relays: outbox.relays, consumers: consumers.consumers };
  });
  return html`<main class="view" id="main"><div class="view-head"><h1>Bus</h1>${data && html`<span class="quiet"><b>${num(data.published)}</b> messages published</span>`}</div>
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data && html`<${Subscriptions} all=${data.subscriptions} /><div class="two"><${Consumers} all=${data.consumers} /><div class="stack"><${Relays} all=${data.relays} /><${Brokers} all=${data.brokers} /></div></div>`}
  </main>`;
}

/** @param {{all: any[]}} props */
function Subscriptions({ all }) {
  const rows = all.map((one) => [
    html`<${ActorLink} path=${one.path} />`,
    html`<code>${one.pattern}</code>${one.group ? html` <span class="quiet">group ${one.group}</span>` : null}`,
    num(one.depth), num(one.delivered), num(one.handling?.retried), num(one.handling?.dead),
    html`${num(one.dropped + one.refused)}${one.cut_off ? html` <b class="hot-text">cut off</b>` : null}`,
    one.latency?.count ? html`<span title=${`longest ${micros(one.latency.max_us)}`}>${micros(one.latency.p99_us)}${one.latency.target_us ? html` <span class=${one.latency.late ? "warm-text" : "quiet"}>${num(one.latency.late)} late</span>` : null}</span>` : "–",
  ]);
  const head = ["subscriber", "gets", right("waiting"), right("delivered"), right("tried again"), right("dead"), right("no room"), right("to the handler, p99")];
  return html`<${Card} title="Subscriptions" note=${num(all.length)}>${all.length
    ? html`<${Table} label="All subscriptions" head=${head} rows=${rows} keys=${all.map((one) => one.name)} />`
    : html`<${Empty} title="Nobody subscribes">A handler that asks the bus for <code>order.*.placed</code> stands here with what it gets, how much waits for it, and what became of it.<//>`}<//>`;
}

/** @param {{all: any[]}} props */
function Consumers({ all }) {
  const state = (/** @type {any} */ one) => (one.standby ? "another node has it" : one.paused ? "paused" : one.trouble ?? (one.pending ? "at work" : "up to date"));
  const rows = all.map((one) => [html`<${ActorLink} path=${one.path} />`, state(one), num(one.position), num(one.pending), num(one.dead)]);
  return html`<${Card} title="Durable consumers" note="they follow the log">${all.length
    ? html`<${Table} label="All consumers" head=${["name", "now", right("position"), right("pending"), right("dead")]} rows=${rows} keys=${all.map((one) => one.name)} />`
    : html`<p class="quiet">None. A consumer has a place of its own in the log, and goes on there after any crash.</p>`}<//>`;
}

/** @param {{all: any[]}} props */
function Relays({ all }) {
  const rows = all.map((one) => [html`<${ActorLink} path=${one.path} />`, one.status ?? one.state]);
  return html`<${Card} title="Outbox" note="from the log to queues">${all.length
    ? html`<${Table} label="All relays" head=${["relay", "now"]} rows=${rows} keys=${all.map((one) => one.path)} />`
    : html`<p class="quiet">Nothing goes out. <code>--outbox nats://…</code> sends every event to a queue, in order and at least once.</p>`}<//>`;
}

/** @param {{all: any[]}} props */
function Brokers({ all }) {
  const rows = all.map((one) => [html`<code>${one.url}</code>`, one.connected ? `connected, ${one.server_version ?? ""}` : html`<b class="hot-text">away</b> ${one.trouble ?? ""}`, one.round_trip_us === null ? "–" : micros(one.round_trip_us)]);
  return html`<${Card} title="Brokers">${all.length
    ? html`<${Table} label="All brokers" head=${["address", "now", right("there and back")]} rows=${rows} keys=${all.map((one) => one.url)} />`
    : html`<p class="quiet">None: this node needs no server beside it.</p>`}<//>`;
}
