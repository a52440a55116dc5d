/**
 * Pointer gestures on the stage: draw, move, resize, select with a frame. Listeners sit on the stage alone, and the
 * pointer is captured there: some renderers keep pointer events from ever reaching the document.
 *
 * @typedef {import("./model.js").Rect} Rect
 * @typedef {import("./model.js").Box} Box
 * @typedef {import("./geometry.js").Handle} Handle
 * @typedef {{x: number, y: number}} Point
 * @typedef {{kind: "draw" | "move" | "resize" | "frame", start: Point, client: Point, pointer: number, began: boolean,
 *   rects: readonly Box[], handle: Handle | null, ref: import("./model.js").Ref, base: readonly string[]}} Gesture
 *   ref: what a new box will be bound to
 */

import { selected } from "./actions.js";
import * as geometry from "./geometry.js";
import { naturalAspect } from "./preview.js";

/** Movement below which a press is a click, CSS pixels. */
const CLICK = 4;
/** Distance from which edges stick, CSS pixels. */
const REACH = 6;

export class Gestures {
  /** @param {import("./stage.js").Stage} stage @param {AbortSignal} signal */
  constructor(stage, signal) {
    this.stage = stage;
    this.view = stage.view;
    this.store = stage.view.store;
    /** @type {Gesture | null} */
    this.active = null;
    const on = (/** @type {string} */ type, /** @type {(event: PointerEvent) => void} */ listener) =>
      stage.element.addEventListener(type, /** @type {EventListener} */ (listener), { signal });
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#end(event, true));
    on("pointercancel", (event) => this.#end(event, false));
    on("lostpointercapture", (event) => this.#end(event, false));
  }

  /** Gives up the gesture under way. @returns {boolean} whether there was one */
  cancel() {
    if (!this.active) return false;
    this.active = null;
    this.stage.showFrame(null);
    this.stage.showGuides([]);
    this.store.cancel();
    return true;
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (event.button !== 0 || this.active || this.view.environment.readOnly) return;
    event.stopPropagation();
    event.preventDefault();
    const target = /** @type {Element} */ (event.composedPath()[0]);
    const point = this.#point(event);
    const handle = /** @type {Handle | undefined} */ (target.closest("[data-handle]")?.getAttribute("data-handle"));
    const box = this.#boxAt(target, point, event.altKey);
    const draw = event.ctrlKey || event.metaKey || this.stage.drawing;
    const { canPlace } = this.view.commands;
    /** @type {Gesture["kind"]} */
    let kind = "frame";
    if (handle && canPlace) kind = "resize";
    else if (draw && canPlace) kind = "draw";
    else if (box) kind = "move";
    else if (!event.shiftKey && canPlace) kind = "draw";
    const base = this.store.state.selection;
    if (kind === "move" && box) this.#choose(box, event);
    if (kind === "draw" || kind === "frame") this.stage.element.focus({ preventScroll: true });
    this.active = {
      kind,
      start: point,
      client: { x: event.clientX, y: event.clientY },
      pointer: event.pointerId,
      began: false,
      rects: selected(this.store.state).filter((candidate) => !candidate.locked),
      handle: handle ?? null,
      ref: this.view.commands.nextReference(),
      base: event.shiftKey ? base : [],
    };
    this.stage.element.setPointerCapture(event.pointerId);
  }

  /** The box pressed on: the chosen one first, then the one in front; with Alt the next one below. @param {Element} target @param {Point} point @param {boolean} below @returns {Box | null} */
  #boxAt(target, point, below) {
    const { boxes } = this.store.state.layout;
    if (below) {
      const stack = boxes.filter((box) => geometry.contains(box, point.x, point.y)).reverse();
      const at = stack.findIndex((box) => this.store.state.selection.includes(box.id));
      return stack.length ? stack[(at + 1) % stack.length] : null;
    }
    const id = target.closest("[data-box]")?.getAttribute("data-box");
    return boxes.find((box) => box.id === id) ?? null;
  }

  /** @param {Box} box @param {PointerEvent} event */
  #choose(box, event) {
    const already = this.store.state.selection.includes(box.id);
    if (event.shiftKey) this.store.dispatch({ type: "select", ids: [box.id], toggle: true });
    else if (!already || event.altKey) this.store.dispatch({ type: "select", ids: [box.id] });
    this.stage.focusBox(box.id);
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const gesture = this.active;
    if (!gesture || event.pointerId !== gesture.pointer) return;
    event.stopPropagation();
    if (!gesture.began) {
      if (Math.hypot(event.clientX - gesture.client.x, event.clientY - gesture.client.y) < CLICK) return;
      gesture.began = true;
      this.store.begin();
    }
    const point = this.#point(event);
    if (gesture.kind === "draw") this.#draw(gesture, point, event);
    else if (gesture.kind === "move") this.#drag(gesture, point, event);
    else if (gesture.kind === "resize") this.#resize(gesture, point, event);
    else this.#frame(gesture, point);
  }

