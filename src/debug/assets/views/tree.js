/** The first screen: every actor as a pixel, the tree below, what has just happened beside it. */
import { html, useEffect, useRef, useState } from "../vendor/index.js";
import { clock, num, words } from "../format.js";
import { chain, nameOf } from "../paths.js";
import { filter, find, more, narrow, problem, root, version } from "../model.js";
import { pastRoot, travel } from "../past.js";
import { href, replace, route } from "../router.js";
import { acting, node, past, recent } from "../state.js";
import { watch } from "../stream.js";
import { Copy, Crumbs, Empty, Trouble } from "../components/bits.js";
import { askAction } from "../components/dialog.js";
import { HeatStrip, Legend } from "../components/heat.js";
import { TreeList } from "../components/tree-list.js";
import { STATES } from "../heat-paint.js";
import { fold } from "../rows.js";

const SORTS = [["worst", "worst first"], ["name", "name"], ["restarts", "restarts"], ["mailbox", "mailbox"], ["busy", "busy"], ["rate", "rate"]];

export function TreeView() {
  void version.value;
  const there = past.value ? pastRoot.value : root.value;
  const wanted = route.value.path, { q, state, component, sort } = filter.value;
  const [chosen, setChosen] = useState(wanted);
  const narrowed = Boolean(q || state || component);
  const timer = useRef(/** @type {any} */ (0));

  // A deep link unfolds what leads to it.
  useEffect(() => {
    if (wanted === "/" || wanted === chosen) return;
    fold(chain(wanted).slice(0, -1), true);
    setChosen(wanted);
  }, [wanted]);
  useEffect(() => { if (wanted !== "/") fold(chain(wanted).slice(0, -1), true); }, []);

  const choose = (/** @type {string} */ key) => {
    setChosen(key);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => { if (route.value.view === "tree") replace(href("tree", key.trimEnd()) + (past.peek() ? `?at=${past.peek()?.seq}` : "")); }, 150);
  };
  useEffect(() => () => clearTimeout(timer.current), []);
  const wait = useRef(/** @type {any} */ (0));
  const search = (/** @type {string} */ text) => { clearTimeout(wait.current); wait.current = setTimeout(() => narrow({ q: text }), 200); };

  if (!there) return html`<main class="view" id="main">${problem.value ? html`<${Trouble} error=${problem.value} />` : html`<p class="quiet pad">the tree is being read …</p>`}</main>`;
  const selected = past.value ? null : find(chosen.trimEnd());
  const by = /** @type {Record<string, number>} */ (node.value?.actors.by_state ?? {});
  return html`<main class="view tree-view" id="main"><h1 class="unseen">The tree</h1>
    <${HeatStrip} chosen=${chosen.trimEnd()} />
    <${Legend} />
    <div class="tree-and-news">
      <section class="tree-panel" aria-label="Tree">
        <div class="tools" role="search">
          <input type="search" id="search" placeholder="search a path  /" aria-label="Search a path" defaultValue=${q} onInput=${(/** @type {any} */ e) => search(e.currentTarget.value)} onKeyDown=${(/** @type {any} */ e) => { if (e.key === "ArrowDown" || e.key === "Enter") { e.preventDefault(); focusTree(); } }} disabled=${Boolean(past.value)} />
          <select aria-label="State" value=${state} onChange=${(/** @type {any} */ e) => narrow({ state: e.currentTarget.value })}><option value="">all states</option>${STATES.map((one) => html`<option value=${one}>${words(one)}${by[one] ? ` (${num(by[one])})` : ""}</option>`)}</select>
          <select aria-label="Component" value=${component} onChange=${(/** @type {any} */ e) => narrow({ component: e.currentTarget.value })}><option value="">all components</option>${Object.entries(node.value?.actors.by_component ?? {}).map(([one, count]) => html`<option value=${one}>${`${words(one)} (${num(count)})`}</option>`)}</select>
          <select aria-label="Order" value=${sort} onChange=${(/** @type {any} */ e) => narrow({ sort: e.currentTarget.value })}>${SORTS.map(([one, text]) => html`<option value=${one}>${text}</option>`)}</select>
        </div>
        <div class="columns" aria-hidden="true"><span>name</span><span>now</span><span class="n">waiting</span><span class="n">messages / s</span><span class="n">p99</span><span class="n">restarts</span><span class="n">up for</span></div>
        ${narrowed && !there.nodes?.length ? html`<${Empty} title="Nothing matches">No path holds “${q}”${state ? ` in the state ${words(state)}` : ""}. <button class="link" onClick=${clear}>Show all</button><//>` : html`<${TreeList} root=${there} narrowed=${narrowed} chosen=${chosen} choose=${choose} stamp=${version.value} label=${past.value ? "Actors in the past" : "Actors"} seen=${watch} more=${more} kill=${(/** @type {any} */ one) => askAction(one, "kill")} />`}
        <div class="chosen-bar"><span class="chosen-path"><${Crumbs} path=${chosen.trimEnd()} last=${true} /></span><${Copy} text=${chosen.trimEnd()} /><span class="grow"></span>
          <a class="button" href=${href("actor", chosen.trimEnd())}>Open</a>
          ${selected && chosen.trimEnd() !== "/" ? html`<button class="danger quiet-danger" disabled=${!acting.value.allowed} title=${acting.value.allowed ? "Shows the dry run first" : acting.value.why} onClick=${() => askAction(selected, "kill")}>Kill …</button>` : null}
        </div>
      </section>
      <aside class="news" aria-label="Just now"><h2>Just now</h2><${News} /></aside>
    </div>
  </main>`;
}

function clear() {
  const box = /** @type {HTMLInputElement | null} */ (document.getElementById("search"));
  if (box) box.value = "";
  narrow({ q: "", state: "", component: "" });
}

export function focusTree() {
  /** @type {HTMLElement | null} */ (document.querySelector("[role=tree]"))?.focus();
}

/** The last things that happened; each is a door to its moment. */
function News() {
  const shown = recent.value.filter((event) => event.kind !== "backing_off").slice(0, 12);
  if (!shown.length) return html`<p class="quiet">Nothing yet. What starts, fails, restarts or is told to do something appears here.</p>`;
  return html`<ol>${shown.map((event) => html`<li key=${event.seq} class=${`k-${event.kind}`}><button class="link clock" title="Look at this moment" onClick=${() => travel(event.seq)}>${clock(event.at).slice(0, 8)}</button><a href=${href("actor", event.path)} title=${event.path}>${nameOf(event.path)}</a><span title=${event.text}>${what(event)}</span></li>`)}</ol>`;
}

/** @param {import("../types.js").Life} event */
function what(event) {
  if (event.kind === "failed") return event.reason ?? "failed";
  if (event.kind === "restarted") return `up again, life ${event.life}`;
  if (event.kind === "action") return `${event.by ?? "someone"}: ${event.reason ?? ""}`;
  return words(event.kind);
}
