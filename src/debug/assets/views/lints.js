/** What is wrong, and what to do about it. */
import { html } from "../vendor/index.js";
import { get } from "../api.js";
import { num, words } from "../format.js";
import { ActorLink, Card, Empty, Trouble, useRead } from "../components/bits.js";

const RANKS = /** @type {[string, string][]} */ ([["error", "Errors"], ["warning", "Warnings"], ["hint", "Hints"]]);

export function LintsView() {
  const { data, error, load } = useRead("lints", async () => {
    const [lints, waits] = await Promise.all([get("lints"), get("waits")]);
    return { lints: lints.lints, waits };
  }, 2000);
  /** @type {any[]} */ const all = data?.lints ?? [];
  return html`<main class="view" id="main"><div class="view-head"><h1>Lints</h1></div>
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data && !all.length && html`<${Empty} title="Nothing is wrong">A handler that is stuck, a mailbox that fills, actors that wait for each other, restarts that come too often: each stands here with what to do about it.<//>`}
    ${RANKS.map(([rank, title]) => {
      const some = all.filter((one) => one.severity === rank);
      return some.length ? html`<${Card} key=${rank} title=${title} note=${num(some.length)}><ul class="plain">${some.map((one) => html`<li key=${`${one.code} ${one.path}`}><b class=${rank === "error" ? "hot-text" : rank === "warning" ? "warm-text" : ""}>${words(one.code)}</b> <${ActorLink} path=${one.path} /><br />${one.text}<br /><span class="quiet">${one.advice}</span></li>`)}</ul><//>` : null;
    })}
    ${data && data.waits.edges.length > 0 && html`<${Card} title="Who waits for whom" note="questions without an answer yet"><ul class="plain">${data.waits.edges.slice(0, 100).map((/** @type {any} */ one) => html`<li key=${`${one.from} ${one.to}`}><${ActorLink} path=${one.from} /> asked <${ActorLink} path=${one.to} /> <code>${one.message}</code> <span class="quiet">${num(one.waiting_ms)} ms ago</span></li>`)}</ul><//>`}
  </main>`;
}
