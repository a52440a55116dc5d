import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { LANGUAGES, translator } from "../../web/editor/strings.js";
import { boxOf, drag, enter, field, openPage, openView, press, tool, withSubjects } from "./page.js";

const TWO = '[{"id":"a","x":100,"y":100,"w":200,"h":200,"ref":"Anna"},{"id":"b","x":600,"y":600,"w":200,"h":200}]';
const STACK = '[{"id":"a","x":100,"y":100,"w":300,"h":300},{"id":"b","x":100,"y":100,"w":300,"h":300}]';
const boxes = (store) => store.state.layout.boxes;

let window;
beforeEach(() => (window = openPage()));
afterEach(() => window.close());

describe("pointer", () => {
  it("a drag on empty canvas draws a box, bound to the first free reference, and selects it", async () => {
    const { view, store } = await openView("", { names: ["Anna", "Ben"] });
    drag(view, [100, 200], [400, 700]);
    expect(boxes(store)).toMatchObject([{ x: 100, y: 200, w: 300, h: 500, ref: "Anna" }]);
    drag(view, [500, 200], [900, 700]);
    expect(boxes(store)[1].ref).toBe("Ben");
    expect(store.state.selection).toEqual(["b2"]);
    expect(store.history.past).toHaveLength(2);
  });

  it("a drag on a box moves it and keeps it inside; elsewhere nothing changes", async () => {
    const { view, store } = await openView(TWO);
    drag(view, [150, 150], [990, 250], { target: boxOf(view, "a") });
    expect(boxes(store)[0]).toMatchObject({ x: 800, y: 200, w: 200, h: 200 });
    expect(boxes(store)[1]).toMatchObject({ x: 600, y: 600 });
  });

  it.each([
    ["nw", [100, 100], [50, 60], { x: 50, y: 60, w: 250, h: 240 }],
    ["e", [300, 200], [433, 777], { x: 100, y: 100, w: 333, h: 200 }],
    ["s", [200, 300], [0, 433], { x: 100, y: 100, w: 200, h: 333 }],
    ["se", [300, 300], [-500, -500], { x: 100, y: 100, w: 16, h: 16 }],
  ])("the handle %s resizes", async (handle, from, to, want) => {
    const { view, store } = await openView(TWO);
    store.dispatch({ type: "select", ids: ["a"] });
    drag(view, from, to, { target: boxOf(view, "a").querySelector(`[data-handle="${handle}"]`) });
    expect(boxes(store)[0]).toMatchObject(want);
  });

  it("with Ctrl a drag draws over another box", async () => {
    const { view, store } = await openView(TWO);
    drag(view, [120, 120], [250, 260], { target: boxOf(view, "a"), ctrlKey: true });
    expect(boxes(store)).toHaveLength(3);
    expect(boxes(store)[0]).toMatchObject({ x: 100, y: 100 });
  });

  it("with Shift a drag selects what its frame touches", async () => {
    const { view, store } = await openView(TWO);
    drag(view, [50, 50], [650, 650], { shiftKey: true });
    expect(store.state.selection).toEqual(["a", "b"]);
    expect(boxes(store)).toHaveLength(2);
  });

  it("with Shift a drag on a selected box moves all of them along one axis; a click leaves it out", async () => {
    const { view, store } = await openView(TWO);
    store.dispatch({ type: "select", ids: ["a", "b"] });
    drag(view, [150, 150], [250, 170], { target: boxOf(view, "a"), shiftKey: true });
    expect(boxes(store)).toMatchObject([{ x: 200, y: 100 }, { x: 700, y: 600 }]);
    expect(store.state.selection).toEqual(["a", "b"]);
    drag(view, [250, 150], [250, 150], { target: boxOf(view, "a"), shiftKey: true });
    expect(store.state.selection).toEqual(["b"]);
  });

  it("a level drag stays level: no edge above or below draws it", async () => {
    const near = TWO.replace('"y":600', '"y":108');
    const { view, store } = await openView(near);
    drag(view, [150, 150], [187, 151], { target: boxOf(view, "a") });
    expect(boxes(store)[0].y).toBe(101);
  });

  it("a group is chosen, moved and resized as one; a double click reaches into it", async () => {
    const { view, store } = await openView(TWO);
    store.dispatch({ type: "select", ids: ["a", "b"] });
    press(boxOf(view, "a"), "g", { ctrlKey: true });
    store.dispatch({ type: "select", ids: [] });
    drag(view, [150, 150], [150, 150], { target: boxOf(view, "a") });
    expect(store.state.selection).toEqual(["a", "b"]);
    drag(view, [800, 800], [450, 450], { target: view.stage.together.querySelector('[data-handle="se"]'), altKey: true });
    expect(boxes(store)).toMatchObject([{ x: 100, y: 100, w: 100, h: 100 }, { x: 350, y: 350, w: 100, h: 100 }]);
    boxOf(view, "a").dispatchEvent(new MouseEvent("dblclick", { bubbles: true, composed: true }));
    expect(store.state.selection).toEqual(["a"]);
    store.dispatch({ type: "select", ids: ["a", "b"] });
    press(boxOf(view, "a"), "G", { ctrlKey: true, shiftKey: true });
    expect(boxes(store).some((box) => "group" in box)).toBe(false);
  });

  it("the turning handle turns about the middle, in steps with Shift; an edge then moves along the box's own axes", async () => {
    const { view, store } = await openView(TWO);
    store.dispatch({ type: "select", ids: ["a"] });
    const handle = (name) => boxOf(view, "a").querySelector(`[data-handle="${name}"]`);
    drag(view, [200, 80], [310, 190], { target: handle("turn"), shiftKey: true });
    expect(boxes(store)[0]).toMatchObject({ x: 100, y: 100, w: 200, h: 200, rot: 90 });
    drag(view, [200, 300], [200, 350], { target: handle("e"), altKey: true });
    expect(boxes(store)[0]).toMatchObject({ w: 250, h: 200, rot: 90 });
    expect(boxOf(view, "a").style.transform).toBe("rotate(90deg)");
    // Its left edge, now the upper one, stays where it was seen.
    expect(boxes(store)[0].y + boxes(store)[0].h / 2 - 125).toBe(100);
  });

  it("Alt and a click reach the box below", async () => {
    const { view, store } = await openView(STACK);
    store.dispatch({ type: "select", ids: ["b"] });
    drag(view, [200, 200], [200, 200], { target: boxOf(view, "b"), altKey: true });
    expect(store.state.selection).toEqual(["a"]);
  });

  it("with the shape of the reference kept, drawing and resizing keep it; Shift is the other way round", async () => {
    const { view, store } = await openView("", { names: ["Anna"] });
    withSubjects(view, { Anna: [400, 400, 100, 0, 300, 400] });
    drag(view, [100, 100], [200, 400], { shiftKey: false });
    expect(boxes(store)[0]).toMatchObject({ w: 100, h: 300 });
    store.undo();
    store.amend({ type: "prefer", preferences: { aspect: true } });
    drag(view, [100, 100], [200, 400]);
    expect(boxes(store)[0]).toMatchObject({ w: 150, h: 300 });
    drag(view, [250, 400], [350, 400], { target: boxOf(view, "b1").querySelector('[data-handle="se"]') });
    expect(boxes(store)[0]).toMatchObject({ w: 250, h: 500 });
    drag(view, [350, 600], [450, 600], { target: boxOf(view, "b1").querySelector('[data-handle="se"]'), shiftKey: true });
    expect(boxes(store)[0]).toMatchObject({ w: 350, h: 500 });
  });

  it("several selected boxes move together and only as far as all fit", async () => {
    const { view, store } = await openView(TWO);
    store.dispatch({ type: "select", ids: ["a", "b"] });
    drag(view, [150, 150], [950, 150], { target: boxOf(view, "a"), altKey: true });
    // With Alt the press reaches below, so this drag has chosen the single box; without it both go.
    store.undo();
    store.dispatch({ type: "select", ids: ["a", "b"] });
    drag(view, [150, 150], [950, 150], { target: boxOf(view, "a") });
    expect(boxes(store).map((box) => box.x)).toEqual([300, 800]);
  });

  it.each(["pointercancel", "lostpointercapture"])("%s gives the gesture up", async (end) => {
    const { view, store } = await openView(TWO);
    drag(view, [150, 150], [350, 350], { target: boxOf(view, "a"), end });
    expect(boxes(store)[0]).toMatchObject({ x: 100, y: 100 });
    expect(store.inGesture).toBe(false);
  });

  it("Escape gives the gesture up and leaves no entry", async () => {
    const { view, store } = await openView(TWO);
    drag(view, [150, 150], [350, 350], { target: boxOf(view, "a"), end: null });
    expect(boxes(store)[0].x).not.toBe(100);
    press(view.stage.element, "Escape");
    expect(boxes(store)[0].x).toBe(100);
    expect(store.canUndo).toBe(false);
  });

  it("edges stick to the edges of others, unless Alt is held", async () => {
    const { view, store } = await openView(TWO);
    drag(view, [150, 150], [445, 150], { target: boxOf(view, "a") });
    expect(boxes(store)[0].x).toBe(400);
    store.undo();
    drag(view, [150, 150], [445, 150], { target: boxOf(view, "a"), altKey: true });
    expect(boxes(store)[0].x).toBe(395);
  });

  it("a locked box can be chosen but not moved", async () => {
    const { view, store } = await openView(TWO.replace('"ref"', '"locked":true,"ref"'));
    drag(view, [150, 150], [350, 350], { target: boxOf(view, "a") });
    expect(boxes(store)[0]).toMatchObject({ x: 100, y: 100 });
    expect(store.state.selection).toEqual(["a"]);
  });

  it("a reference dropped on a box is bound to it, dropped on the canvas it makes one", async () => {
    const { view, store } = await openView(TWO, { names: ["Anna", "Ben"] });
    const thumb = view.element.querySelectorAll(".thumb")[1];
    drag(view, [0, -50], [700, 700], { target: thumb });
    expect(boxes(store)[1].ref).toBe("Ben");
    drag(view, [0, -50], [500, 300], { target: thumb });
    expect(boxes(store)[2]).toMatchObject({ ref: "Ben" });
    drag(view, [0, -50], [-150, 300], { target: thumb });
    expect(boxes(store)).toHaveLength(3);
  });
});

