/** What stands around every view: the way, the vital signs, the connection, the past, what was said. */
import { html, useEffect, useState } from "../vendor/index.js";
import { bytes, clock, num, rate, span } from "../format.js";
import { history, rateOf } from "../history.js";
import { travel } from "../past.js";
import { route } from "../router.js";
import { acting, dialog, link, node, now, past, toasts, totals } from "../state.js";
import { theme, turn } from "../theme.js";
import { Gauge, When } from "./bits.js";
import { Spark } from "./spark.js";

export const VIEWS = /** @type {[string, string][]} */ ([["tree", "Tree"], ["timeline", "Timeline"], ["bus", "Bus"], ["store", "Store"], ["sagas", "Sagas"], ["dead-letters", "Dead letters"], ["pools", "Pools"], ["lints", "Lints"], ["config", "Config"]]);

/** @param {{lints: number}} props */
export function Nav({ lints }) {
  const at = route.value.view === "actor" ? "tree" : route.value.view;
  const letters = totals.value?.dead_letters ?? 0;
  const count = (/** @type {string} */ view) => (view === "dead-letters" ? letters : view === "lints" ? lints : 0);
  return html`<nav class="nav" aria-label="Views">
    <a class="brand" href="#/" aria-label="Mister Smith, the tree"><img src="assets/icon.svg" alt="" width="26" height="26" /><span>Mister Smith</span></a>
    <ul>${VIEWS.map(([view, name]) => html`<li key=${view}><a href=${`#/${view}`} aria-current=${at === view ? "page" : undefined}>${name}${count(view) ? html`<span class=${`tally ${view}`}>${num(count(view))}</span>` : null}</a></li>`)}</ul>
  </nav>`;
}

const LINK = { connecting: "connecting", live: "live", reconnecting: "reconnecting", gap: "re-reading" };

/** The vital signs of the node. */
export function Vitals() {
  const it = node.value, sums = totals.value, pace = rateOf("");
  const troubled = Object.entries(it?.actors.by_state ?? {}).filter(([state, count]) => state !== "up" && count).reduce((sum, [, count]) => sum + (count ?? 0), 0);
  const dark = theme.value === "dark" || (theme.value === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  return html`<header class="vitals">
    <div class="who"><b>${it?.name ?? "…"}</b>${it ? html`<span class="quiet" title=${`${it.mode}, pid ${it.pid}, version ${it.version}, ${it.workers} workers`}>up ${span(now.value - Date.parse(it.started_at))}</span>` : null}</div>
    ${it ? html`<dl class="signs">
      <div><dt>actors</dt><dd>${num(it.actors.total)}${troubled ? html` <span class="warm-text">${num(troubled)} not up</span>` : null}</dd></div>
      <div class="wide"><dt>messages / s</dt><dd>${pace === null ? "–" : rate(pace)} <${Spark} values=${history.of("")?.rates} width=${64} height=${16} /></dd></div>
      <div><dt>failures</dt><dd>${num(sums?.failures)}</dd></div>
      <div><dt>restarts</dt><dd>${num(sums?.restarts)}</dd></div>
      <div class="wide"><dt>memory</dt><dd>${bytes(it.rss_bytes)}</dd></div>
      ${it.limits.slice().sort((a, b) => b.value / b.max - a.value / a.max).slice(0, 2).map((limit) => html`<div class="wide limit" key=${limit.name}><dt title=${limit.name}>${limit.name}</dt><dd><${Gauge} value=${limit.value} max=${limit.max} /></dd></div>`)}
    </dl>` : null}
    <div class="session">
      <span class=${`link-state l-${link.value}`} role="status">${LINK[link.value]}</span>
      ${it ? html`<span class="role" title=${acting.value.why}>${it.role}</span>` : null}
      <button class="icon" onClick=${turn} aria-label=${dark ? "Light theme" : "Dark theme"} title=${dark ? "Light" : "Dark"}>${dark ? "☀" : "☾"}</button>
      <button class="icon" onClick=${() => { dialog.value = { kind: "keys" }; }} aria-label="Keys" title="Keys (?)">?</button>
    </div>
  </header>`;
}

/** Nobody should take the past for now. */
export function PastBanner() {
  const moment = past.value;
  const last = node.value?.seq ?? 0;
  if (!moment) return null;
  return html`<div class="past-banner" role="region" aria-label="The past">
    <p><b>You look at the past.</b> After event ${num(moment.seq)}${moment.at ? html`, ${clock(moment.at)} (<${When} at=${moment.at} />)` : null}. Nothing here moves, and nothing can be done to it.</p>
    <span class="buttons"><button onClick=${() => travel(Math.max(1, moment.seq - 1))} aria-label="One event earlier">‹ earlier</button><button onClick=${() => travel(Math.min(last, moment.seq + 1))} aria-label="One event later">later ›</button><button class="primary" onClick=${() => travel(null)}>Return to now</button></span>
  </div>`;
}

export function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">${toasts.value.map((one) => html`<p key=${one.id} class=${one.tone}>${one.text}</p>`)}</div>`;
}

/** @param {{refused: boolean, detail: string, use: (token: string) => void}} props */
export function TokenForm({ refused, detail, use }) {
  const [token, setToken] = useState("");
  useEffect(() => { document.title = "Token · Mister Smith"; }, []);
  return html`<main class="token"><form onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); if (token.trim()) use(token.trim()); }}>
    <img src="assets/icon.svg" alt="" width="56" height="56" /><h1>Mister Smith</h1>
    <p>${refused ? html`<b class="hot-text">The node does not take this token.</b> ${detail}` : "This node asks for a token."}</p>
    <label class="field">Token<input type="password" name="token" autocomplete="off" value=${token} onInput=${(/** @type {any} */ e) => setToken(e.currentTarget.value)} autofocus /></label>
    <button class="primary" disabled=${!token.trim()}>Enter</button>
    <p class="quiet"><code>smith token NAME --role operator --tokens FILE</code> makes one. It stays in this tab only and is sent as a header; an address that ends in <code>#token=…</code> brings it along, and never reaches a server that way.</p>
  </form></main>`;
}
