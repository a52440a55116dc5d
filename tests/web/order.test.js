import { readFileSync } from "node:fs";

import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { automaticOrder, visibleShares } from "../../web/scene/order.js";
import { idColour } from "../../web/scene/colours.js";
import { pasteRect } from "../../web/render/place.js";

const vectors = (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), "utf8"));

function maskOf([width, height], [x, y, w, h]) {
  const mask = new Uint8Array(width * height);
  for (let row = y; row < y + h; row += 1) mask.fill(1, row * width + x, row * width + x + w);
  return mask;
}

describe("the vectors shared with Python", () => {
  it.each(vectors("automatic_order").map((entry, index) => ({ ...entry, index })))("order $index", ({ canvas, rects, order }) => {
    expect(automaticOrder(rects.map((rect) => maskOf(canvas, rect)))).toEqual(order);
  });

  it.each(vectors("paste_rect").map((entry, index) => ({ ...entry, index })))("paste $index: $fit", ({ fit, box, image, subject, rect }) => {
    const [x1, y1, x2, y2] = box;
    const got = pasteRect(fit, { x1, y1, x2, y2 }, { width: image[0], height: image[1], subject });
    expect([got.x, got.y, got.w, got.h]).toEqual(rect);
  });
});

it.each(vectors("box_colour"))("colour of $id", ({ id, colour }) => {
  expect(idColour(id)).toBe(colour);
});

const rects = fc.array(
  fc.record({ x: fc.nat(20), y: fc.nat(15), w: fc.nat(11), h: fc.nat(8) }).map(({ x, y, w, h }) => [x, y, w, h]),
  { maxLength: 7 },
);

it("an order is a permutation with empty masks last", () => {
  fc.assert(
    fc.property(rects, (list) => {
      const masks = list.map((rect) => maskOf([32, 24], rect));
      const order = automaticOrder(masks);
      expect([...order].sort((a, b) => a - b)).toEqual(masks.map((_, i) => i));
      const empty = order.map((i) => !masks[i].some(Boolean));
      expect(empty).toEqual([...empty].sort((a, b) => Number(a) - Number(b)));
    }),
  );
});

it("what lies wholly inside another is painted after it", () => {
  const outer = maskOf([32, 24], [2, 2, 20, 20]);
  const inner = maskOf([32, 24], [5, 5, 4, 4]);
  expect(automaticOrder([inner, outer])).toEqual([1, 0]);
});

it("shares: the front is whole, the covered part of the back is missing, nothing is null", () => {
  const back = maskOf([10, 10], [0, 0, 10, 10]);
  const front = maskOf([10, 10], [0, 0, 5, 10]);
  expect(visibleShares([back, front])).toEqual([0.5, 1]);
  expect(visibleShares([front, back])).toEqual([0, 1]);
  expect(visibleShares([null, front, new Uint8Array(100)])).toEqual([null, 1, null]);
});
