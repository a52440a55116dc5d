/** Small masks of placed subjects, from which order and visibility are told; remembered box by box. */

import { drawTurned, scratch } from "./composite.js";

/** @typedef {import("./place.js").Placement} Placement */
/** @typedef {import("../scene/schema.js").Box} Box */

/** Long side of the masks, pixels. */
const MASK_SIDE = 192;
const HALF = 128;

export class Masks {
  constructor() {
    /** @type {WeakMap<Box, {key: string, picture: unknown, mask: Uint8Array}>} boxes are never changed, only replaced */
    this.known = new WeakMap();
  }

  /**
   * One byte a pixel of a picture of the whole canvas, 1 = subject; null where nothing is painted.
   * @param {import("../scene/schema.js").Size} canvas @param {readonly {box: Box, placement: Placement | null}[]} members
   * @returns {(Uint8Array | null)[]}
   */
  of(canvas, members) {
    const scale = Math.min(1, MASK_SIDE / Math.max(canvas.w, canvas.h));
    const [w, h] = [Math.max(1, Math.round(canvas.w * scale)), Math.max(1, Math.round(canvas.h * scale))];
    /** @type {CanvasRenderingContext2D | null} */
    let context = null;
    return members.map(({ box, placement }) => {
      if (!placement) return null;
      const { rect, rot, flip, cutout } = placement;
      const key = [canvas.w, canvas.h, rect.x, rect.y, rect.w, rect.h, rot, flip].join();
      const known = this.known.get(box);
      if (known && known.key === key && known.picture === cutout.picture) return known.mask;
      context ??= scratch(w, h);
      const mask = maskOf(context, placement, { x: w / canvas.w, y: h / canvas.h });
      this.known.set(box, { key, picture: cutout.picture, mask });
      return mask;
    });
  }
}

/** @param {CanvasRenderingContext2D} context @param {Placement} placement @param {{x: number, y: number}} k */
function maskOf(context, placement, k) {
  const { width, height } = context.canvas;
  const { rect, about } = placement;
  context.clearRect(0, 0, width, height);
  const small = { x: rect.x * k.x, y: rect.y * k.y, w: rect.w * k.x, h: rect.h * k.y };
  drawTurned(context, { ...placement, rect: small, about: { x: about.x * k.x, y: about.y * k.y } });
  const { data } = context.getImageData(0, 0, width, height);
  const mask = new Uint8Array(data.length / 4);
  for (let p = 0; p < mask.length; p += 1) mask[p] = data[4 * p + 3] >= HALF ? 1 : 0;
  return mask;
}
