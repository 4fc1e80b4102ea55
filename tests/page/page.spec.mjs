/**
 * The page in a real Chromium on a real node: what it shows, what it does, and what it must not do.
 * Trees of 20,000 and 100,000 come from the stand-in (`mock.mjs`): it is the page that is measured.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { browser, open, run, start } from "./browser.mjs";
import { startMock } from "./mock.mjs";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const VIEWS = ["tree", "timeline", "bus", "store", "sagas", "dead-letters", "pools", "lints", "config", "actor/resources/pool.sqlite"];

/** @type {import("playwright-core").Browser} */ let chrome;
/** @type {{url: string, stop: () => Promise<void>}} */ let node;

before(async () => {
  chrome = await browser();
  // Nothing breaks by itself: what breaks here, the tests break.
  node = await start(["demo", "--seed", "7", "--crash-every", "1h"]);
});
after(async () => {
  await chrome?.close();
  await node?.stop();
});

test("what is vendored is what its list says", async () => {
  const vendor = new URL("../../src/debug/assets/vendor/", import.meta.url);
  const list = await readFile(new URL("README.md", vendor), "utf8");
  const rows = [...list.matchAll(/^\| `([\w.-]+\.js)` .* `([0-9a-f]{64})` \|$/gm)];
  assert.equal(rows.length, 5);
  for (const [, file, hash] of rows) {
    const bytes = await readFile(new URL(file, vendor));
    assert.equal(createHash("sha256").update(bytes).digest("hex"), hash, file);
  }
});

/** @param {import("playwright-core").Page} page @param {string} name */
const row = (page, name) => page.getByRole("treeitem", { name: new RegExp(`^${name.replace(/\./g, "\\.")}, `) });

test("the first screen is the tree", async () => {
  const { page, wrong, close } = await open(chrome, node.url);
  await page.getByRole("tree").first().waitFor();
  for (const name of ["resources", "pool.sqlite", "store.committer", "domain"]) await row(page, name).first().waitFor();
  // The last branch of the demo begins below the first screen.
  await page.getByRole("tree").first().focus();
  await page.keyboard.press("End");
  await row(page, "edge").first().waitFor();
  assert.ok(await page.locator("canvas").first().isVisible(), "every actor as a pixel");
  assert.match(await page.title(), /^Tree/);
  await page.getByText("live", { exact: true }).waitFor();
  assert.deepEqual(wrong, []);
  await close();
});

test("the tree is complete by keyboard", async () => {
  const { page, wrong, close } = await open(chrome, node.url);
  const tree = page.getByRole("tree").first();
  await row(page, "pool.sqlite").first().waitFor();
  await tree.focus();
  const chosen = () => page.locator("[role=treeitem][aria-selected=true]").first().getAttribute("aria-label");
  await page.keyboard.press("Home");
  const first = await chosen();
  await page.keyboard.press("ArrowDown");
  assert.notEqual(await chosen(), first);
  await page.keyboard.press("ArrowLeft");
  assert.equal(await page.locator("[role=treeitem][aria-selected=true]").first().getAttribute("aria-expanded"), "false");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.type("store.c");
  assert.match(await chosen() ?? "", /^store\.committer/);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "store.committer" }).waitFor();
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  const search = page.getByRole("searchbox", { name: "Search a path" });
  // A key that is pressed in the moment in which the browser gives the focus back goes nowhere.
  for (let tries = 0; tries < 20 && !(await search.isVisible()); tries++) {
    await page.keyboard.press("/");
    await search.waitFor({ timeout: 500 }).catch(() => {});
  }
  await search.fill("committer");
  await row(page, "store.committer").first().waitFor();
  await row(page, "pool.sqlite").first().waitFor({ state: "detached" });
  assert.deepEqual(wrong, []);
  await close();
});

