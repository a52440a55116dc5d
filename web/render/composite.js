/**
 * The composite as the node will paint it: each subject resized, mirrored, turned, cut at one half of its opacity, and laid
 * over those below.
 *
 * @typedef {import("../scene/schema.js").Rect} Rect
 * @typedef {import("./place.js").Placement} Placement
 * @typedef {import("./place.js").Cutout} Cutout
 */

import { boundsOf, cornersOf } from "../kit/matrix.js";

export const GREY = "rgb(128 128 128)";
const HALF = 128;

/**
 * Paints placements bottom to top on a picture of a part of the canvas.
 * @param {CanvasRenderingContext2D} context @param {Rect} part  what of the canvas the whole picture shows, pixels of the canvas
 * @param {readonly Placement[]} placements
 * @param {{hard: boolean}} options  hard: edges cut at one half as the node does; soft is faster, for gestures
 */
export function paint(context, part, placements, { hard }) {
  const [sx, sy] = [context.canvas.width / part.w, context.canvas.height / part.h];
  for (const placement of placements) {
    const { rect, about } = placement;
    const seen = {
      ...placement,
      rect: { x: (rect.x - part.x) * sx, y: (rect.y - part.y) * sy, w: rect.w * sx, h: rect.h * sy },
      about: { x: (about.x - part.x) * sx, y: (about.y - part.y) * sy },
    };
    if (hard) paintHard(context, seen);
    else {
      context.globalAlpha = seen.opacity;
      drawTurned(context, seen);
      context.globalAlpha = 1;
    }
  }
}

/** @param {CanvasRenderingContext2D} context @param {Placement} placement  in pixels of the picture */
function paintHard(context, placement) {
  const reach = reachOf(placement, context.canvas);
  if (!reach) return;
  context.globalAlpha = placement.opacity;
  context.drawImage(hardLayer(placement, reach).canvas, reach.x, reach.y);
  context.globalAlpha = 1;
}

/** The whole pixels of a picture that a placement may paint; null: it lies outside. @param {Placement} placement @param {{width: number, height: number}} picture @returns {Rect | null} */
export function reachOf({ rect, rot, about }, picture) {
  const bounds = rot ? boundsOf(cornersOf(rect, rot, about)) : rect;
  const [x, y] = [Math.max(0, Math.floor(bounds.x)), Math.max(0, Math.floor(bounds.y))];
  const w = Math.min(picture.width, Math.ceil(bounds.x + bounds.w)) - x;
  const h = Math.min(picture.height, Math.ceil(bounds.y + bounds.h)) - y;
  return w > 0 && h > 0 ? { x, y, w, h } : null;
}

/** One subject by itself, cut at one half, before its opacity in the composite. @param {Placement} placement @param {Rect} reach  what of the picture is painted @returns {CanvasRenderingContext2D} of the reach's size */
export function hardLayer(placement, { x, y, w, h }) {
  const layer = scratch(w, h);
  layer.translate(-x, -y);
  if (placement.rot) drawAtSizeThenTurned(layer, placement);
  else drawFlipped(layer, placement.cutout, placement.rect, placement.flip);
  const image = layer.getImageData(0, 0, w, h);
  for (let p = 3; p < image.data.length; p += 4) image.data[p] = image.data[p] >= HALF ? 255 : 0;
  layer.putImageData(image, 0, 0);
  return layer;
}

/** Two steps, as the node takes them: a picture that is resized and turned at once is another picture. @param {CanvasRenderingContext2D} layer @param {Placement} placement */
function drawAtSizeThenTurned(layer, { cutout, rect, flip, rot, about }) {
  const [w, h] = [Math.max(1, Math.round(rect.w)), Math.max(1, Math.round(rect.h))];
  const upright = scratch(w, h);
  drawFlipped(upright, cutout, { x: 0, y: 0, w, h }, flip);
  layer.translate(about.x, about.y);
  layer.rotate((rot * Math.PI) / 180);
  layer.translate(-about.x, -about.y);
  layer.imageSmoothingEnabled = true;
  layer.imageSmoothingQuality = "low";
  layer.drawImage(upright.canvas, rect.x, rect.y, rect.w, rect.h);
}

/** @param {CanvasRenderingContext2D} context @param {Placement} placement */
export function drawTurned(context, { cutout, rect, flip, rot, about }) {
  if (!rot) return drawFlipped(context, cutout, rect, flip);
  context.save();
  context.translate(about.x, about.y);
  context.rotate((rot * Math.PI) / 180);
  context.translate(-about.x, -about.y);
  drawFlipped(context, cutout, rect, flip);
  return context.restore();
}

/** @param {CanvasRenderingContext2D} context @param {Cutout} cutout @param {Rect} target @param {string} flip */
function drawFlipped(context, cutout, target, flip) {
  const [x1, y1, x2, y2] = cutout.subject;
  const kx = cutout.pictureSize.w / cutout.width;
  const ky = cutout.pictureSize.h / cutout.height;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "medium";
  const draw = (/** @type {Rect} */ { x, y, w, h }) =>
    context.drawImage(cutout.picture, x1 * kx, y1 * ky, (x2 - x1) * kx, (y2 - y1) * ky, x, y, w, h);
  if (!flip) return draw(target);
  context.save();
  context.translate(target.x + target.w / 2, target.y + target.h / 2);
  context.scale(flip.includes("h") ? -1 : 1, flip.includes("v") ? -1 : 1);
  draw({ x: -target.w / 2, y: -target.h / 2, w: target.w, h: target.h });
  return context.restore();
}

/** A drawing surface that is read back from. @param {number} width @param {number} height @returns {CanvasRenderingContext2D} */
export function scratch(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
}