describe("keyboard", () => {
  it("creates, moves, resizes, binds, orders, duplicates and deletes, with undo and redo", async () => {
    const { view, store } = await openView("", { names: ["Anna", "Ben"] });
    const key = (name, options) => press(store.state.selection.length ? boxOf(view, store.state.selection.at(-1)) : view.stage.element, name, options);
    key("n");
    expect(boxes(store)).toMatchObject([{ x: 333, y: 333, w: 333, h: 333, ref: "Anna" }]);
    key("ArrowRight");
    key("ArrowUp", { altKey: true });
    expect(boxes(store)[0]).toMatchObject({ x: 343, y: 332 });
    key("ArrowRight", { shiftKey: true });
    key("ArrowDown", { shiftKey: true, altKey: true });
    expect(boxes(store)[0]).toMatchObject({ w: 343, h: 334 });
    key("2");
    expect(boxes(store)[0].ref).toBe("Ben");
    key("0");
    expect(boxes(store)[0].ref).toBeNull();
    key("d", { ctrlKey: true });
    expect(boxes(store)).toHaveLength(2);
    key("[");
    expect(boxes(store).map((box) => box.id)).toEqual(["b2", "b1"]);
    key("}", { shiftKey: true });
    expect(boxes(store).map((box) => box.id)).toEqual(["b1", "b2"]);
    key("l");
    expect(boxes(store)[1].locked).toBe(true);
    key("Delete");
    expect(boxes(store)).toHaveLength(2);
    key("l");
    key("Delete");
    expect(boxes(store)).toHaveLength(1);
    key("z", { ctrlKey: true });
    expect(boxes(store)).toHaveLength(2);
    key("Z", { ctrlKey: true, shiftKey: true });
    expect(boxes(store)).toHaveLength(1);
    key("a", { ctrlKey: true });
    expect(store.state.selection).toEqual(["b1"]);
    key("Escape");
    expect(store.state.selection).toEqual([]);
  });

  it("turns, mirrors and takes out of the picture", async () => {
    const { view, store } = await openView(TWO);
    store.dispatch({ type: "select", ids: ["a"] });
    for (const name of ["r", "r", "h", "v", "e"]) press(boxOf(view, "a"), name);
    expect(boxes(store)[0]).toMatchObject({ rot: 30, flip: "hv", hidden: true });
    for (const name of ["h", "v", "e"]) press(boxOf(view, "a"), name);
    press(boxOf(view, "a"), "R");
    press(boxOf(view, "a"), "R");
    expect(boxes(store)[0]).toEqual({ id: "a", x: 100, y: 100, w: 200, h: 200, ref: "Anna", label: "", locked: false });
  });

  it("new boxes step aside from each other", async () => {
    const { view, store } = await openView("");
    for (let i = 0; i < 3; i += 1) press(view.stage.element, "n");
    expect(new Set(boxes(store).map((box) => `${box.x} ${box.y}`)).size).toBe(3);
  });

  it("Page Down goes through the boxes, and the focus goes along", async () => {
    const { view, store } = await openView(TWO);
    press(view.stage.element, "PageDown");
    press(boxOf(view, "a"), "PageDown");
    expect(store.state.selection).toEqual(["b"]);
    expect(document.activeElement).toBe(boxOf(view, "b"));
  });

  it("keys it uses do not reach the graph, keys it does not use do", async () => {
    const { view } = await openView(TWO);
    const heard = [];
    document.addEventListener("keydown", (event) => heard.push(event.key));
    for (const [key, options] of [["Delete"], ["z", { ctrlKey: true }], ["y", { ctrlKey: true }], ["ArrowLeft"], ["n"]]) press(view.stage.element, key, options);
    expect(heard).toEqual([]);
    press(view.stage.element, "Enter", { ctrlKey: true });
    expect(heard).toEqual(["Enter"]);
  });

  it("a plain key is never one of the graph's: Delete on a tool deletes no node", async () => {
    const { view } = await openView(TWO);
    const heard = [];
    document.addEventListener("keydown", (event) => heard.push(event.key));
    press(tool(view, "undo"), "Delete");
    press(view.stage.element, "q");
    expect(heard).toEqual([]);
  });

  it("an editor without a history of its own leaves undo to the graph's", async () => {
    const { view, calls } = await openView(TWO);
    press(view.stage.element, "z", { ctrlKey: true });
    press(view.stage.element, "Z", { ctrlKey: true, shiftKey: true });
    expect(calls.travel).toEqual(["undo", "redo"]);
    press(view.stage.element, "n");
    press(view.stage.element, "z", { ctrlKey: true });
    press(view.stage.element, "z", { ctrlKey: true });
    expect(calls.travel).toHaveLength(2);
  });

  it("one stop for Tab among the tools, the arrows go on from there", async () => {
    const { view } = await openView(TWO);
    const bar = view.element.querySelector("[role=toolbar]");
    expect([...bar.querySelectorAll("button")].filter((button) => button.tabIndex === 0)).toHaveLength(1);
    tool(view, "undo").focus();
    press(tool(view, "undo"), "ArrowRight");
    expect(document.activeElement).toBe(tool(view, "redo"));
    press(tool(view, "redo"), "End");
    expect(document.activeElement).toBe(tool(view, "large"));
  });

  it("undo goes no further even where it does nothing: over the help, or with nothing to undo", async () => {
    const { view } = await openView(TWO);
    const heard = [];
    document.addEventListener("keydown", (event) => heard.push(event.key));
    view.help.show(true);
    press(view.help.closeButton, "z", { ctrlKey: true });
    expect(heard).toEqual([]);
  });

  it("the focus stays in the editor when the box that had it goes", async () => {
    const { view, store } = await openView("");
    press(view.stage.element, "n");
    expect(document.activeElement).toBe(boxOf(view, "b1"));
    press(boxOf(view, "b1"), "z", { ctrlKey: true });
    expect(boxes(store)).toEqual([]);
    expect(document.activeElement).toBe(view.stage.element);
  });

  it("letters typed into a field stay there", async () => {
    const { view, store } = await openView(TWO);
    store.dispatch({ type: "select", ids: ["a"] });
    const heard = [];
    document.addEventListener("keydown", (event) => heard.push(event.key));
    press(field(view, "label"), "n");
    press(field(view, "label"), "Delete");
    expect(heard).toEqual([]);
    expect(boxes(store)).toHaveLength(2);
  });

  it("the help opens with ?, closes with Escape, and the focus comes back", async () => {
    const { view } = await openView(TWO);
    boxOf(view, "a").focus();
    press(boxOf(view, "a"), "?");
    expect(view.help.open).toBe(true);
    press(document.activeElement, "Escape");
    expect(view.help.open).toBe(false);
    expect(document.activeElement).toBe(boxOf(view, "a"));
  });
});

