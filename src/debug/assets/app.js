/** Starts the page: takes the token, draws the shell, gives the keys their meaning. */
import { html, render, useEffect } from "./vendor/index.js";
import { hasToken, takeToken } from "./api.js";
import { Empty, useRead } from "./components/bits.js";
import { Dialogs } from "./components/dialog.js";
import { Nav, PastBanner, Toasts, TokenForm, VIEWS, Vitals } from "./components/shell.js";
import { get } from "./api.js";
import { travel } from "./past.js";
import { go, route } from "./router.js";
import { start, useToken } from "./session.js";
import { dialog, needToken, node, past } from "./state.js";
import "./theme.js";
import { TreeView, focusTree } from "./views/tree.js";
import { ActorView } from "./views/actor.js";
import { BusView } from "./views/bus.js";
import { ConfigView } from "./views/config.js";
import { LettersView } from "./views/letters.js";
import { LintsView } from "./views/lints.js";
import { PoolsView } from "./views/pools.js";
import { SagasView } from "./views/sagas.js";
import { StoreView } from "./views/store.js";
import { TimelineView } from "./views/timeline.js";

/** @type {Record<string, () => any>} */
const PAGES = { tree: TreeView, actor: ActorView, timeline: TimelineView, bus: BusView, store: StoreView, sagas: SagasView, "dead-letters": LettersView, pools: PoolsView, lints: LintsView, config: ConfigView };

function App() {
  const { view, path, rest } = route.value;
  useEffect(() => {
    const what = view === "actor" || (view === "tree" && path !== "/") ? path : [VIEWS.find(([key]) => key === view)?.[1] ?? view, ...rest].join(" ");
    document.title = `${past.value ? "past · " : ""}${what} · ${node.value?.name ?? "Mister Smith"}`;
  }, [route.value, node.value?.name, past.value]);
  if (needToken.value) return html`<${TokenForm} ...${needToken.value} use=${useToken} /><${Toasts} />`;
  return html`<${Shell} /><${Dialogs} /><${Toasts} />`;
}

function Shell() {
  const { data } = useRead("lints", () => get("lints"), 10_000);
  const Page = PAGES[route.value.view];
  return html`<a class="skip" href="#main" onClick=${skip}>To the content</a>
    <div class=${"shell" + (past.value ? " in-past" : "")}><${Nav} lints=${data?.lints?.filter((/** @type {any} */ one) => one.severity !== "hint").length ?? 0} />
      <div class="body"><${Vitals} /><${PastBanner} />
        ${Page ? html`<${Page} />` : html`<main class="view" id="main"><${Empty} title="There is no such view">The address names <code>${route.value.view}</code>. <a href="#/">To the tree</a><//></main>`}
      </div></div>`;
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  const main = document.getElementById("main");
  main?.setAttribute("tabindex", "-1");
  main?.focus();
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || dialog.value) return;
  const within = /** @type {HTMLElement} */ (event.target);
  const writing = /^(INPUT|TEXTAREA|SELECT)$/.test(within.tagName);
  if (event.key === "Escape") {
    if (writing) within.blur(), focusTree();
    else if (past.value) travel(null);
    return;
  }
  if (writing) return;
  if (event.key === "?") { event.preventDefault(); dialog.value = { kind: "keys" }; }
  if (event.key === "/") {
    event.preventDefault();
    if (route.value.view !== "tree") go("#/tree");
    setTimeout(() => document.getElementById("search")?.focus(), 30);
  }
});

takeToken();
addEventListener("hashchange", () => {
  if (!location.hash.startsWith("#token=")) return;
  takeToken();
  if (hasToken()) start();
});
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("page")));
start();
