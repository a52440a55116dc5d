import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { translator } from "../../web/editor/strings.js";
import { drag, openPage, press } from "./page.js";

const ONE = '{"v":1,"canvas":{"w":1000,"h":1000},"boxes":[{"id":"a","x":100,"y":100,"w":200,"h":200,"ref":"Anna","label":"","locked":false}]}';
const SEEDED = '{"v":1,"canvas":{"w":1000,"h":1000},"boxes":[{"id":"b1","x":10,"y":20,"w":300,"h":400,"ref":1,"label":"","locked":false}]}';

let window;
beforeEach(() => (window = openPage()));
afterEach(() => window.close());

/** A node without a host: its facts can be set, what is written is kept. */
async function openController(facts = {}) {
  const { Controller } = await import("../../web/editor/controller.js");
  const node = { text: "", size: { w: 1000, h: 1000 }, fit: "instance", order: "drawn", sizeLinked: false, policy: "seed once", boxesLinked: false, layoutLinked: false, picture: null, sources: [], readers: { words: null, names: false }, ...facts };
  const written = [];
  const travelled = [];
  const marks = { undo: {}, present: {}, redo: null };
  const host = {
    read: () => ({ ...node }),
    write: (text) => {
      node.text = text;
      written.push(text);
    },
    resize: (size) => (node.size = size),
    changed: () => {},
    setPolicy: (policy) => (node.policy = policy),
    travel: (direction) => travelled.push(direction),
    marks: () => ({ ...marks }),
    addReference: async ({ then }) => then(),
    viewUrl: ({ filename }) => `/view/${filename}`,
  };
  const controller = new Controller(host, translator("en"));
  document.body.append(controller.element);
  return { controller, node, written, travelled, marks, boxes: () => controller.store.state.layout.boxes };
}

const ran = (text, extra = {}) => ({ text, pictures: [{ filename: "c.png", subfolder: "", type: "temp" }], references: [], warnings: [], ...extra });

describe("one source of truth", () => {
  it("opening writes nothing, each gesture writes once, undoing everything leaves the text as it was", async () => {
    const { controller, node, written } = await openController({ text: ONE });
    expect(written).toEqual([]);
    drag(controller.view, [500, 500], [900, 900]);
    expect(written).toHaveLength(1);
    press(controller.view.stage.element, "z", { ctrlKey: true });
    expect(node.text).toBe(ONE);
  });

  it("an empty layout is an empty text", async () => {
    const { controller, node } = await openController();
    drag(controller.view, [100, 100], [400, 400]);
    press(controller.view.stage.element, "z", { ctrlKey: true });
    expect(node.text).toBe("");
  });

  it("text that comes from elsewhere is taken over, with a new history", async () => {
    const { controller, node, boxes } = await openController();
    drag(controller.view, [500, 500], [900, 900]);
    node.text = ONE;
    controller.sync();
    expect(boxes().map((box) => box.id)).toEqual(["a"]);
    expect(controller.store.canUndo).toBe(false);
  });

  it("a text that is no layout is never written over, until the user starts over", async () => {
    const { controller, node, written } = await openController({ text: "[1, 2" });
    controller.sync();
    node.size = { w: 512, h: 512 };
    controller.sync();
    expect(written).toEqual([]);
    expect(controller.view.problem.code).toBe("notJson");
    controller.view.textPanel.reset.click();
    expect(node.text).toBe("");
    expect(controller.view.problem).toBeNull();
  });

  it("text typed into the editor is an entry of the history", async () => {
    const { controller, node } = await openController();
    controller.setText(ONE);
    expect(JSON.parse(node.text).boxes).toHaveLength(1);
    press(controller.view.stage.element, "z", { ctrlKey: true });
    expect(node.text).toBe("");
  });
});

