import { describe, expect, it } from "vitest";

import { feeding, readPicture, readReferences } from "../../web/host/upstream.js";

const url = (value, folder) => `${folder}:${value}`;

/** A graph of plain nodes as the host keeps them: [type, widgets, {input: [node, slot]}]. */
function graphOf(spec, { root = null } = {}) {
  const graph = { links: new Map(), nodes: [], getNodeById: (id) => graph.nodes.find((node) => node.id === id) ?? null };
  graph.rootGraph = root ?? graph;
  graph.getLink = (id) => graph.links.get(id);
  for (const [id, [type, widgets = {}, , extra = {}]] of Object.entries(spec)) {
    graph.nodes.push({
      id: Number(id),
      type,
      graph,
      mode: 0,
      inputs: [],
      outputs: [{ type: "IMAGE" }, { type: "MASK" }],
      widgets: Object.entries(widgets).map(([name, value]) => ({ name, value })),
      ...extra,
    });
  }
  let link = 0;
  for (const [id, [, , inputs = {}]] of Object.entries(spec)) {
    for (const [name, [from, slot, type = "IMAGE"]] of Object.entries(inputs)) {
      link += 1;
      graph.links.set(link, { origin_id: from, origin_slot: slot });
      graph.getNodeById(Number(id)).inputs.push({ name, type, link });
    }
  }
  return graph;
}

const LOAD = ["LoadImage", { image: "people/anna.png" }];
const composer = (from) => ["LayoutComposer", {}, { references: [from, 0] }];

describe("references", () => {
  it("come in the bundle's order, with names or numbers, and the mask as the loader means it", () => {
    const graph = graphOf({
      1: LOAD,
      2: ["ReferenceBundle", { name: "Anna", invert_mask: true }, { image: [1, 0], subject_mask: [1, 1] }],
      3: ["ReferenceBundle", { name: "" }, { image: [1, 0], references: [2, 0] }],
      4: composer(3),
    });
    const mask = { url: "input:people/anna.png", channel: "a", invert: false };
    expect(readReferences(graph.getNodeById(4), url)).toEqual([
      { name: "Anna", named: true, image: mask.url, mask, exact: true, size: null },
      { name: "reference 2", named: false, image: mask.url, mask: null, exact: true, size: null },
    ]);
  });

  it("the loader's mask alone marks what is transparent; InvertMask turns it", () => {
    const graph = graphOf({
      1: LOAD,
      2: ["InvertMask", {}, { mask: [1, 1, "MASK"] }],
      3: ["ReferenceBundle", {}, { image: [1, 0], subject_mask: [1, 1] }],
      4: ["ReferenceBundle", {}, { image: [1, 0], subject_mask: [2, 0], references: [3, 0] }],
      5: composer(4),
    });
    expect(readReferences(graph.getNodeById(5), url).map(({ mask }) => mask.invert)).toEqual([true, false]);
  });

  it("a picture that is changed on its way is shown as rough, an unknown one not at all", () => {
    const graph = graphOf({
      1: LOAD,
      2: ["ImageScale", {}, { image: [1, 0] }],
      3: ["ReferenceBundle", {}, { image: [2, 0] }],
      4: ["EmptyImage"],
      5: ["ReferenceBundle", {}, { image: [4, 0], references: [3, 0] }],
      6: composer(5),
    });
    expect(readReferences(graph.getNodeById(6), url).map(({ image, exact }) => [image, exact])).toEqual([["input:people/anna.png", false], [null, false]]);
  });

  it("reroutes and bypassed nodes are passed through, muted ones and loops end it", () => {
    const graph = graphOf({
      1: LOAD,
      2: ["Reroute", {}, { "": [1, 0] }],
      3: ["ImageScale", {}, { image: [2, 0] }, { mode: 4 }],
      4: ["ReferenceBundle", {}, { image: [3, 0], references: [4, 0] }],
      5: composer(4),
      6: ["LoadImage", { image: "b.png" }, {}, { mode: 2 }],
      7: ["ReferenceBundle", {}, { image: [6, 0] }],
      8: composer(7),
    });
    expect(readReferences(graph.getNodeById(5), url)).toMatchObject([{ image: "input:people/anna.png", exact: true }]);
    expect(readReferences(graph.getNodeById(8), url)[0].image).toBeNull();
  });

  it("are found across the border of a subgraph, from inside and from outside", () => {
    const root = graphOf({ 1: LOAD, 2: ["ReferenceBundle", { name: "Anna" }, { image: [1, 0] }], 3: ["shell", {}, { references: [2, 0] }], 4: composer(5), 5: ["shell"] });
    const inner = graphOf({ 10: composer(-10) }, { root });
    const bundle = graphOf({ 20: LOAD, 21: ["ReferenceBundle", { name: "Ben" }, { image: [20, 0] }] }, { root });
    bundle.links.set(99, { origin_id: 21, origin_slot: 0 });
    bundle.outputs = [{ linkIds: [99] }];
    root.getNodeById(3).subgraph = inner;
    root.getNodeById(5).subgraph = bundle;
    expect(readReferences(inner.getNodeById(10), url).map(({ name }) => name)).toEqual(["Anna"]);
    expect(readReferences(root.getNodeById(4), url).map(({ name }) => name)).toEqual(["Ben"]);
  });

  it("nothing connected is no reference, and no error", () => {
    const graph = graphOf({ 1: ["LayoutComposer"] });
    expect(readReferences(graph.getNodeById(1), url)).toEqual([]);
    expect(feeding(graph.getNodeById(1), "boxes")).toBeNull();
  });
});

it("a connected picture is known only when it comes straight from a file", () => {
  const graph = graphOf({ 1: LOAD, 2: ["ImageScale", {}, { image: [1, 0] }], 3: ["LayoutComposer", {}, { layout_image: [1, 0] }], 4: ["LayoutComposer", {}, { layout_image: [2, 0] }] });
  expect(readPicture(graph.getNodeById(3), "layout_image", url)).toBe("input:people/anna.png");
  expect(readPicture(graph.getNodeById(4), "layout_image", url)).toBeNull();
});
