/**
 * How a camera over the ground sees cuboids. Scene units: x to the right, y upwards, z away from the camera, which stands
 * above the origin; the ground is y = 0. The rule is that of `contextgen_core/layout/solid.py`; both sides are tested with
 * `tests/vectors/solid_box.json`.
 *
 * @typedef {import("./schema.js").Solid} Solid
 * @typedef {import("./schema.js").Camera} Camera
 * @typedef {import("./schema.js").Size} Size
 * @typedef {import("./schema.js").Rect} Rect
 * @typedef {{x: number, y: number}} Point  pixels of the canvas
 * @typedef {readonly [number, number, number]} Vector  in the camera's axes: x right, y down, z forward
 * @typedef {readonly [Vector, Vector, Vector]} Matrix  rows
 * @typedef {Omit<Solid, "at">} Shape  a cuboid, wherever it is seen
 */

import { DEFAULT_CAMERA } from "./schema.js";

/** Nothing closer to the camera's plane is seen. */
export const NEAR = 0.05;

/** @param {import("./schema.js").Layout} layout @returns {Camera} */
export function cameraOf(layout) {
  return layout.camera ?? DEFAULT_CAMERA;
}

/** Ry(yaw) Rx(pitch) Rz(roll), degrees. @param {number} yaw @param {number} pitch @param {number} roll @returns {Matrix} */
function rotationOf(yaw, pitch, roll) {
  const [[sy, cy], [sp, cp], [sr, cr]] = [yaw, pitch, roll].map((degrees) => {
    const angle = (degrees * Math.PI) / 180;
    return [Math.sin(angle), Math.cos(angle)];
  });
  return [
    [cy * cr + sy * sp * sr, -cy * sr + sy * sp * cr, sy * cp],
    [cp * sr, cp * cr, -sp],
    [-sy * cr + cy * sp * sr, sy * sr + cy * sp * cr, cy * cp],
  ];
}

/** @param {Matrix} m @param {Vector} v @returns {Vector} */
function times(m, v) {
  const row = (/** @type {Vector} */ r) => r[0] * v[0] + r[1] * v[1] + r[2] * v[2];
  return [row(m[0]), row(m[1]), row(m[2])];
}

/** What a turned cuboid takes from its lowest to its highest corner. @param {Shape} solid */
export function extentOf({ w, h, d, yaw, pitch, roll }) {
  const [, up] = rotationOf(yaw, pitch, roll);
  return Math.abs(up[0]) * w + Math.abs(up[1]) * h + Math.abs(up[2]) * d;
}

/** A place of the scene in the camera's axes. @param {Camera} camera @param {number} x @param {number} y @param {number} z @returns {Vector} */
function looking({ height, pitch }, x, y, z) {
  return times(rotationOf(0, pitch, 0), [x, height - y, z]);
}

/** Centre and axes (columns) of a cuboid in the camera's axes. @param {Shape} solid @param {Camera} camera @returns {{centre: Vector, axes: Matrix}} */
export function seenFrom(solid, camera) {
  const look = rotationOf(0, camera.pitch, 0);
  const turned = rotationOf(solid.yaw, solid.pitch, solid.roll);
  const column = (/** @type {0 | 1 | 2} */ i) => times(look, [turned[0][i], turned[1][i], turned[2][i]]);
  const [a, b, c] = [column(0), column(1), column(2)];
  const centre = looking(camera, solid.x, solid.y + extentOf(solid) / 2, solid.z);
  return { centre, axes: [[a[0], b[0], c[0]], [a[1], b[1], c[1]], [a[2], b[2], c[2]]] };
}

/** Bits 0, 1, 2 of a corner's number say whether it is on the +x, +y, +z side. @param {Shape} solid @param {Camera} camera @returns {Vector[]} */
function cornersOf(solid, camera) {
  const { centre, axes } = seenFrom(solid, camera);
  return Array.from({ length: 8 }, (_, number) => {
    const side = (/** @type {number} */ axis, /** @type {number} */ size) => (((number >> axis) & 1) - 0.5) * size;
    const [x, y, z] = times(axes, [side(0, solid.w), side(1, solid.h), side(2, solid.d)]);
    return /** @type {Vector} */ ([centre[0] + x, centre[1] + y, centre[2] + z]);
  });
}

/** @param {Camera} camera @param {Size} canvas @param {Vector} v @returns {Point} */
function pixel({ focal }, canvas, [x, y, z]) {
  return { x: canvas.w / 2 + (focal * canvas.w * x) / z, y: canvas.h / 2 + (focal * canvas.w * y) / z };
}

/** @param {Vector} one @param {Vector} other @returns {Vector} where the near plane cuts what lies between them */
function atNear(one, other) {
  const share = (NEAR - one[2]) / (other[2] - one[2]);
  return [one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1]), NEAR];
}

/**
 * The edges that are seen, and whether each lies behind the cuboid itself.
 * @param {Shape} solid @param {Camera} camera @param {Size} canvas @returns {{from: Point, to: Point, behind: boolean}[]}
 */
