/** A line of the last minute. */
import { html } from "../vendor/index.js";

/** @param {number[]} values @param {number} width @param {number} height @param {number} [ceiling] */
export function line(values, width, height, ceiling) {
  if (values.length < 2) return "";
  const top = Math.max(ceiling ?? 0, ...values, 1e-9), step = width / 59, first = 60 - values.length;
  return values.map((value, i) => `${i ? "L" : "M"}${((first + i) * step).toFixed(1)} ${(height - 1 - (Math.min(value, top) / top) * (height - 2)).toFixed(1)}`).join("");
}

/** @param {{values: number[] | undefined, width?: number, height?: number, ceiling?: number, fill?: boolean, label?: string}} props */
export function Spark({ values = [], width = 56, height = 16, ceiling, fill = false, label }) {
  const d = line(values, width, height, ceiling);
  const first = ((60 - values.length) * width) / 59;
  return html`<svg class="spark" viewBox=${`0 0 ${width} ${height}`} width=${width} height=${height} preserveAspectRatio="none" role=${label ? "img" : undefined} aria-label=${label} aria-hidden=${label ? undefined : "true"}>
    ${fill && d && html`<path class="area" d=${`${d}L${width} ${height}L${first.toFixed(1)} ${height}Z`} />`}<path class="line" d=${d} />
  </svg>`;
}
