/** Numbers, durations and times as people read them. */

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** @param {number | null | undefined} n */
export function num(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return "–";
  if (Math.abs(n) < 100_000) return plain.format(n);
  for (const [size, unit] of /** @type {[number, string][]} */ ([[1e9, "G"], [1e6, "M"], [1e3, "k"]])) {
    if (Math.abs(n) >= size) return `${(n / size).toFixed(Math.abs(n) >= size * 100 ? 0 : 1)} ${unit}`;
  }
  return plain.format(n);
}

/** @param {number} n a second */
export function rate(n) {
  return n === 0 ? "0" : n < 10 ? n.toFixed(1) : num(Math.round(n));
}

/** @param {number | null | undefined} us */
export function micros(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1000) return `${plain.format(us)} µs`;
  return us < 1_000_000 ? `${trim(us / 1000)} ms` : `${trim(us / 1_000_000)} s`;
}

/** @param {number | null | undefined} ms */
export function span(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const s = ms / 1000;
  if (s < 10) return `${trim(s)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** @param {number | null | undefined} n */
export function bytes(n) {
  if (n === null || n === undefined) return "–";
  if (n < 1024) return `${n} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let i = -1;
  do { n /= 1024; i++; } while (n >= 1024 && i < units.length - 1);
  return `${trim(n)} ${units[i]}`;
}

/** @param {number} n */
function trim(n) {
  return n >= 100 ? n.toFixed(0) : n.toFixed(1).replace(/\.0$/, "");
}

/** How long ago, against `now`. @param {string | undefined | null} at @param {number} now */
export function ago(at, now) {
  if (!at) return "–";
  const ms = now - Date.parse(at);
  if (ms < -1500) return `in ${span(-ms)}`;
  return ms < 1500 ? "just now" : `${span(ms)} ago`;
}

/** @param {string | undefined | null} at */
export function moment(at) {
  return at ? `${exact.format(new Date(at))} (${at})` : "";
}

/** The clock of a moment, with milliseconds. @param {string} at */
export function clock(at) {
  const date = new Date(at);
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** @param {number} value @param {number | undefined} max @returns {"" | "warm" | "hot"} */
export function pressure(value, max) {
  if (!max) return "";
  const part = value / max;
  return part >= 0.85 ? "hot" : part >= 0.6 ? "warm" : "";
}

/** A word of the API as words. @param {string} word */
export function words(word) {
  return (word ?? "").replaceAll("_", " ");
}
