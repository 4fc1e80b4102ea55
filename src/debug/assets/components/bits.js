/** Small pieces that many views share. */
import { Fragment, html, useEffect, useRef, useState } from "../vendor/index.js";
import { ago, moment, num, pressure, words } from "../format.js";
import { chain, nameOf } from "../paths.js";
import { href } from "../router.js";
import { now, say } from "../state.js";

/** A state, as a shape and a word: never colour alone. @param {{state: string}} props */
export function StateMark({ state }) {
  return html`<span class=${`mark s-${state}`}><span class=${`dot s-${state}`}></span>${words(state)}</span>`;
}

/** How long ago; the exact moment in the title. @param {{at: string | undefined | null}} props */
export function When({ at }) {
  return at ? html`<time dateTime=${at} title=${moment(at)}>${ago(at, now.value)}</time>` : html`<span class="quiet">–</span>`;
}

/** A value beside its limit; red from 85 %. @param {{value: number, max?: number, unit?: string, label?: string}} props */
export function Gauge({ value, max, unit = "", label }) {
  const level = pressure(value, max), part = max ? Math.min(1, value / max) : 0;
  return html`<span class=${`gauge ${level}`} title=${max ? `${Math.round((value / max) * 100)} % of ${num(max)}${unit}` : undefined}>
    ${label && html`<span class="gauge-label">${label}</span>`}<span><b>${num(value)}</b>${max ? html`<span class="of"> / ${num(max)}${unit}</span>` : unit}</span>
    ${max ? html`<span class="bar"><i style=${{ width: `${Math.max(part * 100, value ? 1.5 : 0)}%` }}></i></span>` : null}
  </span>`;
}

/** A path as links, each step to its actor. @param {{path: string, last?: boolean}} props */
export function Crumbs({ path, last = false }) {
  const steps = chain(path);
  return html`<span class="crumbs">${steps.map((step, i) => html`<${Fragment} key=${step}>${i > 1 && html`<span class="slash">/</span>`}${i === steps.length - 1 && last ? html`<b>${nameOf(step)}</b>` : html`<a href=${href("actor", step)}>${nameOf(step)}</a>`}<//>`)}</span>`;
}

/** @param {{path: string}} props */
export function ActorLink({ path }) {
  return html`<a class="path" href=${href("actor", path)}>${path}</a>`;
}

/** @param {{text: string, what?: string}} props */
export function Copy({ text, what = "path" }) {
  const copy = async () => {
    try { await navigator.clipboard.writeText(text); say(`the ${what} is copied`); } catch { say(`the browser does not let the page copy; the ${what} is ${text}`, "bad"); }
  };
  return html`<button class="link" onClick=${copy} aria-label=${`Copy ${what}`} title=${`Copy the ${what}`}>copy</button>`;
}

/** Nothing here, and what would be. @param {{title: string, children?: any}} props */
export function Empty({ title, children }) {
  return html`<div class="empty"><p class="empty-title">${title}</p><p>${children}</p></div>`;
}

/** @param {{error: any, retry?: () => void}} props */
export function Trouble({ error, retry }) {
  return html`<div class="trouble" role="alert"><p><b>${error.title ?? "That did not work"}</b>${error.status ? html` <span class="quiet">${error.status}</span>` : null}</p><p>${error.message}</p>${retry && html`<button onClick=${retry}>Try again</button>`}</div>`;
}

/** @param {{title: string, note?: any, children?: any, id?: string, actions?: any}} props */
export function Card({ title, note, children, actions }) {
  return html`<section class="card" aria-label=${title}><header><h2>${title}</h2>${note !== undefined && html`<span class="note">${note}</span>`}${actions}</header>${children}</section>`;
}

/**
 * Reads something now and every `every` milliseconds while it is looked at.
 * @template T @param {string} key @param {() => Promise<T>} read @param {number} [every]
 */
export function useRead(key, read, every = 3000) {
  const [state, set] = useState(/** @type {{key: string, data: T | null, error: any}} */ ({ key, data: null, error: null }));
  const turn = useRef(0);
  const load = () => {
    const mine = ++turn.current;
    return read().then(
      (data) => { if (mine === turn.current) set({ key, data, error: null }); },
      (error) => { if (mine === turn.current) set((was) => ({ key, data: was.key === key ? was.data : null, error })); },
    );
  };
  useEffect(() => {
    load();
    const timer = every ? setInterval(() => { if (!document.hidden) load(); }, every) : undefined;
    return () => { turn.current++; clearInterval(timer); };
  }, [key, every]);
  return state.key === key ? { ...state, load } : { key, data: null, error: null, load };
}

/** A table with a caption for those who do not see it. @param {{label: string, head: any[], rows: any[][], keys?: string[]}} props */
export function Table({ label, head, rows, keys }) {
  return html`<div class="scroll-x" tabindex="0" role="region" aria-label=${label}><table>
    <thead><tr>${head.map((one) => html`<th scope="col" class=${typeof one === "object" ? one.kind : ""}>${typeof one === "object" ? one.text : one}</th>`)}</tr></thead>
    <tbody>${rows.map((cells, i) => html`<tr key=${keys?.[i] ?? i}>${cells.map((cell, n) => html`<td class=${typeof head[n] === "object" ? head[n].kind : ""}>${cell}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

/** A column of buttons. */
export const doing = { text: html`<span class="unseen">what can be done</span>`, kind: "" };

/** A column of numbers. @param {string} text */
export const right = (text) => ({ text, kind: "n" });
