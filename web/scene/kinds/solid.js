/**
 * A cuboid in the scene. Its box is what the canvas shows of its silhouette, so that who knows boxes only sees one; what is
 * done to that box moves or resizes the cuboid on its ground.
 */

import { boundsOf, cornersOf, normaliseAngle } from "../../kit/matrix.js";
import { cameraOf, edgesOf, extentOf, groundAt, heightAt, outline, pointOf, project } from "../camera.js";
import { contains } from "../geometry.js";

/** @typedef {import("../schema.js").Box} Box @typedef {import("../schema.js").Layout} Layout @typedef {import("../schema.js").Rect} Rect @typedef {import("../camera.js").Shape} Shape @typedef {import("./index.js").Point} Point */

/** The least that must stay visible, pixels of the canvas. */
const LEAST_SEEN = 8;
const SMALLEST = 0.02;
const LARGEST = 1000;
/** Share of the wider side by which the handle that turns stands off. */
const OFF = 0.8;
/** How far the camera's height must differ from a cuboid's for its ground to be seen as one. */
const EDGE_ON = 0.02;
const ROUNDS = 6;
const CLOSE = 0.05;
/** Share of a number that a key changes, and with Alt. */
const STEP = 0.05;
const FINE = 0.005;
const TURN = 15;

const HANDLES = [
  { id: "ground", cursor: "move" },
  { id: "away", cursor: "ns-resize" },
  { id: "spin", cursor: "grab" },
  { id: "rise", cursor: "ns-resize" },
  { id: "wide", cursor: "ew-resize" },
  { id: "deep", cursor: "nesw-resize" },
];

/** @type {import("./index.js").Kind} */
export const solid = {
  name: "solid",
  is: (box) => box.solid !== undefined,
  corners: (box) => cornersOf(box, 0),
  hit: (box, { x, y }) => contains(box, x, y),
  handles: HANDLES,
  where: (box, id, layout) => pointOf(cameraOf(layout), layout.canvas, handlesOf(shapeOf(box))[id]),
  drag(box, handle, from, to, pull) {
    const before = shapeOf(box);
    const { layout } = pull;
    const camera = cameraOf(layout);
    const held = pointOf(camera, layout.canvas, handlesOf(before)[handle]);
    if (!held) return box;
    const at = { x: held.x + to.x - from.x, y: held.y + to.y - from.y };
    return seen(box, pulled(before, handle, at, pull), layout);
  },
  place: (box, rect, layout) => placed(box, rect, layout),
  settle: (box, layout) => seen(box, shapeOf(box), layout),
  rescale(box, rect, layout) {
    const next = projected(box, shapeOf(box), layout);
    if (next) return next;
    const { solid: _gone, ...flat } = box;
    return { ...flat, x: rect.x, y: rect.y, w: rect.w, h: rect.h };
  },
  lines(box, layout) {
    const shape = shapeOf(box);
    const camera = cameraOf(layout);
    const edges = edgesOf(shape, camera, layout.canvas);
    const { ground, spin } = handlesOf(shape);
    const [from, to] = [pointOf(camera, layout.canvas, ground), pointOf(camera, layout.canvas, spin)];
    return [
      { kind: "edge", paths: edges.filter((edge) => !edge.behind).map((edge) => [edge.from, edge.to]) },
      { kind: "behind", paths: edges.filter((edge) => edge.behind).map((edge) => [edge.from, edge.to]) },
      { kind: "front", paths: from && to ? [[from, to]] : [] },
    ];
  },
  key(box, event, layout) {
    if (event.ctrlKey || event.metaKey) return null;
    const next = keyed(shapeOf(box), event, layout);
    return next && seen(box, next, layout);
  },
};

