/**
 * SIGMA-GEN's control picture as its node will draw it: which subject stands where, in both painting orders, and the depth of
 * the cuboids. One byte a pixel for each plane, by the rules of `contextgen_core/methods/sigma_gen`; both sides are tested
 * with tests/vectors/control_planes.json.
 *
 * @typedef {import("../scene/schema.js").Box} Box
 * @typedef {import("../scene/schema.js").Layout} Layout
 * @typedef {"ascending" | "descending" | "depth"} Plane
 */

import { cameraOf, NEAR, seenFrom } from "../scene/camera.js";

const STEP = 10;
const EXPONENT = 0.6;
/** Routing planes are shown so many times brighter than they are, as on the node. */
const SHOWN = 2;

/**
 * @param {Layout} layout @param {readonly Box[]} subjects  the boxes with a reference, bottom first
 * @param {number} width @param {number} height  of the planes in pixels, whatever the canvas has
 * @returns {Record<Plane, Uint8Array>}
 */
export function planesOf(layout, subjects, width, height) {
  const size = width * height;
  const planes = { ascending: new Uint8Array(size), descending: new Uint8Array(size), depth: new Uint8Array(size) };
  const nearest = new Float64Array(size).fill(Infinity);
  const { canvas } = layout;
  subjects.forEach((box, number) => {
    const level = Math.min(255, STEP * (number + 1));
    const columns = span(box.x, box.x + box.w, width, canvas.w);
    const rows = span(box.y, box.y + box.h, height, canvas.h);
    const depth = box.solid ? caster(box.solid, layout, width, height) : null;
    for (let y = rows.from; y < rows.to; y += 1) {
      for (let x = columns.from; x < columns.to; x += 1) {
        const at = y * width + x;
        if (depth) {
          const z = depth(x, y);
          if (z === Infinity) continue;
          if (z < nearest[at]) nearest[at] = z;
        }
        planes.ascending[at] = level;
        if (!planes.descending[at]) planes.descending[at] = level;
      }
    }
  });
  const first = nearest.reduce((least, z) => Math.min(least, z), Infinity);
  for (let at = 0; at < size; at += 1) {
    if (nearest[at] !== Infinity) planes.depth[at] = Math.max(1, Math.floor(255 * (first / nearest[at]) ** EXPONENT + 0.5));
  }
  return planes;
}

/** Paints one plane on a picture of a part of the canvas. @param {CanvasRenderingContext2D} context @param {import("../scene/schema.js").Rect} part @param {Uint8Array} plane @param {Plane} which @param {import("../scene/schema.js").Size} size  of the plane @param {import("../scene/schema.js").Size} canvas */
export function paintPlane(context, part, plane, which, size, canvas) {
  const picture = document.createElement("canvas");
  [picture.width, picture.height] = [size.w, size.h];
  const inner = picture.getContext("2d");
  if (!inner) return;
  const image = inner.createImageData(size.w, size.h);
  const bright = which === "depth" ? 1 : SHOWN;
  for (let at = 0; at < plane.length; at += 1) {
    const grey = Math.min(255, bright * plane[at]);
    image.data.set([grey, grey, grey, 255], 4 * at);
  }
  inner.putImageData(image, 0, 0);
  const [kx, ky] = [size.w / canvas.w, size.h / canvas.h];
  // A mixed grey would be another subject's.
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, part.x * kx, part.y * ky, part.w * kx, part.h * ky, 0, 0, context.canvas.width, context.canvas.height);
}

/** The pixels whose middle lies between two coordinates of the canvas. @param {number} low @param {number} high @param {number} pixels @param {number} side */
function span(low, high, pixels, side) {
  const k = pixels / side;
  return { from: Math.max(0, Math.ceil(low * k - 0.5)), to: Math.min(pixels, Math.ceil(high * k - 0.5)) };
}

/** The distance at which a ray through a pixel's middle meets a cuboid, Infinity where it does not. @param {import("../scene/schema.js").Solid} solid @param {Layout} layout @param {number} width @param {number} height @returns {(x: number, y: number) => number} */
function caster(solid, layout, width, height) {
  const camera = cameraOf(layout);
  const { centre, axes } = seenFrom(solid, camera);
  const half = [solid.w / 2, solid.h / 2, solid.d / 2];
  const origin = [0, 1, 2].map((axis) => -(axes[0][axis] * centre[0] + axes[1][axis] * centre[1] + axes[2][axis] * centre[2]));
  const unit = layout.canvas.w / width / (camera.focal * layout.canvas.w);
  const tall = layout.canvas.h / height / (camera.focal * layout.canvas.w);
  return (x, y) => {
    const [u, v] = [(x + 0.5 - width / 2) * unit, (y + 0.5 - height / 2) * tall];
    let enters = NEAR;
    let leaves = Infinity;
    for (let axis = 0; axis < 3; axis += 1) {
      const direction = axes[0][axis] * u + axes[1][axis] * v + axes[2][axis];
      const [one, other] = [(-half[axis] - origin[axis]) / direction, (half[axis] - origin[axis]) / direction];
      // A ray along a slab (0 / 0 on its very border) is not held back by it.
      if (Number.isNaN(one) || Number.isNaN(other)) continue;
      enters = Math.max(enters, Math.min(one, other));
      leaves = Math.min(leaves, Math.max(one, other));
    }
    // The node keeps distances in single precision.
    return leaves >= enters ? Math.fround(enters) : Infinity;
  };
}
