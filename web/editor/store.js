/**
 * The one mutable thing of an editor: the present state, its history, and who wants to hear of changes.
 *
 * A gesture is begun, previewed any number of times (each time from the state at its beginning) and then committed as
 * one entry or cancelled without a trace.
 *
 * @typedef {import("./actions.js").State} State
 * @typedef {import("./actions.js").Action} Action
 * @typedef {import("./model.js").Layout} Layout
 * @typedef {"commit" | "preview" | "select" | "load"} Change
 */

import { reduce } from "./actions.js";
import { amend, createHistory, record, redo, undo } from "./history.js";

/** Keyboard steps of one kind within this time become one entry, milliseconds. */
const JOIN_WITHIN = 800;

export class Store {
  /** @param {Layout} layout @param {() => number} [now] */
  constructor(layout, now = () => Date.now()) {
    /** @type {import("./history.js").History<State>} */
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

  /** A change that undo shall pass by: preferences, the size of the canvas. @param {Action} action */
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

  /** The layout comes from elsewhere (a workflow was loaded): the history starts anew. @param {Layout} layout */
  load(layout) {
    this.gestureBase = null;
    this.shown = null;
    const selection = this.history.present.selection.filter((id) => layout.boxes.some((box) => box.id === id));
    this.history = createHistory({ layout, selection });
    this.#tell("load");
  }

  /** @param {import("./history.js").History<State>} history */
  #travel(history) {
    this.cancel();
    if (history === this.history) return false;
    // The canvas and the preferences are not part of what is undone: the canvas belongs to the node's own fields.
    const { canvas, editor } = this.history.present.layout;
    const state = { ...history.present, layout: { ...history.present.layout, editor } };
    this.history = amend(history, reduce(state, { type: "canvas", size: canvas }));
    this.lastKey = "";
    this.#tell("commit");
    return true;
  }

  /** @param {Change} change */
  #tell(change) {
    for (const listener of [...this.listeners]) listener(change);
  }
}