export function edgesOf(solid, camera, canvas) {
  const corners = cornersOf(solid, camera);
  const { centre, axes } = seenFrom(solid, camera);
  // A side of the cuboid is turned away when the camera lies on the inner side of it.
  const away = [0, 1, 2].map((axis) => {
    const along = axes[0][axis] * centre[0] + axes[1][axis] * centre[1] + axes[2][axis] * centre[2];
    const half = [solid.w, solid.h, solid.d][axis] / 2;
    return [along - half < 0, along + half > 0];
  });
  /** @type {{from: Point, to: Point, behind: boolean}[]} */
  const edges = [];
  for (let number = 0; number < 8; number += 1) {
    for (let axis = 0; axis < 3; axis += 1) {
      if ((number >> axis) & 1) continue;
      let [from, to] = [corners[number], corners[number | (1 << axis)]];
      if (from[2] < NEAR && to[2] < NEAR) continue;
      if (from[2] < NEAR) from = atNear(from, to);
      if (to[2] < NEAR) to = atNear(to, from);
      const others = [0, 1, 2].filter((other) => other !== axis);
      const behind = others.every((other) => away[other][(number >> other) & 1]);
      edges.push({ from: pixel(camera, canvas, from), to: pixel(camera, canvas, to), behind });
    }
  }
  return edges;
}

/** A cuboid's silhouette as a convex polygon, not cut off by the canvas; empty behind the near plane. @param {Shape} solid @param {Camera} camera @param {Size} canvas @returns {Point[]} */
export function outline(solid, camera, canvas) {
  const corners = cornersOf(solid, camera);
  const points = corners.filter((corner) => corner[2] >= NEAR);
  for (let number = 0; number < 8; number += 1) {
    for (const axis of [1, 2, 4]) {
      const [one, other] = [corners[number], corners[number ^ axis]];
      if (one[2] < NEAR && other[2] > NEAR) points.push(atNear(one, other));
    }
  }
  return hull(points.map((point) => pixel(camera, canvas, point)));
}

/** The box around what the canvas shows of a silhouette, to 1/100 pixel; null where it shows nothing. @param {Shape} solid @param {Camera} camera @param {Size} canvas @returns {Rect | null} */
export function project(solid, camera, canvas) {
  let polygon = outline(solid, camera, canvas);
  for (const [axis, side, sign] of /** @type {const} */ ([["x", 0, 1], ["x", canvas.w, -1], ["y", 0, 1], ["y", canvas.h, -1]])) {
    polygon = cut(polygon, axis, side, sign);
  }
  if (!polygon.length) return null;
  const [xs, ys] = [polygon.map((point) => point.x), polygon.map((point) => point.y)];
  const [x1, y1, x2, y2] = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)].map(hundredths);
  return x1 < x2 && y1 < y2 ? { x: x1, y: y1, w: hundredths(x2 - x1), h: hundredths(y2 - y1) } : null;
}

/** Where the ground ends, y in pixels; it may lie outside of the canvas. @param {Camera} camera @param {Size} canvas */
export function horizonOf({ focal, pitch }, canvas) {
  return canvas.h / 2 - focal * canvas.w * Math.tan((pitch * Math.PI) / 180);
}

/** Where a place of the scene is seen, null behind the near plane. @param {Camera} camera @param {Size} canvas @param {{x: number, y: number, z: number}} at @returns {Point | null} */
export function pointOf(camera, canvas, { x, y, z }) {
  const seen = looking(camera, x, y, z);
  return seen[2] >= NEAR ? pixel(camera, canvas, seen) : null;
}

/** What lies under a point of the canvas at a height above the ground, null where nothing does. @param {Camera} camera @param {Size} canvas @param {Point} at @param {number} [height] @returns {{x: number, z: number} | null} */
export function groundAt(camera, canvas, at, height = 0) {
  const [u, v] = [(at.x - canvas.w / 2) / (camera.focal * canvas.w), (at.y - canvas.h / 2) / (camera.focal * canvas.w)];
  const [x, down, z] = times(rotationOf(0, -camera.pitch, 0), [u, v, 1]);
  const reach = (camera.height - height) / down;
  return Number.isFinite(reach) && reach > 0 ? { x: reach * x, z: reach * z } : null;
}

/** How high above the ground a point of the canvas is on the upright through x, z. @param {Camera} camera @param {Size} canvas @param {number} y  pixels of the canvas @param {number} z */
export function heightAt(camera, canvas, y, z) {
  const v = (y - canvas.h / 2) / (camera.focal * canvas.w);
  const angle = (camera.pitch * Math.PI) / 180;
  return camera.height - (z * (Math.sin(angle) + v * Math.cos(angle))) / (Math.cos(angle) - v * Math.sin(angle));
}

/** Convex hull, in order. @param {readonly Point[]} points @returns {Point[]} */
function hull(points) {
  const ordered = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
  const half = (/** @type {readonly Point[]} */ run) => {
    /** @type {Point[]} */
    const kept = [];
    for (const point of run) {
      while (kept.length > 1 && turnOf(kept[kept.length - 2], kept[kept.length - 1], point) <= 0) kept.pop();
      kept.push(point);
    }
    return kept.slice(0, -1);
  };
  return ordered.length < 3 ? ordered : [...half(ordered), ...half(ordered.reverse())];
}

/** @param {Point} a @param {Point} b @param {Point} c */
function turnOf(a, b, c) {
  return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
}

/** What of a convex polygon lies on one side of a line along an axis. @param {readonly Point[]} polygon @param {"x" | "y"} axis @param {number} side @param {1 | -1} sign @returns {Point[]} */
function cut(polygon, axis, side, sign) {
  return polygon.flatMap((one, i) => {
    const other = polygon[(i + 1) % polygon.length];
    const [a, b] = [sign * (one[axis] - side), sign * (other[axis] - side)];
    const kept = a >= 0 ? [one] : [];
    if (a < 0 !== b < 0) {
      const share = a / (a - b);
      kept.push({ x: one.x + share * (other.x - one.x), y: one.y + share * (other.y - one.y) });
    }
    return kept;
  });
}

/** @param {number} value */
function hundredths(value) {
  return Math.floor(value * 100 + 0.5) / 100;
}
