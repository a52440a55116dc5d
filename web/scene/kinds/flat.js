/** A rectangle of the canvas, which may be turned about its centre. */

import { centreOf, cornersOf, normaliseAngle, turn } from "../../kit/matrix.js";
import { contains, handlePoint, HANDLES, resize } from "../geometry.js";
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
    ...HANDLES.map((id) => ({ id, ...handlePoint({ x: 0, y: 0, w: 1, h: 1 }, id), cursor: `${CURSORS[id]}-resize` })),
    { id: TURN, x: 0.5, y: 0, cursor: "grab" },
  ],
  drag(box, handle, from, to, pull) {
    if (handle === TURN) return turned(box, from, to, pull);
    return box.rot ? resizedTurned(box, /** @type {Edge} */ (handle), from, to, pull) : resized(box, /** @type {Edge} */ (handle), from, to, pull);
  },
  place: (box, rect) => ({ ...box, ...pick(rect) }),
  rescale: (box, rect) => ({ ...box, ...pick(rect) }),
  lines: () => [],
  key: () => null,
};

/** @param {Rect} rect @returns {Rect} */
function pick({ x, y, w, h }) {
  return { x, y, w, h };
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
