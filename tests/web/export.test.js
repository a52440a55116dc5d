import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { readLayers } from "../../web/editor/layered.js";
import { layeredPicture } from "../../web/editor/export.js";
import { openPage, openView, tool, withSubjects } from "./page.js";

const THREE = JSON.stringify([
  { id: "a", x: 100, y: 50, w: 200, h: 300, ref: "Anna", opacity: 0.4, fit: "stretch" },
  { id: "b", x: 400, y: 400, w: 100, h: 100, ref: "Ben", label: "a hidden man", hidden: true, fit: "stretch" },
  { id: "c", x: 600, y: 500, w: 300, h: 200.4, label: "a red ball" },
]);
const SUBJECTS = { Anna: [400, 400, 100, 0, 300, 400], Ben: [64, 64, 0, 0, 64, 64] };

let window;
/** @type {Blob[]} */
let files;
/** @type {string[]} */
let saved;

beforeEach(() => {
  window = openPage();
  [files, saved] = [[], []];
  vi.spyOn(URL, "createObjectURL").mockImplementation((blob) => `blob:${files.push(blob)}`);
  vi.spyOn(URL, "revokeObjectURL").mockImplementation(() => {});
  window.HTMLAnchorElement.prototype.click = function () {
    saved.push(`${this.download} ${this.href}`);
  };
});
afterEach(() => {
  vi.restoreAllMocks();
  delete globalThis.ImageData;
  window.close();
});

/** An editor whose pictures are there, and paint all of what they reach. */
async function opened(text, options = {}) {
  const open = await openView(text, { names: ["Anna", "Ben"], ...options });
  withSubjects(open.view, SUBJECTS);
  const fake = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function () {
    const data = (x, y, w, h) => ({ data: new Uint8ClampedArray(4 * w * h).fill(255) });
    const context = fake.call(this);
    return new Proxy(context, { get: (known, name) => (name === "getImageData" ? data : known[name]), set: () => true });
  };
  return open;
}

describe("export of the layers", () => {
  it.each([false, true])("one layer for each box, bottom first; without a picture a clear one of its size (large: %s)", async (isLarge) => {
    const { view, store } = await opened(THREE, { isLarge });
    const picture = layeredPicture(store.state.layout.canvas, view.scene, "instance");
    expect(picture.layers.map(({ pixels, ...layer }) => ({ ...layer, clear: pixels.every((value) => value === 0) }))).toEqual([
      { name: "Anna", x: 100, y: 50, w: 200, h: 300, opacity: 0.4, hidden: false, clear: false },
      { name: "a hidden man", x: 400, y: 400, w: 100, h: 100, opacity: 1, hidden: true, clear: false },
      { name: "a red ball", x: 600, y: 500, w: 300, h: 200, opacity: 1, hidden: false, clear: true },
    ]);
    expect(picture.layers.map(({ w, h, pixels }) => pixels.length - 4 * w * h)).toEqual([0, 0, 0]);
    tool(view, "export").click();
    expect(saved).toEqual(["layout.psd blob:1"]);
    expect(view.live.textContent).toBe("layout.psd: 3 layers");
    const read = readLayers(await files[0].arrayBuffer());
    expect([read.w, read.h, ...read.layers.map((layer) => layer.name)]).toEqual([1000, 1000, "Anna", "a red ball"]);
  });

  it("the layers follow the order of painting", async () => {
    const { view, store } = await opened(THREE);
    store.dispatch({ type: "moveTo", id: "c", index: 0 });
    const { layers } = layeredPicture(store.state.layout.canvas, view.scene, "instance");
    expect(layers.map((layer) => layer.name)).toEqual(["a red ball", "Anna", "a hidden man"]);
  });

  it("a turned subject has the room that it takes; what leaves the canvas is cut, a box wholly at its edge keeps a pixel", async () => {
    const turned = { id: "a", x: 300, y: 400, w: 400, h: 200, rot: 90, ref: "Ben", fit: "stretch" };
    const leaving = { id: "b", x: -50, y: 900, w: 100, h: 200, ref: "Ben", fit: "stretch" };
    const { view, store } = await opened(JSON.stringify([turned, { ...leaving, ref: 9 }, { ...leaving, id: "c", x: 999.9 }]));
    const { layers } = layeredPicture(store.state.layout.canvas, view.scene, "instance");
    expect(layers.map(({ name, x, y, w, h }) => [name, x, y, w, h])).toEqual([
      ["Ben", 400, 300, 200, 400],
      ["9", 0, 900, 50, 100],
      ["Ben", 999, 900, 1, 100],
    ]);
  });

  it("dropped again the file gives the same boxes: place, opacity, words", async () => {
    const first = await opened(THREE);
    tool(first.view, "export").click();
    first.view.dispose();
    const { view, store, calls } = await openView();
    globalThis.ImageData = class {};
    HTMLCanvasElement.prototype.toBlob = function (done) {
      done(new Blob());
    };
    view.callbacks.onPicture = async (picture) => {
      calls.pictures.push(picture.name);
      picture.then();
    };
    view.pictures.take({ files: [new File([files[0]], "layout.psd")] }, null);
    await vi.waitFor(() => expect(view.live.textContent).toBe("layout.psd: 2 layers added"));
    expect(calls.pictures).toEqual(["Anna"]);
    expect(store.state.layout.boxes).toEqual([
      { id: "b1", x: 100, y: 50, w: 200, h: 300, ref: "Anna", label: "", locked: false, opacity: 0.4 },
      { id: "b2", x: 600, y: 500, w: 300, h: 200, ref: null, label: "a red ball", locked: false },
    ]);
    // One step for each.
    store.undo();
    store.undo();
    expect(store.state.layout.boxes).toEqual([]);
  });

  it("an empty layout and one that is too large give a sentence that is seen, and no file", async () => {
    const { view, store } = await opened("");
    tool(view, "export").click();
    expect([view.live.textContent, view.status.textContent]).toEqual(Array(2).fill("No boxes to export"));
    store.dispatch({ type: "add", rect: { x: 0, y: 0, w: 100, h: 100 } });
    store.fitCanvas({ w: 8192, h: 4096 });
    tool(view, "export").click();
    expect(view.status.textContent).toBe("Not exported: canvas and layers have more than 32 megapixels together; take a smaller canvas");
    expect(saved).toEqual([]);
  });

  it("a file is kept until the next one, or until the editor goes", async () => {
    const { view } = await opened(THREE);
    tool(view, "export").click();
    expect(URL.revokeObjectURL).not.toHaveBeenCalled();
    tool(view, "export").click();
    view.dispose();
    expect(URL.revokeObjectURL.mock.calls).toEqual([["blob:1"], ["blob:2"]]);
  });
});
