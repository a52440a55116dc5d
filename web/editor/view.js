/**
 * One editor on the screen: puts the parts together, listens to the store, hands events to the commands. There may be
 * several views of one store (the node's and the large one). Everything a view listens to ends with `dispose`.
 *
 * @typedef {import("../scene/schema.js").Layout} Layout
 * @typedef {{fit: string, order: string, following: boolean, seeding: boolean, readOnly: boolean, picture: string | null,
 *   words: string | null, run: {url: string, layout: Layout, warnings: readonly string[], current: boolean} | null}} Environment
 *   what the node's other inputs, its last run and the graph say; words: the node whose method reads the words of boxes;
 *   current: nothing that the composite depends on has changed since the run, but for the layout
 * @typedef {{onText: (text: string) => void, onLarge: () => void, onDetach: () => void, onTake: () => void,
 *   onTravel: (direction: "undo" | "redo") => void, onUndo: () => boolean, onRedo: () => boolean,
 *   onPicture: (picture: {file: Blob, name: string, cut: import("./controller.js").Cut, then: () => void}) => Promise<void>}} Callbacks
 */

import { element, iconButton, setChildren, setText } from "../kit/dom.js";
import { isolate } from "../kit/i18n.js";
import { isUndo, shieldKey } from "../kit/shell.js";
import { MAX_REQUEST } from "../scene/requests.js";
import { byteLength, sameScene } from "../scene/schema.js";
import { Commands } from "./commands.js";
import { LayerExport } from "./export.js";
import { Fields } from "./fields.js";
import { Help } from "./help.js";
import { onKeyDown } from "./keys.js";
import { LayerPanel } from "./layer.js";
import { BoxList } from "./list.js";
import { Pictures } from "./pictures.js";
import { SpacePanel } from "./space.js";
import { Stage } from "./stage.js";
import { TextPanel } from "./text_panel.js";
import { Toolbar } from "./toolbar.js";
import { Tray } from "./tray.js";

/** @type {Environment} */
const ALONE = { fit: "instance", order: "drawn", following: false, seeding: false, readOnly: false, picture: null, words: null, run: null };

export class EditorView {
  /**
   * @param {{store: import("../scene/store.js").Store, library: import("../render/references.js").ReferenceLibrary,
   *   planes: import("../render/planes.js").Planes, t: import("./strings.js").Translate, callbacks: Callbacks, isLarge?: boolean}} parts
   */
  constructor({ store, library, planes, t, callbacks, isLarge = false }) {
    this.store = store;
    this.library = library;
    this.planes = planes;
    this.t = t;
    this.callbacks = callbacks;
    this.isLarge = isLarge;
    this.environment = ALONE;
    /** @type {import("../scene/schema.js").Problem | null} */
    this.problem = null;
    this.text = "";
    this.aborter = new AbortController();
    const { signal } = this.aborter;
    this.commands = new Commands(this);
    this.scene = planes.of(store.state.layout, this.environment, false);
    this.help = new Help(this, signal);
    this.stage = new Stage(this, signal);
    this.pictures = new Pictures(this, signal);
    this.tray = new Tray(this, signal);
    this.list = new BoxList(this, signal);
    this.fields = new Fields(this, signal);
    this.layer = new LayerPanel(this, signal);
    this.space = new SpacePanel(this, signal);
    this.layerExport = new LayerExport(this, signal);
    this.toolbar = new Toolbar(this, signal);
    this.textPanel = new TextPanel(this, signal);
    this.sidebar = { focusFields: () => this.fields.focus() };
    this.status = element("p", { class: "status" });
    this.live = element("div", { class: "live", role: "status", "aria-live": "polite" });
    this.detach = element("button", { type: "button", text: t("detach") });
    this.noticeText = element("span");
    this.take = element("button", { type: "button", text: t("take") });
    this.notice = element("div", { class: "notice", hidden: true }, this.noticeText, this.detach, this.take);
    this.warnings = element("ul", { class: "warnings", hidden: true, "aria-label": t("warnings") });
    this.element = this.#build(signal);
    const update = () => this.update();
    const ends = [store.subscribe(update), library.subscribe(update)];
    signal.addEventListener("abort", () => ends.forEach((end) => end()), { once: true });
    this.update();
  }

  /** @param {AbortSignal} signal */
  #build(signal) {
    const showText = iconButton("draw", this.t("showText"), { class: "plain", "data-tool": "text" });
    showText.replaceChildren(document.createTextNode(this.t("showText")));
    this.toolbar.settings.append(showText, this.layerExport.button);
    const root = element(
      "div",
      { class: this.isLarge ? "editor big" : "editor", role: "group", "aria-label": this.t("editor") },
      this.toolbar.element,
      this.notice,
      element(
        "div",
        { class: "main" },
        element("div", { class: "picture" }, this.stage.wrap, this.status, this.warnings),
        element("div", { class: "side" }, this.tray.element, this.fields.element, this.isLarge ? this.layer.element : null, this.list.element),
      ),
      this.textPanel.element,
      this.help.element,
      this.live,
    );
    showText.addEventListener("click", () => this.textPanel.show(true), { signal });
    this.detach.addEventListener("click", () => this.callbacks.onDetach(), { signal });
    this.take.addEventListener("click", () => this.callbacks.onTake(), { signal });
    root.addEventListener("keydown", (event) => this.onKey(event), { signal });
    this.pictures.listen(root);
    for (const type of /** @type {const} */ (["copy", "cut", "paste"])) {
      root.addEventListener(type, (event) => this.#clipboard(event), { signal });
    }
    // Dragging inside the editor must not drag the node or open the graph's menus.
    for (const type of ["pointerdown", "dblclick"]) root.addEventListener(type, (event) => event.stopPropagation(), { signal });
    return root;
  }

