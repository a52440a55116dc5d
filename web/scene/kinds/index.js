/**
 * The kinds of boxes. A kind says where a box of its sort lies, how it is taken hold of and what is drawn of it; all the
 * rest (order, binding, layers, undo) is the same for all. A new kind is a file here and an entry in KINDS.
 *
 * @typedef {import("../schema.js").Box} Box
 * @typedef {import("../schema.js").Layout} Layout
 * @typedef {import("../schema.js").Rect} Rect
 * @typedef {{x: number, y: number}} Point
 * @typedef {{id: string, cursor: string}} Handle
 * @typedef {{kind: "edge" | "behind" | "front", paths: readonly (readonly Point[])[]}} Line  lines of one kind
 * @typedef {{layout: Layout, aspect: number | null, snap: (to: Point) => Point, turnTo: (degrees: number) => number}} Pull
 *   aspect: width / height to keep; snap: a point drawn to nearby lines; turnTo: an angle drawn to round ones
 * @typedef {{
 *   name: string,
 *   is: (box: Box) => boolean,
 *   corners: (box: Rect & {rot?: number}) => Point[],
 *   hit: (box: Box, point: Point) => boolean,
 *   handles: readonly Handle[],
 *   where: (box: Box, handle: string, layout: Layout) => Point | null,
 *   drag: (box: Box, handle: string, from: Point, to: Point, pull: Pull) => Box,
 *   place: (box: Box, rect: Rect, layout: Layout) => Box,
 *   settle: (box: Box, layout: Layout) => Box,
 *   rescale: (box: Box, rect: Rect, layout: Layout) => Box,
 *   lines: (box: Box, layout: Layout) => readonly Line[],
 *   key: (box: Box, event: KeyboardEvent, layout: Layout) => Box | null,
 * }} Kind
 *   corners: the outline on the canvas, clockwise; hit: whether a point of the canvas lies on it; where: a handle's place on
 *   the canvas, null = not seen; drag: the box with one of its handles drawn from one point of the canvas to another; place:
 *   the box as another rectangle, as nearly as it can be; settle: as it may stand in a layout; rescale: on a canvas that has
 *   just got another size; lines: what is drawn beside its frame, in pixels of the canvas; key: the box after a key, null =
 *   not a key of this kind
 */

import { boundsOf } from "../../kit/matrix.js";
import { flat } from "./flat.js";
import { solid } from "./solid.js";

/** The first that says yes; the last takes all. @type {readonly Kind[]} */
const KINDS = [solid, flat];

/** @param {Box} box @returns {Kind} */
export function kindOf(box) {
  return KINDS.find((kind) => kind.is(box)) ?? flat;
}

/** The room that a box takes: its frame, turned; where a method finds its tokens. @param {Rect & {rot?: number}} box @returns {Rect} */
export function regionOf(box) {
  return box.rot ? boundsOf(flat.corners(box)) : { x: box.x, y: box.y, w: box.w, h: box.h };
}
