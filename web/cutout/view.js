/**
 * The cut-out editor's picture, its points and its box. Shows a state, turns gestures and keys into new ones; the node's
 * text is written by the caller.
 *
 * @typedef {import("./model.js").Clicks} Clicks
 * @typedef {{start: {x: number, y: number}, point: number | null, base: Clicks, out: boolean,
 *   stroke: import("./model.js").Stroke | null}} Gesture  point: the one that is pressed on; out: the click leaves out
 * @typedef {{url: string, size: import("./model.js").Size | null}} Picture  size: known after a run, else the file's own
 * @typedef {{picture: string, mask: string, size: import("./model.js").Size, text: string, source: string | null,
 *   quality: number | null, warnings: readonly string[], candidates: readonly {mask: string, quality: number}[], taken: number}} Run
 *   text, source: what the clicks and the picture were then; candidates: the masks to choose from; taken: which of them was
 * @typedef {"noModel" | "plain" | "mask"} Idle  why the node would not use clicks
 */

import { element, iconButton, setAttribute, setChildren, setText } from "../kit/dom.js";
import { createHistory, record, redo, undo } from "../kit/history.js";
import { Pointer } from "../kit/pointer.js";
import { isUndo, mount, openDialog, shieldKey } from "../kit/shell.js";
import { toCanvas } from "../kit/viewport.js";
import { addPoint, addStroke, changePoint, EMPTY, fitClicks, formatClicks, moveBox, parseClicks, rectBetween, removePoint, setBox, withoutStrokes } from "./model.js";

const TINT = [47, 125, 225];
const MASK_SIDE = 1024;
const NAME = "contextgen-cutout";
const TOOLS = /** @type {const} */ (["keep", "out", "box", "brush", "eraser"]);
/** Shortest step of a stroke, as a share of its radius. */
const STEP = 0.3;
const STYLE = new URL("./cutout.css", import.meta.url).href;

export class CutoutView {
  /** @param {import("./strings.js").Translate} t @param {(text: string) => void} onText @param {(number: number) => void} [onChoice]  of a mask, counted from 1 */
  constructor(t, onText, onChoice = () => {}) {
    this.t = t;
    this.onText = onText;
    this.onChoice = onChoice;
    /** Why clicks would have no use, null where they have. @type {Idle | null} */
    this.idle = null;
    /** The mask that the node is to take, 0 = the best. */
    this.choice = 0;
    /** @type {import("../kit/history.js").History<Clicks>} */
    this.history = createHistory(EMPTY);
    /** @type {"keep" | "out" | "box" | "brush" | "eraser"} */
    this.tool = "keep";
    /** Radius of brush and eraser as a share of the picture's longer side. */
    this.radius = 0.03;
    /** @type {(() => void) | null} */
    this.closeLarge = null;
    /** The mask of the last run, tinted. @type {HTMLCanvasElement | null} */
    this.tinted = null;
    this.readOnly = false;
    this.broken = false;
    this.maskShown = true;
    /** @type {Run | null} */
    this.run = null;
    /** @type {string | null} */
    this.source = null;
    this.end = new AbortController();
    this.tools = {
      keep: textButton("+", t("keep")),
      out: textButton("\u2212", t("out")),
      box: iconButton("add", t("box")),
      brush: iconButton("brush", t("brush")),
      eraser: iconButton("eraser", t("eraser")),
      undo: iconButton("undo", t("undo")),
      redo: iconButton("redo", t("redo")),
      clear: iconButton("remove", t("clear")),
      mask: iconButton("shape", t("mask")),
      large: iconButton("large", t("large")),
    };
    this.slider = element("input", { type: "range", min: 2, max: 150, value: 30, "aria-label": t("radius"), title: t("radius"), class: "radius", hidden: true });
    const bar = element("div", { class: "bar", role: "toolbar", "aria-label": t("tools") }, ...Object.values(this.tools), this.slider);
    this.image = element("img", { alt: "", draggable: "false" });
    this.mask = element("canvas", { class: "mask", "aria-hidden": "true" });
    this.marks = element("div", { class: "marks" });
    this.stage = element("div", { class: "stage", tabindex: "0", role: "group" }, this.image, this.mask, this.marks);
    this.hint = element("p", { class: "empty", text: t("empty") });
    this.wrap = element("div", { class: "wrap" }, this.stage, this.hint);
    this.status = element("p", { class: "status" });
    this.live = element("p", { class: "live", "aria-live": "polite" });
    this.candidates = element("div", { class: "candidates", role: "group", "aria-label": t("candidates"), hidden: true });
    const root = element("div", { class: "cutout", role: "application", "aria-label": t("editor") }, bar, this.wrap, this.candidates, this.status, this.live);
    this.root = root;
    this.element = mount(root, { name: NAME, style: STYLE });
    const { signal } = this.end;
    /** @type {Pointer<Gesture>} */
    this.pointer = new Pointer(
      this.stage,
      {
        point: (event) => toCanvas(event, this.stage.getBoundingClientRect(), this.size ?? { w: 1, h: 1 }),
        down: (event) => this.#down(event),
        move: (gesture, at) => this.#moved(gesture, at),
        end: (gesture, at) => this.#drag(gesture, at),
        click: (gesture) => this.#click(gesture),
        cancel: () => this.render(),
      },
      signal,
    );
    this.#listen(root);
    this.render();
  }

