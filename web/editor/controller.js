/**
 * One node's editor: keeps the store and the node's `layout` input the same, and tells the views about the rest of the
 * node. What it needs from the host comes in as plain functions, so that it runs without one.
 *
 * @typedef {import("./model.js").Size} Size
 * @typedef {{text: string, size: Size, fit: string, order: string, policy: string, boxesLinked: boolean,
 *   layoutLinked: boolean, picture: string | null, sources: readonly import("./references.js").Source[]}} NodeFacts
 * @typedef {{read: () => NodeFacts, write: (text: string) => void, changed: () => void, detach: () => void,
 *   viewUrl: (file: {filename: string, subfolder: string, type: string}) => string}} Host
 * @typedef {{text: string, pictures: {filename: string, subfolder: string, type: string}[],
 *   references: {name: string, width: number, height: number, image: {filename: string, subfolder: string, type: string}}[],
 *   warnings: readonly string[]}} RunResult
 */

import { openLarge } from "./large.js";
import { DEFAULT_PREFERENCES, emptyLayout, parseLayout, sameScene, serialiseLayout } from "./model.js";
import { mount } from "./mount.js";
import { ReferenceLibrary } from "./references.js";
import { Store } from "./store.js";
import { EditorView } from "./view.js";

export class Controller {
  /** @param {Host} host @param {import("./strings.js").Translate} t */
  constructor(host, t) {
    this.host = host;
    this.t = t;
    this.library = new ReferenceLibrary();
    this.facts = host.read();
    this.store = new Store(emptyLayout(this.facts.size));
    /** @type {import("./model.js").Problem | null} */
    this.problem = null;
    /** @type {string | null} the text last read or written; any other text in the node comes from elsewhere */
    this.known = null;
    /** @type {import("./scene.js").Environment["run"]} */
    this.run = null;
    /** @type {{signature: string, sources: readonly import("./references.js").Source[]} | null} */
    this.fromRun = null;
    /** @type {(() => void) | null} */
    this.closeLarge = null;
    this.callbacks = {
      onText: (/** @type {string} */ text) => this.setText(text),
      onLarge: () => this.openLarge(),
      onDetach: () => this.host.detach(),
    };
    this.view = new EditorView({ store: this.store, library: this.library, t, callbacks: this.callbacks });
    /** @type {Set<EditorView>} */
    this.views = new Set([this.view]);
    this.store.subscribe((change) => change === "commit" && this.#write());
    this.element = mount(this.view.element);
    this.sync();
  }

  /** Takes over what changed in the node. Cheap when nothing did; called often. */
  sync() {
    this.facts = this.host.read();
    const { text, size } = this.facts;
    if (text !== this.known) this.#load(text, size);
    // During a gesture the boxes belong to the user's hand.
    if (!this.problem && !this.store.inGesture) this.#fitCanvas(size);
    this.library.update(this.#sources());
    this.#inform();
  }

  /** The user's own text, typed or pasted: an entry of the history like any other. @param {string} text */
  setText(text) {
    const { layout, problem } = parseLayout(text, this.facts.size);
    if (problem) {
      this.#show(problem, text);
      return;
    }
    const wrong = this.problem !== null;
    this.#show(null, text);
    if (!this.store.dispatch({ type: "replace", layout }) || wrong) this.#write();
  }

  /** A run has finished: its composite, the layout that it used, and its references. @param {RunResult} result */
  ran(result) {
    const { layout } = parseLayout(result.text, this.facts.size);
    const [picture] = result.pictures;
    this.run = layout && picture ? { layout, url: this.host.viewUrl(picture), warnings: result.warnings } : null;
    this.fromRun = { signature: JSON.stringify(this.facts.sources), sources: this.#sourcesOf(result) };
    if (layout) this.#adopt(layout);
    this.sync();
  }

  openLarge() {
    if (this.closeLarge) return;
    this.sync();
    const view = new EditorView({ store: this.store, library: this.library, t: this.t, callbacks: this.callbacks, isLarge: true });
    this.views.add(view);
    this.#inform();
    this.closeLarge = openLarge(view, {
      title: this.t("editor"),
      close: this.t("close"),
      onClose: () => {
        this.views.delete(view);
        this.closeLarge = null;
        this.view.stage.element.focus({ preventScroll: true });
      },
    });
  }

  dispose() {
    this.closeLarge?.();
    this.view.dispose();
    this.element.dataset.gone = "";
    this.library.dispose();
    this.store.listeners.clear();
  }

  /** @param {string} text @param {Size} size */
  #load(text, size) {
    this.known = text;
    const { layout, problem } = parseLayout(text, size);
    this.#show(problem, text);
    if (layout) this.store.load(layout);
    else this.store.load(emptyLayout(size));
  }

  /** The node's width and height are the canvas; boxes follow as the user chose. @param {Size} size */
  #fitCanvas(size) {
    const { canvas, boxes } = this.store.state.layout;
    if (canvas.w === size.w && canvas.h === size.h) return;
    if (boxes.length) this.store.amend({ type: "canvas", size });
    else this.store.load({ ...this.store.state.layout, canvas: size });
  }

  /** The layout that a run used becomes the node's own: boxes from upstream, seeded or followed. @param {import("./model.js").Layout} used */
  #adopt(used) {
    if (!this.facts.boxesLinked || this.facts.layoutLinked || this.problem) return;
    const { layout } = this.store.state;
    if (!this.#following && layout.boxes.length) return;
    const mine = new Map(layout.boxes.map((box) => [box.id, box]));
    const boxes = used.boxes.map((box) => {
      const own = mine.get(box.id);
      return own ? { ...box, ref: own.ref, label: own.label || box.label, locked: own.locked } : box;
    });
    const next = { ...used, boxes, editor: layout.editor };
    if (!sameScene(next, layout)) this.store.dispatch({ type: "replace", layout: next });
  }

  /** The references as the run had them. Their pictures are small copies, so what the graph shows in full stays. @param {RunResult} result */
  #sourcesOf(result) {
    const { sources } = this.facts;
    return result.references.map((reference, index) => {
      const known = sources.length === result.references.length ? sources[index] : null;
      const named = known?.name === reference.name ? known.named : !/^reference \d+$/.test(reference.name);
      if (known?.exact) return { ...known, name: reference.name, named };
      const url = this.host.viewUrl(reference.image);
      return {
        name: reference.name,
        named,
        image: url,
        mask: { url, channel: /** @type {const} */ ("a"), invert: false },
        exact: true,
        size: { w: reference.width, h: reference.height },
      };
    });
  }