describe("the node's other fields", () => {
  it("width and height are the canvas: boxes scale, and undo brings both back", async () => {
    const { controller, node, boxes } = await openController({ text: ONE });
    node.size = { w: 2000, h: 500 };
    controller.sync();
    expect(boxes()[0]).toMatchObject({ x: 200, y: 50, w: 400, h: 100 });
    expect(JSON.parse(node.text).canvas).toEqual({ w: 2000, h: 500 });
    press(controller.view.stage.element, "z", { ctrlKey: true });
    expect(node.size).toEqual({ w: 1000, h: 1000 });
    expect(node.text).toBe(ONE);
    controller.sync();
    expect(node.text).toBe(ONE);
  });

  it("a canvas tried out small and set back loses nothing, even where boxes keep their pixels", async () => {
    const keep = ONE.replace(/}$/, ',"editor":{"resize":"keep"}}');
    const { controller, node, boxes } = await openController({ text: keep });
    for (const side of [64, 1000]) {
      node.size = { w: side, h: side };
      controller.sync();
    }
    expect(boxes()[0]).toMatchObject({ x: 100, y: 100, w: 200, h: 200 });
  });

  it("a canvas that other nodes set is followed, and is no entry", async () => {
    const { controller, node, boxes } = await openController({ text: ONE, sizeLinked: true });
    node.size = { w: 2000, h: 500 };
    controller.sync();
    expect(boxes()[0]).toMatchObject({ x: 200, w: 400 });
    expect(controller.store.canUndo).toBe(false);
  });

  it("the graph's own undo and redo of our steps go along in the history; anything else begins it anew", async () => {
    const { controller, node, boxes } = await openController({ text: ONE });
    drag(controller.view, [500, 500], [900, 900]);
    const two = node.text;
    drag(controller.view, [500, 20], [900, 90]);
    node.text = two;
    controller.sync();
    expect(boxes()).toHaveLength(2);
    press(controller.view.stage.element, "z", { ctrlKey: true });
    expect(node.text).toBe(ONE);
    node.text = two;
    controller.sync();
    expect(controller.store.canUndo).toBe(true);
    node.text = two.replace('"h":400', '"h":300');
    controller.sync();
    expect(controller.store.canUndo).toBe(false);
  });

  it("a node built anew goes on with the history of the one before it", async () => {
    const before = await openController({ text: ONE });
    drag(before.controller.view, [500, 500], [900, 900]);
    const session = before.controller.session();
    const { controller, node } = await openController({ text: before.node.text });
    controller.resume(session);
    press(controller.view.stage.element, "z", { ctrlKey: true });
    expect(node.text).toBe(ONE);
  });

  it("a picture that was added is taken back by the graph, with its nodes, unless the graph has gone on since", async () => {
    const { controller, marks, travelled, boxes } = await openController({ text: ONE });
    const place = () => controller.store.dispatch({ type: "add", rect: { x: 5, y: 5, w: 50, h: 50 }, ref: "Ben" });
    await controller.callbacks.onPicture({ file: null, name: "Ben", cut: "none", then: place });
    press(controller.view.stage.element, "z", { ctrlKey: true });
    expect(travelled).toEqual(["undo"]);
    expect(boxes()).toHaveLength(2);
    marks.undo = {};
    press(controller.view.stage.element, "z", { ctrlKey: true });
    expect(travelled).toHaveLength(1);
    expect(boxes()).toHaveLength(1);
  });

  it("the prompt carries only what the picture depends on, the workflow all of it", async () => {
    const { controller, node } = await openController({ text: ONE });
    const before = controller.promptText();
    controller.store.dispatch({ type: "select", ids: ["a"] });
    controller.store.dispatch({ type: "lock", ids: ["a"], locked: true });
    controller.store.dispatch({ type: "label", id: "a", label: "left" });
    controller.store.dispatch({ type: "layer", ids: ["a"], change: { colour: "#ff0000" } });
    controller.store.amend({ type: "prefer", preferences: { grid: 16 } });
    expect(controller.promptText()).toBe(before);
    expect(JSON.parse(node.text)).toMatchObject({ boxes: [{ label: "left", locked: true, colour: "#ff0000" }], editor: { grid: 16 } });
    node.readers = { words: "EliGen", names: true };
    expect(JSON.parse(controller.promptText()).boxes[0]).toMatchObject({ label: "left", locked: false });
    controller.store.dispatch({ type: "layer", ids: ["a"], change: { opacity: 0.5 } });
    expect(controller.promptText()).not.toBe(before);
  });

  it("a reference that is renamed takes its boxes along; one that is exchanged does not", async () => {
    const anna = { name: "Anna", named: true, image: "/a.png", mask: null, exact: true, size: null };
    const { controller, node, boxes } = await openController({ text: ONE, sources: [anna] });
    node.sources = [{ ...anna, name: "Anne" }];
    controller.sync();
    expect(boxes()[0].ref).toBe("Anne");
    node.sources = [{ ...anna, name: "reference 1", named: false }];
    controller.sync();
    expect(boxes()[0].ref).toBe(1);
    node.sources = [anna];
    controller.sync();
    controller.store.dispatch({ type: "bind", ids: ["a"], ref: "Anna" });
    node.sources = [{ ...anna, name: "Ben", image: "/b.png" }];
    controller.sync();
    expect(boxes()[0].ref).toBe("Anna");
  });

  it("a canvas that changes during a gesture waits for its end", async () => {
    const { controller, node, boxes } = await openController({ text: ONE });
    const { view } = controller;
    drag(view, [150, 150], [350, 350], { target: view.element.querySelector('[data-box="a"]'), end: null });
    node.size = { w: 2000, h: 1000 };
    controller.sync();
    expect(controller.store.inGesture).toBe(true);
    expect(controller.store.state.layout.canvas).toEqual({ w: 1000, h: 1000 });
    view.cancelGesture();
    controller.sync();
    expect(boxes()[0]).toMatchObject({ x: 200, w: 400 });
  });

  it("follow: labels and layers stay the user's, only places come from the run", async () => {
    const mine = ONE.replace('"id":"a"', '"id":"b1"').replace('"label":""', '"label":"left"').replace('"locked":false', '"locked":false,"rot":30');
    const { controller, boxes } = await openController({ text: mine, boxesLinked: true, policy: "follow upstream" });
    controller.ran(ran(SEEDED));
    expect(boxes()).toMatchObject([{ x: 10, y: 20, w: 300, h: 400, ref: "Anna", label: "left", rot: 30 }]);
  });

  it("a linked layout is shown and left alone", async () => {
    const { controller, written } = await openController({ text: ONE, layoutLinked: true });
    drag(controller.view, [500, 500], [900, 900]);
    press(controller.view.stage.element, "n");
    expect(written).toEqual([]);
    expect(controller.view.notice.hidden).toBe(false);
  });
});

