/** The layout as a layered picture: a layer for each box, as the composite paints it, and the composite itself. */

import { element, setText } from "../kit/dom.js";
import { GREY, hardLayer, paint, reachOf, scratch } from "../render/composite.js";
import { placementOf } from "../render/place.js";
import { MAX_WRITTEN, writeLayers, writtenPixels } from "./layered_write.js";

const FILE = "layout.psd";

/**
 * @param {import("../scene/schema.js").Size} canvas @param {import("../render/planes.js").Scene} scene @param {string} fit  the node's
 * @returns {Parameters<typeof writeLayers>[0] | null} null: more pixels than are written
 */
export function layeredPicture(canvas, scene, fit) {
  const size = { width: canvas.w, height: canvas.h };
  const planned = scene.order.map((index) => {
    const { box, reference, off } = scene.members[index];
    const placement = reference?.cutout ? placementOf(box, fit, canvas, reference.cutout) : null;
    const name = box.label || (reference?.name ?? String(box.ref ?? ""));
    const reach = placement && reachOf(placement, size);
    // Without a picture the layer is clear, of the size of the box.
    const part = reach ?? wholePart(box, canvas);
    return { part, placement: reach && placement, layer: { name, ...part, opacity: box.opacity ?? 1, hidden: off } };
  });
  if (writtenPixels(canvas, planned.map(({ part }) => part)) > MAX_WRITTEN) return null;
  const layers = planned.map(({ part, placement, layer }) => {
    const painted = placement ? hardLayer(placement, part) : null;
    const pixels = painted ? painted.getImageData(0, 0, part.w, part.h).data : new Uint8ClampedArray(4 * part.w * part.h);
    return { ...layer, pixels };
  });
  const context = scratch(canvas.w, canvas.h);
  context.fillStyle = GREY;
  context.fillRect(0, 0, canvas.w, canvas.h);
  paint(context, { x: 0, y: 0, ...canvas }, scene.painted, { hard: true });
  return { ...canvas, layers, merged: context.getImageData(0, 0, canvas.w, canvas.h).data };
}

/** The part of a box on the canvas in whole pixels, at least one. @param {import("../scene/schema.js").Rect} box @param {import("../scene/schema.js").Size} canvas @returns {import("../scene/schema.js").Rect} */
function wholePart(box, canvas) {
  const within = (/** @type {number} */ value, /** @type {number} */ low, /** @type {number} */ high) => Math.min(high, Math.max(low, Math.round(value)));
  const [x, y] = [within(box.x, 0, canvas.w - 1), within(box.y, 0, canvas.h - 1)];
  return { x, y, w: within(box.x + box.w, x + 1, canvas.w) - x, h: within(box.y + box.h, y + 1, canvas.h) - y };
}

export class LayerExport {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    this.view = view;
    this.button = element("button", { type: "button", class: "tool plain", "data-tool": "export", text: view.t("exportLayers") });
    /** @type {string | null} of the last file: it must outlive the click that saves it */
    this.url = null;
    this.button.addEventListener("click", () => this.#save(), { signal });
    signal.addEventListener("abort", () => this.#forget(), { once: true });
  }

  #save() {
    const { store, library, scene, environment, t } = this.view;
    const { canvas, boxes } = store.state.layout;
    if (!boxes.length) return this.#refuse(t("saidNoExport"));
    if (library.loading) return this.#refuse(t("saidNoOrder"));
    const picture = layeredPicture(canvas, scene, environment.fit);
    if (!picture) return this.#refuse(t("saidLargeExport", { limit: MAX_WRITTEN >> 20 }));
    this.#forget();
    this.url = URL.createObjectURL(new Blob([writeLayers(picture)], { type: "image/vnd.adobe.photoshop" }));
    element("a", { href: this.url, download: FILE }).click();
    return this.view.announce(t("saidExported", { name: FILE, count: boxes.length }));
  }

  /** Says why there is no file, to the eye as well: nothing else would be seen of the click. @param {string} sentence */
  #refuse(sentence) {
    setText(this.view.status, sentence);
    this.view.announce(sentence);
  }

  #forget() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
  }
}
