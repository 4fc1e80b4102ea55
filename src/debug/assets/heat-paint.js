/** Every actor as a pixel: where each stands on the strip, and which colour it has. No DOM but the canvas. */

/** @import { ActorNode, Heat, Span } from "./types.js" */

export const STATES = ["starting", "up", "stopping", "suspended", "backing_off", "down", "failed"];
const LABEL = 17;
const LARGEST = 15;

/** @typedef {{path: string, from: number, count: number, column: number, columns: number}} Segment */
/** @typedef {{cell: number, rows: number, columns: number, height: number, top: number, segments: Segment[]}} Layout */

/** Cuts nested spans into runs that belong to the deepest one. @param {Span[]} spans @param {number} count @returns {Omit<Segment, "column" | "columns">[]} */
export function segmentsOf(spans, count) {
  const sorted = [...spans].sort((a, b) => a.from - b.from || b.count - a.count);
  /** @type {Omit<Segment, "column" | "columns">[]} */ const runs = [];
  /** @type {Span[]} */ const open = [];
  let at = 0;
  const until = (/** @type {number} */ end) => {
    if (end > at) runs.push({ path: open.at(-1)?.path ?? "/", from: at, count: end - at });
    at = Math.max(at, end);
  };
  const close = (/** @type {number} */ to) => {
    for (let top = open.at(-1); top && top.from + top.count <= to; top = open.at(-1)) { until(top.from + top.count); open.pop(); }
  };
  for (const span of sorted) { close(span.from); until(span.from); open.push(span); }
  close(Infinity);
  until(count);
  return runs.filter((run) => run.from < count);
}

/** The largest cell with which all fit. @param {Heat} heat @param {number} width in device pixels @param {number} tallest @param {number} ratio @returns {Layout} */
export function layout(heat, width, tallest, ratio) {
  let least = heat.count > 3000 ? 8 : 1;
  let runs = merge(segmentsOf(heat.spans, heat.count), least);
  while (runs.length > 48) runs = merge(runs, (least *= 2));
  for (let cell = Math.round(LARGEST * ratio); ; cell--) {
    const last = cell <= 1;
    for (let rows = 2; rows * cell <= tallest || last; rows++) {
      const gap = cell > 3 ? 1 : 0;
      const columns = runs.reduce((sum, run) => sum + Math.ceil(run.count / rows) + gap, 0);
      if (columns * cell > width) continue;
      let column = 0;
      const segments = runs.map((run) => {
        const columns = Math.ceil(run.count / rows), at = column;
        column += columns + gap;
        return { ...run, column: at, columns };
      });
      const top = Math.round(LABEL * ratio);
      return { cell, rows, columns, height: top + rows * cell, top, segments };
    }
  }
}

/** Joins slivers, so that supervisors between groups cost no column each. @param {Omit<Segment, "column" | "columns">[]} runs @param {number} least */
function merge(runs, least) {
  /** @type {typeof runs} */ const out = [];
  for (const run of runs) {
    const before = out.at(-1);
    if (before && (run.count <= least || before.count <= least)) {
      if (run.count > before.count) before.path = run.path;
      before.count += run.count;
    } else out.push({ ...run });
  }
  return out;
}

/** The colour of each of the 256 bytes, from the style sheet. @param {CSSStyleDeclaration} style */
export function palette(style) {
  const of = (/** @type {string} */ name) => rgb(style.getPropertyValue(name).trim());
  const up = [of("--px-up"), of("--px-wait"), of("--px-half"), of("--px-full")];
  const states = [of("--px-starting"), null, of("--px-stopping"), of("--px-suspended"), of("--px-backing"), of("--px-down"), of("--px-failed")];
  const fresh = of("--px-fresh"), busy = of("--px-busy");
  const table = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    const again = (byte >> 5) & 3;
    let colour = states[byte & 7] ?? up[(byte >> 3) & 3];
    if (colour === up[(byte >> 3) & 3]) {
      if (byte & 128) colour = busy;
      if (again === 3) colour = fresh;
      else if (again === 2) colour = mix(colour, fresh, 0.45);
    }
    table[byte] = (255 << 24) | (colour[2] << 16) | (colour[1] << 8) | colour[0];
  }
  return table;
}