/** The cuboid that a box shows as nearly as one can, standing on the ground where its lower edge does. @param {Box} box @param {Layout} layout @returns {Box} the same where no cuboid fits */
export function toSolid(box, layout) {
  const camera = cameraOf(layout);
  const { rot, ...upright } = box;
  const middle = { x: box.x + box.w / 2, y: box.y + box.h };
  const stands = groundAt(camera, layout.canvas, middle);
  const near = stands && stands.z < 12 * camera.height ? stands : null;
  // What ends above the ground's far end floats, as far away as a box of its size is likely to be.
  const z = near?.z ?? 4 * camera.height;
  const x = near?.x ?? ((middle.x - layout.canvas.w / 2) * z) / (camera.focal * layout.canvas.w);
  const unit = z / (camera.focal * layout.canvas.w);
  /** @type {Shape} */
  let shape = { x, z, y: near ? 0 : Math.max(0, heightAt(camera, layout.canvas, middle.y, z)), w: box.w * unit, h: box.h * unit, d: 0.6 * box.w * unit, yaw: 0, pitch: 0, roll: rot ?? 0 };
  // Its front is nearer than its middle and its sides show: sizes and place are brought to fit together.
  for (let round = 0; round < 24; round += 1) {
    const found = boundsOf(outline(shape, camera, layout.canvas));
    if (!Number.isFinite(found.w) || !found.w || !found.h) return box;
    const grow = Math.min(2, Math.max(0.5, box.w / found.w));
    shape = { ...shape, w: shape.w * grow, d: shape.d * grow, h: shape.h * Math.min(2, Math.max(0.5, box.h / found.h)) };
    const now = boundsOf(outline(shape, camera, layout.canvas));
    shape = shifted(shape, middle.x - now.x - now.w / 2, middle.y - now.y - now.h, layout);
  }
  return projected(/** @type {Box} */ (upright), shape, layout) ?? box;
}

/** @param {Box} box @returns {Box} the silhouette's box alone */
export function toFlat(box) {
  const { solid: _gone, ...flat } = box;
  return flat;
}

/** The same numbers but for some of them, as a panel sets them. @param {Box} box @param {Partial<Shape>} change @param {Layout} layout @returns {Box} */
export function reshaped(box, change, layout) {
  return box.solid ? seen(box, { ...shapeOf(box), ...change }, layout) : box;
}

/** @param {Box} box @returns {Shape} */
function shapeOf(box) {
  const { at: _at, ...shape } = /** @type {import("../schema.js").Solid} */ (box.solid);
  return shape;
}

/** The directions of a cuboid's width and depth on the ground. @param {Shape} shape @returns {{right: {x: number, z: number}, ahead: {x: number, z: number}}} */
function axesOf({ yaw }) {
  const angle = (yaw * Math.PI) / 180;
  return { right: { x: Math.cos(angle), z: -Math.sin(angle) }, ahead: { x: Math.sin(angle), z: Math.cos(angle) } };
}

/** Where the handles stand in the scene. @param {Shape} shape @returns {Record<string, {x: number, y: number, z: number}>} */
function handlesOf(shape) {
  const { x, y, z, w, d } = shape;
  const { right, ahead } = axesOf(shape);
  const at = (/** @type {number} */ across, /** @type {number} */ along) => ({ x: x + across * right.x + along * ahead.x, y, z: z + across * right.z + along * ahead.z });
  return {
    ground: at(0, 0),
    away: at(-w / 2, 0),
    wide: at(w / 2, 0),
    deep: at(w / 2, -d / 2),
    spin: at(0, -d / 2 - OFF * Math.max(w, d)),
    rise: { x, y: y + extentOf(shape), z },
  };
}