describe("panel, list and tools", () => {
  it("numbers place the box, within the canvas", async () => {
    const { view, store } = await openView(TWO);
    store.dispatch({ type: "select", ids: ["a"] });
    enter(field(view, "x"), "950");
    expect(boxes(store)[0].x).toBe(800);
    expect(field(view, "x").value).toBe("800");
    enter(field(view, "w"), "5");
    expect(boxes(store)[0].w).toBe(16);
    enter(field(view, "h"), "");
    expect(boxes(store)[0].h).toBe(200);
  });

  it("the drop-down binds, offers what is connected, and keeps what is not", async () => {
    const { view, store } = await openView(TWO.replace("Anna", "Gone"), { names: ["Anna", "Ben"] });
    store.dispatch({ type: "select", ids: ["a"] });
    const texts = [...field(view, "ref").options].map((option) => option.textContent);
    expect(texts).toEqual(["No reference (text only)", "Anna (key 1)", "Ben (key 2)", "Gone (not connected)"]);
    enter(field(view, "ref"), JSON.stringify("Ben"));
    expect(boxes(store)[0].ref).toBe("Ben");
    enter(field(view, "ref"), "null");
    expect(boxes(store)[0].ref).toBeNull();
  });

  it("an unnamed reference, or a name used twice, is bound by its number", async () => {
    const { view } = await openView("", { names: ["Anna", "Anna"] });
    expect(view.library.refOf(view.library.references[1])).toBe(2);
  });

  it("the list shows the front first and steps through the order", async () => {
    const { view, store } = await openView(TWO, { names: ["Anna"] });
    const names = () => [...view.element.querySelectorAll(".rows li .name")].map((node) => node.textContent);
    expect(names()).toEqual(["text only", "Anna"]);
    view.element.querySelector('[data-row="a"] [aria-label="Bring forward"]').click();
    expect(names()).toEqual(["Anna", "text only"]);
    expect(boxes(store).map((box) => box.id)).toEqual(["b", "a"]);
  });

  it("tools act, and say when they cannot", async () => {
    const { view, store } = await openView(TWO);
    expect(tool(view, "remove").getAttribute("aria-disabled")).toBe("true");
    tool(view, "remove").click();
    expect(boxes(store)).toHaveLength(2);
    store.dispatch({ type: "select", ids: ["b"] });
    tool(view, "back").click();
    expect(boxes(store)[0].id).toBe("b");
    tool(view, "arrange").click();
    tool(view, "left").click();
    expect(boxes(store)[0].x).toBe(0);
    tool(view, "undo").click();
    expect(boxes(store)[0].x).toBe(600);
  });

  it("the layer's fields set turn, fit, strength, opacity and colour, and say what several share", async () => {
    const { view, store } = await openView(TWO);
    const layer = (name) => view.element.querySelector(`[data-layer="${name}"]`);
    store.dispatch({ type: "select", ids: ["a", "b"] });
    enter(layer("opacity"), "40");
    enter(layer("strength"), "1.5");
    enter(layer("fit"), "stretch");
    enter(layer("colour"), "#FF8800");
    store.dispatch({ type: "select", ids: ["a"] });
    enter(layer("rot"), "-30.5");
    const same = { opacity: 0.4, strength: 1.5, fit: "stretch", colour: "#ff8800" };
    expect(boxes(store)).toMatchObject([{ ...same, rot: -30.5 }, same]);
    store.dispatch({ type: "select", ids: ["a", "b"] });
    expect([layer("opacity").value, layer("rot").value]).toEqual(["40", ""]);
    enter(layer("opacity"), "100");
    expect("opacity" in boxes(store)[0]).toBe(false);
  });

  it("the canvas takes a preset, swaps its sides, and is undone", async () => {
    const { view, store } = await openView(TWO);
    enter(view.element.querySelector('[data-canvas="preset"]'), "1344 768");
    expect(store.state.layout.canvas).toEqual({ w: 1344, h: 768 });
    tool(view, "swap").click();
    expect(store.state.layout.canvas).toEqual({ w: 768, h: 1344 });
    enter(view.element.querySelector('[data-canvas="w"]'), "500");
    expect(store.state.layout.canvas.w).toBe(496);
    while (store.undo());
    expect(store.state.layout.canvas).toEqual({ w: 1000, h: 1000 });
    expect(boxes(store)[0]).toMatchObject({ x: 100, y: 100 });
  });

  it("Shape gives the box the shape of its reference, of the same area", async () => {
    const { view, store } = await openView(TWO, { names: ["Anna"] });
    withSubjects(view, { Anna: [400, 400, 100, 0, 300, 400] });
    store.dispatch({ type: "select", ids: ["a"] });
    tool(view, "shape").click();
    expect(boxes(store)[0]).toMatchObject({ w: 141, h: 283 });
  });

  it("the outline of what is painted is shown beside a selected box that it leaves", async () => {
    const { view, store } = await openView(TWO, { names: ["Anna"] });
    withSubjects(view, { Anna: [400, 400, 100, 0, 300, 400] });
    const outlines = () => [...view.element.querySelectorAll(".lines .painted")].map((line) => line.getAttribute("d"));
    expect(outlines()).toEqual([]);
    store.dispatch({ type: "select", ids: ["a"] });
    expect(outlines()).toEqual(["M130.00 59.00L271.00 59.00L271.00 342.00L130.00 342.00L130.00 59.00"]);
    view.setEnvironment({ fit: "stretch" });
    expect(outlines()).toEqual([]);
  });

  it("a cut takes the boxes away and a paste brings them back", async () => {
    const { view, store } = await openView(TWO);
    store.dispatch({ type: "select", ids: ["a"] });
    let text = "";
    const clipboard = (type, value = "") => {
      const event = new Event(type, { bubbles: true, composed: true, cancelable: true });
      event.clipboardData = { files: [], getData: () => value, setData: (_, data) => (text = data) };
      boxOf(view, store.state.selection[0] ?? "b")?.dispatchEvent(event);
    };
    clipboard("cut");
    expect(boxes(store).map((box) => box.id)).toEqual(["b"]);
    clipboard("paste", text);
    expect(boxes(store)).toMatchObject([{ id: "b" }, { x: 100, y: 100, w: 200, h: 200, ref: "Anna" }]);
  });

  it("selecting computes nothing anew", async () => {
    const { view, store } = await openView(TWO, { names: ["Anna"] });
    const { scene } = view;
    store.dispatch({ type: "select", ids: ["a"] });
    store.amend({ type: "prefer", preferences: { grid: 8 } });
    expect(view.scene).toBe(scene);
  });

  it("settings are kept in the layout and are no entry of the history", async () => {
    const { view, store } = await openView(TWO);
    enter(view.element.querySelector('[data-setting="grid"]'), "32");
    expect(store.state.layout.editor.grid).toBe(32);
    expect(store.canUndo).toBe(false);
    drag(view, [150, 150], [201, 207], { target: boxOf(view, "a") });
    expect(boxes(store)[0]).toMatchObject({ x: 160, y: 160 });
  });
});