  get clicks() {
    return this.history.present;
  }

  /** What outlives the node while the graph's own undo builds it anew. */
  session() {
    return { history: this.history, run: this.run };
  }

  /** @param {ReturnType<CutoutView["session"]> | null} session  of the node that had this one's place */
  resume(session) {
    if (!session) return;
    this.history = session.history;
    if (session.run) this.ran(session.run);
  }

  dispose() {
    this.closeLarge?.();
    this.pointer.cancel();
    this.end.abort();
  }

  /** @param {HTMLElement} root */
  #listen(root) {
    const { signal } = this.end;
    const press = (/** @type {HTMLElement} */ button, /** @type {() => void} */ action) =>
      button.addEventListener("click", () => button.getAttribute("aria-disabled") !== "true" && action(), { signal });
    for (const tool of TOOLS) {
      press(this.tools[tool], () => {
        this.tool = tool;
        this.render();
      });
    }
    press(this.tools.undo, () => this.undo());
    press(this.tools.redo, () => this.redo());
    press(this.tools.clear, () => this.change({ ...this.clicks, points: [], box: null, strokes: [] }, this.t("saidCleared")));
    press(this.tools.large, () => this.openLarge());
    this.slider.addEventListener("input", () => (this.radius = this.slider.valueAsNumber / 1000), { signal });
    press(this.tools.mask, () => {
      this.maskShown = !this.maskShown;
      this.render();
    });
    this.stage.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
    root.addEventListener("keydown", (event) => this.#key(event), { signal });
    this.image.addEventListener("load", () => this.#measured(), { signal });
  }

  // --- what is shown ------------------------------------------------------------------------------------------------

  /** What the node's inputs say now. @param {{clicks: Clicks, broken: boolean, readOnly: boolean, source: string | null, idle?: Idle | null, choice?: number}} given */
  sync({ clicks, broken, readOnly, source, idle = null, choice = 0 }) {
    const changed = formatClicks(clicks) !== formatClicks(this.clicks);
    const same = broken === this.broken && readOnly === this.readOnly && source === this.source && idle === this.idle && choice === this.choice;
    if (!changed && same) return;
    if (changed) this.history = arrived(this.history, clicks);
    Object.assign(this, { broken, readOnly, source, idle, choice });
    this.render();
  }

  /** @param {Run} run */
  ran(run) {
    this.run = run;
    this.#drawMask(run.mask);
    this.render();
  }

  /** The picture to click on: that of the last run, unless another one has been connected since. @returns {Picture | null} */
  get picture() {
    if (this.run && (this.source === null || this.source === this.run.source)) return { url: this.run.picture, size: this.run.size };
    return this.source === null ? null : { url: this.source, size: null };
  }

  /** Its size in pixels, null until it is loaded. */
  get size() {
    const { naturalWidth: w, naturalHeight: h } = this.image;
    return this.picture?.size ?? (w && h ? { w, h } : null);
  }

  #measured() {
    this.render();
  }

