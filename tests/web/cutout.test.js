/** The cut-out editor: its JSON against what Python accepts, its gestures and keys in a page. */

import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";

import {
  addPoint, addStroke, changePoint, EMPTY, fitClicks, formatClicks, MAX_POINTS, moveBox, parseClicks, rectBetween, removePoint, setBox,
} from "../../web/cutout/model.js";
import { translator } from "../../web/cutout/strings.js";
import { openPage, STAGE } from "./page.js";

const PICTURE = { w: 1000, h: 1000 };
const coordinate = fc.double({ min: 0, max: 999, noNaN: true }).map((value) => Math.floor(value * 100 + 0.5) / 100);
const clicksOf = fc.record({
  picture: fc.constant(PICTURE),
  points: fc.array(fc.record({ x: coordinate, y: coordinate, keep: fc.boolean() }), { minLength: 1, maxLength: 8 }),
  box: fc.option(fc.record({ x: coordinate, y: coordinate, w: fc.integer({ min: 2, max: 500 }), h: fc.integer({ min: 2, max: 500 }) })),
  strokes: fc.array(fc.record({ keep: fc.boolean(), r: fc.integer({ min: 1, max: 2048 }), at: fc.array(fc.tuple(fc.nat(999), fc.nat(999)), { minLength: 1, maxLength: 9 }).map((list) => list.flat()) }), { maxLength: 4 }),
});

describe("clicks as text", () => {
  test("what is written is read again", () => {
    fc.assert(
      fc.property(clicksOf, (clicks) => {
        expect(parseClicks(formatClicks(clicks))).toEqual({ clicks, broken: false });
      }),
    );
  });

  test("no clicks are no text", () => {
    expect(formatClicks(EMPTY)).toBe("");
    expect(parseClicks(" \n")).toEqual({ clicks: EMPTY, broken: false });
  });

  test.each([
    "[1]", "{", '{"v":2}', '{"points":5}', '{"points":[{"x":1}]}', '{"points":[{"x":1e9,"y":1}]}', '{"points":[{"x":1,"y":1,"keep":1}]}',
    '{"box":[1,2,3,4]}', '{"box":{"x":1,"y":1,"w":0,"h":1}}', '{"picture":{"w":0,"h":1}}', '{"strokes":{}}', '{"strokes":[{"at":[1,2]}]}',
    '{"strokes":[{"r":0,"at":[1,2]}]}', '{"strokes":[{"r":3,"at":[1]}]}', '{"strokes":[{"r":3,"at":[]}]}',
  ])("what Python refuses is broken here: %s", (text) => {
    expect(parseClicks(text)).toEqual({ clicks: EMPTY, broken: true });
  });

  test("too much of it is broken, too", () => {
    expect(parseClicks(`{"points":[${'{"x":1,"y":1},'.repeat(64)}{"x":1,"y":1}]}`).broken).toBe(true);
    expect(parseClicks(`{"points":[], "more":"${"x".repeat(70000)}"}`).broken).toBe(true);
  });

  test("foreign keys change nothing", () => {
    const { clicks } = parseClicks('{"__proto__":{"points":[1]},"points":[{"x":1,"y":2,"constructor":7}],"extra":{}}');
    expect(clicks.points).toEqual([{ x: 1, y: 2, keep: true }]);
    expect(Object.getPrototypeOf(clicks)).toBe(Object.prototype);
  });
});

