/**
 * One node's editor: keeps the store and the node's `layout` input the same, and tells the views about the rest of the
 * node. What it needs from the host comes in as plain functions, so that it runs without one.
 *
 * @typedef {import("../scene/schema.js").Size} Size
 * @typedef {{text: string, size: Size, sizeLinked: boolean, fit: string, order: string, policy: string, boxesLinked: boolean,
 *   layoutLinked: boolean, picture: string | null, sources: readonly import("../render/references.js").Source[],
 *   readers: {words: string | null, names: boolean}, shown: boolean}} NodeFacts
 *   readers: which node's method reads words, and whether any reads labels; shown: the node's graph is on the screen
 * @typedef {"alpha" | "plain" | "none"} Cut  where a new picture's subject is told from its ground
 * @typedef {{read: () => NodeFacts, write: (text: string) => void, resize: (size: Size) => void, changed: () => void,
 *   setPolicy: (policy: string) => void, travel: (direction: "undo" | "redo") => void, marks: () => GraphMarks,
 *   addReference: (picture: {file: Blob, name: string, cut: Cut, then: () => void}) => Promise<void>,
 *   viewUrl: (file: {filename: string, subfolder: string, type: string}) => string}} Host
 *   travel: one step of the graph's own history; marks: where it stands; addReference: puts a picture into the graph and into the chain of
 *   references, with what `then` does in the same step
 * @typedef {{text: string, pictures: {filename: string, subfolder: string, type: string}[],
 *   references: {name: string, width: number, height: number, image: {filename: string, subfolder: string, type: string}}[],
 *   warnings: readonly string[]}} RunResult
 * @typedef {{undo: unknown, redo: unknown}} GraphMarks  states of the graph's history, compared by identity
 * @typedef {{before: string, after: string, undo: unknown, redo: unknown}} GraphStep  the layout's text before and after a
 *   change that made nodes, too, and the states by which the graph's history takes it back and brings it again
 * @typedef {{history: import("../kit/history.js").History<import("../scene/actions.js").State>, large: boolean,
 *   graphStep: GraphStep | null}} Session
 */

import { mount, openDialog } from "../kit/shell.js";
import { Planes } from "../render/planes.js";
import { ReferenceLibrary } from "../render/references.js";
import { emptyLayout, parseLayout, pictureText, sameScene, serialiseLayout } from "../scene/schema.js";
import { Store } from "../scene/store.js";
import { EditorView } from "./view.js";

const STYLE = new URL("./editor.css", import.meta.url).href;
const NAME = "contextgen-editor";

export class Controller {
  /** @param {Host} host @param {import("./strings.js").Translate} t */
  constructor(host, t) {
    this.host = host;
    this.t = t;
    this.library = new ReferenceLibrary();
    this.facts = host.read();
    this.store = new Store(emptyLayout(this.facts.size));
    /** @type {import("../scene/schema.js").Problem | null} */
    this.problem = null;
    /** @type {string | null} the text last read or written; any other text in the node comes from elsewhere */
    this.known = null;
    this.planes = new Planes(this.library);
    /** @type {import("./view.js").Environment["run"]} */
    this.run = null;
    /** @type {{signature: string, sources: readonly import("../render/references.js").Source[]} | null} */
    this.fromRun = null;
    /** Whether the boxes are those that were connected: then nothing is ignored. */
    this.taken = false;
    /** @type {GraphStep | null} */
    this.graphStep = null;
    /** What the node's inputs other than the layout were when the prompt was last written. */
    this.asked = this.#around();
    /** The references as last read, to see which got another name. */
    this.named = this.facts.sources;
    /** @type {(() => void) | null} */
    this.closeLarge = null;
    this.callbacks = {
      onText: (/** @type {string} */ text) => this.setText(text),
      onLarge: () => this.openLarge(),
      onDetach: () => this.host.setPolicy("seed once"),
      onTake: () => this.#take(),
      onTravel: (/** @type {"undo" | "redo"} */ direction) => this.host.travel(direction),
      onPicture: (/** @type {Parameters<Host["addReference"]>[0]} */ picture) => this.#addPicture(picture),
      onUndo: () => this.#travelTogether("undo"),
      onRedo: () => this.#travelTogether("redo"),
    };
    this.view = this.#newView(false);
    /** @type {Set<EditorView>} */
    this.views = new Set([this.view]);
    this.store.subscribe((change) => change === "commit" && this.#write());
    this.element = mount(this.view.element, { name: NAME, style: STYLE });
    this.sync();
  }

  /** @param {boolean} isLarge */
  #newView(isLarge) {
    const { store, library, planes, t, callbacks } = this;
    return new EditorView({ store, library, planes, t, callbacks, isLarge });
  }

