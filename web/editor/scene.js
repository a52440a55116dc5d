/**
 * What follows from a state for the eye: which reference each box shows, where its subject lands, who is hidden.
 *
 * @typedef {import("./model.js").Layout} Layout
 * @typedef {import("./model.js").Box} Box
 * @typedef {import("./references.js").Reference} Reference
 * @typedef {import("./references.js").ReferenceLibrary} ReferenceLibrary
 * @typedef {import("./preview.js").Placement} Placement
 * @typedef {{fit: string, order: string, following: boolean, seeding: boolean, readOnly: boolean, picture: string | null,
 *   run: {url: string, layout: Layout, warnings: readonly string[]} | null}} Environment  what the node's other inputs and its last run say
 * @typedef {{box: Box, reference: Reference | null, missing: boolean, placement: Placement | null, hidden: boolean}} Member
 * @typedef {{members: readonly Member[], painted: readonly Placement[], exact: boolean}} Scene
 *   members: aligned with the boxes; painted: bottom first
 */

import { automaticOrder, visibleShares } from "./order.js";
import { pasteRect, placedMasks } from "./preview.js";

/**
 * @param {Layout} layout @param {ReferenceLibrary} library @param {Environment} environment
 * @param {{order: readonly number[]} | null} held  during a gesture: who paints when, as last computed (masks cost time)
 * @returns {Scene & {order: readonly number[]}}
 */
export function buildScene(layout, library, environment, held = null) {
  const members = layout.boxes.map((box) => {
    const reference = box.ref === null ? null : library.find(box.ref);
    const cutout = reference?.cutout ?? null;
    const placement = cutout && { cutout, rect: pasteRect(environment.fit, box, layout.canvas, cutout) };
    return { box, reference, missing: box.ref !== null && !reference, placement, hidden: false };
  });
  const drawn = members.map((_, index) => index);
  if (held) {
    const order = held.order.length === members.length ? held.order : drawn;
    return { ...sceneOf(members, order), order };
  }
  const masks = placedMasks(layout.canvas, members.map((member) => member.placement));
  const order = environment.order === "automatic" ? orderOf(masks) : drawn;
  const shares = visibleShares(order.map((index) => masks[index]));
  order.forEach((index, place) => {
    members[index].hidden = shares[place] === 0;
  });
  return { ...sceneOf(members, order), order };
}

/** Painting order by the node's automatic rule; boxes without a subject stay in front, where they do nothing. @param {readonly (Uint8Array | null)[]} masks */
export function orderOf(masks) {
  const length = masks.find((mask) => mask)?.length ?? 0;
  return automaticOrder(masks.map((mask) => mask ?? new Uint8Array(length)));
}

/** The ids, bottom first, in the node's automatic order: boxes without a subject keep their places. @param {Layout} layout @param {Scene} scene @returns {string[]} */
export function automaticIds(layout, scene) {
  const bound = scene.members.flatMap((member, index) => (member.placement ? [index] : []));
  const masks = placedMasks(layout.canvas, bound.map((index) => scene.members[index].placement));
  const order = orderOf(masks).map((position) => bound[position]);
  return layout.boxes.map((box, index) => {
    const place = bound.indexOf(index);
    return place < 0 ? box.id : layout.boxes[order[place]].id;
  });
}

/** @param {readonly Member[]} members @param {readonly number[]} order @returns {Scene} */
function sceneOf(members, order) {
  const painted = order.flatMap((index) => members[index].placement ?? []);
  const exact = members.every((member) => !member.reference || (member.placement !== null && member.reference.exact));
  return { members, painted, exact };
}
