/** What happened, in lanes; a brush moves the tree to a moment. */
import { html, useEffect, useRef, useState } from "../vendor/index.js";
import { get } from "../api.js";
import { clock, num, words } from "../format.js";
import { href, route } from "../router.js";
import { root } from "../model.js";
import { pastRoot, travel } from "../past.js";
import { past, recent } from "../state.js";
import { theme } from "../theme.js";
import { eventAt, paint } from "../timeline-paint.js";
import { Card, Empty, Trouble, When, useRead } from "../components/bits.js";
import { Decided, Lineage } from "../components/failures.js";
import { TreeList } from "../components/tree-list.js";

/** @import { Life } from "../types.js" */

const KINDS = ["failed", "restarted", "action", "stuck", "escalated", "suspended", "started", "stopped"];

export function TimelineView() {
  const [kind, setKind] = useState(""), [path, setPath] = useState(route.value.query.get("path") ?? "");
  const newest = recent.value[0]?.seq ?? 0;
  const { data, error, load } = useRead(`timeline ${path}`, () => get("timeline", { limit: 1000, path }), 0);
  useEffect(() => {
    if (!data || past.value) return;
    const timer = setTimeout(load, 700);
    return () => clearTimeout(timer);
  }, [newest, past.value === null]);
  /** @type {Life[]} */ const all = data?.events ?? [];
  const events = all.filter((event) => event.kind !== "backing_off" && (!kind || event.kind === kind));
  const seq = past.value?.seq ?? null;
  return html`<main class="view" id="main"><div class="view-head"><h1>Timeline</h1>
      <div class="tools-inline"><input type="search" aria-label="Path" placeholder="path, all below it" value=${path} onChange=${(/** @type {any} */ e) => setPath(e.currentTarget.value.trim())} /><select aria-label="Kind" value=${kind} onChange=${(/** @type {any} */ e) => setKind(e.currentTarget.value)}><option value="">all kinds</option>${KINDS.map((one) => html`<option value=${one}>${words(one)}</option>`)}</select></div></div>
    ${error && html`<${Trouble} error=${error} retry=${load} />`}
    ${data && !events.length ? html`<${Empty} title="Nothing happened">Each start, failure, restart, escalation and each act of a person stands here with its cause. ${kind || path ? "Take the filter away to see all." : "Kill something: the timeline shows how it heals."}<//>` : null}
    ${events.length ? html`<${Brush} events=${events} seq=${seq} />
    <div class="two timeline-two"><${List} events=${events} seq=${seq} />
      <${Card} title=${seq === null ? "The tree now" : "The tree at this moment"} note=${seq === null ? "move the brush to see it then" : `after event ${num(seq)}`}><${Moment} /><//></div>` : null}
  </main>`;
}

/** @param {{events: Life[], seq: number | null}} props */
function Brush({ events, seq }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const [index, setIndex] = useState(-1);
  const timer = useRef(/** @type {any} */ (0));
  const range = /** @type {[number, number]} */ ([Date.parse(events[0].at), Math.max(Date.parse(events[0].at) + 1000, Date.parse(events[events.length - 1].at))]);
  const there = seq === null ? events.length - 1 : Math.max(0, events.findLastIndex((event) => event.seq <= seq));
  const at = index >= 0 && index < events.length ? index : there;
  const draw = () => { if (canvas.current) paint(canvas.current, events, seq === null && index < 0 ? null : events[at].seq, range); };
  useEffect(draw, [events, at, seq, theme.value]);
  useEffect(() => {
    const seen = new ResizeObserver(draw);
    if (canvas.current?.parentElement) seen.observe(canvas.current.parentElement);
    return () => seen.disconnect();
  }, [events, at, seq]);
  const move = (/** @type {number} */ to) => {
    setIndex(to);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => { travel(events[to].seq); setIndex(-1); }, 120);
  };
  const drag = (/** @type {PointerEvent} */ event) => {
    if (event.type === "pointermove" && event.buttons !== 1) return;
    const it = /** @type {HTMLCanvasElement} */ (canvas.current);
    if (event.type === "pointerdown") it.setPointerCapture(event.pointerId);
    move(eventAt(events, event.offsetX, it.clientWidth, range));
  };
  const event = events[at];
  return html`<section class="brush" aria-label="Lanes"><canvas ref=${canvas} aria-hidden="true" onPointerDown=${drag} onPointerMove=${drag}></canvas>
    <label class="unseen" for="brush">Moment</label>
    <input id="brush" type="range" min="0" max=${events.length - 1} value=${at} aria-valuetext=${`event ${event.seq}, ${clock(event.at)}, ${event.path} ${words(event.kind)}`} onInput=${(/** @type {any} */ e) => move(Number(e.currentTarget.value))} />
  </section>`;
}

/** @param {{events: Life[], seq: number | null}} props */
function List({ events, seq }) {
  const [limit, setLimit] = useState(40), [open, setOpen] = useState(0);
  const until = seq === null ? events.length : events.findLastIndex((event) => event.seq <= seq) + 1;
  const shown = events.slice(Math.max(0, until - limit), until).reverse();
  return html`<${Card} title="Events" note=${`${num(until)}, newest first`}><ol class="events">${shown.map((event) => html`<li key=${event.seq} class=${`k-${event.kind}`}>
      <button class="event" aria-expanded=${open === event.seq} onClick=${() => setOpen(open === event.seq ? 0 : event.seq)}><span class="clock">${clock(event.at)}</span><span class="kind">${words(event.kind)}</span><span class="where">${event.path}</span></button>
      ${open === event.seq ? html`<div class="event-more"><p>${event.text}</p>${event.by ? html`<p>by <b>${event.by}</b>: ${event.reason}</p>` : null}<p class="quiet">event ${num(event.seq)}, life ${num(event.life)}, <${When} at=${event.at} /></p>${event.decision && html`<${Decided} decision=${event.decision} />`}
        <div class="buttons start"><button onClick=${() => travel(event.seq)}>The tree then</button><a class="button" href=${href("actor", event.path)}>The actor</a><${Lineage} seq=${event.seq} /></div></div>` : null}</li>`)}</ol>
    ${until > limit ? html`<button onClick=${() => setLimit(limit + 60)}>Show earlier</button>` : null}<//>`;
}

function Moment() {
  const [chosen, choose] = useState("/");
  const there = past.value ? pastRoot.value : root.value;
  return there ? html`<${TreeList} root=${there} narrowed=${false} chosen=${chosen} choose=${choose} stamp=${there} label="Actors at this moment" thin=${true} />` : html`<p class="quiet">is being read …</p>`;
}
