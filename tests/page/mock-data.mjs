/** What is around the tree: letters, sagas, projections, the store, the bus, pools, settings. */
const iso = (/** @type {number} */ ms) => new Date(ms).toISOString().replace("Z", "000Z");

export class Data {
  /** @param {import("./mock-system.mjs").System} system */
  constructor(system) {
    this.system = system;
    const now = Date.now();
    const causes = ["no_handler", "handler_failed", "expired", "schema_refused"];
    /** @type {any[]} */
    this.letters = Array.from({ length: 23 }, (_, i) => ({ id: `dl-${String(100 + i)}`, origin: i % 3 ? "subscription.mail" : "subscription.audit", subject: `orders.order-${i * 7}.placed`,
      event_type: i % 4 ? "OrderPlaced" : "<b>Odd</b>", cause: causes[i % 4], reason: i % 4 === 1 ? "smtp: 451 greylisted, try again later" : "no subscription took it within 5 attempts",
      attempts: 1 + (i % 5), state: "kept", kept_at: iso(now - i * 412_000 - 9000) }));
    const steps = ["reserve_stock", "charge_card", "book_courier", "send_mail"];
    /** @type {any[]} */
    this.sagas = Array.from({ length: 18 }, (_, i) => {
      const status = ["running", "waiting", "compensating", "completed", "failed", "running"][i % 6];
      const at = i % 4;
      return { name: "fulfil", id: String(1000 + i), status, step: steps[at], attempts: 1 + (i % 3), wake_at: status === "waiting" ? iso(now + 40_000 + i * 900) : null, started_at: iso(now - i * 90_000 - 5000),
        error: status === "failed" || status === "compensating" ? "card declined: insufficient funds" : null,
        data: { order: `order-${i * 7}`, amount: { currency: "EUR", minor: 1999 + i } },
        steps: steps.map((name, n) => ({ name, status: n < at || status === "completed" ? "done" : n === at ? (status === "failed" ? "failed" : status === "compensating" ? "compensating" : "running") : "pending", attempts: n <= at ? 1 + (n === at ? i % 3 : 0) : 0, error: n === at && status === "failed" ? "card declined: insufficient funds" : null })),
        history: steps.slice(0, at + 1).flatMap((name, n) => [{ at: iso(now - 80_000 + n * 4000), type: "StepStarted", text: `${name} was started` }, ...(n < at ? [{ at: iso(now - 79_000 + n * 4000), type: "StepDone", text: `${name} is done` }] : [])]) };
    });
    /** @type {any[]} */
    this.projections = ["order_list", "revenue_by_day", "stock", "customers"].map((name, i) => ({ name, version: 1 + i, behind: i === 2 ? 412 : i, paused: i === 3, parked: i === 2 ? 2 : 0, status: i === 3 ? "paused" : "live" }));
    this.base = 48_211;
  }

  head() { return this.base + Math.floor((Date.now() - this.system.started) / 24); }

  bus() {
    const s = this.system, t = (Date.now() - s.started) / 1000;
    const sub = (/** @type {string} */ name, /** @type {string} */ pattern, /** @type {number} */ rate, /** @type {any} */ more = {}) => ({ name, pattern, group: null, path: `/bus/subscription.${name}`, depth: Math.floor(s.rand() * 6), delivered: Math.floor(t * rate), dropped: 0, refused: 0, cut_off: false, ...more });
    return { published: Math.floor(t * 41), subscriptions: [sub("mail", "orders.*.placed", 9, { group: "mailers", dropped: 14 }), sub("audit", "**", 41), sub("search", "orders.**", 22), { ...sub("dashboards", "accounts.*.changed", 3), path: "/edge/http", refused: 2, cut_off: true }] };
  }

  store() { const head = this.head(); return { kind: "sqlite", url: "sqlite://data/smith.db", head, streams: Math.floor(head / 9), bytes: head * 412, at_rate: 41.7 }; }

  streams(/** @type {string | null} */ after, /** @type {number} */ limit) {
    const from = after ? Number(after.split("-").pop()) + 1 : 1, last = 240;
    const streams = [];
    for (let i = from; i < from + limit && i <= last; i++) streams.push({ id: `order-${i}`, events: 3 + (i % 9), first_at: iso(this.system.started + i * 9000), last_at: iso(this.system.started + i * 9000 + 60_000) });
    return { streams, next: from + limit <= last ? `order-${from + limit - 1}` : null };
  }

  stream(/** @type {string} */ id) {
    return { id, events: ["OrderPlaced", "StockReserved", "CardCharged", "OrderShipped"].map((event_type, i) => ({ position: 400 + i * 31, version: i + 1, at: iso(this.system.started + i * 60_000), event_type, payload: i ? undefined : { customer: "c-7", lines: 3 } })), next: null };
  }

  projectionList() {
    const head = this.head();
    return { projections: this.projections.map((p) => ({ name: p.name, version: p.version, position: head - p.behind, lag: p.behind, paused: p.paused, parked: p.parked, status: p.status, partitions: [{ name: "0", position: head - p.behind, lag: p.behind }] })) };
  }

  outbox() { return { relays: [{ name: "orders-to-nats", path: "/resources/queue.nats", position: this.head() - 3, pending: 3, status: "sending" }] }; }
  pools() { return { pools: [{ path: "/resources/pool.sqlite", kind: "sqlite", size: 8, idle: 1, in_use: 7, waiting: 2, state: "up" }, { path: "/resources/queue.nats", kind: "nats", size: 2, idle: 1, in_use: 1, waiting: 0, state: "up" }] }; }
  config() {
    return { settings: [["node.name", "demo", "file smith.toml"], ["http.listen", "127.0.0.1:7373", "default"], ["store.url", "sqlite://data/smith.db", "file smith.toml"], ["store.pool", "8", "environment SMITH_STORE__POOL"],
      ["debug.token", "", "environment SMITH_DEBUG__TOKEN", true], ["supervision.aggregates.max", "50000", "default"], ["bus.capacity", "8192", "default"]].map(([name, value, source, secret]) => ({ name, value: secret ? null : value, source, secret: Boolean(secret) })) };
  }

  lints() {
    return { lints: [
      { code: "stuck_handler", severity: "error", path: "/services/mailer", text: "handles Tick for 42 s", advice: "give the call that it waits for a time-out, or move blocking work to spawn_blocking; a restart loses only the message in hand" },
      { code: "mailbox_near_full", severity: "warning", path: "/services/mailer", text: "117 of 128 messages wait", advice: "find what it waits for; a larger mailbox only hides it. If bursts are normal, raise `capacity` or choose `overflow = \"drop_oldest\"`" },
      { code: "pool_waiting", severity: "warning", path: "/resources/pool.sqlite", text: "2 wait for a connection, 7 of 8 are in use", advice: "raise `store.pool`, or look for a transaction that is held across an await" },
      { code: "ask_without_timeout", severity: "hint", path: "/agents/researcher", text: "asks /agents/critic without a time-out", advice: "use `ask_within`; without it a stuck callee makes a stuck caller" } ] };
  }

  waits() { return { cycles: [["/agents/researcher", "/agents/critic"]], edges: [{ from: "/agents/researcher", to: "/agents/critic", message: "Ask", waiting_ms: 812 }, { from: "/agents/critic", to: "/agents/researcher", message: "Ask", waiting_ms: 640 }, { from: "/domain/aggregates/order-7", to: "/resources/store.committer", message: "Submit", waiting_ms: 12 }] }; }
}