  /** Shows the state. */
  render() {
    const { t, picture } = this;
    if (picture && this.image.getAttribute("src") !== picture.url) this.image.src = picture.url;
    this.stage.hidden = !picture;
    this.hint.hidden = Boolean(picture);
    const { size } = this;
    if (size) this.stage.style.setProperty("--aspect", String(size.w / size.h));
    const shown = size ? fitClicks(this.clicks, size) : this.clicks;
    setAttribute(this.stage, "aria-label", t("stage", { points: shown.points.length }));
    this.#renderMarks(shown, size);
    const current = this.run !== null && picture?.url === this.run.picture;
    const fresh = current && this.#freshMask(shown);
    this.mask.hidden = !this.maskShown || (!current && !shown.strokes.length);
    this.mask.classList.toggle("stale", current && !fresh);
    if (size && !this.mask.hidden) this.#paintMask(shown.strokes, size, current);
    this.slider.hidden = this.tool !== "brush" && this.tool !== "eraser";
    this.stage.classList.toggle("painting", !this.slider.hidden);
    for (const tool of TOOLS) {
      setAttribute(this.tools[tool], "aria-pressed", String(this.tool === tool));
      disable(this.tools[tool], this.readOnly || (this.idle !== null && asksModel(tool)));
    }
    this.#renderCandidates(current);
    setAttribute(this.tools.mask, "aria-pressed", String(this.maskShown));
    disable(this.tools.undo, this.readOnly || !this.history.past.length);
    disable(this.tools.redo, this.readOnly || !this.history.future.length);
    disable(this.tools.clear, this.readOnly || (!shown.points.length && !shown.box && !shown.strokes.length));
    this.stage.classList.toggle("fixed", this.readOnly || (this.idle !== null && asksModel(this.tool)));
    setText(this.status, this.#words(current, fresh));
  }

  /** Whether the mask of the last run and the strokes since are what a run would give. @param {Clicks} shown */
  #freshMask(shown) {
    const { run } = this;
    if (!run) return false;
    const { clicks } = parseClicks(run.text);
    const then = this.size ? fitClicks(clicks, this.size) : clicks;
    const same = formatClicks(withoutStrokes(then)) === formatClicks(withoutStrokes(shown));
    return same && then.strokes.every((stroke, i) => JSON.stringify(stroke) === JSON.stringify(shown.strokes[i]));
  }

