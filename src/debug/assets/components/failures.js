/** What went wrong, what the supervisor decided, and why. */
import { html, useState } from "../vendor/index.js";
import { get } from "../api.js";
import { num, span, words } from "../format.js";
import { travel } from "../past.js";
import { ActorLink, Card, Copy, Empty, Gauge, Trouble, When } from "./bits.js";

/** @import { Actor, Decision, Failure, Life } from "../types.js" */

/** @param {{actor: Actor}} props */
export function Failures({ actor }) {
  const all = actor.failures ?? [];
  return html`<${Card} title="Failures" note=${all.length ? num(all.length) : undefined}>
    ${all.length ? html`${actor.lineage?.length ? html`<ol class="lineage" aria-label="How it came to the last one">${actor.lineage.map((step) => html`<li>${step}</li>`)}</ol>` : null}<div class="failures">${all.map((one, i) => html`<${One} key=${one.seq} failure=${one} first=${i === 0} />`)}</div>`
      : html`<${Empty} title="It has not failed">A failure stands here with its reason and backtrace, the message that was in hand, and what the supervisor decided.<//>`}
  <//>`;
}

/** @param {{failure: Failure, first: boolean}} props */
function One({ failure, first }) {
  return html`<details open=${first}><summary><span class="reason">${failure.reason}</span><span class="quiet"><${When} at=${failure.at} /></span></summary>
    <p class="quiet">${failure.message ? html`while it handled <code>${failure.message}</code>, ` : null}life ${num(failure.life)}${failure.class ? `, ${words(failure.class)}` : ""} · event ${num(failure.seq)} <button class="link" onClick=${() => travel(failure.seq)}>the tree at this moment</button></p>
    ${failure.decision && html`<${Decided} decision=${failure.decision} />`}
    ${failure.backtrace && html`<div class="backtrace"><span class="quiet">backtrace</span> <${Copy} text=${failure.backtrace} what="backtrace" /><pre tabindex="0" aria-label="Backtrace">${failure.backtrace}</pre></div>`}
  </details>`;
}

/** @param {{decision: Decision}} props */
export function Decided({ decision }) {
  return html`<div class="decided"><p><b>The supervisor decided:</b> ${decision.text}</p><p class="plan-facts"><span>${words(decision.strategy)}</span>${decision.backoff_ms !== undefined ? html`<span>back-off <b>${span(decision.backoff_ms)}</b></span>` : null}${decision.intensity ? html`<${Gauge} label="restarts used" value=${decision.intensity.used} max=${decision.intensity.max} />` : null}</p>
    ${decision.affected.length > 1 ? html`<p>affected: ${decision.affected.slice(0, 6).map((path, i) => html`${i ? ", " : ""}<${ActorLink} path=${path} />`)}${decision.affected.length > 6 ? ` and ${num(decision.affected.length - 6)} more` : ""}</p>` : null}</div>`;
}

/** The chain of causes of an event. @param {{seq: number}} props */
export function Lineage({ seq }) {
  const [chain, set] = useState(/** @type {{events: Life[], text: string} | null} */ (null));
  const [error, fail] = useState(/** @type {any} */ (null));
  if (error) return html`<${Trouble} error=${error} />`;
  if (!chain) return html`<button onClick=${() => get(`lineage/${seq}`).then(set, fail)}>Why?</button>`;
  return html`<div><p>${chain.text}</p><ol class="lineage">${chain.events.map((event) => html`<li key=${event.seq}><span class="quiet">${num(event.seq)}</span> ${event.text ?? `${event.path} ${words(event.kind)}`}</li>`)}</ol></div>`;
}
