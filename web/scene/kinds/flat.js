/** A rectangle of the canvas, which may be turned about its centre. */

import { boundsOf, centreOf, cornersOf, normaliseAngle, turn } from "../../kit/matrix.js";
import { confine, contains, handlePoint, HANDLES, MIN_SIDE, resize } from "../geometry.js";
import { MAX_TURNED } from "../schema.js";

/** @typedef {import("../schema.js").Box} Box @typedef {import("../schema.js").Rect} Rect @typedef {import("../geometry.js").Handle} Edge */

const CURSORS = { nw: "nwse", n: "ns", ne: "nesw", e: "ew", se: "nwse", s: "ns", sw: "nesw", w: "ew" };
const TURN = "turn";

/** @type {import("./index.js").Kind} */
export const flat = {
  name: "flat",
  is: () => true,
  corners: (box) => cornersOf(box, box.rot ?? 0),
  hit(box, point) {
    const { x, y } = turn(point, centreOf(box), -(box.rot ?? 0));
    return contains(box, x, y);
  },
  handles: [
    ...HANDLES.map((id) => ({ id, cursor: `${CURSORS[id]}-resize` })),
    { id: TURN, cursor: "grab" },
  ],
  where: (box, id) => turn(handlePoint(box, /** @type {Edge} */ (id === TURN ? "n" : id)), centreOf(box), box.rot ?? 0),
  drag(box, handle, from, to, pull) {
    if (handle === TURN) return turned(box, from, to, pull);
    return box.rot ? resizedTurned(box, /** @type {Edge} */ (handle), from, to, pull) : resized(box, /** @type {Edge} */ (handle), from, to, pull);
  },
  place: (box, rect, layout) => at(box, wholePixels(rect, box.rot ?? 0, layout)),
  settle: (box, layout) => at(box, wholePixels(box, box.rot ?? 0, layout)),
  rescale: (box, rect) => at(box, rect),
  lines: () => [],
  key: () => null,
};

/** @param {Box} box @param {Rect} rect @returns {Box} */
function at(box, { x, y, w, h }) {
  return x === box.x && y === box.y && w === box.w && h === box.h ? box : { ...box, x, y, w, h };
}

/** Whole pixels, inside the canvas as far as the user wants that; a turned box by the room it takes. @param {Rect} rect @param {number} rot @param {import("../schema.js").Layout} layout @returns {Rect} */
function wholePixels(rect, rot, { canvas, editor }) {
  const whole = {
    x: Math.round(rect.x),
    y: Math.round(rect.y),
    w: Math.max(MIN_SIDE, Math.round(rect.w)),
    h: Math.max(MIN_SIDE, Math.round(rect.h)),
  };
  if (!rot) return confine(whole, canvas, editor.inside);
  const region = boundsOf(cornersOf(whole, rot));
  // What turned is larger than the canvas stays around its middle.
  const fits = region.w <= canvas.w && region.h <= canvas.h;
  const target = confine(region, canvas, editor.inside && fits);
  const [dx, dy] = [Math.round(target.x - region.x), Math.round(target.y - region.y)];
  return { ...whole, x: clampFrame(whole.x + dx, whole.w, canvas.w), y: clampFrame(whole.y + dy, whole.h, canvas.h) };
}

/** The untouched frame of a turned box reaches into the canvas, too: the format asks for it. @param {number} at @param {number} size @param {number} side */
function clampFrame(at, size, side) {
  return Math.min(Math.max(at, 1 - size), side - 1);
}

/** @param {Box} box @param {import("./index.js").Point} from @param {import("./index.js").Point} to @param {import("./index.js").Pull} pull @returns {Box} */
function turned(box, from, to, { turnTo }) {
  const centre = centreOf(box);
  const angle = (/** @type {import("./index.js").Point} */ at) => (Math.atan2(at.y - centre.y, at.x - centre.x) * 180) / Math.PI;
  const rot = normaliseAngle(turnTo((box.rot ?? 0) + angle(to) - angle(from)));
  const { rot: _rot, ...rest } = box;
  return rot ? { ...rest, rot } : rest;
}

/** @param {Box} box @param {Edge} handle @param {import("./index.js").Point} from @param {import("./index.js").Point} to @param {import("./index.js").Pull} pull @returns {Box} */
function resized(box, handle, from, to, { layout, aspect, snap }) {
  const held = handlePoint(box, handle);
  const snapped = snap({ x: held.x + to.x - from.x, y: held.y + to.y - from.y });
  const { canvas, editor } = layout;
  return { ...box, ...resize(box, handle, snapped.x - held.x, snapped.y - held.y, { canvas, inside: editor.inside, aspect }) };
}

/** Along its own axes; the edge or corner opposite to the handle stays where it is seen. @param {Box} box @param {Edge} handle @param {import("./index.js").Point} from @param {import("./index.js").Point} to @param {import("./index.js").Pull} pull @returns {Box} */
function resizedTurned(box, handle, from, to, { layout, aspect }) {
  const rot = box.rot ?? 0;
  const by = turn({ x: to.x - from.x, y: to.y - from.y }, { x: 0, y: 0 }, -rot);
  const next = resize(box, handle, by.x, by.y, { canvas: layout.canvas, inside: false, free: true, aspect });
  const most = MAX_TURNED * Math.max(layout.canvas.w, layout.canvas.h);
  if (next.w > most || next.h > most) return box;
  const centre = turn(centreOf(next), centreOf(box), rot);
  return { ...box, w: next.w, h: next.h, x: centre.x - next.w / 2, y: centre.y - next.h / 2 };
}