test("a kill shows what it will do, and is seen to heal", async () => {
  const { page, wrong, close } = await open(chrome, `${node.url}/#/actor/resources/pool.sqlite`);
  await page.getByRole("heading", { name: "pool.sqlite", exact: true }).waitFor();
  const life = Number(/life (\d+)/.exec(await page.locator("main").innerText())?.[1]);
  await page.getByRole("button", { name: /^Kill/ }).click();
  const plan = page.getByRole("group", { name: "Dry run" });
  await plan.waitFor();
  assert.match(await plan.innerText(), /store\.committer/, "what dies with it is named before");
  const kill = page.getByRole("dialog").getByRole("button", { name: /^Kill/ });
  assert.ok(await kill.isDisabled(), "not without a reason");
  await page.getByRole("dialog").getByLabel(/Reason/).fill("to see it heal");
  await kill.click();
  await page.getByText(new RegExp(`pool\\.sqlite is up again, life ${life + 1}`)).waitFor();
  await page.getByText(`life ${life + 1}`, { exact: true }).waitFor();
  await page.getByText("The supervisor decided:").first().waitFor();
  assert.deepEqual(wrong, []);
  await close();
});

test("the tree is shown as it was, and nothing can be done to the past", async () => {
  const { page, wrong, close } = await open(chrome, `${node.url}/#/timeline`);
  await page.locator("button.event").first().waitFor();
  const brush = page.locator(".brush input[type=range]");
  await brush.focus();
  await page.keyboard.press("Home");
  const banner = page.getByRole("region", { name: "The past" });
  await banner.waitFor();
  assert.match(await banner.innerText(), /You look at the past/);
  await page.goto(page.url().replace("#/timeline", "#/tree"));
  await banner.waitFor();
  assert.equal(await page.getByRole("button", { name: /^Kill/ }).count(), 0);
  await page.keyboard.press("Escape");
  await banner.waitFor({ state: "detached" });
  assert.deepEqual(wrong, []);
  await close();
});

test("a dead letter is looked at and sent again", async () => {
  const { page, wrong, close } = await open(chrome, `${node.url}/#/dead-letters`);
  const requeue = page.getByRole("button", { name: /^Requeue/ }).first();
  await requeue.waitFor({ timeout: 60_000 });
  await page.getByRole("table").first().getByRole("button").first().click();
  await page.getByRole("region", { name: "The whole message" }).waitFor();
  await requeue.click();
  await page.getByRole("dialog").getByLabel(/Reason/).fill("it was mended");
  await page.getByRole("dialog").getByRole("button", { name: "Requeue" }).click();
  await page.getByText(/was sent to .* again/).waitFor();
  assert.deepEqual(wrong, []);
  await close();
});

test("a saga shows its steps", async () => {
  const { page, wrong, close } = await open(chrome, `${node.url}/#/sagas`);
  await page.getByRole("table").first().getByRole("button").first().click({ timeout: 60_000 });
  await page.getByRole("region", { name: "Steps" }).waitFor();
  await page.getByRole("heading", { name: "History" }).waitFor();
  assert.deepEqual(wrong, []);
  await close();
});

test("who has no token is asked for one, and a wrong one is refused", async () => {
  let token = "";
  const guarded = await start(["run"], async (dir) => {
    const told = await run(["token", "ann", "--role", "operator", "--tokens", `${dir}/tokens`]);
    token = /smith_ann_\w+/.exec(String(told))?.[0] ?? "";
    return ["--tokens", `${dir}/tokens`, "--env", "development"];
  });
  try {
    // Without one a caller on loopback may look.
    const viewer = await open(chrome, `${guarded.url}/#/actor/resources/pool.sqlite`);
    await viewer.page.getByText("viewer", { exact: true }).waitFor();
    assert.ok(await viewer.page.getByRole("button", { name: /^Kill/ }).isDisabled());
    await viewer.close();
    const wrong = await open(chrome, `${guarded.url}/#token=smith_ann_00`);
    await wrong.page.getByText("The node does not take this token.").waitFor();
    assert.ok(!wrong.page.url().includes("smith_ann"), "it leaves the address bar");
    await wrong.page.getByLabel("Token").fill(token);
    await wrong.page.getByRole("button", { name: "Enter" }).click();
    await wrong.page.getByText("operator", { exact: true }).waitFor();
    await wrong.close();
  } finally {
    await guarded.stop();
  }
});

