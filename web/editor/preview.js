/**
 * The composite as the node will paint it, from the pictures at hand. Geometry is that of
 * `contextgen_core/placement.py`, in whole pixels of the real canvas; tests/vectors/paste_rect.json holds both to it.
 *
 * @typedef {import("./model.js").Rect} Rect
 * @typedef {import("./model.js").Size} Size
 * @typedef {"instance" | "stretch" | "image"} Fit
 * @typedef {{width: number, height: number, subject: readonly [number, number, number, number], picture: CanvasImageSource,
 *   pictureSize: Size}} Cutout  a picture of width x height with its subject's half-open rectangle (x1, y1, x2, y2),
 *   and `picture`, the same at pictureSize pixels, transparent around the subject
 * @typedef {{cutout: Cutout, rect: Rect}} Placement
 */

export const GREY = "rgb(128 128 128)";

/** Long side of the small masks from which order and visibility are told, pixels. */
export const MASK_SIDE = 192;

/**
 * Where the subject's rectangle lands: whole canvas pixels, at least 1 x 1.
 * @param {string} fit @param {Rect} box @param {Size} canvas
 * @param {{width: number, height: number, subject: readonly [number, number, number, number]}} cutout
 * @returns {Rect}
 */
export function pasteRect(fit, box, canvas, cutout) {
  const [x1, y1] = [limit(box.x, canvas.w), limit(box.y, canvas.h)];
  const [x2, y2] = [limit(box.x + box.w, canvas.w), limit(box.y + box.h, canvas.h)];
  const [bw, bh] = [x2 - x1, y2 - y1];
  const [cx, cy] = [(x1 + x2) / 2, (y1 + y2) / 2];
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

/** Width / height that a box of this reference has when its subject fills it exactly. @param {string} fit @param {Cutout} cutout */
export function naturalAspect(fit, cutout) {
  const [x1, y1, x2, y2] = cutout.subject;
  return fit === "image" ? cutout.width / cutout.height : (x2 - x1) / (y2 - y1);
}

/**
 * Paints placements bottom to top on a canvas of any size that stands for the real one.
 * @param {CanvasRenderingContext2D} context @param {Size} canvas  the real size @param {readonly Placement[]} placements
 * @param {{hard: boolean}} options  hard: edges cut at one half as the node does; soft is faster, for gestures
 */
export function paint(context, canvas, placements, { hard }) {
  const sx = context.canvas.width / canvas.w;
  const sy = context.canvas.height / canvas.h;
  for (const { cutout, rect } of placements) {
    const target = { x: rect.x * sx, y: rect.y * sy, w: rect.w * sx, h: rect.h * sy };
    if (hard) paintHard(context, cutout, target);
    else drawCutout(context, cutout, target);
  }
}

/**
 * Small masks of placed subjects, one byte a pixel of a picture of the whole canvas.
 * @param {Size} canvas @param {readonly (Placement | null)[]} placements @returns {(Uint8Array | null)[]}
 */
export function placedMasks(canvas, placements) {
  const scale = Math.min(1, MASK_SIDE / Math.max(canvas.w, canvas.h));
  const context = scratch(Math.max(1, Math.round(canvas.w * scale)), Math.max(1, Math.round(canvas.h * scale)));
  return placements.map((placement) => {
    if (!placement) return null;
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    paint(context, canvas, [placement], { hard: false });
    const { data } = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
    const mask = new Uint8Array(data.length / 4);
    for (let p = 0; p < mask.length; p += 1) mask[p] = data[4 * p + 3] >= 128 ? 1 : 0;
    return mask;
  });
}

/** @param {CanvasRenderingContext2D} context @param {Cutout} cutout @param {Rect} target */
function drawCutout(context, cutout, target) {
  const [x1, y1, x2, y2] = cutout.subject;
  const kx = cutout.pictureSize.w / cutout.width;
  const ky = cutout.pictureSize.h / cutout.height;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "medium";
  context.drawImage(
    cutout.picture, x1 * kx, y1 * ky, (x2 - x1) * kx, (y2 - y1) * ky, target.x, target.y, target.w, target.h,
  );
}

/** @param {CanvasRenderingContext2D} context @param {Cutout} cutout @param {Rect} target */
function paintHard(context, cutout, target) {
  const x1 = Math.max(0, Math.floor(target.x));
  const y1 = Math.max(0, Math.floor(target.y));
  const x2 = Math.min(context.canvas.width, Math.ceil(target.x + target.w));
  const y2 = Math.min(context.canvas.height, Math.ceil(target.y + target.h));
  if (x2 <= x1 || y2 <= y1) return;
  const layer = scratch(x2 - x1, y2 - y1);
  drawCutout(layer, cutout, { ...target, x: target.x - x1, y: target.y - y1 });
  const image = layer.getImageData(0, 0, x2 - x1, y2 - y1);
  for (let p = 3; p < image.data.length; p += 4) image.data[p] = image.data[p] >= 128 ? 255 : 0;
  layer.putImageData(image, 0, 0);
  context.drawImage(layer.canvas, x1, y1);
}

/** A drawing surface that is read back from. @param {number} width @param {number} height @returns {CanvasRenderingContext2D} */
export function scratch(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
}

/** @param {number} value */
function nearest(value) {
  return Math.floor(value + 0.5);
}

/** @param {number} value @param {number} side */
function limit(value, side) {
  return Math.min(Math.max(value, 0), side);
}
