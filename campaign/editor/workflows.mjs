/**
 * Changed workflow files in the page of a real ComfyUI: `node workflows.mjs SECONDS SEED` prints one JSON line. After each file the page must
 * answer within ten seconds, and no uncaught error may come from a file of ours. What the host itself throws at a broken file is its own.
 */

import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

import fc from "fast-check";

import { launch, openPage } from "../../tests/browser/page.mjs";
import { hosts, ROOT, startServer } from "../../tests/browser/server.mjs";

const [seconds, seed] = process.argv.slice(2).map(Number);
const folder = path.join(ROOT, "workflows");
const files = readdirSync(folder).filter((name) => name.endsWith(".json")).map((name) => readFileSync(path.join(folder, name), "utf8"));
const ALIVE = 10000;

const SCALARS = [
  null, true, 0, -1, 1e9, 1e308, "", "a", "\u0000", "x".repeat(70000), "[".repeat(5000), "{}", "[]", [], {}, [[]], { v: 1 }, [1, 2, 3, 4], "<img src=x onerror=alert(1)>", "../../x",
  '{"v":1,"canvas":{"w":1e9,"h":-1},"boxes":[]}', '{"v":99,"boxes":[{}]}', '{"v":1,"canvas":{"w":512,"h":512},"boxes":[{"id":"a","x":0,"y":0,"w":1e-9,"h":99,"rot":1e9}]}',
];

/** All (container, key) of a value. */
function places(value, found = []) {
  if (typeof value === "object" && value !== null) {
    for (const key of Object.keys(value)) {
      found.push([value, key]);
      places(value[key], found);
    }
  }
  return found;
}

/** Widget values of our nodes are changed as often as anything else: they are what our files read. */
const changed = fc.tuple(fc.constantFrom(...files), fc.array(fc.tuple(fc.nat(), fc.boolean(), fc.constantFrom(...SCALARS), fc.nat(5)), { minLength: 1, maxLength: 4 })).map(([text, changes]) => {
  const workflow = JSON.parse(text);
  for (const [at, ours, scalar, kind] of changes) {
    const nodes = (Array.isArray(workflow.nodes) ? workflow.nodes : []).filter((node) => /^(LayoutComposer|ReferenceBundle|ContextGen|LAMIC|SigmaGen|EliGen|InstanceAssemble)/.test(node?.type));
    const all = places(ours ? nodes.map((node) => node.widgets_values ?? node) : workflow);
    if (!all.length) break;
    const [container, key] = all[at % all.length];
    if (kind === 0) Array.isArray(container) ? container.splice(Number(key), 1) : delete container[key];
    else if (kind === 1 && typeof container[key] === "string") container[key] = container[key].slice(0, at % (container[key].length + 1));
    else container[key] = scalar;
  }
  return JSON.stringify(workflow);
});

const server = await startServer(hosts()[0]);
const browser = await launch();
const started = Date.now();
const found = [];
let tried = 0;
try {
  let opened = await openPage(browser.context, server.url);
  const errors = [];
  const listen = ({ page }) => page.on("pageerror", (error) => /contextgen/i.test(error.stack ?? "") && errors.push(String(error.stack).slice(0, 400)));
  listen(opened);
  for (const text of fc.sample(changed, { seed, numRuns: 100000 })) {
    if ((Date.now() - started) / 1000 > seconds) break;
    tried += 1;
    const late = new Promise((resolve) => setTimeout(() => resolve("late"), ALIVE).unref());
    const answer = opened.page
      .evaluate(async (value) => {
        await window.app.loadGraphData(JSON.parse(value)).catch(() => {});
        window.app.canvas.setDirty(true, true);
        await new Promise((done) => setTimeout(done, 150));
        await window.app.graphToPrompt().catch(() => {});
        document.querySelectorAll("dialog[open] button, .p-dialog-close-button").forEach((button) => button.click());
        return window.app.graph.nodes.length;
      }, text)
      .catch((error) => String(error));
    const result = await Promise.race([answer, late]);
    const sentence = result === "late" ? "the page did not answer for ten seconds" : errors.splice(0)[0];
    if (sentence && !found.some((one) => one.sentence === sentence)) found.push({ sentence, case: Buffer.from(text).toString("hex") });
    if (result === "late" || typeof result === "string") {
      await opened.page.close().catch(() => {});
      opened = await openPage(browser.context, server.url);
      listen(opened);
    }
  }
} finally {
  await browser.close();
  await server.stop();
}
console.log(JSON.stringify({ name: "workflows", tried, seconds: (Date.now() - started) / 1000, found }));
process.exit(0);
