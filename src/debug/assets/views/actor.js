/** One actor: what it does, what went wrong, who depends on it, and what can be done. */
import { html, useEffect, useState } from "../vendor/index.js";
import { actorUrl, get, post } from "../api.js";
import { micros, num, span, words } from "../format.js";
import { history, rateOf } from "../history.js";
import { find, version } from "../model.js";
import { pastRoot } from "../past.js";
import { href, route } from "../router.js";
import { acting, now, past, say } from "../state.js";
import { onLife, watch } from "../stream.js";
import { nameOf, parentOf } from "../paths.js";
import { ActorLink, Card, Copy, Crumbs, Empty, StateMark, Table, Trouble, When, right, useRead } from "../components/bits.js";
import { askAction } from "../components/dialog.js";
import { Failures } from "../components/failures.js";
import { Spark } from "../components/spark.js";
import { Gauge } from "../components/bits.js";

/** @import { Actor, ActorNode } from "../types.js" */

export function ActorView() {
  const { path } = route.value;
  return past.value ? html`<${Then} path=${path} />` : html`<${Now} key=${path} path=${path} />`;
}

/** @param {{path: string}} props */
function Now({ path }) {
  const { data, error, load } = useRead(path, () => /** @type {Promise<Actor>} */ (get(actorUrl(path))), 2000);
  useEffect(() => {
    watch([path]);
    return onLife((event) => { if (event.path === path) load(); });
  }, [path]);
  void version.value;
  if (!data) return html`<main class="view" id="main"><h1>${nameOf(path)}</h1>${error ? html`<${Trouble} error=${error} retry=${load} /><p><a href=${href("tree", parentOf(path) ?? "/")}>To the tree above it</a>. What is gone is still in the <a href="#/timeline">timeline</a>.</p>` : html`<p class="quiet">is being read …</p>`}</main>`;
  // Between two readings the stream is fresher.
  const live = find(path), node = live ? { ...data.node, state: live.state, life: live.life, restarts: live.restarts, started_at: live.started_at } : data.node;
  return html`<main class="view actor" id="main">
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    <${Head} node=${node} />
    <${Signs} node=${node} />
    <div class="two">
      ${data.node.nodes?.length ? html`<${Children} node=${data.node} />` : html`<${Messages} actor=${data} />`}
      <${Failures} actor=${data} />
    </div>
    <div class="two">
      <${Recorder} actor=${data} />
      <div class="stack"><${Dependents} actor=${data} /><${Settings} actor=${data} /></div>
    </div>
  </main>`;
}

/** @param {{node: ActorNode}} props */
function Head({ node }) {
  const may = acting.value, root = node.path === "/";
  const why = !may.allowed ? may.why : root ? "the root has nobody to start it again" : "";
  const down = node.state === "down" || node.state === "failed";
  const actions = down ? ["start"] : [node.suspended ? "resume" : "suspend", "restart", "stop", "kill"];
  return html`<div class="actor-head">
    <div><p class="trail"><${Crumbs} path=${node.path} /> <${Copy} text=${node.path} /></p>
      <h1>${node.id}</h1>
      <p class="facts"><${StateMark} state=${node.state} /><span class="quiet">${words(node.kind)}${node.actor_type ? html` · <code>${node.actor_type}</code>` : null}${node.component ? ` · ${words(node.component)}` : null}</span><a href=${href("tree", node.path)}>in the tree</a></p></div>
    <div class="acts" role="group" aria-label="Actions">
      ${actions.map((action) => html`<button key=${action} class=${action === "kill" ? "danger" : ""} disabled=${Boolean(why)} title=${why || "Shows the dry run first"} onClick=${() => askAction(node, action)}>${words(action)[0].toUpperCase() + action.slice(1)} …</button>`)}
      ${why && html`<p class="quiet why">${why}</p>`}
    </div>
  </div>`;
}

/** @param {{node: ActorNode}} props */
function Signs({ node }) {
  const track = history.of(node.path), pace = rateOf(node.path), hand = node.handling, box = node.mailbox;
  return html`<div class="tiles">
    ${hand && html`<div><span class="dt">messages a second</span><span class="dd">${pace === null ? "–" : pace.toFixed(pace < 10 ? 1 : 0)}</span><${Spark} values=${track?.rates} width=${200} height=${34} fill=${true} label="Messages a second in the last minute" /><p>${num(hand.handled)} handled</p></div>`}
    ${box && html`<div><span class="dt">mailbox</span><span class="dd"><${Gauge} value=${box.depth} max=${box.capacity} /></span><${Spark} values=${track?.depths} width=${200} height=${34} fill=${true} label="Messages that waited in the last minute" /><p>most ${num(box.high_water)} · when full: ${words(box.overflow ?? "–")}</p></div>`}
    ${hand && html`<div><span class="dt">handling time</span><span class="dd">${micros(hand.p50_us)} <span class="of">p50</span></span><p class="big">${micros(hand.p99_us)} <span class="quiet">p99</span> · ${micros(hand.max_us)} <span class="quiet">max</span></p><p class=${hand.in_hand && hand.in_hand.elapsed_ms > 1000 ? "warm-text" : ""}>${hand.in_hand ? html`<b>${hand.in_hand.message}</b> in hand for ${span(hand.in_hand.elapsed_ms)}` : "nothing in hand"}</p>${node.waiting_on && html`<p>waits for <${ActorLink} path=${node.waiting_on.path} /> (${node.waiting_on.message})</p>`}</div>`}
    <div><span class="dt">life ${num(node.life)}</span><span class="dd">${node.started_at ? span(now.value - Date.parse(node.started_at)) : "–"}</span><p>${num(node.restarts)} restarts · since <${When} at=${node.started_at} /></p>${node.last_failure && html`<p class="clip" title=${node.last_failure.reason}>last: ${node.last_failure.reason}</p>`}${node.health && node.health.status !== "healthy" && html`<p class="warm-text">${node.health.status}: ${node.health.detail}</p>`}</div>
    ${node.strategy && html`<div><span class="dt">${words(node.strategy)}</span><span class="dd">${node.intensity ? html`<${Gauge} value=${node.intensity.used} max=${node.intensity.max} />` : "–"}</span><p>restarts used in ${span(node.intensity?.period_ms)}</p><p>${num(node.children?.total)} children${node.status ? ` · ${node.status}` : ""}</p></div>`}
  </div>`;
}