/** A cuboid with one of its handles at a point of the canvas. @param {Shape} shape @param {string} handle @param {Point} at @param {import("./index.js").Pull} pull @returns {Shape} */
function pulled(shape, handle, at, { layout, aspect, turnTo }) {
  const { canvas } = layout;
  const camera = cameraOf(layout);
  if (handle === "rise") {
    const grow = Math.max(SMALLEST, heightAt(camera, canvas, at.y, shape.z) - shape.y) / extentOf(shape);
    return aspect ? { ...shape, w: shape.w * grow, h: shape.h * grow, d: shape.d * grow } : { ...shape, h: shape.h * grow };
  }
  const base = pointOf(camera, canvas, handlesOf(shape).ground);
  if (handle === "ground" || handle === "away") {
    const from = handlesOf(shape)[handle];
    const held = pointOf(camera, canvas, from);
    if (!base || !held) return shape;
    return shifted(shape, handle === "away" ? 0 : at.x - held.x, at.y - held.y, layout);
  }
  const to = groundAt(camera, canvas, at, shape.y);
  if (!to) return shape;
  const [dx, dz] = [to.x - shape.x, to.z - shape.z];
  const { right, ahead } = axesOf(shape);
  if (handle === "spin") return { ...shape, yaw: normaliseAngle(turnTo((Math.atan2(-dx, -dz) * 180) / Math.PI)) };
  const [across, along] = [Math.abs(dx * right.x + dz * right.z), Math.abs(dx * ahead.x + dz * ahead.z)];
  if (handle === "wide") return aspect ? scaled(shape, (2 * across) / shape.w) : { ...shape, w: 2 * across };
  return aspect ? scaled(shape, (2 * along) / shape.d) : { ...shape, d: 2 * along };
}

/** @param {Shape} shape @param {number} by @returns {Shape} */
function scaled(shape, by) {
  return { ...shape, w: shape.w * by, h: shape.h * by, d: shape.d * by };
}

/** Moved on its ground, so that what it stands on is seen so many pixels further. @param {Shape} shape @param {number} dx @param {number} dy @param {Layout} layout @returns {Shape} */
function shifted(shape, dx, dy, layout) {
  const { canvas } = layout;
  const camera = cameraOf(layout);
  const base = pointOf(camera, canvas, shape);
  if (!base) return shape;
  if (Math.abs(camera.height - shape.y) < EDGE_ON) {
    // At the height of the eye the ground has no depth: it moves across and up.
    const unit = shape.z / (camera.focal * canvas.w);
    return { ...shape, x: shape.x + dx * unit, y: Math.max(0, shape.y - dy * unit) };
  }
  const to = groundAt(camera, canvas, { x: base.x + dx, y: base.y + dy }, shape.y);
  if (to && to.z > 0 && Math.hypot(to.x, to.z) < LARGEST) return { ...shape, ...to };
  // Beyond the horizon there is no ground: across alone.
  const level = groundAt(camera, canvas, { x: base.x + dx, y: base.y }, shape.y);
  return level ? { ...shape, ...level } : shape;
}

/**
 * As a box is moved and resized: the cuboid grows by as much, and stands where its silhouette's lower edge is the box's.
 * @param {Box} box @param {Rect} rect @param {Layout} layout @returns {Box}
 */
function placed(box, rect, layout) {
  let shape = shapeOf(box);
  const grow = [rect.w / box.w, rect.h / box.h].map((share) => (Math.abs(share - 1) < 1e-4 ? 1 : share));
  shape = { ...shape, w: shape.w * grow[0], d: shape.d * grow[0], h: shape.h * grow[1] };
  let [dx, dy] = [rect.x + rect.w / 2 - box.x - box.w / 2, rect.y + rect.h - box.y - box.h];
  if (grow[0] === 1 && grow[1] === 1 && Math.abs(dx) < CLOSE && Math.abs(dy) < CLOSE) return seen(box, shape, layout);
  let best = null;
  let off = Infinity;
  for (let round = 0; round < ROUNDS && Math.max(Math.abs(dx), Math.abs(dy)) >= CLOSE; round += 1) {
    shape = shifted(shape, dx, dy, layout);
    const now = project(shape, cameraOf(layout), layout.canvas);
    if (!now) break;
    [dx, dy] = [rect.x + rect.w / 2 - now.x - now.w / 2, rect.y + rect.h - now.y - now.h];
    if (Math.hypot(dx, dy) >= off) break;
    [best, off] = [shape, Math.hypot(dx, dy)];
    // What the frame cuts off has no edge of its own to go by.
    if (now.x === 0 || now.y + now.h >= layout.canvas.h || now.x + now.w >= layout.canvas.w) break;
  }
  return best ? seen(box, best, layout) : seen(box, shape, layout);
}

