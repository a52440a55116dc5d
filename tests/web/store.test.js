import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { reduce } from "../../web/scene/actions.js";
import { LIMIT } from "../../web/kit/history.js";
import { MAX_BOXES, parseLayout, serialiseLayout } from "../../web/scene/schema.js";
import { Store } from "../../web/scene/store.js";
import { actions, layouts } from "./arbitraries.js";

const sequences = fc.array(actions, { maxLength: 12 });
const run = (layout, list) => list.reduce(reduce, { layout, selection: [] });

describe("actions", () => {
  it("any sequence leaves a layout that reads back, and a selection that exists", () => {
    fc.assert(
      fc.property(layouts, sequences, (layout, list) => {
        const { layout: after, selection } = run(layout, list);
        expect(parseLayout(serialiseLayout(after), layout.canvas).problem).toBeNull();
        expect(after.boxes.length).toBeLessThanOrEqual(MAX_BOXES);
        expect(new Set(selection).size).toBe(selection.length);
        for (const id of selection) expect(after.boxes.some((box) => box.id === id)).toBe(true);
      }),
    );
  });

  it("order actions permute and change nothing else", () => {
    const ordering = fc.array(actions.filter(({ type }) => ["select", "step", "moveTo", "arrange"].includes(type)), { maxLength: 10 });
    fc.assert(
      fc.property(layouts, ordering, (layout, list) => {
        const { boxes } = run(layout, list).layout;
        const byId = (all) => [...all].sort((a, b) => a.id.localeCompare(b.id));
        expect(byId(boxes)).toEqual(byId(layout.boxes));
      }),
    );
  });

  it("to front and to back keep the others in their order", () => {
    fc.assert(
      fc.property(layouts, (layout) => {
        fc.pre(layout.boxes.length > 2);
        const state = reduce({ layout, selection: ["b2"] }, { type: "step", step: "front" });
        expect(state.layout.boxes.map((box) => box.id)).toEqual([...layout.boxes.map((box) => box.id).filter((id) => id !== "b2"), "b2"]);
        expect(reduce(state, { type: "step", step: "back" }).layout.boxes[0].id).toBe("b2");
      }),
    );
  });

  it("forward then backward is where it began", () => {
    fc.assert(
      fc.property(layouts, (layout) => {
        fc.pre(layout.boxes.length > 1);
        const state = { layout, selection: ["b1"] };
        const there = reduce(state, { type: "step", step: "forward" });
        expect(reduce(there, { type: "step", step: "backward" })).toEqual(state);
      }),
    );
  });

  it("a locked box keeps its place and size and cannot be deleted", () => {
    const moving = fc.array(actions.filter(({ type }) => ["select", "nudge", "grow", "remove", "align", "distribute"].includes(type)), { maxLength: 10 });
    fc.assert(
      fc.property(layouts, moving, (layout, list) => {
        const locked = { ...layout, boxes: layout.boxes.map((box) => ({ ...box, locked: true })) };
        expect(run(locked, list).layout).toEqual(locked);
      }),
    );
  });

  it("a nudge keeps the selection's shape: all move by the same amount, and stay inside", () => {
    fc.assert(
      fc.property(layouts, fc.integer({ min: -5000, max: 5000 }), fc.integer({ min: -5000, max: 5000 }), (layout, dx, dy) => {
        const free = { ...layout, boxes: layout.boxes.map((box) => ({ ...box, locked: false })) };
        const ids = free.boxes.map((box) => box.id);
        const { boxes } = reduce({ layout: free, selection: ids }, { type: "nudge", dx, dy }).layout;
        const shifts = new Set(boxes.map((box, i) => `${box.x - free.boxes[i].x},${box.y - free.boxes[i].y}`));
        expect(shifts.size).toBeLessThanOrEqual(1);
        for (const box of boxes) expect(box.x >= 0 && box.y >= 0 && box.x + box.w <= free.canvas.w && box.y + box.h <= free.canvas.h).toBe(true);
      }),
    );
  });

  it("scaling the canvas there and back gives the boxes back", () => {
    fc.assert(
      fc.property(layouts, ({ boxes, canvas, editor }) => {
        const there = reduce({ layout: { boxes, canvas, editor }, selection: [] }, { type: "canvas", size: { w: canvas.w * 2, h: canvas.h * 3 } });
        const back = reduce(there, { type: "canvas", size: canvas });
        back.layout.boxes.forEach((box, i) => {
          for (const key of ["x", "y", "w", "h"]) expect(box[key]).toBeCloseTo(boxes[i][key], 6);
        });
      }),
    );
  });

  it("keeping pixels leaves a box alone that still fits", () => {
    const layout = parseLayout('{"v":1,"canvas":{"w":512,"h":512},"boxes":[{"id":"a","x":10,"y":20,"w":100,"h":50}],"editor":{"resize":"keep"}}', { w: 1, h: 1 }).layout;
    const { boxes } = reduce({ layout, selection: [] }, { type: "canvas", size: { w: 1024, h: 256 } }).layout;
    expect(boxes[0]).toMatchObject({ x: 10, y: 20, w: 100, h: 50 });
  });

  it("pasting scales boxes of another canvas, and steps aside from what is there", () => {
    const empty = parseLayout("", { w: 1000, h: 1000 }).layout;
    const [box] = parseLayout('[{"x":10,"y":10,"w":100,"h":100}]', { w: 500, h: 500 }).layout.boxes;
    const once = reduce({ layout: empty, selection: [] }, { type: "paste", boxes: [box], canvas: { w: 500, h: 500 } });
    expect(once.layout.boxes[0]).toMatchObject({ x: 20, y: 20, w: 200, h: 200 });
    const twice = reduce(once, { type: "paste", boxes: [box], canvas: { w: 500, h: 500 } });
    expect(twice.layout.boxes[1].x).toBeGreaterThan(20);
  });
});