  get #following() {
    return this.facts.boxesLinked && this.facts.policy === "follow upstream";
  }

  /** What the run showed counts as long as the graph above is the same; until then what the graph tells. */
  #sources() {
    const { sources } = this.facts;
    if (this.fromRun && this.fromRun.signature === JSON.stringify(sources)) return this.fromRun.sources;
    this.fromRun = null;
    return sources;
  }

  #write() {
    const { layout } = this.store.state;
    const plain = { ...layout, editor: { ...DEFAULT_PREFERENCES } };
    const untouched = !layout.boxes.length && serialiseLayout(layout) === serialiseLayout(plain);
    const text = untouched ? "" : serialiseLayout(layout);
    if (text === this.known) return;
    this.known = text;
    this.#show(null, text);
    this.host.write(text);
    this.host.changed();
  }

  /** @param {import("./model.js").Problem | null} problem @param {string} text */
  #show(problem, text) {
    this.problem = problem;
    for (const view of this.views ?? []) view.setText(problem, text);
  }

  #inform() {
    const { fit, order, layoutLinked, picture, boxesLinked } = this.facts;
    const following = this.#following;
    const seeding = boxesLinked && !following;
    for (const view of this.views) {
      view.setEnvironment({ fit, order, picture, run: this.run, following, seeding, readOnly: layoutLinked });
      view.setText(this.problem, this.known ?? "");
    }
  }
}
