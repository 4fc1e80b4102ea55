/** A living system that is not there: a tree of slots, faults that heal, and the log of both. Seeded. */

export const STATES = ["starting", "up", "stopping", "suspended", "backing_off", "down", "failed"];

/** @param {number} seed */
export function random(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const micros = (/** @type {number} */ ms) => new Date(ms).toISOString().replace("Z", "000Z");
const MESSAGES = /** @type {Record<string, string[]>} */ ({
  aggregate: ["Execute", "Load", "Snapshot"], projection: ["Batch", "Rebuild"], saga: ["Advance", "Compensate"],
  event_bus: ["Publish", "Deliver"], store: ["Submit"], resource: ["Acquire", "Release"], agent: ["Ask", "ToolResult"],
  edge: ["Request"], pipeline: ["Item"], service: ["Tick"], custom: ["Note"],
});
const PANICS = ["panicked: index out of bounds: the len is 3 but the index is 7", "panicked: called `Option::unwrap()` on a `None` value",
  "connection refused (os error 111)", "timed out after 2 s while it waited for /resources/store.committer"];
const BACKTRACE = `   0: std::panicking::begin_panic_handler
   1: core::panicking::panic_bounds_check
   2: demo::order::Order::decide
             at ./src/order.rs:118:27
   3: mister_smith_runtime::aggregate::handle
             at ./runtime/src/aggregate.rs:402:13
   4: mister_smith_actors::actor::run
             at ./actors/src/actor.rs:211:9`;

/** @typedef {any} Slot */

export class System {
  /** @param {{actors?: number, seed?: number, calm?: boolean}} options */
  constructor({ actors = 300, seed = 7, calm = false } = {}) {
    this.rand = random(seed);
    this.calm = calm;
    this.started = Date.now() - 3_726_000;
    this.seq = 0;
    /** @type {any[]} */ this.events = [];
    /** @type {Slot[]} */ this.slots = [];
    /** @type {Map<string, Slot>} */ this.byPath = new Map();
    /** @type {{due: number, run: () => void}[]} */ this.later = [];
    /** @type {Set<(event: any) => void>} */ this.listeners = new Set();
    this.grow(actors);
    this.past();
    /** @type {ReturnType<typeof setInterval>} */ this.timer = setInterval(() => this.tick(), 100);
    this.timer.unref?.();
    this.nextFault = Date.now() + 4000;
  }

  stop() { clearInterval(this.timer); }
  pick(/** @type {any[]} */ list) { return list[Math.floor(this.rand() * list.length)]; }

  /** @param {Slot | null} parent @param {string} id @param {any} more */
  add(parent, id, more) {
    const segment = id.replaceAll("%", "%25").replaceAll("/", "%2F");
    const path = !parent ? "/" : parent.path === "/" ? `/${segment}` : `${parent.path}/${segment}`;
    const at = this.started + Math.floor(this.rand() * 4000);
    const slot = { path, id, kind: "actor", component: "custom", actor_type: "demo::Thing", state: "up", suspended: false, life: 1,
      restarts: 0, started: at, parent, children: [], strategy: "one_for_one", max: 100, used: [], depth: 0, cap: 1024, high: 0,
      handled: 0, busy: 0, pace: this.rand() ** 4 * 60, failures: [], lastRestart: 0, touched: 0, ...more };
    if (parent) parent.children.push(slot);
    this.byPath.set(path, slot);
    return slot;
  }

  /** @param {number} count */
  grow(count) {
    const sup = (/** @type {any} */ parent, /** @type {string} */ id, /** @type {any} */ more = {}) =>
      this.add(parent, id, { kind: "supervisor", actor_type: "Supervisor", pace: 0, ...more });
    const root = this.root = sup(null, "/");
    const resources = sup(root, "resources", { strategy: "rest_for_one", component: "resource", max: 10 });
    this.add(resources, "pool.sqlite", { component: "resource", actor_type: "store::SqlitePool", pace: 90, cap: 256 });
    this.add(resources, "store.committer", { component: "store", actor_type: "store::Committer", pace: 140, cap: 4096 });
    this.add(resources, "queue.nats", { component: "resource", actor_type: "queue::Nats", pace: 40 });
    const bus = sup(root, "bus", { component: "event_bus" });
    this.add(bus, "router", { component: "event_bus", actor_type: "bus::Router", pace: 210, cap: 8192 });
    for (const id of ["mail", "audit", "search"]) this.add(bus, `subscription.${id}`, { component: "event_bus", actor_type: "bus::Subscription", pace: 50 });
    const domain = sup(root, "domain", { component: "aggregate", max: 1000 });
    const aggregates = sup(domain, "aggregates", { kind: "dynamic_supervisor", component: "aggregate", max: 1000 });
    const sagaCount = Math.min(18, Math.ceil(count / 20));
    const rest = 44 + sagaCount;
    for (let i = 1; i <= Math.max(10, count - rest); i++) this.add(aggregates, i % 5 ? `order-${i}` : `account-${i}`, { component: "aggregate", actor_type: i % 5 ? "demo::Order" : "demo::Account" });
    const projections = sup(domain, "projections", { component: "projection" });
    for (const id of ["order_list", "revenue_by_day", "stock", "customers"]) this.add(projections, id, { component: "projection", actor_type: "demo::Projection", pace: 60 });
    const sagas = sup(domain, "sagas", { kind: "dynamic_supervisor", component: "saga" });
    for (let i = 0; i < sagaCount; i++) this.add(sagas, `fulfil-${1000 + i}`, { component: "saga", actor_type: "demo::Fulfil", pace: this.rand() * 2 });
    const agents = sup(root, "agents", { kind: "dynamic_supervisor", component: "agent", max: 20 });
    for (const id of ["researcher", "writer", "critic", "planner", "buyer", "triage"]) this.add(agents, id, { component: "agent", actor_type: "agents::Agent", pace: 1.5, cap: 64 });
    const pipelines = sup(root, "pipelines", { component: "pipeline", strategy: "one_for_all" });
    for (const id of ["read", "parse", "enrich", "write"]) this.add(pipelines, `import.${id}`, { component: "pipeline", actor_type: "pipeline::Stage", pace: 120 });
    const services = sup(root, "services", { component: "service" });
    this.add(services, "mailer", { component: "service", actor_type: "demo::Mailer", pace: 4, cap: 128, depth: 117, high: 128 });
    this.add(services, "clock", { component: "service", actor_type: "demo::Clock", pace: 1 });
    this.add(services, "<script>alert(1)</script>", { component: "custom", actor_type: "demo::Rude<\"&'>", pace: 1 });
    this.add(services, "a/b 100%", { component: "custom", actor_type: "demo::Odd", pace: 1 });
    const edge = sup(root, "edge", { component: "edge" });
    for (const id of ["http", "debug", "health"]) this.add(edge, id, { component: "edge", actor_type: "edge::Listener", pace: id === "http" ? 180 : 3 });
    const walk = (/** @type {Slot} */ slot) => { slot.index = this.slots.length; this.slots.push(slot); slot.children.forEach(walk); };
    walk(root);
    for (const slot of this.slots) slot.handled = Math.floor(slot.pace * 3000);
  }

  /** What happened before the page was opened. */
  past() {
    const now = Date.now();
    this.log({ path: "/", life: 1, kind: "started", text: "the node started" }, this.started);
    for (const top of this.root.children) this.log({ path: top.path, life: 1, kind: "started", text: `${top.path} started` }, this.started + 40);
    const leaves = this.slots.filter((/** @type {Slot} */ slot) => !slot.children.length);
    for (let i = 0; i < 60; i++) {
      const at = this.started + 60_000 + ((now - this.started - 90_000) * (i + this.rand())) / 60;
      const slot = this.pick(leaves);
      this.fail(slot, { at, reason: this.pick(PANICS), instant: true });
    }
    const stuck = this.byPath.get("/services/mailer");
    if (stuck) {
      stuck.busySince = now - 42_000;
      this.log({ path: stuck.path, life: 1, kind: "stuck", text: "/services/mailer has handled Tick for more than 30 s" }, now - 12_000);
    }
  }

  /** @param {any} event @param {number} [at] */
  log(event, at = Date.now()) {
    const full = { seq: ++this.seq, at: micros(at), class: null, cause_seq: null, ...event, ms: at };
    this.events.push(full);
    for (const listener of this.listeners) listener(full);
    return full;
  }

  /** Who stops with `slot`. @param {Slot} slot @returns {Slot[]} */
  affected(slot) {
    const parent = slot.parent;
    if (!parent || parent.strategy === "one_for_one") return [slot];
    const from = parent.strategy === "one_for_all" ? 0 : parent.children.indexOf(slot);
    return parent.children.slice(from);
  }

  /** @param {Slot} slot */
  backoff(slot) { return Math.min(5000, 700 * 2 ** Math.max(0, slot.failures.filter((/** @type {any} */ f) => Date.now() - f.ms < 20_000).length)); }

  /** @param {Slot} slot @param {string} action */
  plan(slot, action) {
    const all = this.affected(slot), parent = slot.parent;
    const gone = action === "stop", heavy = action === "kill" || action === "restart" || action === "stop";
    const used = this.used(parent ?? slot) + 1;
    const names = all.slice(1).map((s) => s.id).join(", ");
    return { action, path: slot.path, life: slot.life, allowed: slot.path !== "/", why: slot.path === "/" ? "the root has nobody to start it again; end the process with SIGTERM" : null,
      stops: heavy ? [...all].reverse().map((s) => ({ path: s.path, how: s === slot && action === "kill" ? "killed" : "stopped" })) : [],
      starts: heavy && !gone ? all.map((s) => s.path) : action === "start" ? [slot.path] : [],
      backoff_ms: action === "kill" ? this.backoff(slot) : null, intensity: action === "kill" ? { used, max: parent?.max ?? 100, period_ms: 60000 } : null,
      escalates: action === "kill" && used > (parent?.max ?? 100),
      text: action === "kill" ? `${slot.id} is killed${names ? `; ${names}, which start${all.length > 2 ? "" : "s"} after it, ${all.length > 2 ? "are" : "is"} stopped first and started again` : " and started again alone"}`
        : action === "restart" ? `${slot.id} finishes what it has in hand and is started again` : action === "stop" ? `${slot.id} finishes its mailbox and stays down`
        : action === "suspend" ? `${slot.id} keeps its mailbox and handles nothing until it is resumed` : `${slot.id} handles its mailbox again` };
  }

  /** @param {Slot} slot */
  used(slot) { slot.used = slot.used.filter((/** @type {number} */ at) => Date.now() - at < 60_000); return slot.used.length; }

  /** @param {Slot} slot @param {{at?: number, reason: string, cause?: number, instant?: boolean}} how */
  fail(slot, { at = Date.now(), reason, cause, instant = false }) {
    const parent = slot.parent ?? slot, all = this.affected(slot), wait = instant ? 400 : this.backoff(slot);
    if (!instant) parent.used.push(at);
    const decision = { strategy: parent.strategy, affected: all.map((s) => s.path), backoff_ms: wait,
      intensity: { used: this.used(parent), max: parent.max, period_ms: 60000 },
      text: `${all.length > 1 ? `restarted with ${all.length - 1} that start after it` : "restarted alone"}; ${this.used(parent)} of ${parent.max} restarts in 60 s used` };
    const failed = this.log({ path: slot.path, life: slot.life, kind: "failed", reason, class: "transient", cause_seq: cause ?? null, decision, text: `${slot.path} failed: ${reason}` }, at);
    slot.failures.unshift({ seq: failed.seq, at: failed.at, ms: at, life: slot.life, reason, class: "transient", message: this.pick(MESSAGES[slot.component]), backtrace: BACKTRACE, decision });
    slot.failures.length = Math.min(slot.failures.length, 8);
    const back = (/** @type {number} */ when) => {
      for (const s of all) {
        Object.assign(s, { state: "up", life: s.life + 1, restarts: s.restarts + 1, started: when, lastRestart: when, depth: 0, busySince: 0 });
        this.log({ path: s.path, life: s.life, kind: "restarted", cause_seq: failed.seq, text: `${s.path} is up again, life ${s.life}` }, when);
      }
    };
    if (instant) return back(at + wait), failed;
    for (const s of all) s.state = s === slot ? "backing_off" : "down";
    slot.backing = wait;
    this.log({ path: slot.path, life: slot.life, kind: "backing_off", cause_seq: failed.seq, text: `${slot.path} waits ${wait} ms` }, at + 1);
    this.after(wait, () => { for (const s of all) s.state = "starting"; });
    this.after(wait + 250, () => back(Date.now()));
    return failed;
  }

  /** @param {number} ms @param {() => void} run */
  after(ms, run) { this.later.push({ due: Date.now() + ms, run }); }

  /** @param {Slot} slot @param {string} action @param {string} reason */
  act(slot, action, reason) {
    const done = this.log({ path: slot.path, life: slot.life, kind: "action", by: "operator", action, reason, text: `operator: ${action} ${slot.path}: ${reason}` });
    if (action === "kill" || action === "restart") this.fail(slot, { reason: `${action === "kill" ? "killed" : "restarted"} by an operator: ${reason}`, cause: done.seq });
    if (action === "suspend") { Object.assign(slot, { suspended: true, state: "suspended" }); this.log({ path: slot.path, life: slot.life, kind: "suspended", cause_seq: done.seq, text: `${slot.path} is suspended` }); }
    if (action === "resume") { Object.assign(slot, { suspended: false, state: "up" }); this.log({ path: slot.path, life: slot.life, kind: "resumed", cause_seq: done.seq, text: `${slot.path} goes on` }); }
    if (action === "stop") { slot.state = "down"; this.log({ path: slot.path, life: slot.life, kind: "stopped", cause_seq: done.seq, text: `${slot.path} stopped` }); }
    if (action === "start") { Object.assign(slot, { state: "up", life: slot.life + 1, started: Date.now() }); this.log({ path: slot.path, life: slot.life, kind: "started", cause_seq: done.seq, text: `${slot.path} started` }); }
    return { action, path: slot.path, life: slot.life, seq: done.seq };
  }

  tick() {
    const now = Date.now();
    const due = this.later.filter((entry) => entry.due <= now);
    this.later = this.later.filter((entry) => entry.due > now);
    for (const entry of due) entry.run();
    const few = this.slots.length <= 3000;
    const count = few ? this.slots.length : 3000;
    for (let i = 0; i < count; i++) {
      const slot = few ? this.slots[i] : this.pick(this.slots);
      if (slot.state !== "up" || slot.pace === 0 || slot.busySince) continue;
      const wave = 1 + 0.5 * Math.sin(now / 4000 + slot.index);
      const n = Math.floor(slot.pace * 0.1 * wave + this.rand());
      if (!n) { slot.depth = Math.max(0, slot.depth - 2); continue; }
      slot.handled += n; slot.busy += n * 0.4; slot.touched = now;
      slot.depth = Math.max(0, Math.min(slot.cap, Math.round(slot.depth * 0.7 + n * this.rand() * 2 - 0.4)));
      slot.high = Math.max(slot.high, slot.depth);
    }
    if (!this.calm && now > this.nextFault) {
      this.nextFault = now + 2500 + this.rand() * 5000;
      const slot = this.pick(this.slots);
      if (slot.children.length === 0 && slot.state === "up" && slot.parent?.strategy === "one_for_one") this.fail(slot, { reason: this.pick(PANICS) });
    }
  }

  /** One byte a slot. */
  heat() {
    const now = Date.now(), bytes = Buffer.alloc(this.slots.length);
    this.slots.forEach((slot, i) => {
      const full = slot.depth / slot.cap, age = now - slot.lastRestart;
      const box = slot.depth === 0 ? 0 : full > 0.85 ? 3 : full > 0.5 ? 2 : 1;
      const again = !slot.restarts ? 0 : age < 5000 ? 3 : age < 60_000 ? 2 : 1;
      bytes[i] = STATES.indexOf(slot.state) | (box << 3) | (again << 5) | (slot.busySince && now - slot.busySince > 1000 ? 128 : 0);
    });
    const spans = this.slots.filter((s) => s.children.length && s.path !== "/").map((s) => ({ path: s.path, from: s.index + 1, count: this.size(s) - 1 }));
    return { seq: this.seq, count: this.slots.length, states: bytes.toString("base64"), spans };
  }

  /** @param {Slot} slot @returns {number} */
  size(slot) { return slot.children.reduce((/** @type {number} */ sum, /** @type {Slot} */ child) => sum + this.size(child), 1); }

  messagesOf(/** @type {Slot} */ slot) { return MESSAGES[slot.component] ?? ["Note"]; }
}