describe("history", () => {
  it("undo is the inverse: all the way back is the beginning, all the way forward the end", () => {
    fc.assert(
      fc.property(layouts, sequences, (layout, list) => {
        const store = new Store(layout);
        for (const action of list) store.dispatch(action);
        const end = store.state.layout;
        while (store.undo());
        expect(store.state.layout).toEqual(layout);
        while (store.redo());
        expect(store.state.layout).toEqual(end);
      }),
    );
  });

  it("a gesture is one entry, however often it is shown; cancelled it is none", () => {
    const { layout } = parseLayout('[{"x":100,"y":100,"w":100,"h":100}]', { w: 1024, h: 1024 });
    const store = new Store(layout);
    store.begin();
    for (const x of [110, 120, 130]) store.preview({ type: "place", rects: [{ id: "b1", x, y: 100, w: 100, h: 100 }] });
    expect(store.commit()).toBe(true);
    expect(store.state.layout.boxes[0].x).toBe(130);
    expect(store.history.past).toHaveLength(1);
    store.begin();
    store.preview({ type: "place", rects: [{ id: "b1", x: 500, y: 100, w: 100, h: 100 }] });
    expect(store.cancel()).toBe(true);
    expect(store.state.layout.boxes[0].x).toBe(130);
    expect(store.history.past).toHaveLength(1);
  });

  it("quick key steps of one kind join, slow or different ones do not", () => {
    let time = 0;
    const { layout } = parseLayout('[{"x":100,"y":100,"w":100,"h":100}]', { w: 1024, h: 1024 });
    const store = new Store(layout, () => time);
    store.dispatch({ type: "select", ids: ["b1"] });
    for (let i = 0; i < 5; i += 1) {
      store.dispatch({ type: "nudge", dx: 1, dy: 0 }, { join: "nudge" });
      time += 100;
    }
    expect(store.history.past).toHaveLength(1);
    store.dispatch({ type: "grow", dw: 5, dh: 0 }, { join: "grow" });
    time += 5000;
    store.dispatch({ type: "grow", dw: 5, dh: 0 }, { join: "grow" });
    expect(store.history.past).toHaveLength(3);
  });

  it("is bounded, and what does nothing is no entry", () => {
    const { layout } = parseLayout('[{"x":0,"y":0,"w":100,"h":100}]', { w: 1024, h: 1024 });
    const store = new Store(layout);
    store.dispatch({ type: "select", ids: ["b1"] });
    store.dispatch({ type: "nudge", dx: -10, dy: 0 });
    expect(store.canUndo).toBe(false);
    for (let i = 0; i < LIMIT + 50; i += 1) store.dispatch({ type: "nudge", dx: 1, dy: 0 });
    expect(store.history.past).toHaveLength(LIMIT);
  });

  it("the canvas is an entry like any other, and one however often it is tried out", () => {
    const { layout } = parseLayout('[{"x":100,"y":100,"w":100,"h":100}]', { w: 1000, h: 1000 });
    const store = new Store(layout);
    for (const side of [64, 512, 2000]) store.fitCanvas({ w: side, h: 1000 });
    expect(store.state.layout.boxes[0]).toMatchObject({ x: 200, w: 200, y: 100, h: 100 });
    expect(store.history.past).toHaveLength(1);
    store.undo();
    expect(store.state.layout).toEqual(layout);
  });
});
