/** What toolbar, keys and panels can ask for: a change of the store and a sentence for those who cannot see it. */

import { isolate } from "../kit/i18n.js";
import { selected } from "../scene/actions.js";
import { cameraOf } from "../scene/camera.js";
import { confine, reshape } from "../scene/geometry.js";
import { reshaped } from "../scene/kinds/solid.js";
import { readRequest } from "../scene/requests.js";
import { CANVAS_MAX, CANVAS_MIN, MAX_BOXES, nextId, parseLayout, serialiseLayout, DEFAULT_PREFERENCES } from "../scene/schema.js";
import { naturalAspect } from "../render/place.js";

/** @typedef {import("../scene/schema.js").Ref} Ref */
/** @typedef {import("../scene/schema.js").Box} Box */

export class Commands {
  /** @param {import("./view.js").EditorView} view */
  constructor(view) {
    this.view = view;
    this.store = view.store;
    this.t = view.t;
  }

  get #layout() {
    return this.store.state.layout;
  }

  /** Boxes that may change their place: not while the positions come from upstream. */
  get canPlace() {
    return !this.view.environment.following && !this.view.environment.readOnly;
  }

  get canEdit() {
    return !this.view.environment.readOnly;
  }

  /** Name of a box, the same for the eye and the ear. @param {Box} box */
  nameOf({ ref, label }) {
    const { t } = this;
    const said = isolate(label);
    if (ref === null) return label ? `${said} (${t("textOnly")})` : t("textOnly");
    const known = this.view.library.find(ref)?.name;
    const name = known === undefined ? t("missing", { name: isolate(String(ref)) }) : isolate(known);
    return label ? `${name} (${said})` : name;
  }

  /** @returns {boolean} whether there was anything to undo */
  undo() {
    if (!this.canEdit || !(this.view.callbacks.onUndo() || this.store.undo())) return false;
    this.view.announce(this.t("saidUndone"));
    return true;
  }

  /** @returns {boolean} whether there was anything to redo */
  redo() {
    if (!this.canEdit || !(this.view.callbacks.onRedo() || this.store.redo())) return false;
    this.view.announce(this.t("saidRedone"));
    return true;
  }

  /** A box in the middle, for the keyboard and for references dropped without a place. @param {{ref?: Ref, x?: number, y?: number, solid?: boolean}} [options] */
  add({ ref = this.nextReference(), x, y, solid = false } = {}) {
    if (!this.canPlace || this.#full()) return;
    const { canvas, editor } = this.#layout;
    const side = Math.min(canvas.w, canvas.h) / 3;
    const cutout = ref === null ? null : this.view.library.find(ref)?.cutout;
    const center = { x: x ?? canvas.w / 2, y: y ?? canvas.h / 2 };
    const square = { x: center.x - side / 2, y: center.y - side / 2, w: side, h: side };
    const shaped = cutout ? reshape(square, naturalAspect(this.view.environment.fit, cutout), canvas) : square;
    // Without a place of its own a new box steps aside from those that lie there already.
    const rect = x === undefined ? besideOthers(shaped, this.#layout) : shaped;
    const id = nextId(this.#layout.boxes);
    this.store.begin();
    this.store.preview({ type: "add", rect: confine(rect, canvas, editor.inside), ref }, ...(solid ? [/** @type {const} */ ({ type: "solid", ids: [id], on: true })] : []));
    this.store.commit();
    this.sayAdded();
  }

  sayAdded() {
    const box = this.#layout.boxes.at(-1);
    if (box) this.view.announce(this.t("saidAdded", { number: this.#layout.boxes.length, name: this.nameOf(box) }));
    this.view.focusSelection();
  }

  /** The first reference that no box shows yet: what a new box most likely is meant for. @returns {Ref} */
  nextReference() {
    const used = new Set(this.#layout.boxes.map((box) => (box.ref === null ? null : this.view.library.find(box.ref))));
    const free = this.view.library.references.find((reference) => !used.has(reference));
    return free ? this.view.library.refOf(free) : null;
  }

  remove() {
    if (!this.canPlace) return;
    const before = this.#layout.boxes.length;
    if (!this.store.dispatch({ type: "remove" })) return;
    const left = this.#layout.boxes.length;
    this.view.announce(this.t("saidRemoved", { count: before - left, left }));
    this.view.focusSelection();
  }

  duplicate() {
    if (!this.canPlace || this.#full()) return;
    if (this.store.dispatch({ type: "duplicate" })) this.sayAdded();
  }

  /** @param {Ref} ref @param {readonly string[]} [ids] */
  bind(ref, ids = this.store.state.selection) {
    if (!this.canEdit || !ids.length) return;
    if (!this.store.dispatch({ type: "bind", ids, ref })) return;
    const name = ref === null ? "" : (this.view.library.find(ref)?.name ?? String(ref));
    this.view.announce(ref === null ? this.t("saidUnbound") : this.t("saidBound", { name, count: ids.length }));
  }

  /** @param {number} number  counted from 1; 0 takes the reference off */
  bindNumber(number) {
    if (number === 0) return this.bind(null);
    const reference = this.view.library.references[number - 1];
    if (reference) this.bind(this.view.library.refOf(reference));
  }

  /** @param {import("../scene/actions.js").Step} step */
  step(step) {
    if (!this.canEdit) return;
    this.store.dispatch({ type: "step", step });
    this.#sayOrder();
  }

  /** @param {string} id @param {number} index */
  moveTo(id, index) {
    if (this.canEdit && this.store.dispatch({ type: "moveTo", id, index })) this.#sayOrder();
  }

  automatic() {
    if (!this.canEdit) return;
    if (this.view.library.loading) return this.view.announce(this.t("saidNoOrder"));
    this.store.dispatch({ type: "arrange", ids: this.view.planes.automaticIds(this.#layout, this.view.scene) });
    this.view.announce(this.t("saidOrdered"));
  }

  /** @param {number} dx @param {number} dy @param {boolean} grow */
  nudge(dx, dy, grow) {
    if (!this.canPlace) return;
    if (grow) this.store.dispatch({ type: "grow", dw: dx, dh: dy }, { join: "grow" });
    else this.store.dispatch({ type: "nudge", dx, dy }, { join: "nudge" });
    this.sayPlaced();
  }

  sayPlaced() {
    const [box, ...more] = selected(this.store.state);
    if (!box || more.length) return;
    if (box.solid) {
      const { at: _at, ...shape } = box.solid;
      this.view.announce(this.t("saidSolid", shape));
      return;
    }
    const whole = { x: Math.round(box.x), y: Math.round(box.y), w: Math.round(box.w), h: Math.round(box.h) };
    this.view.announce(this.t("saidPlaced", whole));
  }

  /** @param {import("../scene/geometry.js").Alignment} how */
  align(how) {
    if (this.canPlace) this.store.dispatch({ type: "align", how });
  }

  /** @param {"x" | "y"} axis */
  distribute(axis) {
    if (this.canPlace) this.store.dispatch({ type: "distribute", axis });
  }

  /** Each selected box takes the shape of its reference, of the same area. */
  shape() {
    if (!this.canPlace) return;
    const { canvas } = this.#layout;
    const rects = selected(this.store.state).flatMap((box) => {
      const cutout = box.ref === null ? null : this.view.library.find(box.ref)?.cutout;
      return cutout ? [{ id: box.id, ...reshape(box, naturalAspect(this.view.environment.fit, cutout), canvas) }] : [];
    });
    if (rects.length) this.store.dispatch({ type: "place", rects });
  }

  /** Turns the selected boxes by so many degrees. @param {number} degrees */
  turn(degrees) {
    if (!this.canPlace) return;
    const boxes = selected(this.store.state);
    if (!boxes.length) return;
    for (const box of boxes) {
      if (box.solid) this.store.dispatch({ type: "become", box: reshaped(box, { yaw: box.solid.yaw + degrees }, this.#layout) }, { join: "turn" });
      else this.store.dispatch({ type: "layer", ids: [box.id], change: { rot: (box.rot ?? 0) + degrees } }, { join: "turn" });
    }
    if (boxes.length === 1 && boxes[0].solid) this.sayPlaced();
    else if (boxes.length === 1) this.view.announce(this.t("saidTurned", { rot: selected(this.store.state)[0].rot ?? 0 }));
  }

  // --- cuboids ------------------------------------------------------------------------------------------------------

  /** Whether `solid` would make flat boxes. */
  get makesFlat() {
    const boxes = selected(this.store.state);
    return boxes.length > 0 && boxes.every((box) => box.solid);
  }

  /** Makes cuboids of the selected boxes, or boxes of cuboids; with nothing selected a new cuboid. */
  solid() {
    if (!this.canPlace) return;
    if (!this.store.state.selection.length) return this.add({ solid: true });
    const on = !this.makesFlat;
    if (!this.store.dispatch({ type: "solid", ids: this.store.state.selection, on })) return;
    this.view.announce(this.t(on ? "saidSolidMade" : "saidSolidFlat"));
  }

  /** Numbers of the one selected cuboid. @param {Partial<import("../scene/camera.js").Shape>} change @param {string} join */
  reshape(change, join) {
    const [box, ...more] = selected(this.store.state);
    if (!box?.solid || more.length || !this.canPlace) return;
    if (this.store.dispatch({ type: "become", box: reshaped(box, change, this.#layout) }, { join: `solid ${join}` })) this.sayPlaced();
    else this.view.announce(this.t("saidUnseen"));
  }

  /** @param {Partial<import("../scene/schema.js").Camera>} change */
  film(change) {
    if (!this.canPlace) return;
    const [to, key] = [{ ...cameraOf(this.#layout), ...change }, Object.keys(change)[0]];
    const round = (/** @type {number} */ value, /** @type {number} */ low, /** @type {number} */ high) => Math.round(Math.min(high, Math.max(low, value)) * 1000) / 1000;
    const camera = { focal: round(to.focal, 0.1, 20), height: round(to.height, 0.05, 100), pitch: round(to.pitch, -85, 85) };
    if (!this.store.dispatch({ type: "camera", camera }, { join: `camera ${key}` })) this.view.announce(this.t("saidUnseen"));
  }

  // --- layers -------------------------------------------------------------------------------------------------------

  /** Sets what of the selected boxes may be set by itself. @param {import("../scene/actions.js").Layer} change @param {string} [join] */
  layer(change, join = "") {
    if (this.canEdit) this.store.dispatch({ type: "layer", ids: this.store.state.selection, change }, { join });
  }

  /** @param {"h" | "v"} axis */
  flip(axis) {
    if (!this.canEdit) return;
    if (this.store.dispatch({ type: "flip", ids: this.store.state.selection, axis })) this.view.announce(this.t("saidFlipped"));
  }

  /** Takes boxes out of the picture, or puts them back. */
  hide(ids = this.store.state.selection) {
    if (!this.canEdit || !ids.length) return;
    const hidden = !this.#layout.boxes.every((box) => !ids.includes(box.id) || box.hidden);
    if (this.store.dispatch({ type: "layer", ids, change: { hidden } })) this.view.announce(this.t(hidden ? "saidHidden" : "saidShown"));
  }

  group() {
    if (!this.canEdit) return;
    if (this.store.dispatch({ type: "group" })) this.view.announce(this.t("saidGrouped", { count: this.store.state.selection.length }));
  }

  ungroup() {
    if (this.canEdit && this.store.dispatch({ type: "ungroup" })) this.view.announce(this.t("saidUngrouped"));
  }

  /** The box and those grouped with it. @param {string} id @returns {string[]} */
  together(id) {
    const { boxes } = this.#layout;
    const group = boxes.find((box) => box.id === id)?.group;
    return group === undefined ? [id] : boxes.filter((box) => box.group === group).map((box) => box.id);
  }

  /** @param {{w: number, h: number}} size */
  setCanvas({ w, h }) {
    const side = (/** @type {number} */ value) => Math.min(CANVAS_MAX, Math.max(CANVAS_MIN, Math.floor((value + 8) / 16) * 16));
    if (!this.canPlace) return;
    this.store.fitCanvas({ w: side(w), h: side(h) });
    this.view.announce(this.t("saidCanvas", { ...this.#layout.canvas }));
  }

  lock(ids = this.store.state.selection) {
    if (!this.canEdit || !ids.length) return;
    const locked = !this.#layout.boxes.every((box) => !ids.includes(box.id) || box.locked);
    if (this.store.dispatch({ type: "lock", ids, locked })) {
      this.view.announce(this.t(locked ? "saidLocked" : "saidUnlocked"));
    }
  }

  selectAll() {
    this.store.dispatch({ type: "select", ids: this.#layout.boxes.map((box) => box.id) });
    this.view.announce(this.t("saidSelected", { count: this.#layout.boxes.length }));
  }

  /** Selects the next or previous box in painting order and goes there. @param {number} by  +1 or -1; ±Infinity = the last or first */
  cycle(by) {
    const { boxes } = this.#layout;
    if (!boxes.length) return;
    const at = boxes.findIndex((box) => box.id === this.store.state.selection.at(-1));
    const next = Number.isFinite(by) ? (at < 0 ? 0 : (at + by + boxes.length) % boxes.length) : by > 0 ? boxes.length - 1 : 0;
    this.store.dispatch({ type: "select", ids: [boxes[next].id] });
    this.view.focusSelection();
  }

  /** The selection as text for the clipboard: a layout of its own. @returns {string | null} */
  copy() {
    const boxes = selected(this.store.state);
    if (!boxes.length) return null;
    this.view.announce(this.t("saidCopied", { count: boxes.length }));
    return serialiseLayout({ canvas: this.#layout.canvas, boxes, editor: { ...DEFAULT_PREFERENCES } });
  }

  /** @param {string} text @returns {boolean} whether the text held boxes */
  paste(text) {
    if (!this.canPlace) return false;
    const layout = readRequest(text) ?? parseLayout(text, this.#layout.canvas).layout;
    if (!layout || !layout.boxes.length) {
      this.view.announce(this.t("saidNoPaste"));
      return false;
    }
    if (this.#full()) return true;
    const before = this.#layout.boxes.length;
    this.store.dispatch({ type: "paste", boxes: layout.boxes, canvas: layout.canvas });
    this.view.announce(this.t("saidPasted", { count: this.#layout.boxes.length - before }));
    this.view.focusSelection();
    return true;
  }

  #full() {
    const full = this.#layout.boxes.length >= MAX_BOXES;
    if (full) this.view.announce(this.t("saidFull"));
    return full;
  }

  #sayOrder() {
    const { boxes } = this.#layout;
    const at = boxes.findIndex((box) => box.id === this.store.state.selection.at(-1));
    if (at >= 0) this.view.announce(this.t("saidOrder", { number: at + 1, count: boxes.length }));
  }
}

/** The place, moved step by step to the lower right until no box begins there. @param {import("../scene/schema.js").Rect} rect @param {import("../scene/schema.js").Layout} layout */
export function besideOthers(rect, { canvas, boxes }) {
  const step = Math.max(8, Math.round(Math.min(canvas.w, canvas.h) / 24));
  const near = (/** @type {import("../scene/schema.js").Rect} */ at) => boxes.some((box) => Math.abs(box.x - at.x) < step / 2 && Math.abs(box.y - at.y) < step / 2);
  const room = { w: Math.max(1, canvas.w - rect.w), h: Math.max(1, canvas.h - rect.h) };
  for (let i = 0; i < MAX_BOXES; i += 1) {
    const at = { ...rect, x: (rect.x + i * step) % room.w, y: (rect.y + i * step) % room.h };
    if (!near(at)) return at;
  }
  return rect;
}
