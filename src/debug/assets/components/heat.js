/** The strip above the tree. The drawing is hidden from assistive technology; the tree below says the same. */
import { html, useEffect, useRef, useState } from "../vendor/index.js";
import { get } from "../api.js";
import { bytesOf, heatOf, label, layout, paint, palette, slotAt, STATES } from "../heat-paint.js";
import { words } from "../format.js";
import { pastRoot } from "../past.js";
import { go, href } from "../router.js";
import { past } from "../state.js";
import { theme } from "../theme.js";

/** @import { Heat } from "../types.js" */
/** @import { Layout } from "../heat-paint.js" */

/** @param {{chosen: string}} props */
export function HeatStrip({ chosen }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const held = useRef(/** @type {{heat: Heat | null, bytes: Uint8Array, paths: string[] | null, plan: Layout | null}} */ ({ heat: null, bytes: new Uint8Array(), paths: null, plan: null }));
  const [tip, setTip] = useState(/** @type {{x: number, text: string} | null} */ (null));
  const asked = useRef(0);
  const mark = useRef(chosen);
  mark.current = chosen;

  const draw = () => {
    const it = canvas.current, mine = held.current;
    if (!it || !mine.heat || !it.parentElement) return;
    const ratio = Math.min(3, devicePixelRatio || 1), width = Math.floor(it.parentElement.clientWidth * ratio);
    if (width < 10) return;
    const began = performance.now();
    const tallest = Math.max(104, Math.ceil(mine.heat.count / width / ratio) + 8) * ratio;
    const plan = (mine.plan = layout(mine.heat, width, tallest, ratio));
    if (it.width !== width || it.height !== plan.height) Object.assign(it, { width, height: plan.height });
    it.style.height = `${plan.height / ratio}px`;
    const ctx = /** @type {CanvasRenderingContext2D} */ (it.getContext("2d"));
    const style = getComputedStyle(it);
    paint(ctx, mine.bytes, plan, palette(style), width);
    label(ctx, plan, style, ratio, mark.current);
    performance.measure("heat", { start: began, end: performance.now() });
  };

  useEffect(() => {
    let gone = false;
    /** @type {ReturnType<typeof setTimeout>} */ let timer;
    const read = async () => {
      if (!document.hidden && !past.peek()) {
        const heat = await get("heat").catch(() => null);
        if (gone) return;
        if (heat && !past.peek()) {
          Object.assign(held.current, { heat, bytes: bytesOf(heat.states), paths: null });
          requestAnimationFrame(draw);
        }
      }
      const many = (held.current.heat?.count ?? 0) > 20_000;
      timer = setTimeout(read, many ? 4000 : 1500);
    };
    read();
    const seen = new ResizeObserver(() => draw());
    if (canvas.current?.parentElement) seen.observe(canvas.current.parentElement);
    return () => { gone = true; clearTimeout(timer); seen.disconnect(); };
  }, [past.value === null]);

  useEffect(() => {
    if (!pastRoot.value) return;
    const { heat, bytes, paths } = heatOf(pastRoot.value);
    Object.assign(held.current, { heat, bytes, paths });
    draw();
  }, [pastRoot.value]);
  useEffect(draw, [chosen, theme.value]);

  const point = (/** @type {PointerEvent} */ event) => {
    const ratio = Math.min(3, devicePixelRatio || 1), { plan } = held.current;
    return plan ? slotAt(plan, event.offsetX * ratio, event.offsetY * ratio) : -1;
  };
  const pathOf = async (/** @type {number} */ slot) => {
    const { paths, heat } = held.current;
    return paths?.[slot] ?? (await get(`heat/${slot}`, { seq: heat?.seq }).then((said) => said.path, () => null));
  };
  const hover = (/** @type {PointerEvent} */ event) => {
    const slot = point(event), mine = ++asked.current;
    if (slot < 0) return setTip(null);
    const byte = held.current.bytes[slot] ?? 1, x = event.offsetX;
    const state = words(STATES[byte & 7]) + (((byte >> 3) & 3) === 3 ? ", mailbox nearly full" : "") + (byte & 128 ? ", busy for more than a second" : "") + (((byte >> 5) & 3) > 1 ? ", restarted lately" : "");
    setTip({ x, text: state });
    setTimeout(async () => {
      if (mine !== asked.current) return;
      const path = await pathOf(slot);
      if (mine === asked.current && path) setTip({ x, text: `${path} · ${state}` });
    }, 90);
  };
  const open = async (/** @type {PointerEvent} */ event) => {
    const slot = point(event), path = slot < 0 ? null : await pathOf(slot);
    if (path) go(href("actor", path));
  };
  const width = canvas.current?.parentElement?.clientWidth ?? 0;
  return html`<div class="heat" aria-hidden="true">
    <canvas ref=${canvas} onPointerMove=${hover} onPointerLeave=${() => { asked.current++; setTip(null); }} onClick=${open}></canvas>
    ${tip && html`<div class=${"heat-tip" + (tip.x > width / 2 ? " left" : "")} style=${tip.x > width / 2 ? { right: `${width - tip.x}px` } : { left: `${tip.x}px` }}>${tip.text}</div>`}
  </div>`;
}

/** What the pixels mean. */
export function Legend() {
  const items = [["up", "up"], ["wait", "messages wait"], ["half", "over half full"], ["full", "nearly full"], ["busy", "busy > 1 s"], ["fresh", "restarted now"], ["backing", "backing off"], ["failed", "failed"], ["down", "down"], ["suspended", "suspended"]];
  return html`<ul class="legend" aria-label="Legend of the strip">${items.map(([key, text]) => html`<li key=${key} class=${`px-${key}`}>${text}</li>`)}</ul>`;
}