  /** The mask of the last run with the strokes in it, in one tint. @param {Clicks["strokes"]} strokes @param {import("./model.js").Size} size @param {boolean} current */
  #paintMask(strokes, size, current) {
    const k = Math.min(1, MASK_SIDE / Math.max(size.w, size.h));
    const [w, h] = [Math.max(1, Math.round(size.w * k)), Math.max(1, Math.round(size.h * k))];
    if (this.mask.width !== w || this.mask.height !== h) [this.mask.width, this.mask.height] = [w, h];
    const context = this.mask.getContext("2d");
    if (!context) return;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalCompositeOperation = "source-over";
    context.clearRect(0, 0, w, h);
    if (current && this.tinted) context.drawImage(this.tinted, 0, 0, w, h);
    context.setTransform(w / size.w, 0, 0, h / size.h, 0, 0);
    context.lineCap = "round";
    context.lineJoin = "round";
    context.strokeStyle = context.fillStyle = `rgb(${TINT.join(" ")})`;
    for (const { keep, r, at } of strokes) {
      context.globalCompositeOperation = keep ? "source-over" : "destination-out";
      context.lineWidth = 2 * r + 1;
      context.beginPath();
      context.arc(at[0], at[1], r + 0.5, 0, 2 * Math.PI);
      context.fill();
      context.beginPath();
      context.moveTo(at[0], at[1]);
      for (let i = 2; i < at.length; i += 2) context.lineTo(at[i], at[i + 1]);
      context.stroke();
    }
  }

  /** @param {boolean} current @param {boolean} fresh */
  #words(current, fresh) {
    const { t, run } = this;
    if (this.readOnly) return t("linked");
    if (this.broken) return t("broken");
    const unused = this.idle && (this.clicks.points.length || this.clicks.box);
    if (unused) return t(`unused_${/** @type {Idle} */ (this.idle)}`);
    if (current && fresh && run) {
      if (run.warnings.length) return run.warnings[0];
      return run.quality === null || run.quality === 1 ? t("done") : t("quality", { quality: run.quality.toFixed(2) });
    }
    if (formatClicks(this.clicks)) return t("stale");
    return t(this.idle ? `idle_${this.idle}` : "hint");
  }

  /** The masks that SAM proposed, to choose from. @param {boolean} current  the run was of the picture that is shown */
  #renderCandidates(current) {
    const found = current ? (this.run?.candidates ?? []) : [];
    this.candidates.hidden = found.length < 2;
    const known = [...this.candidates.children];
    setChildren(
      this.candidates,
      found.map(({ mask, quality }, i) => {
        const button = /** @type {HTMLButtonElement | undefined} */ (known[i]) ?? this.#candidateButton(i);
        const name = this.t("candidate", { number: i + 1, quality: quality.toFixed(2) });
        setAttribute(button, "aria-label", name);
        setAttribute(button, "title", name);
        setAttribute(button, "aria-pressed", String((this.choice || (this.run?.taken ?? 0) + 1) === i + 1));
        setAttribute(/** @type {Element} */ (button.firstElementChild), "src", mask);
        return button;
      }),
    );
  }

  /** @param {number} index */
  #candidateButton(index) {
    const button = element("button", { type: "button", class: "candidate" }, element("img", { alt: "", draggable: "false" }), element("span", { text: String(index + 1) }));
    button.addEventListener("click", () => this.#choose(index), { signal: this.end.signal });
    return button;
  }

  /** @param {number} index */
  #choose(index) {
    const { run } = this;
    if (!run || this.readOnly) return;
    this.choice = index + 1;
    // What the next run will take is seen at once, but for the cleaning.
    this.run = { ...run, mask: run.candidates[index].mask, quality: run.candidates[index].quality, taken: index };
    this.#drawMask(this.run.mask);
    this.onChoice(index + 1);
    this.render();
    setText(this.live, this.t("candidate", { number: index + 1, quality: run.candidates[index].quality.toFixed(2) }));
  }

  /** @param {Clicks} clicks @param {import("./model.js").Size | null} size */
  #renderMarks({ points, box }, size) {
    const wanted = [];
    if (size && box) {
      const mark = this.#mark("box", "box");
      const share = { x: percent(box.x, size.w), y: percent(box.y, size.h), w: percent(box.w, size.w), h: percent(box.h, size.h) };
      Object.assign(mark.style, { left: `${share.x}%`, top: `${share.y}%`, width: `${share.w}%`, height: `${share.h}%` });
      setAttribute(mark, "aria-label", this.t("boxAt", rounded(share)));
      wanted.push(mark);
    }
    points.forEach((point, index) => {
      if (!size) return;
      const mark = this.#mark(String(index), `point ${point.keep ? "keep" : "out"}`);
      const share = { x: percent(point.x, size.w), y: percent(point.y, size.h) };
      Object.assign(mark.style, { left: `${share.x}%`, top: `${share.y}%` });
      setText(mark, point.keep ? "+" : "\u2212");
      setAttribute(mark, "aria-label", this.t(point.keep ? "pointKeep" : "pointOut", { number: index + 1, ...rounded(share) }));
      wanted.push(mark);
    });
    setChildren(this.marks, wanted);
  }

  /** @param {string} id @param {string} kind @returns {HTMLElement} */
  #mark(id, kind) {
    const known = /** @type {HTMLElement | null} */ (this.marks.querySelector(`[data-mark="${id}"]`));
    const mark = known ?? element("div", { "data-mark": id, tabindex: "0", role: "button" });
    setAttribute(mark, "class", kind);
    return mark;
  }

  /** @param {string} url */
  #drawMask(url) {
    const picture = new Image();
    picture.addEventListener("load", () => {
      const tinted = document.createElement("canvas");
      [tinted.width, tinted.height] = [picture.naturalWidth, picture.naturalHeight];
      const context = tinted.getContext("2d", { willReadFrequently: true });
      if (!context || this.run?.mask !== url) return;
      context.drawImage(picture, 0, 0);
      const pixels = context.getImageData(0, 0, tinted.width, tinted.height);
      for (let at = 0; at < pixels.data.length; at += 4) pixels.data.set([...TINT, pixels.data[at]], at);
      context.putImageData(pixels, 0, 0);
      this.tinted = tinted;
      this.render();
    }, { once: true, signal: this.end.signal });
    picture.src = url;
  }

  /** The same editor over the whole window; the node shows it again afterwards. */
  openLarge() {
    if (this.closeLarge) return;
    const home = this.root.getRootNode();
    this.root.classList.add("big");
    this.closeLarge = openDialog(this.root, {
      title: this.t("editor"),
      close: this.t("close"),
      name: NAME,
      style: STYLE,
      onKey: (event) => this.#key(event),
      onReady: () => this.stage.focus({ preventScroll: true }),
      onClose: () => {
        this.closeLarge = null;
        this.root.classList.remove("big");
        if (home instanceof ShadowRoot) home.append(this.root);
        this.render();
      },
    });
    this.render();
  }

  // --- changes ------------------------------------------------------------------------------------------------------

  /** Takes over new clicks as one entry of the history. @param {Clicks} clicks @param {string} [said] */
  change(clicks, said = "") {
    if (this.readOnly || formatClicks(clicks) === formatClicks(this.clicks)) return;
    this.#take(record(this.history, clicks));
    setText(this.live, said);
  }

  undo() {
    return this.#travel(undo(this.history));
  }

  redo() {
    return this.#travel(redo(this.history));
  }

  /** @param {import("../kit/history.js").History<Clicks>} history @returns {boolean} whether that went anywhere */
  #travel(history) {
    if (this.readOnly || history === this.history) return false;
    this.#take(history);
    return true;
  }

  /** @param {import("../kit/history.js").History<Clicks>} history */
  #take(history) {
    this.history = history;
    this.broken = false;
    this.render();
    this.onText(formatClicks(this.clicks));
  }

  /** The clicks in pixels of the picture shown, null while there is none. */
  #fitted() {
    return this.size && fitClicks(this.clicks, this.size);
  }

  // --- pointer ------------------------------------------------------------------------------------------------------

  /** @param {PointerEvent} event @returns {Gesture | null} */
  #down(event) {
    const base = this.#fitted();
    if (![0, 2].includes(event.button) || !base || this.readOnly) return null;
    const target = /** @type {Element} */ (event.composedPath()[0]);
    const id = target.closest("[data-mark]")?.getAttribute("data-mark") ?? null;
    // What is there may still be changed and taken away.
    if (id === null && this.#refuses(this.tool)) return null;
    (id === null ? this.stage : /** @type {HTMLElement} */ (target)).focus({ preventScroll: true });
    const size = this.size ?? { w: 1, h: 1 };
    const start = toCanvas(event, this.stage.getBoundingClientRect(), size);
    if (this.tool === "brush" || this.tool === "eraser") {
      const r = Math.max(1, Math.round(this.radius * Math.max(size.w, size.h)));
      const keep = (this.tool === "brush") !== (event.button === 2 || event.shiftKey);
      return { start, point: null, base, out: false, stroke: { keep, r, at: [Math.round(start.x), Math.round(start.y)] } };
    }
    return { start, stroke: null, point: id !== null && id !== "box" ? Number(id) : null, base, out: event.button === 2 || event.shiftKey };
  }

  /** Says why, where the node would not use what a tool makes. @param {(typeof TOOLS)[number]} tool */
  #refuses(tool) {
    if (this.idle === null || !asksModel(tool)) return false;
    setText(this.live, this.t(`idle_${this.idle}`));
    return true;
  }

  /** @param {Gesture} gesture @param {{x: number, y: number}} to */
  #moved(gesture, to) {
    const { stroke, base } = gesture;
    if (!stroke) {
      this.#renderMarks(this.#dragged(gesture, to), this.size);
      return;
    }
    const [x, y] = stroke.at.slice(-2);
    if (Math.hypot(to.x - x, to.y - y) < Math.max(1, STEP * stroke.r)) return;
    gesture.stroke = { ...stroke, at: [...stroke.at, Math.round(to.x), Math.round(to.y)] };
    const size = this.size;
    if (!size) return;
    this.mask.hidden = false;
    this.#paintMask(addStroke(base, gesture.stroke).strokes, size, this.run !== null && this.picture?.url === this.run.picture);
  }

  /** @param {Gesture} gesture */
  #paint({ stroke, base }) {
    if (!stroke) return;
    const painted = addStroke(base, stroke);
    if (painted === base) setText(this.live, this.t("saidFull"));
    else this.change(painted, this.t("saidStroke", { number: painted.strokes.length }));
    this.render();
  }

  /** @param {Gesture} gesture @param {{x: number, y: number}} to @returns {Clicks} */
  #dragged(gesture, to) {
    if (gesture.point !== null) return changePoint(gesture.base, gesture.point, to);
    return setBox(gesture.base, rectBetween(gesture.start, to));
  }

  /** @param {Gesture} gesture @param {{x: number, y: number}} to */
  #drag(gesture, to) {
    if (gesture.stroke) return this.#paint(gesture);
    const box = gesture.point === null;
    this.change(this.#dragged(gesture, to), box ? this.t("saidBox") : "");
    if (box && this.tool === "box") this.tool = "keep";
    return this.render();
  }

  /** @param {Gesture} gesture */
  #click(gesture) {
    if (gesture.stroke) return this.#paint(gesture);
    if (gesture.point !== null) {
      const { keep } = gesture.base.points[gesture.point];
      if (gesture.out) this.change(removePoint(gesture.base, gesture.point), this.t("saidRemoved"));
      else this.change(changePoint(gesture.base, gesture.point, { keep: !keep }));
    } else if (this.tool !== "box") this.#add(gesture.base, gesture.start, this.tool === "keep" && !gesture.out);
    return this.render();
  }

  /** @param {Clicks} base @param {{x: number, y: number}} at @param {boolean} keep */
  #add(base, at, keep) {
    this.change(addPoint(base, { ...at, keep }), this.t("saidAdded", { number: base.points.length + 1 }));
  }

  // --- keys ---------------------------------------------------------------------------------------------------------

  /** @param {KeyboardEvent} event */
  #key(event) {
    const command = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    let taken = false;
    if (isUndo(event)) taken = event.shiftKey || key === "y" ? this.redo() : this.undo();
    else if (key === "f" && !command && !event.altKey && !this.closeLarge) taken = (this.openLarge(), true);
    else if (key === "escape") taken = this.pointer.cancel();
    else if (!command && !event.altKey) taken = this.#plainKey(key, event);
    shieldKey(event, taken);
  }

  /** @param {string} key @param {KeyboardEvent} event @returns {boolean} whether it meant something */
  #plainKey(key, event) {
    const { size } = this;
    const base = this.#fitted();
    const target = /** @type {Element} */ (event.composedPath()[0]);
    if (!size || !base || !this.stage.contains(target)) return false;
    const asked = /** @type {Record<string, "keep" | "out" | "box">} */ ({ k: "keep", x: "out", b: "box" })[key];
    if (asked && this.#refuses(asked)) return true;
    if (key === "k" || key === "x") this.#add(base, { x: size.w / 2, y: size.h / 2 }, key === "k");
    else if (key === "b") this.change(setBox(base, { x: size.w / 8, y: size.h / 8, w: 0.75 * size.w, h: 0.75 * size.h }), this.t("saidBox"));
    else return this.#markKey(target.getAttribute("data-mark"), key, event, base, size);
    const added = key === "b" ? "box" : String(base.points.length);
    /** @type {HTMLElement | null} */ (this.marks.querySelector(`[data-mark="${added}"]`))?.focus();
    return true;
  }

  /** @param {string | null} id @param {string} key @param {KeyboardEvent} event @param {Clicks} base @param {import("./model.js").Size} size */
  #markKey(id, key, event, base, size) {
    if (id === null) return false;
    const index = id === "box" ? null : Number(id);
    const step = Math.max(1, Math.round(Math.max(size.w, size.h) / 100)) * (event.shiftKey && index !== null ? 5 : 1);
    const [dx, dy] = { arrowleft: [-step, 0], arrowright: [step, 0], arrowup: [0, -step], arrowdown: [0, step] }[key] ?? [0, 0];
    if (dx || dy) {
      if (index !== null) this.change(changePoint(base, index, { x: base.points[index].x + dx, y: base.points[index].y + dy }));
      else if (base.box && event.shiftKey) this.change(setBox(base, { ...base.box, w: base.box.w + dx, h: base.box.h + dy }));
      else this.change(moveBox(base, dx, dy));
    } else if (key === "delete" || key === "backspace") {
      this.change(index === null ? setBox(base, null) : removePoint(base, index), this.t("saidRemoved"));
      this.stage.focus({ preventScroll: true });
    } else if ((key === "enter" || key === " ") && index !== null) {
      this.change(changePoint(base, index, { keep: !base.points[index].keep }));
    } else return false;
    return true;
  }
}

