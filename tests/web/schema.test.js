import { readFileSync } from "node:fs";

import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { cleanText, MAX_BOXES, nextId, parseLayout, sameScene, serialiseLayout } from "../../web/scene/schema.js";
import { layouts } from "./arbitraries.js";

const CANVAS = { w: 1024, h: 1024 };
const vectors = (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url), "utf8"));

describe("the vectors shared with Python", () => {
  it.each(vectors("layout_valid"))("reads: $name", ({ json, canonical, carried }) => {
    const { layout, problem } = parseLayout(json, CANVAS);
    expect(problem).toBeNull();
    expect(serialiseLayout({ ...layout, editor: parseLayout("", CANVAS).layout.editor })).toBe(carried ?? canonical);
  });

  it.each(vectors("layout_invalid"))("refuses: $name", ({ json }) => {
    expect(parseLayout(json, CANVAS).problem).not.toBeNull();
  });
});

describe("laws", () => {
  it("what is written is read back", () => {
    fc.assert(
      fc.property(layouts, (layout) => {
        const { layout: read } = parseLayout(serialiseLayout(layout), CANVAS);
        expect(read).toEqual(layout);
      }),
    );
  });

  it("reading any text either gives a layout or a problem, and never throws", () => {
    const text = fc.oneof(fc.string(), fc.json({ maxDepth: 10 }), fc.object().map((value) => JSON.stringify(value)));
    fc.assert(
      fc.property(text, (value) => {
        const { layout, problem } = parseLayout(value, CANVAS);
        expect(layout === null).toBe(problem !== null);
      }),
    );
  });

  it("migration is idempotent: the second reading changes nothing", () => {
    const boxes = fc.array(fc.record({ x: fc.nat(900), y: fc.nat(900), w: fc.integer({ min: 1, max: 99 }), h: fc.integer({ min: 1, max: 99 }) }), { maxLength: 6 });
    fc.assert(
      fc.property(boxes, fc.boolean(), (list, bare) => {
        const once = parseLayout(JSON.stringify(bare ? list : { boxes: list }), CANVAS).layout;
        expect(parseLayout(serialiseLayout(once), CANVAS).layout).toEqual(once);
        expect(once.boxes.map((box) => box.id)).toEqual(list.map((_, i) => `b${i + 1}`));
      }),
    );
  });
});

describe("hostile text", () => {
  const box = '{"id":"b1","x":0,"y":0,"w":9,"h":9}';
  const document = (inner) => `{"v":1,"canvas":{"w":64,"h":64},"boxes":[${inner}]}`;

  it("a __proto__ key changes no prototype and is not taken over", () => {
    const { layout } = parseLayout(`{"__proto__":{"polluted":1},"v":1,"canvas":{"w":64,"h":64,"__proto__":{"w":1}},"boxes":[{"__proto__":{"locked":true},${box.slice(1)}]}`, CANVAS);
    expect(layout.boxes[0].locked).toBe(false);
    expect({}.polluted).toBeUndefined();
    expect(serialiseLayout(layout)).not.toContain("proto");
  });

  it("inherited names are no fields", () => {
    expect(parseLayout(document('{"id":"b1","__proto__":{"x":1,"y":1},"w":9,"h":9}'), CANVAS).problem.code).toBe("number");
  });

  it("the editor's preferences fall back instead of refusing the layout", () => {
    const text = document(box).replace("{", '{"editor":{"grid":"huge","resize":"explode","edges":0,"preview":false},');
    const { layout } = parseLayout(text, CANVAS);
    expect(layout.editor).toMatchObject({ grid: 0, resize: "scale", edges: true, preview: false });
  });

  it("bounds hold exactly at their limits", () => {
    const many = (count) => document(Array.from({ length: count }, (_, i) => box.replace("b1", `b${i}`)).join());
    expect(parseLayout(many(MAX_BOXES), CANVAS).problem).toBeNull();
    expect(parseLayout(many(MAX_BOXES + 1), CANVAS).problem.code).toBe("tooMany");
    expect(parseLayout(" ".repeat(65536), CANVAS).problem).toBeNull();
    expect(parseLayout(" ".repeat(65537), CANVAS).problem.code).toBe("tooLong");
  });
});

it("new ids are never in use", () => {
  fc.assert(
    fc.property(layouts, ({ boxes }) => {
      expect(boxes.some((box) => box.id === nextId(boxes))).toBe(false);
    }),
  );
});

it("typed text becomes fit for the layout", () => {
  expect(cleanText("a\u0000b\nc", 10)).toBe("a b c");
  expect([...cleanText("\u{1F98A}".repeat(300), 200)]).toHaveLength(200);
});

it("preferences do not count when scenes are compared", () => {
  const { layout } = parseLayout("", CANVAS);
  expect(sameScene(layout, { ...layout, editor: { ...layout.editor, grid: 8 } })).toBe(true);
  expect(sameScene(layout, { ...layout, canvas: { w: 64, h: 64 } })).toBe(false);
});
