/** Random layouts and actions for the laws. */

import fc from "fast-check";

import { DEFAULT_PREFERENCES } from "../../web/scene/schema.js";

export const canvasSize = fc.record({ w: fc.integer({ min: 64, max: 4096 }), h: fc.integer({ min: 64, max: 4096 }) });

/** A box inside the canvas, of at least 16 pixels. */
export const boxIn = (canvas) =>
  fc
    .record({
      w: fc.integer({ min: 16, max: canvas.w }),
      h: fc.integer({ min: 16, max: canvas.h }),
      fx: fc.double({ min: 0, max: 1, noNaN: true }),
      fy: fc.double({ min: 0, max: 1, noNaN: true }),
    })
    .map(({ w, h, fx, fy }) => ({ x: Math.floor(fx * (canvas.w - w)), y: Math.floor(fy * (canvas.h - h)), w, h }));

export const layouts = fc.tuple(canvasSize, fc.integer({ min: 0, max: 8 })).chain(([canvas, count]) =>
  fc
    .array(
      fc.record({
        rect: boxIn(canvas),
        ref: fc.oneof(fc.constant(null), fc.integer({ min: 1, max: 9999 }), fc.stringMatching(/^[a-zäé ]{1,20}$/)),
        label: fc.stringMatching(/^[A-Za-z0-9 <>&"']{0,30}$/),
        locked: fc.boolean(),
      }),
      { minLength: count, maxLength: count },
    )
    .map((list) => ({
      canvas,
      boxes: list.map(({ rect, ref, label, locked }, i) => ({ id: `b${i + 1}`, ...rect, ref, label, locked })),
      editor: { ...DEFAULT_PREFERENCES },
    })),
);

const number = fc.integer({ min: -3000, max: 3000 });
const ids = fc.uniqueArray(fc.integer({ min: 1, max: 9 }).map((n) => `b${n}`), { maxLength: 4 });

export const actions = fc.oneof(
  fc.record({ type: fc.constant("select"), ids, toggle: fc.boolean() }),
  fc.record({ type: fc.constant("add"), rect: fc.record({ x: number, y: number, w: fc.nat(3000), h: fc.nat(3000) }) }),
  fc.record({ type: fc.constant("nudge"), dx: number, dy: number }),
  fc.record({ type: fc.constant("grow"), dw: number, dh: number }),
  fc.constant({ type: "remove" }),
  fc.constant({ type: "duplicate" }),
  fc.record({ type: fc.constant("bind"), ids, ref: fc.oneof(fc.constant(null), fc.constant("Anna"), fc.integer({ min: 1, max: 9 })) }),
  fc.record({ type: fc.constant("label"), id: fc.constant("b1"), label: fc.string({ unit: "binary", maxLength: 300 }) }),
  fc.record({ type: fc.constant("lock"), ids, locked: fc.boolean() }),
  fc.record({ type: fc.constant("step"), step: fc.constantFrom("front", "back", "forward", "backward") }),
  fc.record({ type: fc.constant("moveTo"), id: fc.constant("b2"), index: fc.integer({ min: -2, max: 12 }) }),
  fc.record({ type: fc.constant("arrange"), ids }),
  fc.record({ type: fc.constant("align"), how: fc.constantFrom("left", "center", "right", "top", "middle", "bottom") }),
  fc.record({ type: fc.constant("distribute"), axis: fc.constantFrom("x", "y") }),
  fc.record({ type: fc.constant("canvas"), size: canvasSize }),
);