  /** What outlives the node while the graph's own undo builds it anew. @returns {Session} */
  session() {
    return { history: this.store.history, large: this.closeLarge !== null, graphStep: this.graphStep };
  }

  /** The node has been read from a workflow. @param {Session | null} session  of the node that had this one's place just before */
  resume(session) {
    const own = this.store.history;
    if (session) this.store.history = session.history;
    this.graphStep = session?.graphStep ?? null;
    this.known = null;
    this.sync();
    if (this.graphStep && this.known === this.graphStep.before) this.graphStep = { ...this.graphStep, redo: this.host.marks().redo };
    if (this.graphStep && this.known === this.graphStep.after) this.graphStep = { ...this.graphStep, undo: this.host.marks().undo };
    // Another layout altogether has begun a history of its own.
    const same = session !== null && this.store.history !== own && (this.store.canUndo || this.store.canRedo);
    if (same && session.large) this.openLarge();
  }

  /** The node's input as the prompt carries it: without what is for the eye alone. */
  promptText() {
    this.sync();
    this.asked = this.#around();
    return this.problem ? this.facts.text : this.#textOf(pictureText(this.store.history.present.layout, this.facts.readers.names));
  }

  /** What a composite depends on besides the layout. */
  #around() {
    const { fit, order, sources, picture } = this.facts;
    return JSON.stringify([fit, order, sources, picture]);
  }

  /** An empty layout is an empty text. @param {string} text */
  #textOf(text) {
    const { canvas, boxes } = this.store.history.present.layout;
    return boxes.length || text !== serialiseLayout(emptyLayout(canvas)) ? text : "";
  }

  /** Takes over what changed in the node. Cheap when nothing did; called often. */
  sync() {
    this.facts = this.host.read();
    const { text, size } = this.facts;
    const arrived = text !== this.known;
    if (arrived) this.#load(text, size);
    // During a gesture the boxes belong to the user's hand.
    if (!this.problem && !this.store.inGesture) this.#fitCanvas(size, arrived);
    this.#followNames();
    this.library.update(this.#sources());
    this.#inform();
  }

  /** A reference that got another name takes the boxes along that were bound to it by the old one. */
  #followNames() {
    const { sources } = this.facts;
    const before = this.named;
    this.named = sources;
    if (this.problem || this.facts.layoutLinked || this.store.inGesture || before.length !== sources.length) return;
    const names = new Set(sources.map(({ name }) => name));
    sources.forEach(({ name, named, image }, index) => {
      const old = before[index];
      if (old.name === name || old.image !== image || names.has(old.name)) return;
      const ids = this.store.state.layout.boxes.filter((box) => box.ref === old.name).map((box) => box.id);
      if (ids.length) this.store.amend({ type: "bind", ids, ref: named ? name : index + 1 });
    });
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
    this.run = layout && picture ? { layout, url: this.host.viewUrl(picture), warnings: result.warnings, current: true } : null;
    this.ranAround = this.asked;
    this.fromRun = { signature: JSON.stringify(this.facts.sources), sources: this.#sourcesOf(result) };
    if (layout) this.#adopt(layout);
    this.sync();
  }

  openLarge() {
    if (this.closeLarge) return;
    this.sync();
    const view = this.#newView(true);
    this.views.add(view);
    this.#inform();
    this.closeLarge = openDialog(view.element, {
      title: this.t("editor"),
      close: this.t("close"),
      name: NAME,
      style: STYLE,
      onKey: (event) => view.onKey(event),
      onReady: () => view.stage.element.focus({ preventScroll: true }),
      onClose: () => {
        view.dispose();
        this.views.delete(view);
        this.closeLarge = null;
        this.view.stage.element.focus({ preventScroll: true });
      },
    });
  }

  dispose() {
    this.closeLarge?.();
    this.view.dispose();
    this.library.dispose();
    this.store.listeners.clear();
  }

  /** @param {string} text @param {Size} size */
  #load(text, size) {
    this.known = text;
    const { layout, problem } = parseLayout(text, size);
    this.#show(problem, text);
    if (layout) this.store.arrive(layout);
    else this.store.load(emptyLayout(size));
  }

  /**
   * The node's width and height are the canvas; boxes follow as the user chose. An entry of the history, unless it is how
   * a workflow was saved, or a size that undo could not set.
   * @param {Size} size @param {boolean} arrived  the layout has just been read
   */
  #fitCanvas(size, arrived) {
    const { canvas, boxes } = this.store.state.layout;
    if (canvas.w === size.w && canvas.h === size.h) return;
    if (!boxes.length && !this.store.canUndo) this.store.load({ ...this.store.state.layout, canvas: size });
    else if (arrived || this.facts.sizeLinked) this.store.amend({ type: "canvas", size });
    else this.store.fitCanvas(size);
  }

  /** @param {Parameters<Host["addReference"]>[0]} picture */
  async #addPicture(picture) {
    const before = this.known ?? "";
    await this.host.addReference(picture);
    this.sync();
    this.graphStep = { before, after: this.known ?? "", undo: this.host.marks().undo, redo: null };
  }

  /** A step that made nodes is taken back by the graph's history, which ours follows; so long as nothing came after it. @param {"undo" | "redo"} direction */
  #travelTogether(direction) {
    const { graphStep: step, known } = this;
    if (!step || step.before === step.after) return false;
    const { undo, redo } = this.host.marks();
    const here = direction === "undo" ? known === step.after && undo === step.undo : known === step.before && redo !== null && redo === step.redo;
    if (here) this.host.travel(direction);
    return here;
  }

  /** The connected boxes are taken by the next run, in the place of those that are there. */
  #take() {
    const { layout } = this.store.state;
    this.host.setPolicy("seed once");
    this.store.dispatch({ type: "replace", layout: { ...emptyLayout(layout.canvas), editor: layout.editor } });
  }

  /** The layout that a run used becomes the node's own: boxes from upstream, seeded or followed. @param {import("../scene/schema.js").Layout} used */
  #adopt(used) {
    if (!this.facts.boxesLinked || this.facts.layoutLinked || this.problem) return;
    const { layout } = this.store.state;
    if (!this.#following && layout.boxes.length) return;
    const mine = new Map(layout.boxes.map((box) => [box.id, box]));
    const boxes = used.boxes.map((box) => {
      const own = mine.get(box.id);
      return own ? { ...own, x: box.x, y: box.y, w: box.w, h: box.h, label: own.label || box.label } : box;
    });
    const next = { ...layout, canvas: used.canvas, boxes };
    this.taken = true;
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
    const { size, sizeLinked } = this.facts;
    // Undo brings the canvas back, which is the node's width and height.
    const resized = !sizeLinked && (layout.canvas.w !== size.w || layout.canvas.h !== size.h);
    const text = this.#textOf(serialiseLayout(layout));
    if (text === this.known && !resized) return;
    this.known = text;
    this.#show(null, text);
    this.host.write(text);
    if (resized) {
      this.facts = { ...this.facts, size: layout.canvas };
      this.host.resize(layout.canvas);
    }
    this.host.changed();
  }

  /** @param {import("../scene/schema.js").Problem | null} problem @param {string} text */
  #show(problem, text) {
    this.problem = problem;
    for (const view of this.views ?? []) view.setText(problem, text);
  }

  #inform() {
    const { fit, order, layoutLinked, picture, boxesLinked, readers } = this.facts;
    const following = this.#following;
    const seeding = boxesLinked && !following && !this.taken;
    const run = this.run && { ...this.run, current: this.ranAround === this.#around() };
    for (const view of this.views) {
      view.setEnvironment({ fit, order, picture, run, following, seeding, readOnly: layoutLinked, words: readers.words });
      view.setText(this.problem, this.known ?? "");
    }
  }
}