test("what people write is a text, whatever is in it", async () => {
  const { page, wrong, close } = await open(chrome, `${node.url}/#/tree`);
  page.on("dialog", (dialog) => { wrong.push("a script ran"); void dialog.dismiss(); });
  await page.getByRole("treeitem").first().waitFor();
  const reason = "<img src=x onerror=alert(1)>";
  const headers = { "content-type": "application/json", "idempotency-key": "a text" };
  const sent = await fetch(`${node.url}/debug/v1/actors/resources/store.committer/restart`, { method: "POST", headers, body: JSON.stringify({ reason }) });
  assert.equal(sent.status, 200);
  await page.getByText(/<img src=x/).first().waitFor();
  assert.deepEqual(wrong, []);
  await close();
});

test("every view is whole for those who do not see it, in light and dark", async () => {
  for (const scheme of /** @type {const} */ (["light", "dark"])) {
    for (const view of VIEWS) {
      const { page, wrong, close } = await open(chrome, `${node.url}/#/${view}`, { scheme });
      await page.locator("main h1").first().waitFor({ state: "attached" });
      await page.waitForTimeout(300);
      // The page's own policy would refuse a script from elsewhere.
      await page.evaluate(AXE);
      const found = await page.evaluate(async () => {
        const axe = /** @type {any} */ (globalThis).axe;
        // A line of the tree is named by a sentence that begins with its visible name; its columns
        // of numbers are no part of what somebody would say to choose it.
        const rules = { "label-content-name-mismatch": { enabled: false } };
        const { violations } = await axe.run(document, { resultTypes: ["violations"], rules });
        return violations.map((/** @type {any} */ one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((/** @type {any} */ at) => at.html.slice(0, 160)).join(" | ")}`);
      });
      assert.deepEqual(found, [], `${view}, ${scheme}`);
      assert.deepEqual(wrong, [], `${view}, ${scheme}`);
      await close();
    }
  }
});

test("nothing is wider than a phone", async () => {
  for (const view of VIEWS) {
    const { page, wrong, close } = await open(chrome, `${node.url}/#/${view}`, { width: 390, height: 844 });
    await page.locator("main h1").first().waitFor({ state: "attached" });
    await page.waitForTimeout(300);
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(over <= 0, `${view} is ${over} px too wide`);
    assert.deepEqual(wrong, [], view);
    await close();
  }
});

for (const actors of [20_000, 100_000]) {
  test(`${actors} actors: few lines live, and frames come`, async () => {
    const mock = await startMock({ actors, port: 0 });
    try {
      const { page, wrong, close } = await open(chrome, mock.url);
      await page.getByRole("tree").first().waitFor();
      await page.waitForTimeout(1_000);
      const frame = () => page.evaluate(() => new Promise((resolve) => {
        const times = /** @type {number[]} */ ([]);
        let last = performance.now();
        const next = (/** @type {number} */ now) => {
          times.push(now - last);
          last = now;
          if (times.length < 60) requestAnimationFrame(next);
          else resolve(times.sort((a, b) => a - b)[Math.floor(times.length * 0.9)]);
        };
        requestAnimationFrame(next);
      }));
      const still = await frame();
      await page.getByRole("tree").first().evaluate((tree) => { let y = 0; setInterval(() => { tree.scrollTop = y += 60; }, 16); });
      const moving = await frame();
      const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
      console.log(`${actors} actors: ${nodes} elements, nine of ten frames within ${Number(still).toFixed(0)} ms at rest and ${Number(moving).toFixed(0)} ms while scrolling`);
      assert.ok(nodes <= 900, `${nodes} elements`);
      assert.deepEqual(wrong, []);
      await close();
    } finally {
      await mock.close();
    }
  });
}