describe("what is shown and said", () => {
  it("boxes and rows name themselves, with number, reference, place and state", async () => {
    const { view } = await openView(TWO.replace('"ref"', '"locked":true,"ref"'), { names: ["Ben"] });
    expect(boxOf(view, "a").getAttribute("aria-label")).toBe(
      "Box 1 of 2, Anna (not connected), x 10 %, y 10 %, width 20 %, height 20 %, locked, reference not connected",
    );
    expect(boxOf(view, "b").getAttribute("aria-label")).toContain("text only");
    expect(boxOf(view, "a").style.left).toBe("10%");
  });

  it("changes are announced", async () => {
    const { view, store } = await openView(TWO, { names: ["Anna", "Ben"] });
    store.dispatch({ type: "select", ids: ["b"] });
    press(boxOf(view, "b"), "2");
    expect(view.live.textContent).toBe("Ben bound to 1");
    press(boxOf(view, "b"), "Delete");
    expect(view.live.textContent).toBe("1 deleted, 1 left");
  });

  it("text of a workflow stays text", async () => {
    const evil = '<img src=x onerror=alert(1)>';
    const { view } = await openView(JSON.stringify([{ id: evil, x: 1, y: 1, w: 99, h: 99, label: evil, ref: `"]${evil}` }]), { names: [evil] });
    view.store.dispatch({ type: "select", ids: [evil] });
    expect(view.element.querySelector("img")).toBeNull();
    expect(view.element.textContent).toContain(evil);
  });

  it("a name that turns the direction of writing does not turn its neighbours", async () => {
    const { view } = await openView(JSON.stringify([{ id: "a", x: 1, y: 1, w: 99, h: 99, label: "abc\u202edef" }]));
    expect(boxOf(view, "a").getAttribute("aria-label")).toContain("\u2068abc\u202edef\u2069 (text only)");
  });

  it("words at boxes are said to be for the reader alone until a method reads them", async () => {
    const { view } = await openView('[{"id":"a","x":1,"y":1,"w":99,"h":99,"label":"a lamp"}]');
    expect(view.status.textContent).toContain("for the reader alone");
    view.setEnvironment({ words: "EliGen" });
    expect(view.status.textContent).toContain("EliGen reads the words");
  });

  it("32 boxes have 32 colours, and a box keeps its own", async () => {
    const many = Array.from({ length: 32 }, (_, i) => ({ id: `b${i + 1}`, x: 10 * i, y: 0, w: 99, h: 99 }));
    const { view, store } = await openView(JSON.stringify(many));
    const colour = (id) => boxOf(view, id).style.getPropertyValue("--c");
    expect(new Set(many.map(({ id }) => colour(id))).size).toBe(32);
    const before = colour("b3");
    store.dispatch({ type: "moveTo", id: "b3", index: 20 });
    expect(colour("b3")).toBe(before);
  });

  it("while positions follow upstream, they cannot be moved, but can be bound", async () => {
    const { view, store, calls } = await openView(TWO, { names: ["Anna", "Ben"] });
    view.setEnvironment({ following: true });
    drag(view, [150, 150], [350, 350], { target: boxOf(view, "a") });
    press(boxOf(view, "a"), "Delete");
    expect(boxes(store)[0]).toMatchObject({ x: 100, y: 100 });
    press(boxOf(view, "a"), "2");
    expect(boxes(store)[0].ref).toBe("Ben");
    expect(view.notice.hidden).toBe(false);
    view.detach.click();
    expect(calls.detach).toBe(1);
  });

  it("a text that is no layout is shown with the reason, and can be mended", async () => {
    const { view, calls } = await openView("");
    view.setText({ code: "tooMany", where: "" }, "[...]");
    expect(view.textPanel.element.hidden).toBe(false);
    expect(view.textPanel.message.textContent).toContain("more than 50 boxes");
    enter(view.textPanel.area, TWO);
    expect(calls.text).toEqual([TWO]);
  });

  it("all of it is there in Chinese, with the same things to fill in", async () => {
    const slots = (text) => [...new Set((text.match(/\{\w+/g) ?? []))].sort();
    for (const [key, text] of Object.entries(LANGUAGES.en)) expect([key, slots(LANGUAGES.zh[key])]).toEqual([key, slots(text)]);
    const { view } = await openView(TWO, { locale: "zh-TW" });
    expect(view.element.getAttribute("aria-label")).toBe("布局编辑器");
    expect(translator("fr")("undo")).toBe("Undo");
  });
});

describe("leaving", () => {
  it("a disposed view hears nothing any more and has left the page", async () => {
    const { view, store } = await openView(TWO);
    const { element } = view.stage;
    view.dispose();
    expect(store.listeners.size).toBe(0);
    expect(view.library.listeners.size).toBe(0);
    expect(view.element.isConnected).toBe(false);
    element.dispatchEvent(new PointerEvent("pointerdown", { pointerId: 1, button: 0, bubbles: true }));
    expect(view.stage.gestures.active).toBeNull();
  });

  it("nothing is ever listened to on the window or the document", async () => {
    const heard = [];
    for (const target of [window, window.document]) {
      const add = target.addEventListener.bind(target);
      target.addEventListener = (...args) => {
        heard.push(args[0]);
        add(...args);
      };
    }
    const { view } = await openView(TWO, { names: ["Anna"] });
    drag(view, [150, 150], [350, 350], { target: boxOf(view, "a") });
    press(view.stage.element, "n");
    expect(heard).toEqual([]);
  });
});

describe("3D boxes", () => {
  it("D makes a cuboid of the selected box and a box of a cuboid; one step of undo each", async () => {
    const { view, store } = await openView('[{"id":"a","x":300,"y":500,"w":200,"h":300}]');
    store.dispatch({ type: "select", ids: ["a"] });
    boxOf(view, "a").focus();
    press(boxOf(view, "a"), "d");
    expect(boxes(store)[0].solid).toMatchObject({ y: 0, yaw: 0 });
    expect(boxOf(view, "a").classList.contains("solid")).toBe(true);
    expect(document.activeElement).toBe(boxOf(view, "a"));
    expect(boxOf(view, "a").getAttribute("aria-label")).toContain("3D, distance");
    expect(view.element.querySelectorAll(".lines .edge, .lines .behind")).toHaveLength(2);
    expect(view.element.querySelectorAll(".floor path")).toHaveLength(2);
    press(boxOf(view, "a"), "d");
    expect("solid" in boxes(store)[0]).toBe(false);
    expect(view.element.querySelectorAll(".floor path")).toHaveLength(0);
    store.undo();
    expect(boxes(store)[0].solid).toBeDefined();
    store.undo();
    expect(boxes(store)[0]).toMatchObject({ x: 300, y: 500, w: 200, h: 300 });
    store.dispatch({ type: "select", ids: [] });
    press(view.stage.element, "d");
    expect(boxes(store)[1].solid).toBeDefined();
    store.undo();
    expect(boxes(store)).toHaveLength(1);
  });

  it("handles, keys and the panel's numbers change it; a number that the camera would not see changes nothing", async () => {
    const { view, store } = await openView('[{"id":"a","x":300,"y":500,"w":200,"h":300}]');
    store.dispatch({ type: "select", ids: ["a"] });
    press(boxOf(view, "a"), "d");
    const solid = () => boxes(store)[0].solid;
    const start = solid();
    tool(view, "solid").click();
    const at = view.stage.byId.get("a").querySelector('[data-handle="rise"]');
    drag(view, [400, 500], [400, 400], { target: at });
    expect(solid().h).toBeGreaterThan(1.2 * start.h);
    press(boxOf(view, "a"), "ArrowUp");
    expect(solid().z).toBeGreaterThan(start.z);
    press(boxOf(view, "a"), "r");
    expect(solid().yaw).toBe(15);
    expect(view.live.textContent).toContain("turned by 15 degrees");
    const number = (name, key = "solid") => view.element.querySelector(`[data-${key}="${name}"]`);
    enter(number("yaw"), "-30");
    expect(solid().yaw).toBe(-30);
    expect(number("z").value).toBe(String(solid().z));
    enter(number("z"), "-5");
    expect(solid().z).toBeGreaterThan(0);
    expect(view.live.textContent).toContain("camera would not see");
    enter(number("z"), "");
    enter(number("focal", "camera"), "1.5");
    expect(store.state.layout.camera).toMatchObject({ focal: 1.5, height: 1, pitch: 0 });
    enter(number("focal", "camera"), "0");
    expect(store.state.layout.camera.focal).toBe(0.1);
  });

  it("a locked one keeps its place and its numbers", async () => {
    const { view, store } = await openView('[{"id":"a","x":300,"y":500,"w":200,"h":300}]');
    store.dispatch({ type: "select", ids: ["a"] });
    press(boxOf(view, "a"), "d");
    store.dispatch({ type: "lock", ids: ["a"], locked: true });
    const before = boxes(store)[0];
    tool(view, "solid").click();
    expect(view.element.querySelector('[data-solid="z"]').disabled).toBe(true);
    for (const key of ["ArrowUp", "r", "w", "d"]) press(boxOf(view, "a"), key);
    expect(boxes(store)[0]).toBe(before);
  });

  it("the planes are a way to look at the layout: nothing of it changes, and no step is made", async () => {
    const { view, store } = await openView(TWO);
    const select = view.element.querySelector('[data-setting="shows"]');
    tool(view, "solid").click();
    enter(select, "depth");
    expect(view.stage.showing).toBe("planes");
    expect(view.status.textContent).toContain("depth of 3D boxes");
    expect(store.canUndo).toBe(false);
    enter(select, "picture");
    expect(view.stage.showing).toBe("live");
  });
});
