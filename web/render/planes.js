/**
 * What follows from a layout for the eye: which reference each box shows, where its subject lands, who hides whom. One for
 * all views of a store; computed anew only when something that counts has changed.
 *
 * @typedef {import("../scene/schema.js").Layout} Layout
 * @typedef {import("../scene/schema.js").Box} Box
 * @typedef {import("./references.js").Reference} Reference
 * @typedef {import("./references.js").ReferenceLibrary} ReferenceLibrary
 * @typedef {import("./place.js").Placement} Placement
 * @typedef {{box: Box, reference: Reference | null, missing: boolean, placement: Placement | null, covered: boolean, off: boolean}} Member
 *   covered: wholly behind others; off: hidden by the user
 * @typedef {{members: readonly Member[], painted: readonly Placement[], exact: boolean, order: readonly number[]}} Scene
 *   members: aligned with the boxes; painted: bottom first; order: indices of the boxes, bottom first
 */

import { isHidden } from "../scene/schema.js";
import { automaticOrder, visibleShares } from "../scene/order.js";
import { Masks } from "./masks.js";
import { placementOf } from "./place.js";

export class Planes {
  /** @param {ReferenceLibrary} library */
  constructor(library) {
    this.library = library;
    this.masks = new Masks();
    /** @type {{parts: readonly unknown[], scene: Scene} | null} */
    this.last = null;
  }

  /**
   * @param {Layout} layout @param {{fit: string, order: string}} node
   * @param {boolean} held  during a gesture: who paints when stays as last computed (masks cost time)
   * @returns {Scene}
   */
  of(layout, { fit, order }, held) {
    const { canvas, boxes, groups } = layout;
    const parts = [boxes, groups, canvas.w, canvas.h, this.library.references, fit, order, held];
    if (this.last && parts.every((part, i) => part === this.last?.parts[i])) return this.last.scene;
    const members = this.#members(layout, fit);
    const scene = held ? heldScene(members, this.last?.scene.order ?? []) : this.#scene(layout, members, order);
    this.last = { parts, scene };
    return scene;
  }

  /** The ids, bottom first, in the node's automatic order: boxes without a subject keep their places. @param {Layout} layout @param {Scene} scene @returns {string[]} */
  automaticIds(layout, scene) {
    const bound = scene.members.flatMap((member, index) => (member.placement ? [index] : []));
    const masks = this.masks.of(layout.canvas, bound.map((index) => scene.members[index]));
    const order = orderOf(masks).map((position) => bound[position]);
    return layout.boxes.map((box, index) => {
      const place = bound.indexOf(index);
      return place < 0 ? box.id : layout.boxes[order[place]].id;
    });
  }

  /** @param {Layout} layout @param {string} fit @returns {Member[]} */
  #members(layout, fit) {
    return layout.boxes.map((box) => {
      const reference = box.ref === null ? null : this.library.find(box.ref);
      const off = isHidden(box, layout);
      const cutout = off ? null : (reference?.cutout ?? null);
      const placement = cutout && placementOf(box, fit, layout.canvas, cutout);
      return { box, reference, missing: box.ref !== null && !reference, placement, covered: false, off };
    });
  }

  /** @param {Layout} layout @param {readonly Member[]} members @param {string} rule @returns {Scene} */
  #scene(layout, members, rule) {
    const masks = this.masks.of(layout.canvas, members);
    const order = rule === "automatic" ? orderOf(masks) : members.map((_, index) => index);
    const shares = visibleShares(order.map((index) => masks[index]));
    const covered = new Set(order.filter((_, place) => shares[place] === 0));
    return sceneOf(members.map((member, index) => (covered.has(index) ? { ...member, covered: true } : member)), order);
  }
}

/** @param {readonly Member[]} members @param {readonly number[]} before */
function heldScene(members, before) {
  return sceneOf(members, before.length === members.length ? before : members.map((_, index) => index));
}

/** Painting order by the node's automatic rule; boxes without a subject stay in front, where they do nothing. @param {readonly (Uint8Array | null)[]} masks */
function orderOf(masks) {
  const length = masks.find((mask) => mask)?.length ?? 0;
  return automaticOrder(masks.map((mask) => mask ?? new Uint8Array(length)));
}

/** @param {readonly Member[]} members @param {readonly number[]} order @returns {Scene} */
function sceneOf(members, order) {
  const painted = order.flatMap((index) => members[index].placement ?? []);
  const exact = members.every((member) => member.off || !member.reference || (member.placement !== null && member.reference.exact));
  return { members, painted, exact, order };
}
