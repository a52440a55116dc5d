/**
 * Hostile text and layered pictures for the editor's readers, in Node: `node text.mjs SECONDS SEED` prints a JSON line for each of them.
 * A reader may answer what it answers to wrong input; it may not throw (those that promise not to), nor take a second.
 */

import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import fc from "fast-check";

import { formatClicks, parseClicks } from "../../web/cutout/model.js";
import { readLayers, seenOf } from "../../web/editor/layered.js";
import { writeLayers } from "../../web/editor/layered_write.js";
import { readError, readOutput, readRefusal } from "../../web/notes/model.js";
import { readRequest } from "../../web/scene/requests.js";
import { parseLayout, pictureText, serialiseLayout } from "../../web/scene/schema.js";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const [seconds, seed] = process.argv.slice(2).map(Number);
const SLOW = 1000; // milliseconds of CPU time
const CANVAS = { w: 832, h: 1216 };

const vectors = (name) => JSON.parse(readFileSync(path.join(ROOT, "tests/vectors", name), "utf8"));
const graphs = readdirSync(path.join(ROOT, "workflows/api")).map((name) => JSON.parse(readFileSync(path.join(ROOT, "workflows/api", name), "utf8")));
const inputs = (name) => graphs.flatMap((graph) => Object.values(graph).map((node) => node.inputs[name])).filter((value) => typeof value === "string" && value);

const SCALARS = [
  "0", "-0", "1", "-1", "0.5", "1e400", "-1e400", "1e308", "null", "true", "false", '""', '"a"', '"\\ud800"', '"\\u0000"', '"../../x"', "[]", "{}", "[[]]",
  "[0,0,0,0]", "65", "1000001", "16385", "9".repeat(400), '"__proto__"', '{"__proto__":{"x":1}}', '{"toString":1,"valueOf":1}', '{"length":3}', `"${"x".repeat(300)}"`,
  '"<img src=x onerror=alert(1)>"', `${"[".repeat(20000)}${"]".repeat(20000)}`, `${'{"a":'.repeat(12)}1${"}".repeat(12)}`,
];
const MARK = "\u0001"; // stands where text is put in as it is

/** All (container, key) of a parsed value. */
function places(value, found = []) {
  if (typeof value === "object" && value !== null && found.length < 2000) {
    for (const key of Object.keys(value)) {
      found.push([value, key]);
      places(value[key], found);
    }
  }
  return found;
}

/** A JSON text with some of its values replaced, left out, doubled or renamed, and sometimes cut. */
const changed = (texts) =>
  fc.tuple(fc.constantFrom(...texts), fc.array(fc.tuple(fc.nat(), fc.nat(9), fc.constantFrom(...SCALARS), fc.nat()), { maxLength: 4 }), fc.option(fc.nat(9999), { freq: 9 })).map(([text, changes, cut]) => {
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      return text;
    }
    const put = [];
    for (const [at, kind, scalar, other] of changes) {
      const all = places(value);
      if (!all.length) break;
      const [container, key] = all[at % all.length];
      if (kind === 7) Array.isArray(container) ? container.splice(Number(key), 1) : delete container[key];
      else if (kind === 8) container[all[other % all.length][1]] = structuredClone(container[key]);
      else if (kind === 9 && Array.isArray(container)) container.push(...Array(other % 60).fill(container[key]));
      else (container[key] = MARK + put.length), put.push(scalar);
    }
    const whole = JSON.stringify(value).replace(/"\\u0001(\d+)"/g, (_, n) => put[n]);
    return cut == null ? whole : whole.slice(0, cut % (whole.length + 1));
  });

const CLICKS = [
  '{"v":1,"picture":{"w":640,"h":480},"points":[{"x":10,"y":20,"keep":true}],"box":{"x":1,"y":2,"w":30,"h":40},"strokes":[{"keep":false,"radius":12,"places":[1,2,3,4]}]}',
  ...inputs("prompts"),
];
const OUTPUTS = ['{"text":["a","b"],"contextgen_warnings":["w"]}', '{"text":"a","images":[{"filename":"x.png"}]}'];
const ERRORS = ['{"node_id":"7","node_type":"LayoutComposer","exception_message":"LayoutComposer, layout: no."}', '{"exception_message":"Other: x"}'];
const REFUSALS = ['{"7":{"errors":[{"message":"a","details":"b"}],"class_type":"X"}}', '{"7":{"errors":[{}]},"8":null}'];

