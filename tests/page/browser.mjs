/** A real Chromium, a real node, and pages that tell of everything that they should not do. */
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const SMITH = process.env.SMITH ?? fileURLToPath(new URL("../../target/debug/smith", import.meta.url));
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

export function browser() {
  return chromium.launch({ executablePath: CHROMIUM, args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"] });
}

/**
 * Starts `smith` with arguments in a directory of its own, and waits for its address.
 * @param {string[]} args @param {(dir: string) => Promise<string[]>} [more]
 */
export async function start(args, more) {
  const dir = await mkdtemp(join(tmpdir(), "smith-page-"));
  const all = [...args, "--listen", "127.0.0.1:0", ...(more ? await more(dir) : [])];
  const child = spawn(SMITH, all, { cwd: dir, stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, SMITH_LOG: "off" } });
  let text = "";
  const url = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no address within 30 s: ${text}`)), 30_000);
    for (const out of [child.stdout, child.stderr]) {
      out.on("data", (some) => {
        text += some;
        const found = /http:\/\/127\.0\.0\.1:\d+/.exec(text);
        if (found) { clearTimeout(timer); resolve(found[0]); }
      });
    }
    child.on("exit", (code) => { clearTimeout(timer); reject(new Error(`smith ended with ${code}: ${text}`)); });
  });
  const stop = async () => {
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGINT");
    const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
    await ended;
    clearTimeout(timer);
    await rm(dir, { recursive: true, force: true });
  };
  return { url: /** @type {string} */ (url), stop };
}

/** Runs `smith` to its end; what it printed. @param {string[]} args */
export function run(args) {
  return new Promise((resolve, reject) => {
    let text = "";
    const child = spawn(SMITH, args, { stdio: ["ignore", "pipe", "inherit"] });
    child.stdout.on("data", (some) => { text += some; });
    child.on("exit", (code) => (code === 0 ? resolve(text) : reject(new Error(`smith ${args.join(" ")} ended with ${code}`))));
  });
}

/**
 * A page that keeps what was wrong with it: errors, requests to elsewhere.
 * @param {import("playwright-core").Browser} at @param {string} url
 * @param {{width?: number, height?: number, scheme?: "light" | "dark"}} [how]
 */
export async function open(at, url, { width = 1440, height = 900, scheme = "light" } = {}) {
  const context = await at.newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const wrong = /** @type {string[]} */ ([]), origin = new URL(url).origin;
  page.on("console", (line) => { if (line.type() === "error") wrong.push(`console: ${line.text()}`); });
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("request", (request) => {
    const to = new URL(request.url());
    if (to.protocol !== "data:" && to.origin !== origin) wrong.push(`request to ${request.url()}`);
  });
  await page.goto(url);
  return { page, wrong, close: () => context.close() };
}
