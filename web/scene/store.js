/**
 * The one mutable thing of an editor: the present state, its history, and who wants to hear of changes.
 *
 * A gesture is begun, previewed any number of times (each time from the state at its beginning) and then committed as
 * one entry or cancelled without a trace.
 *
 * @typedef {import("./actions.js").State} State
 * @typedef {import("./actions.js").Action} Action
 * @typedef {import("./schema.js").Layout} Layout
 * @typedef {"commit" | "preview" | "select" | "load"} Change
 */

import { reduce } from "./actions.js";
import { DEFAULT_PREFERENCES, serialiseLayout } from "./schema.js";
import { amend, createHistory, record, redo, undo } from "../kit/history.js";

/** Keyboard steps of one kind within this time become one entry, milliseconds. */
const JOIN_WITHIN = 800;

export class Store {
  /** @param {Layout} layout @param {() => number} [now] */
  constructor(layout, now = () => Date.now()) {
    /** @type {import("../kit/history.js").History<State>} */
    this.history = createHistory({ layout, selection: [] });
    /** @type {State | null} */
    this.gestureBase = null;
    /** @type {State | null} */
    this.shown = null;
    /** @type {Set<(change: Change) => void>} */
    this.listeners = new Set();
    this.now = now;
    this.lastKey = "";
    this.lastTime = 0;
    /** @type {{base: State, layout: Layout} | null} a canvas being tried out: the state before, and what became of it */
    this.sizing = null;
  }

  /** @returns {State} */
  get state() {
    return this.shown ?? this.history.present;
  }

  get canUndo() {
    return this.history.past.length > 0;
  }

  get canRedo() {
    return this.history.future.length > 0;
  }

  get inGesture() {
    return this.gestureBase !== null;
  }

  /** @param {(change: Change) => void} listener @returns {() => void} ends the subscription */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /**
   * Carries out an action as an entry of its own. Actions with the same `join` in quick succession share one.
   * @param {Action} action @param {{join?: string}} [options] @returns {boolean} whether the layout changed
   */
  dispatch(action, { join = "" } = {}) {
    this.cancel();
    const before = this.history.present;
    const after = reduce(before, action);
    if (after === before) return false;
    if (after.layout === before.layout) {
      this.history = amend(this.history, after);
      this.#tell("select");
      return false;
    }
    const joined = join !== "" && join === this.lastKey && this.now() - this.lastTime < JOIN_WITHIN;
    this.history = joined ? amend(this.history, after) : record(this.history, after);
    this.lastKey = join;
    this.lastTime = this.now();
    this.#tell("commit");
    return true;
  }

  /**
   * The canvas takes another size, as an entry. Sizes that follow each other with nothing in between are one entry, each
   * computed from the state before the first: a number typed or dragged through small values loses nothing.
   * @param {import("./schema.js").Size} size
   */
  fitCanvas(size) {
    this.cancel();
    const { present } = this.history;
    const base = this.sizing?.layout === present.layout ? this.sizing.base : null;
    const after = { ...reduce(base ?? present, { type: "canvas", size }), selection: present.selection };
    if (after.layout === present.layout) return;
    this.history = base ? amend(this.history, after) : record(this.history, after);
    this.sizing = { base: base ?? present, layout: after.layout };
    this.lastKey = "";
    this.#tell("commit");
  }

  /** A change that undo shall pass by: preferences, a canvas that others set. @param {Action} action */
  amend(action) {
    this.cancel();
    const after = reduce(this.history.present, action);
    if (after === this.history.present) return;
    this.history = amend(this.history, after);
    this.#tell("commit");
  }

  begin() {
    this.cancel();
    this.gestureBase = this.history.present;
    this.shown = this.gestureBase;
  }

  /** Shows the gesture as far as it has come. @param {readonly Action[]} actions  from the state at the beginning */
  preview(...actions) {
    if (!this.gestureBase) return;
    this.shown = actions.reduce(reduce, this.gestureBase);
    this.#tell("preview");
  }

  /** @returns {boolean} whether the gesture changed the layout */
  commit() {
    const { gestureBase, shown } = this;
    this.gestureBase = null;
    this.shown = null;
    if (!gestureBase || !shown || shown === gestureBase) return false;
    const changed = shown.layout !== gestureBase.layout;
    this.history = changed ? record(this.history, shown) : amend(this.history, shown);
    this.lastKey = "";
    this.#tell(changed ? "commit" : "select");
    return changed;
  }

  /** @returns {boolean} whether there was a gesture to give up */
  cancel() {
    if (!this.gestureBase) return false;
    this.gestureBase = null;
    this.shown = null;
    this.#tell("preview");
    return true;
  }

  undo() {
    return this.#travel(undo(this.history));
  }

  redo() {
    return this.#travel(redo(this.history));
  }

  /**
   * The layout comes from elsewhere. Where that is the graph's own undo or redo of one of our steps, the history goes along;
   * anything else begins it anew.
   * @param {Layout} layout
   */
  arrive(layout) {
    const text = plainText(layout);
    const { past, present, future } = this.history;
    if (text === plainText(present.layout)) return this.#land(present, layout);
    const before = past.at(-1);
    if (before && text === plainText(before.layout)) return this.#land((this.history = undo(this.history)).present, layout);
    if (future.length && text === plainText(future[0].layout)) return this.#land((this.history = redo(this.history)).present, layout);
    return this.load(layout);
  }

  /** @param {State} state @param {Layout} layout */
  #land(state, layout) {
    this.gestureBase = null;
    this.shown = null;
    this.history = amend(this.history, { ...state, layout: { ...state.layout, editor: layout.editor } });
    this.#tell("load");
  }

  /** The layout comes from elsewhere (a workflow was loaded): the history starts anew. @param {Layout} layout */
  load(layout) {
    this.gestureBase = null;
    this.shown = null;
    const selection = this.history.present.selection.filter((id) => layout.boxes.some((box) => box.id === id));
    this.history = createHistory({ layout, selection });
    this.#tell("load");
  }

  /** @param {import("../kit/history.js").History<State>} history */
  #travel(history) {
    this.cancel();
    if (history === this.history) return false;
    // The preferences are not part of what is undone.
    const { editor } = this.history.present.layout;
    this.history = amend(history, { ...history.present, layout: { ...history.present.layout, editor } });
    this.lastKey = "";
    this.#tell("commit");
    return true;
  }

  /** @param {Change} change */
  #tell(change) {
    for (const listener of [...this.listeners]) listener(change);
  }
}

/** @param {Layout} layout */
function plainText(layout) {
  return serialiseLayout({ ...layout, editor: { ...DEFAULT_PREFERENCES } });
}