  dispose() {
    this.cancelGesture();
    this.aborter.abort();
    this.element.remove();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (event.defaultPrevented) return;
    const taken = onKeyDown(this, event);
    // A step that the editor has nothing for may be one of the graph: an editor just opened has no history of its own.
    if (!taken && isUndo(event) && !this.store.canUndo && !this.store.canRedo) {
      this.callbacks.onTravel(event.shiftKey || event.key.toLowerCase() === "y" ? "redo" : "undo");
      shieldKey(event, true);
    } else shieldKey(event, taken);
  }

  /** @param {Partial<Environment>} changes */
  setEnvironment(changes) {
    const next = { ...this.environment, ...changes };
    if (JSON.stringify(next) === JSON.stringify(this.environment)) return;
    this.environment = next;
    this.update();
  }

  /** @param {import("../scene/schema.js").Problem | null} problem @param {string} text */
  setText(problem, text) {
    this.problem = problem;
    this.text = text;
    this.textPanel.update();
  }

  update() {
    this.scene = this.planes.of(this.store.state.layout, this.environment, this.store.inGesture);
    this.stage.update();
    this.list.update();
    if (!this.store.inGesture) {
      this.tray.update();
      this.pictures.update();
      this.toolbar.update();
      this.#updateNotes();
      this.textPanel.update();
    }
    this.fields.update();
    this.layer.update();
    this.space.update();
  }

  #updateNotes() {
    const { following, seeding, readOnly, order } = this.environment;
    const { canvas, boxes, editor } = this.store.state.layout;
    const notice = readOnly ? "linked" : following ? "following" : seeding ? (boxes.length ? "seeded" : "seeding") : null;
    this.notice.hidden = notice === null;
    this.detach.hidden = notice !== "following";
    this.take.hidden = notice !== "seeded";
    setText(this.noticeText, notice ? this.t(notice) : "");
    const parts = [`${canvas.w} × ${canvas.h}`];
    const { showing } = this.stage;
    if (showing === "planes") parts.push(this.t(`shows_${editor.shows}`));
    if (showing === "run") parts.push(this.t("statusTrue"));
    if (showing === "live" && boxes.length) parts.push(this.t(this.scene.exact ? "statusLive" : "statusRough"));
    if (this.store.state.selection.length > 1) parts.push(this.t("several", { count: this.store.state.selection.length }));
    if (boxes.some((box) => box.ref === null && box.label)) {
      parts.push(this.environment.words ? this.t("wordsRead", { node: isolate(this.environment.words) }) : this.t("wordsForReader"));
    }
    if (order === "automatic") parts.push(this.t("statusAutoOrder"));
    setText(this.status, parts.join(" · "));
    this.#updateWarnings();
  }

  /** What the last run had to remark, as long as it is about what is shown. */
  #updateWarnings() {
    const { run } = this.environment;
    const about = run?.current && sameScene(run.layout, this.store.state.layout) ? run.warnings : [];
    this.warnings.hidden = !about.length;
    if (JSON.stringify(about) === this.warnings.dataset.shown) return;
    this.warnings.dataset.shown = JSON.stringify(about);
    setChildren(this.warnings, about.slice(0, 20).map((text) => element("li", { text, title: text })));
  }

  /** Says a sentence to those who listen. @param {string} sentence */
  announce(sentence) {
    // The same sentence twice in a row is still news.
    this.live.textContent = this.live.textContent === sentence ? `${sentence}\u00a0` : sentence;
  }

  /** Puts the focus where the selection is. */
  focusSelection() {
    const id = this.store.state.selection.at(-1);
    if (id) this.stage.focusBox(id);
    else this.stage.element.focus({ preventScroll: true });
  }

  cancelGesture() {
    // All of them: a bare `||` would leave the second running.
    return [this.stage.gestures.cancel(), this.tray.cancel(), this.list.cancel()].includes(true);
  }

  openLarge() {
    if (!this.isLarge) this.callbacks.onLarge();
  }

  /** @param {ClipboardEvent} event */
  #clipboard(event) {
    const target = /** @type {Element} */ (event.composedPath()[0]);
    event.stopPropagation();
    if (target.matches("input:not([type=checkbox]), textarea")) return;
    event.preventDefault();
    if (event.type === "paste") {
      if (this.pictures.take(event.clipboardData, null)) return;
      const text = event.clipboardData?.getData("text/plain") ?? "";
      this.commands.paste(byteLength(text) <= MAX_REQUEST ? text : "");
      return;
    }
    const text = this.commands.copy();
    if (text) event.clipboardData?.setData("text/plain", text);
    if (text && event.type === "cut") this.commands.remove();
  }
}
