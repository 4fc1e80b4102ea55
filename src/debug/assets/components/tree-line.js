/** One line of the tree. Kept to some dozen elements: forty of them are alive. */
import { html } from "../vendor/index.js";
import { micros, num, pressure, rate, span, words } from "../format.js";
import { history, rateOf } from "../history.js";
import { glowing } from "../model.js";
import { now } from "../state.js";
import { line } from "./spark.js";

/** @import { ActorNode } from "../types.js" */
/** @import { Row } from "../rows.js" */

/** @param {{row: Row, at: number, top: number, chosen: boolean, thin: boolean}} props */
export function Line({ row, at, top, chosen, thin }) {
  const place = { transform: `translateY(${top}px)`, "--level": String(row.level - 1) };
  const shared = { id: `row-${at}`, "data-at": at, role: "treeitem", "aria-level": row.level, "aria-setsize": row.size, "aria-posinset": row.place, "aria-selected": chosen ? "true" : "false" };
  if (!row.node) {
    return html`<div ...${shared} class="line more" style=${place} aria-label=${`${num(row.left)} more of ${row.path}, Enter shows some`}><span class="name"><span class="text">${num(row.left)} more · show 200</span></span></div>`;
  }
  const node = row.node;
  const twist = html`<span class=${`twist ${row.open === null ? "" : row.open ? "open" : "shut"}`}></span>`;
  const name = html`<span class="name">${twist}<span class=${`dot s-${node.state}`}></span><span class="text">${node.id === "/" ? "/" : node.id}</span>${node.children ? html`<span class="count">${num(node.children.total)}</span>` : null}</span>`;
  const glow = Date.now() - (glowing.get(node.path) ?? 0) < 2600 ? ` glow-${node.life % 2}` : "";
  const classes = `line${chosen ? " chosen" : ""}${glow} is-${node.state}`;
  if (thin) return html`<div ...${shared} class=${classes} style=${place} aria-expanded=${row.open ?? undefined} aria-label=${say(node)}>${name}<span class="rest">${node.state === "up" ? "" : words(node.state)}</span><span class="n">${node.restarts ? `↻ ${node.restarts}` : ""}</span></div>`;
  const told = remark(node), box = node.mailbox, hand = node.handling, pace = hand ? rateOf(node.path) : null;
  const full = box ? pressure(box.depth, box.capacity) : "";
  const fill = box?.capacity ? { "--fill": `${Math.min(100, (box.depth / box.capacity) * 100)}%` } : undefined;
  const storm = node.intensity ? pressure(node.intensity.used, node.intensity.max) : "";
  return html`<div ...${shared} class=${classes} style=${place} aria-expanded=${row.open ?? undefined} aria-label=${say(node)}>
    ${name}
    <span class=${`rest ${told.tone}`} title=${told.text}>${told.text}</span>
    <span class=${`n box ${full}${box?.depth ? "" : " zero"}`} style=${fill} title=${box?.capacity ? `${box.depth} of ${box.capacity} wait` : undefined}>${box ? num(box.depth) : ""}</span>
    <span class=${`n pace${pace ? "" : " zero"}`}>${hand ? html`<svg class="spark" width="48" height="14" viewBox="0 0 48 14" aria-hidden="true"><path class="line" d=${line(history.of(node.path)?.rates ?? [], 48, 14)} /></svg>` : null}${pace === null ? "" : rate(pace)}</span>
    <span class="n p99">${hand ? micros(hand.p99_us) : ""}</span>
    <span class=${`n again ${storm}`} title=${node.intensity ? `${node.intensity.used} of ${node.intensity.max} restarts in ${span(node.intensity.period_ms)} used` : undefined}>${again(node)}</span>
    <span class="n age">${node.started_at ? span(now.value - Date.parse(node.started_at)) : span(node.up_ms)}</span>
  </div>`;
}

/** @param {ActorNode} node */
function again(node) {
  if (node.intensity) return node.intensity.used ? `${node.intensity.used} / ${num(node.intensity.max)}` : node.children?.restarts ? num(node.children.restarts) : "";
  return node.restarts ? num(node.restarts) : "";
}

/** The one thing worth saying about a node now. @param {ActorNode} node @returns {{text: string, tone: string}} */
export function remark(node) {
  if (node.state !== "up") {
    const why = node.last_failure && node.state !== "suspended" ? ` · ${node.last_failure.reason}` : "";
    return { text: words(node.state) + why, tone: `t-${node.state}` };
  }
  const hand = node.handling?.in_hand;
  if (hand && hand.elapsed_ms > 1000) return { text: `${hand.message} in hand for ${span(hand.elapsed_ms)}${node.waiting_on ? `, waits for ${node.waiting_on.path}` : ""}`, tone: "t-stuck" };
  const by = node.children?.by_state ?? {};
  const off = Object.entries(by).filter(([state, count]) => state !== "up" && count).map(([state, count]) => `${num(count)} ${words(state)}`);
  if (off.length) return { text: off.join(", "), tone: "t-backing_off" };
  if (node.health && node.health.status !== "healthy") return { text: `${node.health.status}: ${node.health.detail ?? ""}`, tone: "t-stuck" };
  if (node.lints?.length) return { text: node.lints.map(words).join(", "), tone: "t-stuck" };
  return { text: node.status || (node.strategy ? words(node.strategy) : node.actor_type ?? ""), tone: "" };
}

/** The line as a sentence. @param {ActorNode} node */
function say(node) {
  const parts = [node.id === "/" ? "root" : node.id, words(node.kind), words(node.state)];
  if (node.children) parts.push(`${node.children.total} children`);
  if (node.mailbox?.depth) parts.push(`${node.mailbox.depth} messages wait`);
  if (node.restarts) parts.push(`${node.restarts} restarts`);
  return parts.join(", ");
}
