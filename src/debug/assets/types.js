/**
 * What the debug API answers, as types. Members that do not apply are left out by the node.
 * @typedef {"starting"|"up"|"stopping"|"suspended"|"backing_off"|"down"|"failed"} State
 * @typedef {{used: number, max: number, period_ms: number}} Intensity
 * @typedef {{message: string, elapsed_ms: number}} InHand
 * @typedef {{depth: number, capacity?: number, overflow?: string, high_water?: number}} Mailbox
 * @typedef {{handled: number, busy_ms: number, p50_us?: number, p99_us?: number, max_us?: number, in_hand?: InHand}} Handling
 * @typedef {{at: string, life: number, reason: string, class?: string, seq?: number}} LastFailure
 * @typedef {{total: number, shown: number, by_state: Partial<Record<State, number>>, restarts: number}} Children
 *
 * @typedef {object} ActorNode
 * @property {string} path
 * @property {string} id
 * @property {"supervisor"|"dynamic_supervisor"|"actor"|"raw"} kind
 * @property {string} component
 * @property {string} [actor_type]
 * @property {State} state
 * @property {boolean} [suspended]
 * @property {number} life
 * @property {number} restarts
 * @property {number} [up_ms]
 * @property {string} [started_at]
 * @property {string} [strategy]
 * @property {string} [restart]
 * @property {Intensity} [intensity]
 * @property {Mailbox} [mailbox]
 * @property {Handling} [handling]
 * @property {{path: string, message: string, elapsed_ms: number}} [waiting_on]
 * @property {LastFailure} [last_failure]
 * @property {{status: string, detail?: string}} [health]
 * @property {string} [status]
 * @property {number | null} [backing_off_ms]
 * @property {string[]} [lints]
 * @property {Children} [children]
 * @property {ActorNode[]} [nodes]
 *
 * @typedef {{seq: number, at: string, root: ActorNode}} Tree
 * @typedef {{path: string, from: number, count: number}} Span
 * @typedef {{seq: number, count: number, states: string, spans: Span[]}} Heat
 * @typedef {{strategy: string, affected: string[], backoff_ms?: number, intensity?: Intensity, text: string}} Decision
 *
 * @typedef {object} Life
 * @property {number} seq
 * @property {string} at
 * @property {string} path
 * @property {number} life
 * @property {string} kind
 * @property {string} [reason]
 * @property {string | null} [class]
 * @property {number | null} [cause_seq]
 * @property {Decision} [decision]
 * @property {string} [text]
 * @property {string} [by]
 *
 * @typedef {{seq: number, at: string, life: number, reason: string, class?: string, message?: string, backtrace?: string, decision?: Decision}} Failure
 * @typedef {{at: string, type: string, from?: string, wait_us?: number, handling_us?: number, outcome: string}} Recorded
 * @typedef {{type: string, count: number, p50_us?: number, p99_us?: number, max_us?: number}} MessageStat
 *
 * @typedef {object} Actor
 * @property {ActorNode} node
 * @property {MessageStat[]} [messages]
 * @property {{path: string, why: string}[]} [dependents]
 * @property {Record<string, unknown>} [config]
 * @property {boolean} [recording]
 * @property {Recorded[]} [recorder]
 * @property {Failure[]} [failures]
 * @property {string[]} [lineage]
 *
 * @typedef {object} Plan
 * @property {string} action
 * @property {string} path
 * @property {number} life
 * @property {boolean} allowed
 * @property {string | null} [why]
 * @property {{path: string, how: string}[]} stops
 * @property {string[]} starts
 * @property {number | null} [backoff_ms]
 * @property {Intensity | null} [intensity]
 * @property {boolean} [escalates]
 * @property {string} text
 *
 * @typedef {{name: string, value: number, max: number}} Limit
 * @typedef {{handled: number, failures: number, restarts: number, dead_letters: number}} Totals
 *
 * @typedef {object} NodeInfo
 * @property {string} name
 * @property {string} version
 * @property {number} pid
 * @property {string} mode
 * @property {"viewer"|"operator"|"admin"} role
 * @property {{allowed: boolean, why: string}} actions
 * @property {string} started_at
 * @property {number} uptime_ms
 * @property {number} workers
 * @property {number} rss_bytes
 * @property {number} seq
 * @property {{total: number, by_state: Partial<Record<State, number>>, by_component: Record<string, number>}} actors
 * @property {Totals} totals
 * @property {Limit[]} limits
 * @property {{kind: string, url: string, head: number}} [store]
 * @property {{kind: string, state: string, detail?: string}[]} [brokers]
 * @property {{name: string, threads: number, running: number, queued: number, queue: number, done: number, rejected: number, panicked: number, waited_ms: number, busy_ms: number}[]} [thread_pools]
 *
 * @typedef {{depth: number, handled: number, busy_ms: number, state: State, restarts: number}} Stat
 * @typedef {{at: string, nodes: Record<string, Stat>, totals: Totals}} Stats
 *
 * @typedef {{id: string, origin: string, subject: string, event_type: string, cause: string, reason: string, attempts: number, state: string, kept_at: string, message?: any}} Letter
 * @typedef {{name: string, pattern: string, group?: string | null, path: string, depth: number, delivered: number, dropped: number, refused: number, cut_off: boolean}} Subscription
 * @typedef {{name: string, version: number, position: number, lag: number, paused: boolean, parked: number, partitions?: any[], status: string}} Projection
 * @typedef {{name: string, id: string, status: string, step?: string, attempts?: number, wake_at?: string | null, started_at?: string, error?: string | null}} Saga
 * @typedef {{status: string, data: any, error?: string | null, steps: {name: string, status: string, attempts: number, error?: string | null}[], history: {at: string, type: string, text: string}[]}} SagaDetail
 * @typedef {{path: string, kind: string, size: number, idle: number, in_use: number, waiting: number, state: string}} Pool
 * @typedef {{code: string, severity: "error"|"warning"|"hint", path: string, text: string, advice: string}} Lint
 * @typedef {{name: string, value: string | null, source: string, secret: boolean}} Setting
 */
export {};