/** Whether a tool makes what only a model can use. @param {(typeof TOOLS)[number]} tool */
function asksModel(tool) {
  return tool !== "brush" && tool !== "eraser";
}

/** @param {string} text @param {string} label */
function textButton(text, label) {
  return element("button", { type: "button", class: "tool sign", "aria-label": label, title: label, text });
}

/** @param {HTMLElement} button @param {boolean} off */
function disable(button, off) {
  setAttribute(button, "aria-disabled", String(off));
}

/** @param {number} part @param {number} whole */
function percent(part, whole) {
  return (100 * part) / whole;
}

/** @param {Record<string, number>} shares @returns {Record<string, number>} */
function rounded(shares) {
  return Object.fromEntries(Object.entries(shares).map(([name, value]) => [name, Math.round(value)]));
}

/**
 * Clicks that come from elsewhere: the graph's own undo or redo of one of ours, or others altogether.
 * @param {import("../kit/history.js").History<Clicks>} history @param {Clicks} clicks @returns {import("../kit/history.js").History<Clicks>}
 */
function arrived(history, clicks) {
  const text = formatClicks(clicks);
  const before = history.past.at(-1);
  if (before && formatClicks(before) === text) return undo(history);
  if (history.future.length && formatClicks(history.future[0]) === text) return redo(history);
  return createHistory(clicks);
}
