import fc from "fast-check";
import { describe, expect, it } from "vitest";

import * as geometry from "../../web/scene/geometry.js";
import { boxIn, canvasSize } from "./arbitraries.js";

const placed = canvasSize.chain((canvas) => fc.record({ canvas: fc.constant(canvas), rect: boxIn(canvas) }));
const delta = fc.integer({ min: -5000, max: 5000 });
const inside = (rect, canvas) => rect.x >= 0 && rect.y >= 0 && rect.x + rect.w <= canvas.w + 1e-6 && rect.y + rect.h <= canvas.h + 1e-6;

describe("confine", () => {
  it("puts anything inside, and leaves alone what is inside already", () => {
    fc.assert(
      fc.property(placed, delta, delta, ({ canvas, rect }, dx, dy) => {
        const moved = geometry.confine({ ...rect, x: rect.x + dx, y: rect.y + dy }, canvas, true);
        expect(inside(moved, canvas)).toBe(true);
        expect(geometry.confine(rect, canvas, true)).toEqual(rect);
      }),
    );
  });

  it("without the wish to stay inside, at least 16 pixels stay visible and the size is kept", () => {
    fc.assert(
      fc.property(placed, delta, delta, ({ canvas, rect }, dx, dy) => {
        const moved = geometry.confine({ ...rect, x: rect.x + dx, y: rect.y + dy }, canvas, false);
        const seen = Math.min(moved.x + moved.w, canvas.w) - Math.max(moved.x, 0);
        expect(seen).toBeGreaterThanOrEqual(16);
        expect([moved.w, moved.h]).toEqual([rect.w, rect.h]);
      }),
    );
  });
});

describe("resize", () => {
  const handles = fc.constantFrom(...geometry.HANDLES);

  it("keeps the opposite edges, the least size and the canvas", () => {
    fc.assert(
      fc.property(placed, handles, delta, delta, ({ canvas, rect }, handle, dx, dy) => {
        const next = geometry.resize(rect, handle, dx, dy, { canvas, inside: true });
        expect(inside(next, canvas)).toBe(true);
        expect(Math.min(next.w, next.h)).toBeGreaterThanOrEqual(16);
        if (handle.includes("e")) expect(next.x).toBe(rect.x);
        if (handle.includes("w")) expect(next.x + next.w).toBeCloseTo(rect.x + rect.w, 6);
        if (!/[ew]/.test(handle)) expect([next.x, next.w]).toEqual([rect.x, rect.w]);
        if (handle.includes("s")) expect(next.y).toBe(rect.y);
        if (handle.includes("n")) expect(next.y + next.h).toBeCloseTo(rect.y + rect.h, 6);
      }),
    );
  });

  it("keeps a locked aspect where there is room for it", () => {
    const aspects = fc.double({ min: 0.5, max: 2, noNaN: true });
    const roomy = fc
      .record({ x: fc.integer({ min: 40, max: 900 }), y: fc.integer({ min: 40, max: 900 }), w: fc.integer({ min: 16, max: 900 }), h: fc.integer({ min: 16, max: 900 }) })
      .map((rect) => ({ rect, canvas: { w: rect.x + rect.w + 60, h: rect.y + rect.h + 60 } }));
    fc.assert(
      fc.property(roomy, handles, delta, delta, aspects, ({ canvas, rect }, handle, dx, dy, aspect) => {
        const next = geometry.resize(rect, handle, dx, dy, { canvas, inside: true, aspect });
        expect(next.w / next.h).toBeCloseTo(aspect, 4);
        expect(inside(next, canvas)).toBe(true);
      }),
    );
  });

  it("no movement without an aspect changes nothing", () => {
    fc.assert(
      fc.property(placed, handles, ({ canvas, rect }, handle) => {
        const next = geometry.resize(rect, handle, 0, 0, { canvas, inside: true });
        for (const key of ["x", "y", "w", "h"]) expect(next[key]).toBeCloseTo(rect[key], 6);
      }),
    );
  });
});

describe("snap", () => {
  it("lands on a line within reach, the nearest one, else on the grid", () => {
    expect(geometry.snap([98, 150], [100, 149.5], 6, 0)).toEqual({ shift: -0.5, line: 149.5 });
    expect(geometry.snap([90], [100], 6, 0)).toEqual({ shift: 0, line: null });
    expect(geometry.snap([90], [100], 6, 16)).toEqual({ shift: 6, line: null });
  });

  it("never moves further than its reach when there is no grid", () => {
    const numbers = fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(numbers, numbers, fc.integer({ min: 0, max: 50 }), (edges, lines, reach) => {
        const { shift, line } = geometry.snap(edges, lines, reach, 0);
        expect(Math.abs(shift)).toBeLessThanOrEqual(reach);
        if (line !== null) expect(edges.some((edge) => edge + shift === line)).toBe(true);
      }),
    );
  });
});

describe("align and distribute", () => {
  const several = canvasSize.chain((canvas) => fc.record({ canvas: fc.constant(canvas), rects: fc.array(boxIn(canvas), { minLength: 2, maxLength: 6 }) }));

  it("aligned edges agree, sizes and order stay, twice is once", () => {
    fc.assert(
      fc.property(several, ({ canvas, rects }) => {
        const left = geometry.align(rects, "left", canvas);
        expect(new Set(left.map((rect) => rect.x)).size).toBe(1);
        expect(left.map((rect) => [rect.y, rect.w, rect.h])).toEqual(rects.map((rect) => [rect.y, rect.w, rect.h]));
        expect(geometry.align(left, "left", canvas)).toEqual(left);
        const bottom = geometry.align(rects, "bottom", canvas).map((rect) => rect.y + rect.h);
        expect(Math.max(...bottom) - Math.min(...bottom)).toBeLessThan(1e-6);
      }),
    );
  });

  it("distributed gaps are equal and the outermost two stay", () => {
    fc.assert(
      fc.property(several, ({ rects }) => {
        fc.pre(rects.length > 2);
        const spread = geometry.distribute(rects, "x");
        const order = rects.map((rect, i) => ({ i, at: rect.x + rect.w / 2 })).sort((a, b) => a.at - b.at);
        const sorted = order.map(({ i }) => spread[i]);
        const gaps = sorted.slice(1).map((rect, i) => rect.x - sorted[i].x - sorted[i].w);
        for (const gap of gaps) expect(gap).toBeCloseTo(gaps[0], 6);
        expect(sorted[0].x).toBe(rects[order[0].i].x);
        expect(sorted.at(-1).x).toBeCloseTo(rects[order.at(-1).i].x, 6);
      }),
    );
  });
});

it("a reshaped box has the wanted shape, its area where there is room, and stays inside", () => {
  fc.assert(
    fc.property(placed, fc.double({ min: 0.2, max: 5, noNaN: true }), ({ canvas, rect }, aspect) => {
      const next = geometry.reshape(rect, aspect, canvas);
      expect(next.w / next.h).toBeCloseTo(aspect, 4);
      expect(inside(next, canvas)).toBe(true);
      if (Math.sqrt(rect.w * rect.h * aspect) <= Math.min(canvas.w, canvas.h * aspect)) expect(next.w * next.h).toBeCloseTo(rect.w * rect.h, 3);
    }),
  );
});
