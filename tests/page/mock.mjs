/** The debug API with a system that is not there, for work on the page: `node mock.mjs --actors=20000 --port=7399`. */
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { STATES, System } from "./mock-system.mjs";
import { Data } from "./mock-data.mjs";

const ASSETS = fileURLToPath(new URL("../../src/debug/assets/", import.meta.url));
const TYPES = /** @type {Record<string, string>} */ ({ ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml" });
const HEADERS = { "content-security-policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-cache" };
const ORDER = ["failed", "down", "backing_off", "starting", "stopping", "suspended", "up"];
const iso = (/** @type {number} */ ms) => new Date(ms).toISOString().replace("Z", "000Z");

class Refused extends Error {
  /** @param {number} status @param {string} title @param {string} detail */
  constructor(status, title, detail) { super(detail); this.status = status; this.title = title; }
}
const missing = (/** @type {string} */ what) => new Refused(404, "Not Found", `nothing lives at ${what}`);

/** @param {any} s @param {boolean} [thin] */
function view(s, thin = false) {
  const base = { path: s.path, id: s.id, kind: s.kind, component: s.component, state: s.state, life: s.life, restarts: s.restarts };
  if (thin) return base;
  const sup = s.children.length > 0 || s.kind !== "actor", now = Date.now();
  return { ...base, actor_type: s.actor_type, suspended: s.suspended, up_ms: s.state === "up" ? now - s.started : undefined, started_at: iso(s.started), restart: "permanent",
    strategy: sup ? s.strategy : undefined, intensity: sup ? { used: s.used.filter((/** @type {number} */ at) => now - at < 60_000).length, max: s.max, period_ms: 60000 } : undefined,
    mailbox: sup ? undefined : { depth: s.depth, capacity: s.cap, overflow: "wait", high_water: s.high },
    handling: sup ? undefined : { handled: s.handled, busy_ms: Math.floor(s.busy), p50_us: 4 + (s.index % 9), p99_us: 64 << (s.index % 5), max_us: 4096, in_hand: s.busySince ? { message: "Tick", elapsed_ms: now - s.busySince } : undefined },
    waiting_on: s.busySince ? { path: "/resources/pool.sqlite", message: "Acquire", elapsed_ms: now - s.busySince } : undefined,
    last_failure: s.failures[0] && { at: s.failures[0].at, life: s.failures[0].life, reason: s.failures[0].reason, class: "transient", seq: s.failures[0].seq },
    health: { status: s.busySince ? "degraded" : "healthy", detail: s.busySince ? "one message for 42 s" : "" }, backing_off_ms: s.state === "backing_off" ? s.backing : null,
    lints: s.busySince ? ["stuck_handler", "mailbox_near_full"] : [], status: s.kind === "dynamic_supervisor" ? `${s.children.length} live` : undefined };
}

/** @param {any} slot @param {URLSearchParams} q @param {(slot: any) => any} show */
function branch(slot, q, show) {
  const limit = Number(q.get("children") ?? 50), sort = q.get("sort") ?? "worst";
  const state = q.get("state"), component = q.get("component"), text = q.get("q")?.toLowerCase();
  const filtered = Boolean(state || component || text);
  const hit = (/** @type {any} */ s) => (!state || s.state === state) && (!component || s.component === component) && (!text || s.path.toLowerCase().includes(text));
  const keys = /** @type {Record<string, (s: any) => any>} */ ({ worst: (s) => ORDER.indexOf(s.state) * 1e6 - s.restarts, name: (s) => s.id, restarts: (s) => -s.restarts, mailbox: (s) => -s.depth, busy: (s) => -s.busy, rate: (s) => -s.pace });
  const key = keys[sort] ?? keys.worst;
  const go = (/** @type {any} */ s, /** @type {number} */ depth) => {
    let kids = depth > 0 ? s.children : [];
    if (s.kind === "dynamic_supervisor") {
      if (filtered) kids = kids.filter(hit);
      kids = [...kids].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0)).slice(0, limit);
    }
    const nodes = /** @type {any[]} */ (kids.map((/** @type {any} */ c) => go(c, depth - 1)).filter(Boolean));
    if (filtered && !nodes.length && !hit(s)) return null;
    const by = /** @type {Record<string, number>} */ ({});
    for (const c of s.children) by[c.state] = (by[c.state] ?? 0) + 1;
    return { ...show(s), children: s.children.length ? { total: s.children.length, shown: nodes.length, by_state: by, restarts: s.children.reduce((/** @type {number} */ n, /** @type {any} */ c) => n + c.restarts, 0) } : undefined, nodes };
  };
  return go(slot, Number(q.get("depth") || 99));
}

