import { describe, expect, it } from "vitest";

import { doubtsIn } from "../../web/notes/graph.js";
import { isEmpty, NOTHING, readError, readOutput, readRefusal } from "../../web/notes/model.js";
import { translator } from "../../web/notes/strings.js";

const t = translator("en");
const ours = (type) => ["LayoutComposer", "ContextGenPatchModel"].includes(type);

describe("what is said on a node", () => {
  it("reads text and warnings of an output, and nothing of what is neither", () => {
    expect(readOutput({ text: ["a\nb"], contextgen_warnings: ["one", "two"] })).toEqual({ text: "a\nb", warnings: ["one", "two"] });
    for (const output of [null, {}, { text: "loose", contextgen_warnings: 3 }]) {
      expect(readOutput(output)).toEqual({ text: "", warnings: [] });
    }
    expect(isEmpty(NOTHING)).toBe(true);
    expect(isEmpty({ ...NOTHING, graph: ["x"] })).toBe(false);
  });

  it("objects in place of text say nothing", () => {
    const odd = JSON.parse('{"toString":1,"valueOf":1}');
    expect(readOutput({ text: [odd, "a"], contextgen_warnings: [[odd], 3] })).toEqual({ text: "a", warnings: ["", "3"] });
    expect(readError({ exception_message: odd }, ours)).toBeNull();
    expect(readError({ exception_message: "no.", node_type: "LayoutComposer", node_id: odd }, ours)).toEqual({ id: "", type: "LayoutComposer", message: "no." });
    expect([...readRefusal({ 7: { errors: [{ message: odd, details: "b" }] } })]).toEqual([["7", "b"]]);
  });

  it("an error belongs to the node that raised it, or to the one that its sentence names", () => {
    const own = { node_id: "5:2", node_type: "LayoutComposer", exception_message: "LayoutComposer, layout: no.\n" };
    expect(readError(own, ours)).toEqual({ id: "5:2", type: "LayoutComposer", message: "LayoutComposer, layout: no." });
    const sampler = { node_id: "9", node_type: "KSampler", exception_message: "ContextGenPatchModel, model: no." };
    expect(readError(sampler, ours)).toEqual({ id: null, type: "ContextGenPatchModel", message: "ContextGenPatchModel, model: no." });
    expect(readError({ node_id: "9", node_type: "KSampler", exception_message: "out of memory" }, ours)).toBeNull();
    expect(readError({}, ours)).toBeNull();
  });

  it("a refusal is told with its details", () => {
    const errors = { 4: { errors: [{ message: "Value not in list", details: "adapter: 'x'" }] }, 5: { errors: [] }, 6: null };
    expect([...readRefusal(errors)]).toEqual([["4", "Value not in list: adapter: 'x'"]]);
    expect(readRefusal(null).size).toBe(0);
  });
});

/** A graph as the frontend has it: nodes of a type, with widgets, fed through inputs. */
function graph(...nodes) {
  const links = new Map();
  const made = { nodes: [], subgraphs: new Map(), links, getNodeById: (id) => made.nodes.find((node) => node.id === id) };
  nodes.forEach(({ id, type, mode = 0, widgets = {}, from = {} }) => {
    const inputs = Object.entries(from).map(([name, origin]) => {
      links.set(`${id}.${name}`, { origin_id: origin, origin_slot: 0 });
      return { name, link: `${id}.${name}` };
    });
    const list = Object.entries(widgets).map(([name, value]) => ({ name, value }));
    made.nodes.push({ id, type, mode, inputs, widgets: list, outputs: [], graph: made });
  });
  return made;
}

const composer = (id, width, height) => ({ id, type: "LayoutComposer", widgets: { width, height } });
const shift = (id, width, height, from = {}) => ({ id, type: "ModelSamplingFlux", widgets: { width, height }, from: { model: 1, ...from } });
const patch = { id: 1, type: "ContextGenPatchModel" };
const said = (root) => [...doubtsIn(root, t)].map(([node, sentences]) => [node.id, sentences]);

describe("sizes that are typed twice", () => {
  it("that differ are said on the layout, with both", () => {
    const [[id, [sentence]]] = said(graph(patch, composer(2, 768, 512), shift(3, 1024, 1024)));
    expect(id).toBe(2);
    expect(sentence).toContain("1024 × 1024");
    expect(sentence).toContain("768 × 512");
  });

  it("that agree, are connected, are off, or belong to another model are not", () => {
    expect(said(graph(patch, composer(2, 768, 512), shift(3, 768, 512)))).toEqual([]);
    expect(said(graph(patch, composer(2, 770, 512), shift(3, 768, 512))), "the layout rounds to 16").toEqual([]);
    expect(said(graph(patch, composer(2, 768, 512), shift(3, 1024, 1024, { width: 2, height: 2 })))).toEqual([]);
    expect(said(graph(patch, composer(2, 768, 512), { ...shift(3, 1024, 1024), mode: 4 }))).toEqual([]);
    expect(said(graph({ id: 1, type: "UNETLoader" }, composer(2, 768, 512), shift(3, 1024, 1024)))).toEqual([]);
  });
});

describe("the small model", () => {
  it("says at which sizes it knows nothing", () => {
    const bundle = (id, size) => ({ id, type: "ReferenceBundle", widgets: { size } });
    const tiny = { id: 9, type: "ContextGenTinyModel" };
    expect(said(graph(tiny, composer(2, 128, 128), bundle(3, 16)))).toEqual([]);
    const [[id, sentences]] = said(graph(tiny, composer(2, 768, 768), bundle(3, 0), bundle(4, 0), bundle(5, 16)));
    expect(id).toBe(9);
    expect(sentences[0]).toContain("768 × 768");
    expect(sentences[1]).toContain("2 references");
  });
});