/** @param {{actor: Actor}} props */
function Messages({ actor }) {
  const all = actor.messages ?? [], most = Math.max(1, ...all.map((one) => one.count));
  return html`<${Card} title="Messages" note="by type">${all.length ? html`<${Table} label="Messages by type" head=${["type", right("count"), right("p50"), right("p99"), right("max")]} rows=${all.map((one) => [html`<span class="share" style=${{ "--fill": `${(one.count / most) * 100}%` }}><code>${one.type}</code></span>`, num(one.count), micros(one.p50_us), micros(one.p99_us), micros(one.max_us)])} />` : html`<${Empty} title="No message yet">Each type that is handled gets a line with its count and times.<//>`}<//>`;
}

/** @param {{node: ActorNode}} props */
function Children({ node }) {
  const all = node.nodes ?? [];
  return html`<${Card} title="Children" note=${`${num(all.length)} of ${num(node.children?.total ?? all.length)}`} actions=${html`<a href=${href("tree", node.path)}>in the tree</a>`}><${Table} label="Children" head=${["name", "state", right("restarts"), right("waiting")]} rows=${all.slice(0, 20).map((one) => [html`<a href=${href("actor", one.path)}>${one.id}</a>`, html`<${StateMark} state=${one.state} />`, num(one.restarts), num(one.mailbox?.depth)])} /><//>`;
}

/** @param {{actor: Actor}} props */
function Recorder({ actor }) {
  const all = actor.recorder ?? [], may = acting.value, path = actor.node.path;
  const turn = (/** @type {boolean} */ on) => post(actorUrl(path, on ? "record" : "unrecord"), {}).then(() => say(on ? `${nameOf(path)} is recorded` : `${nameOf(path)} is no longer recorded`, "good"), (error) => say(error.message, "bad"));
  const button = html`<button class="link" disabled=${!may.allowed} title=${may.allowed ? "" : may.why} onClick=${() => turn(!actor.recording)}>${actor.recording ? "stop recording" : "record"}</button>`;
  return html`<${Card} title="Flight recorder" note="the last messages, newest first" actions=${button}>${all.length ? html`<${Table} label="Flight recorder" head=${["when", "type", "from", right("waited"), right("handled in"), "outcome"]} rows=${all.slice(0, 30).map((one) => [html`<${When} at=${one.at} />`, html`<code>${one.type}</code>`, one.from ? html`<${ActorLink} path=${one.from} />` : "–", micros(one.wait_us), micros(one.handling_us), html`<span class=${one.outcome === "ok" ? "quiet" : "hot-text"}>${one.outcome}</span>`])} />` : html`<${Empty} title="Nothing recorded">The last messages of an actor stand here with their sender, how long they waited and how long they took; without their payload.<//>`}<//>`;
}

/** @param {{actor: Actor}} props */
function Dependents({ actor }) {
  const all = actor.dependents ?? [];
  return html`<${Card} title="Dependents" note="what stops with it">${all.length ? html`<ul class="plain">${all.map((one) => html`<li key=${one.path}><${ActorLink} path=${one.path} /> <span class="quiet">${words(one.why)}</span></li>`)}</ul>` : html`<p class="quiet">Nothing: when it stops, it stops alone.</p>`}<//>`;
}

/** @param {{actor: Actor}} props */
function Settings({ actor }) {
  return html`<${Card} title="Configuration"><dl class="pairs">${Object.entries(actor.config ?? {}).map(([name, value]) => html`<div key=${name}><dt>${words(name.replace(/_ms$/, ""))}</dt><dd>${name.endsWith("_ms") && typeof value === "number" ? span(value) : value === null ? "–" : String(value)}</dd></div>`)}</dl><//>`;
}

/** @param {{path: string}} props */
function Then({ path }) {
  const [node, set] = useState(/** @type {ActorNode | null} */ (null));
  useEffect(() => {
    /** @param {ActorNode} at @returns {ActorNode | null} */
    const seek = (at) => {
      if (at.path === path) return at;
      for (const one of at.nodes ?? []) {
        const hit = seek(one);
        if (hit) return hit;
      }
      return null;
    };
    set(pastRoot.value ? seek(pastRoot.value) : null);
  }, [pastRoot.value, path]);
  return html`<main class="view actor" id="main"><p class="trail"><${Crumbs} path=${path} /></p><h1>${nameOf(path)}</h1>${node ? html`<p class="facts"><${StateMark} state=${node.state} /><span>life <b>${node.life}</b></span><span><b>${node.restarts}</b> restarts</span></p><p class="quiet">Of the past the node keeps state, life and restarts; numbers and messages are kept of now only.</p>` : html`<${Empty} title="Not in the tree then">It had not been started at that moment, had gone, or is one of many that were not read.<//>`}</main>`;
}