/** @param {{actors?: number, port?: number, seed?: number, calm?: boolean, tokens?: Record<string, "viewer" | "operator" | "admin">, role?: string}} options */
export async function startMock({ actors = 300, port = 0, seed = 7, calm = false, tokens, role = "operator" } = {}) {
  const system = new System({ actors, seed, calm }), data = new Data(system);
  const slotAt = (/** @type {string} */ raw) => {
    const path = "/" + raw.split("/").filter(Boolean).map((s) => decodeURIComponent(s).replaceAll("%", "%25").replaceAll("/", "%2F")).join("/");
    const slot = system.byPath.get(path);
    if (!slot) throw missing(path);
    return slot;
  };
  const byState = () => { const by = /** @type {Record<string, number>} */ ({}), kinds = /** @type {Record<string, number>} */ ({}); for (const s of system.slots) { by[s.state] = (by[s.state] ?? 0) + 1; kinds[s.component] = (kinds[s.component] ?? 0) + 1; } return { total: system.slots.length, by_state: by, by_component: kinds }; };
  const totals = () => ({ handled: system.slots.reduce((n, s) => n + s.handled, 0), failures: system.events.filter((e) => e.kind === "failed").length, restarts: system.slots.reduce((n, s) => n + s.restarts, 0), dead_letters: data.letters.length });
  const node = (/** @type {string} */ as) => ({ name: "demo", version: "0.1.0", pid: process.pid, mode: "development", role: as, actions: as === "viewer" ? { allowed: false, why: "the role viewer may read; act with an operator's token" } : { allowed: true, why: "development mode" },
    started_at: iso(system.started), uptime_ms: Date.now() - system.started, workers: 2, rss_bytes: 11_534_336 + system.slots.length * 900, seq: system.seq, actors: byState(), totals: totals(),
    limits: [{ name: "aggregates live", value: system.slots.length - 60, max: 50000 }, { name: "/ restarts in 60 s", value: system.used(system.root), max: 100 }, { name: "/services/mailer mailbox", value: 117, max: 128 }],
    store: { kind: "sqlite", url: "sqlite://data/smith.db", head: data.head() }, brokers: [{ kind: "nats", state: "connected", detail: "2.9.10" }] });
  const clean = (/** @type {any} */ { ms, ...event }) => event;
  /** The tree as it was: a fold over the log. @param {number} seq @param {URLSearchParams} q */
  const at = (seq, q) => {
    const was = new Map(), states = /** @type {Record<string, string>} */ ({ failed: "failed", backing_off: "backing_off", restarted: "up", started: "up", stopped: "down", suspended: "suspended", resumed: "up" });
    for (const e of system.events) { if (e.seq > seq) break; const old = was.get(e.path) ?? { state: "up", life: 1, restarts: 0 }; was.set(e.path, { state: states[e.kind] ?? old.state, life: e.life, restarts: old.restarts + (e.kind === "restarted" ? 1 : 0) }); }
    const root = branch(q.get("path") ? slotAt(q.get("path") ?? "/") : system.root, q, (s) => ({ ...view(s, true), ...(was.get(s.path) ?? { state: "up", life: 1, restarts: 0 }) }));
    return { seq, at: system.events[seq - 1]?.at, root };
  };

  /** @param {import("node:http").IncomingMessage} req @param {import("node:http").ServerResponse} res @param {string} as */
  const stream = (req, res, as) => {
    const q = new URL(req.url ?? "/", "http://x").searchParams;
    res.writeHead(200, { ...HEADERS, "content-type": "text/event-stream" });
    const send = (/** @type {any} */ e) => res.write(`id: ${e.seq}\nevent: life\ndata: ${JSON.stringify(clean(e))}\n\n`);
    const since = Number(q.get("since") || system.seq);
    for (const e of system.events.slice(since)) send(e);
    system.listeners.add(send);
    const paths = (q.get("paths") ?? "").split(",").filter(Boolean);
    const was = new Map();
    const timer = setInterval(() => {
      const nodes = /** @type {Record<string, any>} */ ({});
      for (const path of paths) {
        const s = system.byPath.get(path);
        const mark = s && `${s.depth}|${s.handled}|${s.state}|${s.restarts}`;
        if (s && was.get(path) !== mark) { was.set(path, mark); nodes[path] = { depth: s.depth, handled: s.handled, busy_ms: Math.floor(s.busy), state: s.state, restarts: s.restarts }; }
      }
      res.write(`event: stats\ndata: ${JSON.stringify({ at: iso(Date.now()), nodes, totals: totals() })}\n\n`);
    }, 250);
    const end = () => { clearInterval(timer); system.listeners.delete(send); streams.delete(res); };
    streams.add(res);
    res.on("close", end);
  };
  /** @type {Set<import("node:http").ServerResponse>} */ const streams = new Set();

  /** @param {string} method @param {string[]} parts @param {URLSearchParams} q @param {any} body @param {string} as */
  const answer = (method, parts, q, body, as) => {
    const [head, ...rest] = parts, act = method === "POST";
    if (act && as === "viewer") throw new Refused(403, "Forbidden", "the role viewer may read; act with an operator's token");
    if (act && !body.reason && head !== "projections") throw new Refused(422, "Unprocessable", "a reason is missing; say why in `reason`");
    switch (head) {
      case "node": return node(as);
      case "tree": return { seq: system.seq, at: iso(Date.now()), root: branch(slotAt(q.get("path") ?? "/"), q, view) ?? { ...view(system.root), nodes: [] } };
      case "heat": if (rest[0]) { const s = system.slots[Number(rest[0])]; if (!s) throw missing(`pixel ${rest[0]}`); return { path: s.path }; } return system.heat();
      case "actors": {
        const last = rest.at(-1) ?? "";
        if (act) {
          const slot = slotAt(rest.slice(0, -1).join("/"));
          if (body.expect_life && body.expect_life !== slot.life) throw new Refused(409, "Conflict", `${slot.path} is in life ${slot.life}, not ${body.expect_life}; look again and decide again`);
          return system.act(slot, last, body.reason);
        }
        if (last === "plan") return system.plan(slotAt(rest.slice(0, -1).join("/")), q.get("action") ?? "kill");
        const slot = slotAt(rest.join("/")), others = system.affected(slot).slice(1), kinds = system.messagesOf(slot);
        return { node: { ...view(slot), children: branch(slot, new URLSearchParams({ children: "20" }), view).children, nodes: slot.children.slice(0, 20).map((/** @type {any} */ c) => view(c)) },
          messages: slot.children.length ? [] : kinds.map((type, i) => ({ type, count: Math.floor(slot.handled / (1 + i * 2)), p50_us: 4 + i * 3, p99_us: 64 << i, max_us: 1024 << i })),
          dependents: others.map((s) => ({ path: s.path, why: `${slot.parent.strategy}: ${slot.parent.strategy === "rest_for_one" ? "starts after it" : "stops with it"}` })),
          config: { restart: "permanent", shutdown_ms: 5000, backoff: "exponential 700 ms to 5 s", give_up_after: slot.max }, 
          recorder: slot.children.length ? [] : Array.from({ length: 14 }, (_, i) => ({ at: iso(Date.now() - i * 830), type: kinds[i % kinds.length], from: i % 3 ? "/edge/http" : "/bus/router", wait_us: 12 + i * 7, handling_us: 40 + ((i * 37) % 90), outcome: i === 9 && slot.failures.length ? "panicked" : "ok" })),
          failures: slot.failures.map(clean), lineage: slot.failures[0] ? [`${slot.id} ${slot.failures[0].reason} while it handled ${slot.failures[0].message}`, `${slot.parent.path} decided: ${slot.failures[0].decision.text}`] : [] };
      }
      case "waits": return data.waits();
      case "lints": return data.lints();
      case "timeline": {
        const limit = Number(q.get("limit") ?? 1000), path = q.get("path");
        const events = system.events.filter((e) => (!path || e.path === path || e.path.startsWith(path + "/")) && e.seq > Number(q.get("since") ?? 0) && e.seq <= Number(q.get("until") ?? 1e12));
        return { first: 1, last: system.seq, events: events.slice(-limit).map(clean) };
      }
      case "lineage": { const chain = []; let e = system.events[Number(rest[0]) - 1]; if (!e) throw missing(`event ${rest[0]}`); for (; e; e = system.events[(e.cause_seq ?? 0) - 1]) chain.unshift(clean(e)); return { events: chain, text: chain.map((c) => c.text).join(", therefore ") }; }
      case "at": return at(Number(rest[0]), q);
      case "bus": return data.bus();
      case "store": return data.store();
      case "streams": return rest[0] ? data.stream(rest[0]) : data.streams(q.get("after"), Number(q.get("limit") ?? 50));
      case "projections": {
        if (!act) return data.projectionList();
        const p = data.projections.find((one) => one.name === rest[0]);
        if (!p) throw missing(rest[0]);
        if (rest[1] === "rebuild") Object.assign(p, { behind: 4000, status: "rebuilding" }), system.after(3000, () => Object.assign(p, { behind: 0, status: p.paused ? "paused" : "live" }));
        if (rest[1] === "pause" || rest[1] === "resume") Object.assign(p, { paused: rest[1] === "pause", status: rest[1] === "pause" ? "paused" : "live" });
        return { name: p.name };
      }
      case "dead-letters": {
        const i = data.letters.findIndex((one) => one.id === rest[0]);
        if (rest[0] && i < 0) throw new Refused(404, "Not Found", `there is no dead letter ${rest[0]}`);
        if (act) { data.letters.splice(i, 1); return { id: rest[0], state: rest[1] === "purge" ? "purged" : "requeued" }; }
        if (rest[0]) return { ...data.letters[i], message: { event_type: data.letters[i].event_type, headers: { "correlation-id": "c-811" }, payload: as === "admin" ? { order: 7, note: "<i>hi</i>" } : undefined } };
        const list = data.letters.filter((one) => !q.get("origin") || one.origin === q.get("origin")), from = q.get("after") ? list.findIndex((one) => one.id === q.get("after")) + 1 : 0, limit = Number(q.get("limit") ?? 50);
        return { dead_letters: list.slice(from, from + limit), next: from + limit < list.length ? list[from + limit - 1].id : null };
      }
      case "sagas": {
        const one = rest.length ? data.sagas.find((s) => s.name === rest[0] && s.id === rest[1]) : null;
        if (rest.length && !one) throw new Refused(404, "Not Found", `there is no saga ${rest.join("/")}`);
        if (act && one) { one.status = rest[2] === "abort" ? "compensating" : "running"; one.error = null; one.history.push({ at: iso(Date.now()), type: rest[2] === "abort" ? "AbortAsked" : "RetryAsked", text: `operator: ${rest[2]}: ${body.reason}` }); return { id: one.id, status: one.status }; }
        if (one) return one;
        const list = data.sagas.filter((s) => (q.get("open") !== "true" || !["completed"].includes(s.status)) && (!q.get("status") || s.status === q.get("status")) && (!q.get("name") || s.name === q.get("name")));
        return { sagas: list.map(({ data: _, steps: __, history: ___, ...s }) => s) };
      }
      case "outbox": return data.outbox();
      case "pools": return data.pools();
      case "config": return data.config();
      default: throw new Refused(404, "Not Found", `there is no /${parts.join("/")}`);
    }
  };

  const server = createServer(async (req, res) => {
    const url = new URL(req.url ?? "/", "http://x"), path = url.pathname;
    try {
      if (!path.startsWith("/debug/v1/")) {
        const file = path === "/" ? "index.html" : path.startsWith("/assets/") ? normalize(path.slice(8)) : "";
        const bytes = file && !file.startsWith("..") ? await readFile(join(ASSETS, file)).catch(() => null) : null;
        if (!bytes) throw missing(path);
        res.writeHead(200, { ...HEADERS, "content-type": TYPES[extname(file)] ?? "text/plain" }).end(bytes);
        return;
      }
      const as = tokens ? tokens[(req.headers.authorization ?? "").replace("Bearer ", "")] : role;
      if (!as) throw new Refused(401, "Unauthorized", "no token, or one that this node does not know");
      const parts = path.slice("/debug/v1/".length).split("/");
      if (parts[0] === "stream") return stream(req, res, as);
      let text = "";
      for await (const chunk of req) text += chunk;
      const own = parts[0] === "actors" ? parts : parts.map(decodeURIComponent);
      const body = answer(req.method ?? "GET", own, url.searchParams, text ? JSON.parse(text) : {}, as);
      res.writeHead(200, { ...HEADERS, "content-type": "application/json" }).end(JSON.stringify(body));
    } catch (error) {
      const status = error instanceof Refused ? error.status : 500, title = error instanceof Refused ? error.title : "Internal Server Error";
      res.writeHead(status, { ...HEADERS, "content-type": "application/problem+json" }).end(JSON.stringify({ status, title, detail: String(/** @type {any} */ (error).message) }));
    }
  });
  await new Promise((done) => server.listen(port, "127.0.0.1", () => done(null)));
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  return { url: `http://127.0.0.1:${address.port}/`, system, data, cut: () => streams.forEach((s) => s.destroy()), close: () => { system.stop(); streams.forEach((s) => s.destroy()); server.closeAllConnections(); server.close(); } };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const option = (/** @type {string} */ name) => process.argv.find((a) => a.startsWith(`--${name}=`))?.split("=")[1];
  const tokens = option("tokens") ? /** @type {const} */ ({ look: "viewer", act: "operator", all: "admin" }) : undefined;
  const mock = await startMock({ actors: Number(option("actors") ?? 300), port: Number(option("port") ?? 7399), seed: Number(option("seed") ?? 7), tokens, role: option("role") });
  console.log(`${mock.url} with ${mock.system.slots.length} actors`);
}