describe("changes", () => {
  const one = { picture: PICTURE, points: [{ x: 10, y: 20, keep: true }], box: null, strokes: [] };

  test("points stay on the picture and are limited", () => {
    expect(addPoint(one, { x: -5, y: 5000, keep: false }).points[1]).toEqual({ x: 0, y: 999, keep: false });
    expect(changePoint(one, 0, { x: 4000 }).points[0]).toEqual({ x: 999, y: 20, keep: true });
    let full = one;
    for (let i = 0; i < 100; i += 1) full = addPoint(full, { x: i, y: i, keep: true });
    expect(full.points.length).toBe(MAX_POINTS);
    expect(removePoint(one, 0).points).toEqual([]);
  });

  test("boxes are clipped, moved inside, and dropped when they are nothing", () => {
    expect(setBox(one, rectBetween({ x: 1200, y: 50 }, { x: 900, y: -10 })).box).toEqual({ x: 900, y: 0, w: 100, h: 50 });
    expect(setBox(one, { x: 5, y: 5, w: 1, h: 50 }).box).toBeNull();
    const boxed = setBox(one, { x: 800, y: 800, w: 100, h: 100 });
    expect(moveBox(boxed, 500, -900).box).toEqual({ x: 900, y: 0, w: 100, h: 100 });
  });

  test("another size of the picture keeps everything in its place", () => {
    const boxed = setBox(one, { x: 100, y: 200, w: 300, h: 400 });
    const half = fitClicks(boxed, { w: 500, h: 500 });
    expect(half).toEqual({ picture: { w: 500, h: 500 }, points: [{ x: 5, y: 10, keep: true }], box: { x: 50, y: 100, w: 150, h: 200 }, strokes: [] });
    expect(fitClicks(half, PICTURE)).toEqual(boxed);
  });
});

