/** The tree as a list that is virtual: some forty lines live at once, whatever the size. Complete by keyboard. */
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/index.js";
import { ahead, fold, folds, flatten, step } from "../rows.js";
import { go, href } from "../router.js";
import { Line } from "./tree-line.js";

/** @import { ActorNode } from "../types.js" */
/** @import { Row } from "../rows.js" */

const SPARE = 3;
const narrow = matchMedia("(max-width: 720px)");

/**
 * @param {{root: ActorNode, narrowed: boolean, chosen: string, choose: (path: string) => void, seen?: (paths: string[]) => void,
 *   more?: (path: string) => void, kill?: (node: ActorNode) => void, stamp: unknown, label: string, thin?: boolean}} props
 */
export function TreeList({ root, narrowed, chosen, choose, seen, more, kill, stamp, label, thin = false }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [view, setView] = useState({ top: 0, height: 600 });
  const [tall, setTall] = useState(narrow.matches && !thin);
  const typed = useRef({ text: "", at: 0 });
  const shown = useRef("");
  const rows = useMemo(() => flatten(root, narrowed), [root, narrowed, folds.value, stamp]);
  const height = tall ? 46 : thin ? 24 : 27;
  const at = Math.max(0, rows.findIndex((row) => row.key === chosen));

  useEffect(() => {
    const it = /** @type {HTMLDivElement} */ (box.current);
    const measure = () => setView({ top: it.scrollTop, height: it.clientHeight });
    const turn = () => setTall(narrow.matches && !thin);
    const watch = new ResizeObserver(measure);
    watch.observe(it);
    it.addEventListener("scroll", measure, { passive: true });
    narrow.addEventListener("change", turn);
    return () => { watch.disconnect(); it.removeEventListener("scroll", measure); narrow.removeEventListener("change", turn); };
  }, []);

  // The chosen line is brought into sight when the choice changes, not when the tree moves under it.
  useLayoutEffect(() => {
    const it = box.current;
    if (!it || shown.current === chosen || !rows.some((row) => row.key === chosen)) return;
    shown.current = chosen;
    const y = at * height;
    if (y < it.scrollTop) it.scrollTop = y;
    else if (y + height > it.scrollTop + it.clientHeight) it.scrollTop = y + height - it.clientHeight;
  });

  const from = Math.max(0, Math.floor(view.top / height) - SPARE);
  const to = Math.min(rows.length, Math.ceil((view.top + view.height) / height) + SPARE);
  const live = rows.slice(from, to);
  const wish = live.map((row) => row.path).join("\n");
  useEffect(() => { seen?.(live.flatMap((row) => (row.node && row.node.handling ? [row.path] : []))); }, [wish]);

  const open = (/** @type {Row} */ row) => {
    if (!row.node) more?.(row.path);
    else if (!thin) go(href("actor", row.path));
  };
  const toggle = (/** @type {Row} */ row) => {
    if (row.open !== null) fold([row.path], !row.open);
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const row = rows[at];
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    const done = () => { event.preventDefault(); event.stopPropagation(); };
    if (event.key === "Enter") return done(), open(row);
    if (event.key === " ") return done(), toggle(row);
    if (event.key === "*") return done(), fold(rows.filter((one) => one.level === row.level && one.open !== null).map((one) => one.path), true);
    if (event.key === "Delete" && row.node) return done(), kill?.(row.node);
    const to = step(rows, at, event.key, Math.max(1, Math.floor(view.height / height) - 1));
    if (to === "open" || to === "close") return done(), fold([row.path], to === "open");
    if (to !== null) return done(), choose(rows[to].key);
    if (event.key.length !== 1 || event.key === "/" || event.key === "?") return;
    const quick = Date.now() - typed.current.at < 700;
    typed.current = { text: (quick ? typed.current.text : "") + event.key.toLowerCase(), at: Date.now() };
    const hit = ahead(rows, at, typed.current.text);
    if (hit !== null) done(), choose(rows[hit].key);
  };
  const onClick = (/** @type {MouseEvent} */ event) => {
    const line = /** @type {HTMLElement} */ (event.target).closest("[data-at]");
    const row = rows[Number(line?.getAttribute("data-at"))];
    if (!line || !row) return;
    choose(row.key);
    if (!row.node) more?.(row.path);
    else if (/** @type {HTMLElement} */ (event.target).closest(".twist")) toggle(row);
  };
  const onTwice = (/** @type {MouseEvent} */ event) => {
    const row = rows[Number(/** @type {HTMLElement} */ (event.target).closest("[data-at]")?.getAttribute("data-at"))];
    if (row) open(row);
  };
  const active = rows[at];
  const aside = active && (at < from || at >= to) ? html`<${Line} key=${active.key} row=${active} at=${at} top=${at * height} chosen=${true} thin=${thin} />` : null;
  return html`<div ref=${box} class=${"tree" + (thin ? " thin" : "")} role="tree" aria-label=${label} tabindex="0" aria-activedescendant=${active ? `row-${at}` : undefined}
      onKeyDown=${onKey} onClick=${onClick} onDblClick=${onTwice}>
    <div class="tree-all" role="presentation" style=${{ height: `${rows.length * height}px` }}>
      ${live.map((row, i) => html`<${Line} key=${row.key} row=${row} at=${from + i} top=${(from + i) * height} chosen=${from + i === at} thin=${thin} />`)}${aside}
    </div>
  </div>`;
}
