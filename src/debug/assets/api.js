/** The one place that speaks HTTP: token, problems, reads and acts. */
import { needToken } from "./state.js";
import { toUrl } from "./paths.js";

const KEY = "smith.token";
const BASE = new URL("debug/v1/", document.baseURI);

/** A token in the fragment is taken and leaves the address bar and the history. */
export function takeToken() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return;
  setToken(decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname + location.search + "#/");
}

/** @param {string} token */
export function setToken(token) {
  if (token) sessionStorage.setItem(KEY, token);
  else sessionStorage.removeItem(KEY);
}

export function hasToken() {
  return sessionStorage.getItem(KEY) !== null;
}

/** What a problem+json says. */
export class Problem extends Error {
  /** @param {number} status @param {string} title @param {string} detail */
  constructor(status, title, detail) {
    super(detail || title);
    this.status = status;
    this.title = title;
    this.detail = detail;
  }
}

/** @param {string} path below the prefix @param {RequestInit} [init] */
export async function request(path, init = {}) {
  const headers = new Headers(init.headers);
  const token = sessionStorage.getItem(KEY);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  let response;
  try {
    response = await fetch(new URL(path, BASE), { ...init, headers, credentials: "omit" });
  } catch (error) {
    if (/** @type {Error} */ (error).name === "AbortError") throw error;
    throw new Problem(0, "No answer", "the node does not answer; it may be restarting");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  if (response.status === 401) needToken.value = { refused: token !== null, detail: said.detail ?? "" };
  throw new Problem(response.status, said.title ?? response.statusText, said.detail ?? "");
}

/**
 * @param {string} path
 * @param {Record<string, string | number | boolean | null | undefined>} [query]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function get(path, query = {}, signal) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") search.set(name, String(value));
  }
  const text = search.toString();
  const response = await request(text ? `${path}?${text}` : path, { signal, cache: "no-store" });
  return response.json();
}

/** @param {string} path @param {object} body @returns {Promise<any>} */
export async function post(path, body) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key() };
  const response = await request(path, { method: "POST", headers, body: JSON.stringify(body) });
  return response.json().catch(() => ({}));
}

/** @param {string} path of an actor @param {string} [more] */
export function actorUrl(path, more = "") {
  return `actors${toUrl(path)}${more ? `/${more}` : ""}`;
}

/** `randomUUID` is there on secure origins only. */
function key() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
