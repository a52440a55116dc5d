/**
 * Where a subject lands on the canvas. Geometry is that of the node (`placement.py`), in whole pixels of the real canvas;
 * tests/vectors/paste_rect.json holds both to it.
 *
 * @typedef {import("../scene/schema.js").Rect} Rect
 * @typedef {import("../scene/schema.js").Size} Size
 * @typedef {import("../scene/schema.js").Box} Box
 * @typedef {{width: number, height: number, subject: readonly [number, number, number, number], picture: CanvasImageSource,
 *   pictureSize: Size}} Cutout  a picture of width x height with its subject's half-open rectangle (x1, y1, x2, y2),
 *   and `picture`, the same at pictureSize pixels, transparent around the subject
 * @typedef {{x1: number, y1: number, x2: number, y2: number}} Edges
 * @typedef {{cutout: Cutout, rect: Rect, flip: string, rot: number, about: {x: number, y: number}, opacity: number}} Placement
 *   rect: where the mirrored subject lies before it is turned by `rot` about the point `about`
 */

import { centreOf } from "../kit/matrix.js";

/** @param {Box} box @param {string} fit  the node's; the box may have its own @param {Size} canvas @param {Cutout} cutout @returns {Placement} */
export function placementOf(box, fit, canvas, cutout) {
  const rot = box.rot ?? 0;
  const flip = box.flip ?? "";
  const mirrored = { width: cutout.width, height: cutout.height, subject: mirroredSubject(cutout, flip) };
  // A turned box is fitted whole: what the canvas cuts off is no rectangle of its own.
  const rect = pasteRect(box.fit ?? fit, rot ? edgesOf(box) : clipped(edgesOf(box), canvas), mirrored);
  return { cutout, rect, flip, rot, about: centreOf(box), opacity: box.opacity ?? 1 };
}

/**
 * Where the subject's rectangle lands: whole canvas pixels, at least 1 x 1.
 * @param {string} fit @param {Edges} box  clipped to the canvas, or turned
 * @param {{width: number, height: number, subject: readonly [number, number, number, number]}} cutout
 * @returns {Rect}
 */
export function pasteRect(fit, box, cutout) {
  // From the edges, as the node does: the last bit decides which way a half is rounded.
  const [bw, bh] = [box.x2 - box.x1, box.y2 - box.y1];
  const [cx, cy] = [(box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2];
  const [sx1, sy1, sx2, sy2] = cutout.subject;
  const [cw, ch] = [sx2 - sx1, sy2 - sy1];
  if (fit === "image") {
    const k = Math.min(bw / cutout.width, bh / cutout.height);
    return {
      x: nearest(cx + (sx1 - cutout.width / 2) * k),
      y: nearest(cy + (sy1 - cutout.height / 2) * k),
      w: Math.max(1, nearest(cw * k)),
      h: Math.max(1, nearest(ch * k)),
    };
  }
  const k = Math.sqrt((bw * bh) / (cw * ch));
  const w = Math.max(1, nearest(fit === "stretch" ? bw : cw * k));
  const h = Math.max(1, nearest(fit === "stretch" ? bh : ch * k));
  return { x: nearest(cx - w / 2), y: nearest(cy - h / 2), w, h };
}

/** @param {Rect} box @returns {Edges} */
export function edgesOf({ x, y, w, h }) {
  return { x1: x, y1: y, x2: x + w, y2: y + h };
}

/** The part of a box that lies on the canvas. @param {Edges} box @param {Size} canvas @returns {Edges} */
export function clipped({ x1, y1, x2, y2 }, canvas) {
  return { x1: limit(x1, canvas.w), y1: limit(y1, canvas.h), x2: limit(x2, canvas.w), y2: limit(y2, canvas.h) };
}

/** Width / height that a box of this reference has when its subject fills it exactly. @param {string} fit @param {Cutout} cutout */
export function naturalAspect(fit, cutout) {
  const [x1, y1, x2, y2] = cutout.subject;
  return fit === "image" ? cutout.width / cutout.height : (x2 - x1) / (y2 - y1);
}

/** @param {Cutout} cutout @param {string} flip @returns {readonly [number, number, number, number]} */
function mirroredSubject({ width, height, subject: [x1, y1, x2, y2] }, flip) {
  const [left, right] = flip.includes("h") ? [width - x2, width - x1] : [x1, x2];
  const [top, bottom] = flip.includes("v") ? [height - y2, height - y1] : [y1, y2];
  return [left, top, right, bottom];
}

/** @param {number} value */
function nearest(value) {
  return Math.floor(value + 0.5);
}

/** @param {number} value @param {number} side */
function limit(value, side) {
  return Math.min(Math.max(value, 0), side);
}
