/** The lanes of the timeline: time to the right, one lane a part of the tree, one mark an event. */

/** @import { Life } from "./types.js" */

export const LANE = 18;
const NAME = 118;

/** Where an event belongs: the first two steps of its path. @param {string} path */
export function laneOf(path) {
  const steps = path.split("/").filter(Boolean);
  return "/" + steps.slice(0, steps.length > 2 ? 2 : 1).join("/");
}

/** @param {Life[]} events */
export function lanesOf(events) {
  return [...new Set(events.map((event) => laneOf(event.path)))].sort();
}

/** @param {number} width */
export const left = (width) => (width > 600 ? NAME : 0);

const TONE = /** @type {Record<string, string>} */ ({ failed: "--px-failed", start_failed: "--px-failed", escalated: "--px-failed", restarted: "--px-fresh", started: "--px-starting", stopped: "--px-down", action: "--accent", stuck: "--warm", suspended: "--px-suspended", resumed: "--px-suspended", health: "--warm" });

/** @param {HTMLCanvasElement} canvas @param {Life[]} events @param {number | null} seq @param {[number, number]} range */
export function paint(canvas, events, seq, range) {
  const ratio = Math.min(3, devicePixelRatio || 1), style = getComputedStyle(canvas);
  const width = canvas.parentElement?.clientWidth ?? 600, lanes = lanesOf(events), height = lanes.length * LANE + 20;
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  canvas.style.height = `${height}px`;
  const ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  ctx.scale(ratio, ratio);
  ctx.font = `11px ${style.fontFamily}`;
  const [first, last] = range, from = left(width), x = (/** @type {number} */ ms) => from + 8 + ((ms - first) / Math.max(1, last - first)) * (width - from - 16);
  lanes.forEach((lane, i) => {
    ctx.fillStyle = style.getPropertyValue("--line");
    ctx.fillRect(from, i * LANE + LANE / 2, width - from, 1);
    if (!from) return;
    ctx.fillStyle = style.getPropertyValue("--ink-3");
    ctx.fillText(lane.length > 19 ? `…${lane.slice(-18)}` : lane, 0, i * LANE + LANE / 2 + 4);
  });
  for (const event of events) {
    const tone = TONE[event.kind];
    if (!tone) continue;
    const at = x(Date.parse(event.at)), y = lanes.indexOf(laneOf(event.path)) * LANE + LANE / 2;
    ctx.fillStyle = style.getPropertyValue(tone);
    const tall = event.kind === "failed" || event.kind === "action" ? 6 : 3.5;
    ctx.fillRect(at - 1.25, y - tall, 2.5, tall * 2);
  }
  ctx.fillStyle = style.getPropertyValue("--ink-3");
  const steps = Math.max(2, Math.floor((width - from) / 130));
  for (let i = 0; i <= steps; i++) {
    const ms = first + ((last - first) * i) / steps, text = new Date(ms).toTimeString().slice(0, 8);
    ctx.textAlign = i === 0 ? "left" : i === steps ? "right" : "center";
    ctx.fillText(text, x(ms), height - 4);
  }
  ctx.textAlign = "left";
  const chosen = events.find((event) => event.seq === seq);
  if (!chosen) return;
  ctx.fillStyle = style.getPropertyValue("--past-line");
  ctx.fillRect(x(Date.parse(chosen.at)) - 1, 0, 2, height - 16);
}

/** The event nearest to a point in the drawing. @param {Life[]} events @param {number} x @param {number} width @param {[number, number]} range */
export function eventAt(events, x, width, range) {
  const from = left(width), part = (x - from - 8) / Math.max(1, width - from - 16);
  const ms = range[0] + part * (range[1] - range[0]);
  let best = 0;
  for (let i = 0; i < events.length; i++) if (Math.abs(Date.parse(events[i].at) - ms) < Math.abs(Date.parse(events[best].at) - ms)) best = i;
  return best;
}
