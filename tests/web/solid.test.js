import { readFileSync } from "node:fs";
import { inflateSync } from "node:zlib";

import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { planesOf } from "../../web/render/routing.js";
import { reduce } from "../../web/scene/actions.js";
import { groundAt, heightAt, horizonOf, pointOf, project } from "../../web/scene/camera.js";
import { kindOf } from "../../web/scene/kinds/index.js";
import { toFlat, toSolid } from "../../web/scene/kinds/solid.js";
import { DEFAULT_PREFERENCES, parseLayout, serialiseLayout } from "../../web/scene/schema.js";

const vectors = (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), "utf8"));
const CANVAS = { w: 1000, h: 1000 };
const SHAPE = { x: 0.2, z: 4, y: 0, w: 1, h: 1.5, d: 0.8, yaw: 20, pitch: 0, roll: 0 };

const numbers = (min, max) => fc.double({ min, max, noNaN: true });
const cameras = fc.record({ focal: numbers(0.4, 2.5), height: numbers(0.3, 4), pitch: numbers(-40, 60) });

/** A layout with one flat box and, where it can be seen, one cuboid. */
function layoutWith(shape = SHAPE, camera = undefined, canvas = CANVAS) {
  const rect = project(shape, camera ?? { focal: 1, height: 1, pitch: 0 }, canvas);
  const boxes = [{ id: "flat", x: 10, y: 10, w: 100, h: 80, ref: null, label: "", locked: false }];
  if (rect) boxes.push({ id: "a", ...rect, ref: "Anna", label: "", locked: false, solid: { ...shape, at: [rect.x, rect.y, rect.w, rect.h] } });
  return { canvas, boxes, editor: { ...DEFAULT_PREFERENCES }, ...(camera ? { camera } : {}) };
}

const stateOf = (layout) => ({ layout, selection: ["a"] });
const cuboid = (state) => state.layout.boxes.find((box) => box.id === "a");

/** What must hold for each cuboid in a layout, whatever was done to it. */
function inStep({ layout }) {
  for (const box of layout.boxes) {
    if (!box.solid) continue;
    const { at, ...shape } = box.solid;
    expect({ x: box.x, y: box.y, w: box.w, h: box.h }).toEqual(project(shape, layout.camera ?? { focal: 1, height: 1, pitch: 0 }, layout.canvas));
    expect(at).toEqual([box.x, box.y, box.w, box.h]);
  }
  const solids = ({ boxes }) => boxes.filter((box) => box.solid);
  expect(solids(parseLayout(serialiseLayout(layout), layout.canvas).layout)).toEqual(solids(layout));
}

describe("the vectors shared with Python", () => {
  it.each(vectors("solid_box"))("the silhouette's box: $name", ({ solid, camera, canvas, box, horizon }) => {
    const rect = project(solid, camera, canvas);
    if (box === null) expect(rect).toBeNull();
    else [rect.x, rect.y, rect.w, rect.h].forEach((side, i) => expect(Math.abs(side - box[i])).toBeLessThan(0.011));
    expect(horizonOf(camera, canvas)).toBeCloseTo(horizon, 4);
  });

  it.each(vectors("control_planes"))("the control picture: $name", ({ layout: text, planes }) => {
    const { layout } = parseLayout(text, CANVAS);
    const { w, h } = layout.canvas;
    const drawn = planesOf(layout, layout.boxes, w, h);
    ["ascending", "descending", "depth"].forEach((name, i) => {
      const want = inflateSync(Buffer.from(planes[i], "base64"));
      const differ = drawn[name].reduce((sum, grey, at) => sum + (grey !== want[at] ? 1 : 0), 0);
      expect(differ, name).toBeLessThanOrEqual(2);
    });
  });
});

describe("the camera", () => {
  it("what is under a point of the canvas is seen at that point", () => {
    fc.assert(
      fc.property(cameras, numbers(0, 1000), numbers(0, 1000), numbers(0, 3), (camera, x, y, height) => {
        const there = groundAt(camera, CANVAS, { x, y }, height);
        const seen = there && pointOf(camera, CANVAS, { ...there, y: height });
        if (!there || there.z > 1e4 || !seen || Math.abs(camera.height - height) < 0.01) return;
        expect(Math.hypot(seen.x - x, seen.y - y)).toBeLessThan(0.01);
        expect(heightAt(camera, CANVAS, seen.y, there.z)).toBeCloseTo(height, 3);
      }),
    );
  });
});