describe("after a run", () => {
  it("seed once: boxes from upstream fill an empty layout, as one entry", async () => {
    const { controller, node } = await openController({ boxesLinked: true });
    expect(controller.view.noticeText.textContent).toContain("The next run takes the connected boxes over");
    controller.ran(ran(SEEDED));
    expect(controller.view.notice.hidden).toBe(true);
    expect(node.text).toBe(SEEDED);
    press(controller.view.stage.element, "z", { ctrlKey: true });
    expect(node.text).toBe("");
  });

  it("seed once: a layout with boxes says that the connected ones have no effect, and takes them on a click", async () => {
    const { controller, node, boxes } = await openController({ text: ONE, boxesLinked: true });
    expect(controller.view.notice.hidden).toBe(false);
    controller.view.take.click();
    expect(node.text).toBe("");
    controller.ran(ran(SEEDED));
    expect(boxes()[0]).toMatchObject({ x: 10, y: 20 });
    controller.store.undo();
    controller.store.undo();
    expect(boxes()[0].id).toBe("a");
  });

  it("seed once: a layout with boxes stays", async () => {
    const { controller, node } = await openController({ boxesLinked: true, text: ONE });
    controller.ran(ran(SEEDED));
    expect(node.text).toBe(ONE);
  });

  it("follow: positions come from the run, what is bound stays the user's", async () => {
    const { controller, boxes } = await openController({ boxesLinked: true, policy: "follow upstream", text: SEEDED.replace('"ref":1', '"ref":"Ben"') });
    controller.ran(ran(SEEDED.replace('"x":10', '"x":77')));
    expect(boxes()[0]).toMatchObject({ x: 77, ref: "Ben" });
  });

  it("without connected boxes a run changes nothing", async () => {
    const { controller, node } = await openController();
    controller.ran(ran(SEEDED));
    expect(node.text).toBe("");
  });

  it("the true composite is shown while the layout is the one that ran, then the live one again", async () => {
    const { controller } = await openController({ text: ONE });
    controller.ran(ran(ONE, { warnings: ["box 1 is small."] }));
    expect(controller.view.stage.showing).toBe("run");
    expect(controller.view.warnings.textContent).toBe("box 1 is small.");
    press(controller.view.stage.element, "n");
    expect(controller.view.stage.showing).toBe("live");
    expect(controller.view.warnings.hidden).toBe(true);
  });

  it("a composite is old as soon as the fit or a reference has changed", async () => {
    const { controller, node } = await openController({ text: ONE });
    controller.promptText();
    controller.ran(ran(ONE));
    expect(controller.view.stage.showing).toBe("run");
    node.fit = "stretch";
    controller.sync();
    expect(controller.view.stage.showing).toBe("live");
    node.fit = "instance";
    controller.sync();
    expect(controller.view.stage.showing).toBe("run");
    node.sources = [{ name: "Anna", named: true, image: null, mask: null, exact: true, size: null }];
    controller.sync();
    expect(controller.view.stage.showing).toBe("live");
  });

  it("references of the run replace what the graph could not show, and go when the graph changes", async () => {
    const rough = { name: "Anna", named: true, image: null, mask: null, exact: false, size: null };
    const { controller, node } = await openController({ sources: [rough] });
    controller.ran(ran("", { references: [{ name: "Anna", width: 640, height: 480, image: { filename: "t.png", subfolder: "", type: "temp" } }] }));
    expect(controller.library.references[0]).toMatchObject({ image: "/view/t.png", size: { w: 640, h: 480 }, exact: true });
    node.sources = [{ ...rough, image: "/view/other.png" }];
    controller.sync();
    expect(controller.library.references[0].image).toBe("/view/other.png");
  });
});

it("the large editor is a second view of the same boxes, and goes with the first", async () => {
  const { controller, node } = await openController();
  controller.openLarge();
  const [large] = [...controller.views].filter((view) => view.isLarge);
  drag(large, [100, 100], [400, 400]);
  expect(controller.view.element.querySelectorAll(".box")).toHaveLength(1);
  expect(JSON.parse(node.text).boxes).toHaveLength(1);
  controller.dispose();
  expect(document.querySelector("dialog")).toBeNull();
  expect(controller.store.listeners.size).toBe(0);
});