describe("the editor in a page", () => {
  let view;
  let texts;
  beforeEach(async () => {
    openPage();
    const { CutoutView } = await import("../../web/cutout/view.js");
    texts = [];
    view = new CutoutView(translator("en"), (text) => texts.push(text));
    document.body.append(view.element);
    Object.defineProperty(view.image, "naturalWidth", { get: () => 1000 });
    Object.defineProperty(view.image, "naturalHeight", { get: () => 1000 });
    view.sync({ clicks: EMPTY, broken: false, readOnly: false, source: "/view?photo" });
  });
  const last = () => parseClicks(texts.at(-1)).clicks;
  const fire = (type, [x, y], { target = view.stage, ...more } = {}) => {
    const event = new window.MouseEvent(type, {
      bubbles: true, cancelable: true, composed: true, clientX: STAGE.left + x / 2, clientY: STAGE.top + y / 2, ...more,
    });
    Object.defineProperty(event, "pointerId", { value: 1 });
    target.dispatchEvent(event);
  };
  const press = (from, to = from, more = {}) => {
    fire("pointerdown", from, more);
    if (to !== from) fire("pointermove", to, more);
    fire("pointerup", to, { ...more, target: view.stage });
  };
  const key = (name, target, more = {}) =>
    target.dispatchEvent(new window.KeyboardEvent("keydown", { key: name, bubbles: true, composed: true, cancelable: true, ...more }));
  const mark = (id) => view.marks.querySelector(`[data-mark="${id}"]`);

  test("a click keeps, Shift or the second button leaves out, a drag draws the box", () => {
    press([200, 300]);
    press([400, 300], undefined, { shiftKey: true });
    press([600, 300], undefined, { button: 2 });
    expect(last().points).toEqual([{ x: 200, y: 300, keep: true }, { x: 400, y: 300, keep: false }, { x: 600, y: 300, keep: false }]);
    press([700, 700], [100, 100]);
    expect(last()).toMatchObject({ picture: PICTURE, box: { x: 100, y: 100, w: 600, h: 600 } });
    expect(view.marks.children.length).toBe(4);
  });

  test("a point is dragged, turned over, and taken away", () => {
    press([200, 300]);
    press([200, 300], [500, 500], { target: mark(0) });
    expect(last().points).toEqual([{ x: 500, y: 500, keep: true }]);
    press([500, 500], undefined, { target: mark(0) });
    expect(last().points[0].keep).toBe(false);
    press([500, 500], undefined, { target: mark(0), shiftKey: true });
    expect(texts.at(-1)).toBe("");
  });

  test("everything has a way back, and a cancelled gesture leaves nothing", () => {
    press([200, 300]);
    press([400, 300]);
    key("z", view.stage, { ctrlKey: true });
    expect(last().points.length).toBe(1);
    key("z", view.stage, { ctrlKey: true, shiftKey: true });
    expect(last().points.length).toBe(2);
    const before = texts.length;
    fire("pointerdown", [100, 100]);
    fire("pointermove", [500, 500]);
    fire("pointercancel", [500, 500]);
    expect(texts.length).toBe(before);
    expect(mark("box")).toBeNull();
  });

  test("keys alone are enough", () => {
    view.stage.focus();
    key("k", view.stage);
    key("x", view.stage);
    expect(last().points.map((point) => point.keep)).toEqual([true, false]);
    key("ArrowLeft", mark(0));
    key("ArrowDown", mark(0), { shiftKey: true });
    expect(last().points[0]).toEqual({ x: 490, y: 550, keep: true });
    key("b", view.stage);
    key("ArrowRight", mark("box"));
    key("ArrowRight", mark("box"), { shiftKey: true });
    expect(last().box).toEqual({ x: 135, y: 125, w: 760, h: 750 });
    key("Delete", mark("box"));
    key("Delete", mark(1));
    expect(last()).toMatchObject({ box: null, points: [{ keep: true }] });
    key("Enter", mark(0));
    expect(last().points[0].keep).toBe(false);
  });

  test("the mask is that of the run until the clicks or the picture change", () => {
    press([200, 300]);
    const run = { picture: "/view?run", mask: "/view?mask", size: PICTURE, source: "/view?photo", quality: 0.931, warnings: [] };
    view.ran({ ...run, text: texts.at(-1) });
    expect(view.picture.url).toBe("/view?run");
    expect(view.mask.hidden).toBe(false);
    expect(view.mask.classList.contains("stale")).toBe(false);
    expect(view.status.textContent).toContain("0.93");
    press([300, 300]);
    expect(view.mask.classList.contains("stale")).toBe(true);
    expect(view.status.textContent).toBe("Run to see the mask of these clicks.");
    view.sync({ clicks: view.clicks, broken: false, readOnly: false, source: "/view?other" });
    expect(view.picture.url).toBe("/view?other");
    expect(view.mask.hidden).toBe(true);
  });

  test("a warning of the run is shown, as text", () => {
    view.ran({ picture: "p", mask: "m", size: PICTURE, source: "/view?photo", quality: 1, warnings: ["<b>inverted</b>"], text: "" });
    expect(view.status.textContent).toBe("<b>inverted</b>");
    expect(view.status.children.length).toBe(0);
  });

  test("clicks from elsewhere cannot be changed here", () => {
    view.sync({ clicks: { ...EMPTY, points: [{ x: 1, y: 1, keep: true }] }, broken: false, readOnly: true, source: "/view?photo" });
    press([200, 300]);
    key("k", view.stage);
    expect(texts).toEqual([]);
  });

  test.each([["noModel", "no SAM model"], ["plain", "plain background"], ["mask", "given mask"]])("clicks that the node would not use (%s) are not taken: it says why, and the brush still mends", (idle, words) => {
    const given = { clicks: EMPTY, broken: false, readOnly: false, source: "/view?photo" };
    view.sync({ ...given, idle });
    expect(view.status.textContent).toContain("Brush and eraser mend");
    press([200, 300]);
    press([200, 300], [500, 500]);
    for (const name of ["k", "x", "b"]) key(name, view.stage);
    view.tools.out.click();
    expect(texts).toEqual([]);
    expect(view.tools.keep.getAttribute("aria-disabled")).toBe("true");
    expect(view.live.textContent).toBe(view.status.textContent);
    view.tools.brush.click();
    press([200, 300]);
    expect(last().strokes).toHaveLength(1);
    // What was clicked before is said to have no effect, and can be taken away.
    view.sync({ ...given, idle, clicks: { ...EMPTY, picture: PICTURE, points: [{ x: 1, y: 1, keep: true }] } });
    expect(view.status.textContent).toContain("no effect");
    expect(view.status.textContent).toContain(words);
    mark(0).focus();
    key("Delete", mark(0));
    expect(texts.at(-1)).toBe("");
    view.sync({ ...given, idle: null });
    view.tools.keep.click();
    press([200, 300]);
    expect(last().points).toHaveLength(1);
  });

  test("of the masks that SAM proposes one is chosen; the next run takes it", () => {
    const chosen = [];
    view.onChoice = (number) => chosen.push(number);
    const candidates = [0.9, 0.95, 0.7].map((quality, i) => ({ mask: `/view?mask${i}`, quality }));
    press([200, 300]);
    view.ran({ picture: "/view?run", mask: "/view?mask1", size: PICTURE, source: "/view?photo", quality: 0.95, warnings: [], text: texts.at(-1), candidates, taken: 1 });
    const buttons = [...view.candidates.children];
    expect(buttons.map((button) => button.getAttribute("aria-pressed"))).toEqual(["false", "true", "false"]);
    expect(buttons[0].getAttribute("aria-label")).toBe("Mask 1, quality 0.90");
    buttons[2].click();
    expect(chosen).toEqual([3]);
    expect(view.run.mask).toBe("/view?mask2");
    expect([...view.candidates.children].map((button) => button.getAttribute("aria-pressed"))).toEqual(["false", "false", "true"]);
    expect(view.status.textContent).toContain("0.70");
    view.sync({ clicks: view.clicks, broken: false, readOnly: false, source: "/view?other" });
    expect(view.candidates.hidden).toBe(true);
  });

  test("marks say where they are, and the state is announced", () => {
    press([200, 300]);
    expect(mark(0).getAttribute("aria-label")).toBe("Point 1, keep, x 20 %, y 30 %");
    expect(mark(0).getAttribute("tabindex")).toBe("0");
    expect(view.live.textContent).toBe("Point 1 added");
    expect(view.stage.getAttribute("aria-label")).toContain("1 point.");
  });

  test("the brush adds to the mask and the eraser takes away, as strokes that undo takes back", () => {
    view.tools.brush.click();
    fire("pointerdown", [100, 100]);
    for (const x of [150, 200, 250, 300]) fire("pointermove", [x, 100]);
    fire("pointerup", [300, 100]);
    view.tools.eraser.click();
    press([200, 100]);
    expect(last().strokes).toEqual([
      { keep: true, r: 30, at: [100, 100, 150, 100, 200, 100, 250, 100, 300, 100] },
      { keep: false, r: 30, at: [200, 100] },
    ]);
    expect(last().points).toEqual([]);
    key("z", view.stage, { ctrlKey: true });
    expect(last().strokes).toHaveLength(1);
  });

  test("strokes are bounded, and go along with another size of the picture", () => {
    let clicks = EMPTY;
    for (let i = 0; i < 100; i += 1) clicks = addStroke(clicks, { keep: true, r: 3, at: Array(200).fill(1) });
    expect(clicks.strokes.reduce((sum, { at }) => sum + at.length / 2, 0)).toBe(4096);
    expect(parseClicks(formatClicks(clicks)).broken).toBe(false);
    const stroke = { keep: true, r: 10, at: [10, 20, 30, 40] };
    expect(fitClicks({ ...EMPTY, picture: PICTURE, strokes: [stroke] }, { w: 500, h: 500 }).strokes).toEqual([{ keep: true, r: 5, at: [5, 10, 15, 20] }]);
  });

  test("the large view is the same editor, and the node gets it back", () => {
    view.openLarge();
    expect(document.querySelector("dialog")).not.toBeNull();
    expect(view.element.shadowRoot.contains(view.stage)).toBe(false);
    document.querySelector("dialog .contextgen-cutout").shadowRoot.querySelector("header button").click();
    expect(document.querySelector("dialog")).toBeNull();
    expect(view.element.shadowRoot.contains(view.stage)).toBe(true);
  });
});
