import { describe, expect, it } from "vitest";

import { readersIn } from "../../web/host/downstream.js";

const graph = (...nodes) => ({ nodes, subgraphs: new Map() });

describe("who reads the words of boxes", () => {
  it("no one, the report, or a method: it is named by its title", () => {
    expect(readersIn(graph({ type: "KSampler", mode: 0 }))).toEqual({ words: null, names: false });
    expect(readersIn(graph({ type: "ContextGenReport", mode: 0 }))).toEqual({ words: null, names: true });
    expect(readersIn(graph({ type: "EliGenConditioning", title: "EliGen", mode: 0 }))).toEqual({ words: "EliGen", names: true });
  });

  it("a muted or bypassed node reads nothing, one in a subgraph does", () => {
    expect(readersIn(graph({ type: "EliGenConditioning", mode: 4 }, { type: "ContextGenReport", mode: 2 }))).toEqual({ words: null, names: false });
    const outer = graph();
    outer.subgraphs.set("inner", graph({ comfyClass: "LAMICConditioning", mode: 0 }));
    expect(readersIn(outer).words).toBe("LAMICConditioning");
  });
});
