import { readFileSync } from "node:fs";

import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { readRequest } from "../../web/scene/requests.js";
import { openPage, openView } from "./page.js";

const VECTORS = JSON.parse(readFileSync(new URL("../vectors/requests.json", import.meta.url), "utf8"));

describe("the authors' request files", () => {
  it.each(VECTORS)("mean what Python reads: $name", ({ text, canvas, boxes }) => {
    const layout = readRequest(text);
    expect([layout.canvas.w, layout.canvas.h]).toEqual(canvas);
    expect(layout.boxes.map(({ x, y, w, h, label, ref }) => ({ rect: [x, y, x + w, y + h], label, ref }))).toEqual(boxes);
  });

  it.each([
    "", "{", "[]", "null", "3", '{"boxes":[]}', '{"annos":{}}', '{"width":0,"height":9,"annos":[{"bbox":[0,0,1,1]}]}', '{"width":100,"height":100,"annos":[{"bbox":[0,0,1]}]}',
    '{"width":100,"height":100,"annos":[{"bbox":[90,0,10,50]}]}', '{"width":100,"height":100,"annos":[null]}', '{"width":100,"instances":[{"bbox":[200,200,300,300]}]}',
    `{"width":100,"height":100,"annos":[${'{"bbox":[0,0,9,9]},'.repeat(60)}{"bbox":[0,0,9,9]}]}`,
  ])("what is none, or a wrong one, gives nothing: %s", (text) => {
    expect(readRequest(text)).toBeNull();
  });

  it("what is no number gives nothing, however it is nested", () => {
    const deep = `${"[".repeat(50000)}${"]".repeat(50000)}`;
    for (const value of [deep, '{"toString":1,"valueOf":1}', '"a"', "1e999", "null"]) {
      expect(readRequest(`{"width":${value},"height":9,"annos":[{"bbox":[0,0,9,9]}]}`)).toBeNull();
      expect(readRequest(`{"width":99,"height":99,"annos":[{"bbox":[0,0,${value},9]}]}`)).toBeNull();
      expect(readRequest(`{"width":99,"instances":[{"bbox":[${value},0,9,9]}]}`)).toBeNull();
    }
  });

  it("never throws", () => {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.json(), fc.anything().map((value) => JSON.stringify({ width: 100, height: 100, annos: [value], instances: value }) ?? "")), (text) => void readRequest(text)));
  });
});

describe("in the editor", () => {
  let window;
  beforeEach(() => (window = openPage()));
  afterEach(() => window.close());
  const file = (name, text) => ({ name, type: "", size: text.length, text: async () => text });

  it("a request is pasted as text or dropped as a file: boxes with their words, on this canvas", async () => {
    const { view, store } = await openView("");
    const paste = new Event("paste", { bubbles: true, composed: true, cancelable: true });
    paste.clipboardData = { files: [], getData: () => VECTORS[0].text };
    view.stage.element.dispatchEvent(paste);
    expect(store.state.layout.boxes.map((box) => box.label)).toEqual(["lamp, a red lamp, lit", "cat", "table, oak"]);
    expect(store.state.layout.boxes[0].y + store.state.layout.boxes[0].h).toBeCloseTo((620 / 768) * 1000, 0);
    store.undo();
    expect(view.pictures.take({ files: [file("segment_info.json", VECTORS[2].text)] }, null)).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(store.state.layout.boxes.map((box) => [box.label, box.ref])).toEqual([["Anna", 1], ["a man", 2]]);
    view.pictures.take({ files: [file("other.json", "{}")] }, null);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(view.live.textContent).toBe("No boxes on the clipboard");
  });
});
