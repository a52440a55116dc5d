/** What toolbar, keys and panels can ask for: a change of the store and a sentence for those who cannot see it. */

import { selected } from "./actions.js";
import { confine, reshape } from "./geometry.js";
import { MAX_BOXES, parseLayout, serialiseLayout, DEFAULT_PREFERENCES } from "./model.js";
import { naturalAspect } from "./preview.js";
import { automaticIds } from "./scene.js";

/** @typedef {import("./model.js").Ref} Ref */
/** @typedef {import("./model.js").Box} Box */

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
    if (ref === null) return label ? `${label} (${t("textOnly")})` : t("textOnly");
    const name = this.view.library.find(ref)?.name ?? t("missing", { name: String(ref) });
    return label ? `${name} (${label})` : name;
  }

  undo() {
    if (this.canEdit && this.store.undo()) this.view.announce(this.t("saidUndone"));
  }

  redo() {
    if (this.canEdit && this.store.redo()) this.view.announce(this.t("saidRedone"));
  }

  /** A box in the middle, for the keyboard and for references dropped without a place. @param {{ref?: Ref, x?: number, y?: number}} [options] */
  add({ ref = this.nextReference(), x, y } = {}) {
    if (!this.canPlace || this.#full()) return;
    const { canvas, editor } = this.#layout;
    const side = Math.min(canvas.w, canvas.h) / 3;
    const cutout = ref === null ? null : this.view.library.find(ref)?.cutout;
    const center = { x: x ?? canvas.w / 2, y: y ?? canvas.h / 2 };
    const square = { x: center.x - side / 2, y: center.y - side / 2, w: side, h: side };
    const rect = cutout ? reshape(square, naturalAspect(this.view.environment.fit, cutout), canvas) : square;
    this.store.dispatch({ type: "add", rect: confine(rect, canvas, editor.inside), ref });
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

  /** @param {import("./actions.js").Step} step */
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
    this.store.dispatch({ type: "arrange", ids: automaticIds(this.#layout, this.view.scene) });
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
    const whole = { x: Math.round(box.x), y: Math.round(box.y), w: Math.round(box.w), h: Math.round(box.h) };
    this.view.announce(this.t("saidPlaced", whole));
  }

  /** @param {import("./geometry.js").Alignment} how */
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
    const { layout } = parseLayout(text, this.#layout.canvas);
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