describe("what is done to a cuboid", () => {
  it("moving its box moves it on its ground: the box lands where it was put", () => {
    const before = stateOf(layoutWith());
    const box = cuboid(before);
    const after = reduce(before, { type: "place", rects: [{ id: "a", x: box.x + 60, y: box.y + 30, w: box.w, h: box.h }] });
    const moved = cuboid(after);
    expect(moved.solid.z).toBeLessThan(4);
    expect(moved.solid).toMatchObject({ y: 0, w: 1, h: 1.5, d: 0.8, yaw: 20 });
    expect(moved.x + moved.w / 2 - box.x - box.w / 2).toBeCloseTo(60, 0);
    expect(moved.y + moved.h - box.y - box.h).toBeCloseTo(30, 0);
    inStep(after);
  });

  it("beyond the horizon there is no ground: it moves across alone", () => {
    const before = stateOf(layoutWith());
    const box = cuboid(before);
    const after = cuboid(reduce(before, { type: "place", rects: [{ id: "a", x: box.x, y: box.y - 900, w: box.w, h: box.h }] }));
    expect(after.solid.z).toBeGreaterThan(3.5);
    expect(after.y + after.h).toBeGreaterThan(500);
  });

  const pull = (layout) => ({ layout, aspect: null, snap: (at) => at, turnTo: (angle) => angle });
  it.each([
    ["ground", { x: 40, y: 20 }, (solid) => solid.x > 0.2 && solid.z < 4 && solid.w === 1 && solid.yaw === 20],
    ["away", { x: 0, y: -20 }, (solid) => solid.z > 4.3 && solid.h === 1.5],
    ["rise", { x: 0, y: -50 }, (solid) => Math.abs(solid.h - 1.7) < 1e-9 && solid.z === 4],
    ["wide", { x: 50, y: 0 }, (solid) => solid.w > 1.2 && solid.d === 0.8],
    ["deep", { x: 0, y: 20 }, (solid) => solid.d > 1 && solid.w === 1],
    ["spin", { x: 80, y: 0 }, (solid) => solid.yaw < 10 && solid.x === 0.2],
  ])("the handle %s", (handle, by, right) => {
    const layout = layoutWith();
    const box = layout.boxes[1];
    const kind = kindOf(box);
    const from = kind.where(box, handle, layout);
    const next = kind.drag(box, handle, from, { x: from.x + by.x, y: from.y + by.y }, pull(layout));
    expect(right(next.solid), JSON.stringify(next.solid)).toBe(true);
    inStep({ layout: { ...layout, boxes: [next] } });
    // The handle stays under the hand, but for one that moves along one direction only.
    const to = kind.where(next, handle, layout);
    expect(Math.abs(to.y - from.y - by.y)).toBeLessThan(handle === "deep" || handle === "spin" || handle === "wide" ? 40 : 2);
  });

  it("keys move, turn and resize it, and leave others to the editor", () => {
    const layout = layoutWith();
    const box = layout.boxes[1];
    const key = (name, more = {}) => kindOf(box).key(box, { key: name, ...more }, layout)?.solid;
    expect(key("ArrowRight").x).toBeGreaterThan(0.2);
    expect(key("ArrowUp").z).toBeGreaterThan(4);
    expect(key("ArrowDown", { altKey: true }).z).toBeCloseTo(3.98, 6);
    expect(key("ArrowUp", { shiftKey: true }).h).toBeGreaterThan(1.5);
    expect(key("ArrowLeft", { shiftKey: true }).w).toBeLessThan(1);
    expect(key("r").yaw).toBe(35);
    expect(key(".").d).toBeGreaterThan(0.8);
    expect(key("w").y).toBeGreaterThan(0);
    expect(key("Delete")).toBeUndefined();
    expect(key("ArrowUp", { ctrlKey: true })).toBeUndefined();
  });

  it("a flat box becomes the cuboid that shows it, and is the silhouette's box afterwards", () => {
    fc.assert(
      fc.property(numbers(0, 700), numbers(0, 700), numbers(60, 290), numbers(60, 290), cameras, (x, y, w, h, camera) => {
        const layout = { ...layoutWith(), camera };
        const box = { id: "b", x: Math.round(x), y: Math.round(y), w: Math.round(w), h: Math.round(h), ref: "Anna", label: "x", locked: false, group: "g" };
        const next = toSolid(box, layout);
        if (!next.solid) return;
        inStep({ layout: { ...layout, boxes: [next] } });
        expect(next).toMatchObject({ id: "b", ref: "Anna", label: "x", group: "g" });
        const back = toFlat(next);
        expect("solid" in back).toBe(false);
        expect([back.x, back.w]).toEqual([next.x, next.w]);
      }),
    );
    const layout = layoutWith();
    const box = { id: "b", x: 300, y: 420, w: 200, h: 300, ref: null, label: "", locked: false };
    const next = toSolid(box, layout);
    for (const side of ["x", "y", "w", "h"]) expect(Math.abs(next[side] - box[side]), side).toBeLessThan(2);
    expect(next.solid.y).toBe(0);
    const floats = toSolid({ ...box, y: 100, h: 200 }, layout);
    expect(floats.solid.y).toBeGreaterThan(0);
    for (const [side, want] of Object.entries({ x: 300, y: 100, w: 200, h: 200 })) expect(Math.abs(floats[side] - want), side).toBeLessThan(3);
  });

  it("another camera sees all of them anew; one that would lose one is refused", () => {
    const before = stateOf(layoutWith());
    const after = reduce(before, { type: "camera", camera: { focal: 1.5, height: 1.2, pitch: 5 } });
    expect(cuboid(after).solid).toMatchObject(SHAPE);
    expect(cuboid(after).w).not.toBe(cuboid(before).w);
    expect(after.layout.boxes[0]).toBe(before.layout.boxes[0]);
    inStep(after);
    expect(reduce(before, { type: "camera", camera: { focal: 1, height: 1, pitch: -80 } })).toBe(before);
    expect("camera" in reduce(after, { type: "camera", camera: { focal: 1, height: 1, pitch: 0 } }).layout).toBe(false);
  });

  it("a canvas of another size shows the same scene", () => {
    const after = reduce(stateOf(layoutWith()), { type: "canvas", size: { w: 500, h: 800 } });
    expect(cuboid(after).solid).toMatchObject(SHAPE);
    inStep(after);
  });

  it("a copy stands beside it; pasted where another camera does not see it, it is a plain box", () => {
    const before = stateOf(layoutWith());
    const doubled = reduce(before, { type: "duplicate" });
    expect(doubled.layout.boxes[2].solid.x).not.toBe(SHAPE.x);
    inStep(doubled);
    const looksUp = stateOf({ ...layoutWith(), boxes: [], camera: { focal: 1, height: 1, pitch: -80 } });
    const pasted = reduce(looksUp, { type: "paste", boxes: [cuboid(before)], canvas: CANVAS });
    expect(pasted.layout.boxes).toHaveLength(1);
    expect("solid" in pasted.layout.boxes[0]).toBe(false);
  });

  it("locked, it stays; the turn of a flat box does not touch it", () => {
    const layout = layoutWith();
    layout.boxes[1] = { ...layout.boxes[1], locked: true };
    const before = stateOf(layout);
    expect(reduce(before, { type: "nudge", dx: 40, dy: 0 })).toBe(before);
    expect(reduce(before, { type: "solid", ids: ["a"], on: false })).toBe(before);
    expect(reduce(stateOf(layoutWith()), { type: "layer", ids: ["a"], change: { rot: 30 } }).layout.boxes[1].rot).toBeUndefined();
  });

  it("whatever is done, its box stays its silhouette's, and what is written is read back", () => {
    const shapes = fc.record({ x: numbers(-1, 1), z: numbers(2, 8), y: numbers(0, 1), w: numbers(0.3, 2), h: numbers(0.3, 2), d: numbers(0.3, 2), yaw: numbers(-179, 180), pitch: fc.constantFrom(0, 20), roll: fc.constantFrom(0, -30) });
    const rounded = (shape) => Object.fromEntries(Object.entries(shape).map(([key, value]) => [key, Math.round(value * 100) / 100 + 0]));
    const step = fc.integer({ min: -400, max: 400 });
    const deeds = fc.oneof(
      fc.record({ type: fc.constant("nudge"), dx: step, dy: step }),
      fc.record({ type: fc.constant("grow"), dw: step, dh: step }),
      fc.record({ type: fc.constant("align"), how: fc.constantFrom("left", "center", "right", "top", "middle", "bottom") }),
      fc.record({ type: fc.constant("canvas"), size: fc.record({ w: fc.integer({ min: 200, max: 2000 }), h: fc.integer({ min: 200, max: 2000 }) }) }),
      fc.record({ type: fc.constant("camera"), camera: cameras.map((camera) => rounded(camera)) }),
      fc.constant({ type: "duplicate" }),
      fc.record({ type: fc.constant("flip"), ids: fc.constant(["a"]), axis: fc.constantFrom("h", "v") }),
    );
    fc.assert(
      fc.property(shapes, fc.array(deeds, { maxLength: 8 }), (shape, list) => {
        inStep(list.reduce(reduce, stateOf(layoutWith(rounded(shape)))));
      }),
    );
  });
});