const pixels = (w, h, value) => Uint8ClampedArray.from({ length: 4 * w * h }, (_, i) => (i * value) % 251);
const PSDS = [
  [],
  [{ name: "Fox", x: 3, y: -2, w: 7, h: 5, opacity: 0.5, hidden: false, pixels: pixels(7, 5, 3) }],
  [3, 140].map((w) => ({ name: "狐".repeat(w), x: w, y: 1, w, h: 4, opacity: 1, hidden: w === 3, pixels: pixels(w, 4, w) })),
].map((layers) => new Uint8Array(writeLayers({ w: 160, h: 40, layers, merged: pixels(160, 40, 7) })));
const NUMBERS = [0, 1, 2, 4, 16, 127, 128, 255, 256, 512, 513, 8192, 16384, 32767, 65535, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1];
const damaged = fc.tuple(fc.constantFrom(...PSDS), fc.array(fc.tuple(fc.nat(), fc.constantFrom(1, 2, 4), fc.constantFrom(...NUMBERS)), { maxLength: 5 }), fc.option(fc.nat(), { freq: 4 })).map(([file, changes, cut]) => {
  const bytes = file.slice(0, cut == null ? file.length : cut % (file.length + 1));
  const view = new DataView(bytes.buffer);
  for (const [at, size, number] of changes) {
    const place = at % 3 ? at % Math.min(file.length, 400) : at % file.length; // most of what lies is in front
    for (let i = 0; i < size && place + i < bytes.length; i += 1) view.setUint8(place + i, (number / 256 ** (size - 1 - i)) & 255);
  }
  return bytes;
});

const ours = (type) => /^(LayoutComposer|ContextGen)/.test(type);
/** What is read, and how: `throws` for a reader that refuses by its own errors. */
const READERS = {
  "layout text": [changed([...vectors("layout_valid.json"), ...vectors("layout_invalid.json")].map((one) => one.json).filter((text) => text.length < 3000).concat(inputs("layout"))), (text) => {
    const { layout } = parseLayout(text, CANVAS);
    if (!layout) return;
    const written = serialiseLayout(layout);
    const again = parseLayout(written, CANVAS).layout;
    if (!again || serialiseLayout(again) !== written) throw new Error("written text is read as another layout");
    pictureText(layout, true);
  }],
  "request files": [changed(vectors("requests.json").map((one) => one.text)), (text) => readRequest(text)],
  clicks: [changed(CLICKS), (text) => {
    const { clicks, broken } = parseClicks(text);
    if (!broken && parseClicks(formatClicks(clicks)).broken) throw new Error("written clicks cannot be read");
  }],
  "answers of a run": [changed([...OUTPUTS, ...ERRORS, ...REFUSALS]), (text) => {
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      return;
    }
    readOutput(value);
    readError(value, ours);
    readRefusal(value);
  }],
  "layered pictures": [damaged, (bytes) => {
    try {
      for (const layer of readLayers(bytes.buffer).layers) {
        if (layer.pixels.length !== 4 * layer.w * layer.h) throw new Error("a layer of another size than its pixels");
        seenOf(layer);
      }
    } catch (error) {
      if (!(error instanceof RangeError || error instanceof TypeError) || /call stack/.test(error.message)) throw error;
    }
  }],
};

for (const [name, [cases, read]] of Object.entries(READERS)) {
  const started = Date.now();
  let tried = 0;
  const property = fc.property(cases, (one) => {
    tried += 1;
    const before = process.cpuUsage();
    read(one);
    const used = process.cpuUsage(before);
    if ((used.user + used.system) / 1000 > SLOW) throw new Error("took more than a second");
  });
  const details = fc.check(property, { seed, numRuns: 100000000, interruptAfterTimeLimit: (1000 * seconds) / Object.keys(READERS).length, markInterruptAsFailure: false });
  const broken = details.counterexample && details.failed ? details.counterexample[0] : null;
  const found = broken == null ? null : { sentence: String(details.errorInstance ?? details.error).slice(0, 200), case: Buffer.from(broken).toString("hex").slice(0, 200000) };
  console.log(JSON.stringify({ name, tried, seconds: (Date.now() - started) / 1000, found }));
}