  /** @param {PointerEvent} event @param {boolean} keep */
  #end(event, keep) {
    const gesture = this.active;
    if (!gesture || event.pointerId !== gesture.pointer) return;
    event.stopPropagation();
    if (!keep) {
      this.cancel();
      return;
    }
    this.active = null;
    this.stage.showFrame(null);
    this.stage.showGuides([]);
    if (!gesture.began) {
      this.#click(gesture, event);
      return;
    }
    const changed = this.store.commit();
    if (gesture.kind === "draw" && changed) {
      this.stage.setDrawing(false);
      this.view.commands.sayAdded();
    } else if (gesture.kind === "frame") {
      this.view.announce(this.view.t("saidSelected", { count: this.store.state.selection.length }));
    } else if (changed) this.view.commands.sayPlaced();
  }

  /** A press without movement: on nothing it deselects, on a chosen box that another covers it chooses that other. @param {Gesture} gesture @param {PointerEvent} event */
  #click(gesture, event) {
    if (gesture.kind === "draw" || gesture.kind === "frame") {
      if (!event.shiftKey) this.store.dispatch({ type: "select", ids: [] });
      return;
    }
    if (gesture.kind !== "move" || event.shiftKey || event.altKey) return;
    const top = this.store.state.layout.boxes.filter((box) => geometry.contains(box, gesture.start.x, gesture.start.y)).at(-1);
    if (top) {
      this.store.dispatch({ type: "select", ids: [top.id] });
      this.stage.focusBox(top.id);
    }
  }

  /** @param {Gesture} gesture @param {Point} point @param {PointerEvent} event */
  #draw(gesture, point, event) {
    const { canvas, editor, boxes } = this.store.state.layout;
    const lines = this.#lines(boxes.slice(0, this.store.history.present.layout.boxes.length));
    const start = this.#snapPoint(gesture.start, lines, event, false);
    const end = this.#snapPoint(point, lines, event, true);
    let rect = geometry.fromPoints(start.x, start.y, end.x, end.y);
    const { ref } = gesture;
    const cutout = ref === null ? null : this.view.library.find(ref)?.cutout;
    if (cutout && editor.aspect !== event.shiftKey) {
      const aspect = naturalAspect(this.view.environment.fit, cutout);
      const w = Math.max(rect.w, rect.h * aspect);
      rect = { x: end.x < start.x ? start.x - w : start.x, y: end.y < start.y ? start.y - w / aspect : start.y, w, h: w / aspect };
    }
    if (editor.inside) rect = clip(rect, canvas);
    this.store.preview({ type: "add", rect, ref });
  }

  /** @param {Gesture} gesture @param {Point} point @param {PointerEvent} event */
  #drag(gesture, point, event) {
    const { layout } = this.store.state;
    if (!gesture.rects.length || !this.view.commands.canPlace) return;
    let dx = point.x - gesture.start.x;
    let dy = point.y - gesture.start.y;
    if (event.shiftKey) {
      if (Math.abs(dx) > Math.abs(dy)) dy = 0;
      else dx = 0;
    }
    const frame = geometry.bounds(gesture.rects);
    if (!event.altKey) {
      const lines = this.#lines(layout.boxes.filter((box) => !gesture.rects.some((rect) => rect.id === box.id)));
      const x = this.#snap([frame.x + dx, frame.x + dx + frame.w, frame.x + dx + frame.w / 2], lines.x);
      const y = this.#snap([frame.y + dy, frame.y + dy + frame.h, frame.y + dy + frame.h / 2], lines.y);
      dx += x.shift;
      dy += y.shift;
      this.stage.showGuides(guides(x.line, y.line));
    } else this.stage.showGuides([]);
    const target = geometry.confine({ ...frame, x: frame.x + dx, y: frame.y + dy }, layout.canvas, layout.editor.inside);
    const shift = { x: target.x - frame.x, y: target.y - frame.y };
    const rects = gesture.rects.map((rect) => ({ ...rect, x: rect.x + shift.x, y: rect.y + shift.y }));
    this.store.preview({ type: "place", rects });
  }

  /** @param {Gesture} gesture @param {Point} point @param {PointerEvent} event */
  #resize(gesture, point, event) {
    const { layout } = this.store.state;
    const [rect] = gesture.rects;
    const { handle } = gesture;
    if (!rect || !handle) return;
    const held = geometry.handlePoint(rect, handle);
    const to = { x: held.x + point.x - gesture.start.x, y: held.y + point.y - gesture.start.y };
    const lines = this.#lines(layout.boxes.filter((box) => box.id !== rect.id));
    const snapped = this.#snapPoint(to, lines, event, true, handle);
    const aspect = layout.editor.aspect !== event.shiftKey ? this.#aspect(rect) : null;
    const next = geometry.resize(rect, handle, snapped.x - held.x, snapped.y - held.y, {
      canvas: layout.canvas,
      inside: layout.editor.inside,
      aspect,
    });
    this.store.preview({ type: "place", rects: [{ ...next, id: rect.id }] });
  }

  /** @param {Gesture} gesture @param {Point} point */
  #frame(gesture, point) {
    const frame = geometry.fromPoints(gesture.start.x, gesture.start.y, point.x, point.y);
    this.stage.showFrame(frame);
    const inside = this.store.state.layout.boxes.filter((box) => geometry.overlaps(box, frame)).map((box) => box.id);
    this.store.preview({ type: "select", ids: [...new Set([...gesture.base, ...inside])] });
  }

  /** The shape to keep: that of the reference, else that of the box itself. @param {Box} box */
  #aspect(box) {
    const cutout = box.ref === null ? null : this.view.library.find(box.ref)?.cutout;
    return cutout && this.store.state.layout.editor.aspect ? naturalAspect(this.view.environment.fit, cutout) : box.w / box.h;
  }

  /** @param {Point} point @param {{x: number[], y: number[]}} lines @param {PointerEvent} event @param {boolean} show @param {Handle} [handle] */
  #snapPoint(point, lines, event, show, handle) {
    if (event.altKey) {
      if (show) this.stage.showGuides([]);
      return point;
    }
    const x = handle && !/[ew]/.test(handle) ? { shift: 0, line: null } : this.#snap([point.x], lines.x);
    const y = handle && !/[ns]/.test(handle) ? { shift: 0, line: null } : this.#snap([point.y], lines.y);
    if (show) this.stage.showGuides(guides(x.line, y.line));
    return { x: point.x + x.shift, y: point.y + y.shift };
  }

  /** @param {readonly number[]} edges @param {readonly number[]} lines */
  #snap(edges, lines) {
    const { editor, canvas } = this.store.state.layout;
    const reach = (REACH * canvas.w) / Math.max(1, this.stage.element.getBoundingClientRect().width);
    return geometry.snap(edges, editor.edges ? lines : [], reach, editor.grid);
  }

  /** @param {readonly Rect[]} others */
  #lines(others) {
    return geometry.snapLines(others, this.store.state.layout.canvas);
  }

  /** Where the pointer is on the canvas, whatever the zoom of graph and browser. @param {PointerEvent} event @returns {Point} */
  #point(event) {
    const rect = this.stage.element.getBoundingClientRect();
    const { canvas } = this.store.state.layout;
    return {
      x: ((event.clientX - rect.left) / Math.max(1, rect.width)) * canvas.w,
      y: ((event.clientY - rect.top) / Math.max(1, rect.height)) * canvas.h,
    };
  }
}

/** @param {number | null} x @param {number | null} y @returns {geometry.Guide[]} */
function guides(x, y) {
  /** @type {geometry.Guide[]} */
  const lines = [];
  if (x !== null) lines.push({ axis: "x", at: x });
  if (y !== null) lines.push({ axis: "y", at: y });
  return lines;
}

/** @param {Rect} rect @param {import("./model.js").Size} canvas @returns {Rect} */
function clip(rect, canvas) {
  const x = geometry.clamp(rect.x, 0, canvas.w);
  const y = geometry.clamp(rect.y, 0, canvas.h);
  return { x, y, w: geometry.clamp(rect.x + rect.w, 0, canvas.w) - x, h: geometry.clamp(rect.y + rect.h, 0, canvas.h) - y };
}