/** @param {string} hex */
function rgb(hex) {
  const n = parseInt(hex.slice(1), 16);
  return [(n >> 16) & 255, (n >> 8) & 255, n & 255];
}

/** @param {number[]} a @param {number[]} b @param {number} part */
function mix(a, b, part) {
  return a.map((one, i) => Math.round(one + (b[i] - one) * part));
}

/** @param {string} base64 */
export function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** @param {CanvasRenderingContext2D} ctx @param {Uint8Array} bytes @param {Layout} plan @param {Uint32Array} colours @param {number} width */
export function paint(ctx, bytes, plan, colours, width) {
  const { cell, rows, segments, top } = plan, gap = cell > 3 ? Math.max(1, Math.round(cell / 8)) : 0;
  const image = ctx.createImageData(width, rows * cell);
  const words = new Uint32Array(image.data.buffer), size = cell - gap;
  for (const segment of segments) {
    const end = Math.min(segment.from + segment.count, bytes.length);
    for (let i = segment.from; i < end; i++) {
      const n = i - segment.from, column = segment.column + Math.floor(n / rows);
      let start = (n % rows) * cell * width + column * cell;
      const colour = colours[bytes[i]];
      for (let y = 0; y < size; y++, start += width) words.fill(colour, start, start + size);
    }
  }
  ctx.clearRect(0, 0, width, plan.height);
  ctx.putImageData(image, 0, top);
}

/** @param {CanvasRenderingContext2D} ctx @param {Layout} plan @param {CSSStyleDeclaration} style @param {number} ratio @param {string} chosen */
export function label(ctx, plan, style, ratio, chosen) {
  ctx.font = `${Math.round(11 * ratio)}px ${style.fontFamily}`;
  ctx.textBaseline = "alphabetic";
  const quiet = style.getPropertyValue("--ink-3"), strong = style.getPropertyValue("--ink");
  for (const segment of plan.segments) {
    const mine = segment.path === chosen, wide = segment.columns * plan.cell;
    const name = segment.path.slice(segment.path.lastIndexOf("/") + 1) || "/";
    const text = `${name} ${segment.count.toLocaleString("en")}`;
    ctx.fillStyle = mine ? strong : quiet;
    for (const one of [text, name]) {
      if (ctx.measureText(one).width <= wide - ratio) { ctx.fillText(one, segment.column * plan.cell, plan.top - 5 * ratio); break; }
    }
    if (mine) ctx.fillRect(segment.column * plan.cell, plan.top - 3 * ratio, wide - (plan.cell > 3 ? ratio : 0), 2 * ratio);
  }
}

/** Which slot is at a point, or -1. @param {Layout} plan @param {number} x @param {number} y */
export function slotAt(plan, x, y) {
  const row = Math.floor((y - plan.top) / plan.cell), column = Math.floor(x / plan.cell);
  if (row < 0 || row >= plan.rows) return -1;
  for (const segment of plan.segments) {
    const n = (column - segment.column) * plan.rows + row;
    if (column >= segment.column && column < segment.column + segment.columns && n < segment.count) return segment.from + n;
  }
  return -1;
}

/** The strip of a tree that was read whole: used for the past, which has no heat of its own. @param {ActorNode} root */
export function heatOf(root) {
  /** @type {number[]} */ const bytes = [];
  /** @type {string[]} */ const paths = [];
  /** @type {Span[]} */ const spans = [];
  const walk = (/** @type {ActorNode} */ node) => {
    bytes.push(STATES.indexOf(node.state) & 7);
    paths.push(node.path);
    const from = bytes.length;
    for (const child of node.nodes ?? []) walk(child);
    if (bytes.length > from && node.path !== "/") spans.push({ path: node.path, from, count: bytes.length - from });
  };
  walk(root);
  return { bytes: Uint8Array.from(bytes), paths, heat: { seq: 0, count: bytes.length, states: "", spans } };
}