/** The box with this cuboid, unless too little of it would be seen. @param {Box} box @param {Shape} shape @param {Layout} layout @returns {Box} */
function seen(box, shape, layout) {
  const next = projected(box, shape, layout);
  if (!next) return box;
  const enough = (/** @type {"w" | "h"} */ side) => next[side] >= Math.min(LEAST_SEEN, box[side]);
  return enough("w") && enough("h") ? next : box;
}

/** @param {Box} box @param {Shape} shape @param {Layout} layout @returns {Box | null} */
function projected(box, shape, layout) {
  const kept = bounded(shape);
  const rect = project(kept, cameraOf(layout), layout.canvas);
  if (!rect) return null;
  const same = box.solid && Object.entries(kept).every(([key, value]) => value === /** @type {Record<string, unknown>} */ (box.solid)[key]);
  if (same && rect.x === box.x && rect.y === box.y && rect.w === box.w && rect.h === box.h) return box;
  return { ...box, ...rect, solid: { ...kept, at: [rect.x, rect.y, rect.w, rect.h] } };
}

/** To 1/1000, in the order in which they are written. @param {Shape} shape @returns {Shape} */
function bounded({ x, z, y, w, h, d, yaw, pitch, roll }) {
  const limit = (/** @type {number} */ value, /** @type {number} */ low) => Math.floor(Math.min(LARGEST, Math.max(low, value)) * 1000 + 0.5) / 1000;
  return {
    x: limit(x, -LARGEST), z: limit(z, -LARGEST), y: limit(y, 0), w: limit(w, SMALLEST), h: limit(h, SMALLEST), d: limit(d, SMALLEST),
    yaw: normaliseAngle(yaw), pitch: normaliseAngle(pitch), roll: normaliseAngle(roll),
  };
}

/** @param {Shape} shape @param {KeyboardEvent} event @param {Layout} layout @returns {Shape | null} */
function keyed(shape, { key, shiftKey, altKey }, layout) {
  const share = altKey ? FINE : STEP;
  const grow = 1 + share;
  // Across by a share of what the canvas shows at its distance.
  const across = (share * Math.max(shape.z, SMALLEST)) / cameraOf(layout).focal;
  switch (shiftKey && key.startsWith("Arrow") ? `Shift${key}` : key) {
    case "ArrowLeft":
      return { ...shape, x: shape.x - across };
    case "ArrowRight":
      return { ...shape, x: shape.x + across };
    case "ArrowUp":
      return { ...shape, z: shape.z + share * Math.max(shape.z, SMALLEST) };
    case "ArrowDown":
      return { ...shape, z: shape.z - share * Math.max(shape.z, SMALLEST) };
    case "ShiftArrowLeft":
      return { ...shape, w: shape.w / grow };
    case "ShiftArrowRight":
      return { ...shape, w: shape.w * grow };
    case "ShiftArrowUp":
      return { ...shape, h: shape.h * grow };
    case "ShiftArrowDown":
      return { ...shape, h: shape.h / grow };
    case ",":
      return { ...shape, d: shape.d / grow };
    case ".":
      return { ...shape, d: shape.d * grow };
    case "r":
      return { ...shape, yaw: shape.yaw + (altKey ? 1 : TURN) };
    case "R":
      return { ...shape, yaw: shape.yaw - (altKey ? 1 : TURN) };
    case "w":
      return { ...shape, y: shape.y + share * shape.h };
    case "s":
      return { ...shape, y: Math.max(0, shape.y - share * shape.h) };
    default:
      return null;
  }
}
