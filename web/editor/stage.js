/** The canvas with its boxes: HTML elements with percentage geometry over one painted picture. */

import { element, icon, setAttribute, setChildren, setText } from "../kit/dom.js";
import { centreOf, cornersOf, turn } from "../kit/matrix.js";
import { panned, toCanvas, WHOLE, zoomed } from "../kit/viewport.js";
import { GREY, paint } from "../render/composite.js";
import { paintPlane, planesOf } from "../render/routing.js";
import { cameraOf, horizonOf, pointOf } from "../scene/camera.js";
import { colourOf, inkOn } from "../scene/colours.js";
import { bounds, HANDLES } from "../scene/geometry.js";
import { kindOf, regionOf } from "../scene/kinds/index.js";
import { isLocked, sameScene } from "../scene/schema.js";
import { Gestures } from "./gestures.js";

/** Longest side of what is painted, pixels. */
const PAINT_SIDE = 2048;
/** Longest side of a plane of the control picture, and of one that follows the hand, pixels. */
const PLANE_SIDE = 512;
const HELD_SIDE = 192;
/** A painted outline is shown beside its box when it leaves it by more than this share of the box's side. */
const BEYOND = 0.02;
const SVG = "http://www.w3.org/2000/svg";

export class Stage {
  /** @param {import("./view.js").EditorView} view @param {AbortSignal} signal */
  constructor(view, signal) {
    this.view = view;
    this.drawing = false;
    /** What of the canvas is seen. @type {import("../kit/viewport.js").Window} */
    this.seen = WHOLE;
    this.canvas = element("canvas", { class: "paint", "aria-hidden": "true" });
    this.boxes = element("div", { class: "boxes" });
    this.guides = element("div", { class: "guides", "aria-hidden": "true" });
    this.floor = drawing("lines floor");
    this.lines = drawing("lines");
    this.frame = element("div", { class: "frame", hidden: true, "aria-hidden": "true" });
    const handles = HANDLES.map((handle) => element("i", { class: "handle", "data-handle": handle }));
    this.together = element("div", { class: "together", hidden: true, "aria-hidden": "true" }, ...handles);
    this.element = element(
      "div",
      { class: "stage", role: "application", tabindex: 0 },
      this.canvas,
      this.floor,
      this.boxes,
      this.lines,
      this.guides,
      this.frame,
      this.together,
    );
    // Another pack's style sheet must not be able to take the pointer away.
    this.element.style.pointerEvents = "auto";
    this.wrap = element("div", { class: "stage-wrap" }, this.element);
    this.gestures = new Gestures(this, signal);
    /** @type {Map<string, HTMLElement>} */
    this.byId = new Map();
    /** @type {Map<string, HTMLImageElement>} */
    this.pictures = new Map();
    this.repaint = 0;
    this.observer = typeof ResizeObserver === "function" ? new ResizeObserver(() => this.update()) : null;
    this.observer?.observe(this.element);
    this.element.addEventListener("pointerenter", () => this.measure(), { signal });
    this.element.addEventListener("focusin", () => this.measure(), { signal });
    signal.addEventListener("abort", () => this.#dispose(), { once: true });
  }

  #dispose() {
    this.observer?.disconnect();
    cancelAnimationFrame(this.repaint);
    this.pictures.clear();
  }

  /** Handles, lines and names keep their size on the screen, whatever the zoom of graph and editor. */
  measure() {
    const { width } = this.element.getBoundingClientRect();
    const scale = this.element.offsetWidth ? width / this.element.offsetWidth : 1;
    const factor = scale > 0 ? Math.max(1 / 32, Math.min(3, 1 / scale)) : 1;
    this.element.style.setProperty("--k", factor.toFixed(3));
  }

  /** @param {boolean} on  the next drag draws, wherever it begins */
  setDrawing(on) {
    if (this.drawing === on) return;
    this.drawing = on;
    this.element.classList.toggle("drawing", on);
    this.view.toolbar.update();
  }

  // --- what part is seen --------------------------------------------------------------------------------------------

  /** @param {import("../kit/viewport.js").Window} seen */
  look(seen) {
    this.seen = seen;
    const { zoom, x, y } = seen;
    this.element.style.transform = zoom === 1 ? "" : `translate(${-100 * x * zoom}%, ${-100 * y * zoom}%) scale(${zoom})`;
    this.wrap.classList.toggle("zoomed", zoom > 1);
    this.measure();
    this.update();
    this.view.toolbar.update();
  }

  /** In the large editor; in the node the graph's own zoom serves. @param {number} factor @param {{x: number, y: number}} [at]  shares of the frame */
  zoomBy(factor, at = { x: 0.5, y: 0.5 }) {
    if (this.view.isLarge) this.look(zoomed(this.seen, factor, at));
  }

  /** @param {number} dx @param {number} dy  pixels of the screen */
  panBy(dx, dy) {
    this.look(panned(this.seen, dx / Math.max(1, this.element.offsetWidth), dy / Math.max(1, this.element.offsetHeight)));
  }

  showWhole() {
    this.look(WHOLE);
  }

  /** A place of the screen as a share of the frame in which the canvas is seen. @param {{clientX: number, clientY: number}} event */
  frameShare({ clientX, clientY }) {
    const rect = this.element.getBoundingClientRect();
    const { zoom, x, y } = this.seen;
    return { x: (((clientX - rect.left) / Math.max(1, rect.width)) - x) * zoom, y: (((clientY - rect.top) / Math.max(1, rect.height)) - y) * zoom };
  }

  // --- boxes --------------------------------------------------------------------------------------------------------

  update() {
    const { layout, selection } = this.view.store.state;
    const { canvas, boxes } = layout;
    const label = this.view.t("stage", { w: canvas.w, h: canvas.h, count: boxes.length });
    setAttribute(this.element, "aria-label", label);
    this.wrap.style.setProperty("--aspect", String(canvas.w / canvas.h));
    this.element.classList.toggle("gesture", this.view.store.inGesture);
    this.element.classList.toggle("fixed", !this.view.commands.canPlace);
    const root = /** @type {ShadowRoot | Document} */ (this.element.getRootNode());
    const focused = root.activeElement;
    for (const id of this.byId.keys()) if (!boxes.some((box) => box.id === id)) this.byId.delete(id);
    const active = selection.at(-1) ?? boxes.at(-1)?.id;
    // Read before anything is written: each reading in between would lay the page out anew.
    const frame = { w: this.element.offsetWidth * this.seen.zoom, h: this.element.offsetHeight * this.seen.zoom };
    this.view.scene.members.forEach((member, index) => {
      const kind = kindOf(member.box).name;
      let node = this.byId.get(member.box.id);
      if (node?.dataset.kind !== kind) node = this.#makeBox(member.box);
      this.#updateBox(node, member, index, { active: member.box.id === active, frame });
    });
    // Elements stay in the order of their making: moving one would take its focus. What is in front is told by z-index.
    setChildren(this.boxes, [...this.byId.values()]);
    // The keys must not fall to the graph because the box that had the focus is gone.
    if (focused instanceof HTMLElement && focused.dataset.box && !focused.isConnected) {
      (this.byId.get(focused.dataset.box) ?? this.element).focus({ preventScroll: true });
    }
    this.#updateTogether();
    this.#updateLines();
    this.#schedulePaint();
  }

  /** @param {import("../scene/schema.js").Box} box */
  #makeBox(box) {
    const kind = kindOf(box);
    const node = element(
      "div",
      { class: "box", role: "button", "data-box": box.id, "data-kind": kind.name },
      element("span", { class: "tag" }, element("b"), element("bdi"), icon("lock"), icon("hidden"), icon("warning")),
      ...kind.handles.map(({ id, cursor }) => {
        // Those of the edges follow the frame by the style sheet.
        const free = !HANDLES.some((known) => known === id);
        const title = kind.name === "solid" ? this.view.t(/** @type {Parameters<import("./strings.js").Translate>[0]} */ (`handle_${id}`)) : null;
        const handle = element("i", { class: free ? "handle free" : "handle", "data-handle": id, title });
        handle.style.cursor = cursor;
        return handle;
      }),
    );
    this.byId.set(box.id, node);
    return node;
  }

  /** @param {HTMLElement} node @param {import("../render/planes.js").Member} member @param {number} index @param {{active: boolean, frame: import("../scene/schema.js").Size}} on  frame: of the whole canvas, CSS pixels */
  #updateBox(node, member, index, { active, frame }) {
    const { box } = member;
    const { layout, selection } = this.view.store.state;
    const { canvas } = layout;
    const chosen = selection.includes(box.id);
    const locked = isLocked(box, layout);
    const name = this.view.commands.nameOf(box);
    const colour = colourOf(box);
    node.style.left = percent(box.x, canvas.w);
    node.style.top = percent(box.y, canvas.h);
    node.style.width = percent(box.w, canvas.w);
    node.style.height = percent(box.h, canvas.h);
    node.style.zIndex = String(chosen ? 100 + index : index + 1);
    node.style.transform = box.rot ? `rotate(${box.rot}deg)` : "";
    node.style.setProperty("--c", colour);
    node.style.setProperty("--ink", inkOn(colour));
    const shown = { w: (box.w / canvas.w) * frame.w, h: (box.h / canvas.h) * frame.h };
    const classes = {
      chosen,
      single: chosen && selection.length === 1 && !locked && this.view.commands.canPlace,
      locked,
      unbound: box.ref === null,
      missing: member.missing,
      covered: member.covered,
      off: member.off,
      bare: !layout.editor.labels && !chosen,
      slim: shown.w < 48,
      flat: shown.h < 48,
      solid: box.solid !== undefined,
      atop: !box.rot && !box.solid && (box.y / canvas.h) * frame.h < 36,
    };
    for (const [key, on] of Object.entries(classes)) node.classList.toggle(key, on);
    setAttribute(node, "tabindex", active ? 0 : -1);
    setAttribute(node, "aria-pressed", chosen ? "true" : "false");
    setAttribute(node, "aria-label", this.#describe(member, index, name, locked));
    const [tag] = node.children;
    // The number is drawn by the style sheet: it is part of the spoken name already.
    setAttribute(tag.children[0], "data-number", index + 1);
    setText(tag.children[1], name);
    if (classes.single) this.#placeHandles(node, box);
  }

  /** Handles that stand where their kind says, in shares of the frame. @param {HTMLElement} node @param {import("../scene/schema.js").Box} box */
  #placeHandles(node, box) {
    const kind = kindOf(box);
    for (const handle of /** @type {NodeListOf<HTMLElement>} */ (node.querySelectorAll(".handle.free"))) {
      const place = kind.where(box, handle.dataset.handle ?? "", this.view.store.state.layout);
      handle.hidden = !place;
      if (!place) continue;
      const { x, y } = turn(place, centreOf(box), -(box.rot ?? 0));
      Object.assign(handle.style, { left: percent(x - box.x, box.w), top: percent(y - box.y, box.h) });
    }
  }

  /** @param {import("../render/planes.js").Member} member @param {number} index @param {string} name @param {boolean} locked */
  #describe({ box, covered, missing, off }, index, name, locked) {
    const { layout } = this.view.store.state;
    const { t } = this.view;
    const share = (/** @type {number} */ value, /** @type {number} */ side) => Math.round((100 * value) / side);
    const parts = [
      t("box", {
        number: index + 1,
        count: layout.boxes.length,
        name,
        x: share(box.x, layout.canvas.w),
        y: share(box.y, layout.canvas.h),
        w: share(box.w, layout.canvas.w),
        h: share(box.h, layout.canvas.h),
      }),
    ];
    if (box.solid) parts.push(t("boxSolid", { z: box.solid.z, yaw: box.solid.yaw }));
    if (box.rot) parts.push(t("boxTurned", { rot: box.rot }));
    if (box.flip) parts.push(t("boxFlipped"));
    if (locked) parts.push(t("boxLocked"));
    if (missing) parts.push(t("boxMissing"));
    if (off) parts.push(t("boxOff"));
    if (covered) parts.push(t("boxCovered"));
    return parts.join(", ");
  }

  /** The frame around several selected boxes, by which they are resized as one. */
  #updateTogether() {
    const { state } = this.view.store;
    const boxes = state.layout.boxes.filter((box) => state.selection.includes(box.id) && !isLocked(box, state.layout));
    this.together.hidden = boxes.length < 2 || !this.view.commands.canPlace;
    if (this.together.hidden) return;
    this.#cover(this.together, bounds(boxes.map(regionOf)));
  }

  /** What is drawn beside the frames: what a kind has to show, and the outline of a subject that leaves its selected box. */
  #updateLines() {
    const { layout, selection } = this.view.store.state;
    const wanted = this.view.scene.members.flatMap(({ box, placement }) => {
      /** @type {{kind: string, paths: readonly (readonly import("../scene/kinds/index.js").Point[])[]}[]} */
      const own = kindOf(box).lines(box, layout).filter(({ kind }) => kind !== "front" || selection.includes(box.id));
      const leaves = placement && layout.editor.shows === "picture" && selection.includes(box.id) && leavesBox(placement, box);
      if (leaves) own.push({ kind: "painted", paths: [closed(cornersOf(placement.rect, placement.rot, placement.about))] });
      return own.map((line) => ({ ...line, colour: colourOf(box) }));
    });
    draw(this.lines, layout.canvas, wanted);
    draw(this.floor, layout.canvas, layout.boxes.some((box) => box.solid) ? this.#ground() : []);
  }

  /** The horizon, and lines on the ground that run to it. */
  #ground() {
    const { layout } = this.view.store.state;
    const { canvas } = layout;
    const camera = cameraOf(layout);
    const y = horizonOf(camera, canvas);
    const unit = camera.height;
    const depths = [1, 1.5, 2, 3, 4, 6, 8, 12, 20].map((z) => [{ x: -40 * unit, z: z * unit }, { x: 40 * unit, z: z * unit }]);
    const rails = Array.from({ length: 17 }, (_, i) => [{ x: (i - 8) * unit, z: 0.8 * unit }, { x: (i - 8) * unit, z: 200 * unit }]);
    const paths = [...depths, ...rails].flatMap((line) => {
      const ends = line.map((at) => pointOf(camera, canvas, { ...at, y: 0 }));
      return ends[0] && ends[1] ? [[ends[0], ends[1]]] : [];
    });
    const across = [[{ x: 0, y }, { x: canvas.w, y }]];
    return [{ kind: "ground", paths, colour: "#fff" }, { kind: "horizon", paths: y > 0 && y < canvas.h ? across : [], colour: "#fff" }];
  }

  /** @param {string} id */
  focusBox(id) {
    this.byId.get(id)?.focus({ preventScroll: true });
  }

  /** @param {import("../scene/schema.js").Rect | null} rect */
  showFrame(rect) {
    this.frame.hidden = rect === null;
    if (rect) this.#cover(this.frame, rect);
  }

  /** @param {HTMLElement} node @param {import("../scene/schema.js").Rect} rect */
  #cover(node, rect) {
    const { canvas } = this.view.store.state.layout;
    node.style.left = percent(rect.x, canvas.w);
    node.style.top = percent(rect.y, canvas.h);
    node.style.width = percent(rect.w, canvas.w);
    node.style.height = percent(rect.h, canvas.h);
  }

  /** @param {readonly import("../scene/geometry.js").Guide[]} guides */
  showGuides(guides) {
    const { canvas } = this.view.store.state.layout;
    setChildren(
      this.guides,
      guides.map(({ axis, at }) => {
        const line = element("i", { class: axis });
        if (axis === "x") line.style.left = percent(at, canvas.w);
        else line.style.top = percent(at, canvas.h);
        return line;
      }),
    );
  }

  /** @param {{clientX: number, clientY: number}} event @returns {{x: number, y: number}} the place on the canvas */
  point(event) {
    return toCanvas(event, this.element.getBoundingClientRect(), this.view.store.state.layout.canvas);
  }

  /** The box or the canvas under a point of the screen, for what is dragged in from outside. @param {number} clientX @param {number} clientY */
  target(clientX, clientY) {
    const { canvas, boxes } = this.view.store.state.layout;
    const at = this.point({ clientX, clientY });
    if (at.x < 0 || at.y < 0 || at.x >= canvas.w || at.y >= canvas.h) return null;
    const box = boxes.filter((each) => kindOf(each).hit(each, at)).at(-1) ?? null;
    return { ...at, box };
  }

  /** Marks the box that a dragged reference would be bound to. @param {string | null} id */
  showTarget(id) {
    for (const [key, node] of this.byId) node.classList.toggle("target", key === id);
  }

  // --- picture ------------------------------------------------------------------------------------------------------

  #schedulePaint() {
    cancelAnimationFrame(this.repaint);
    this.repaint = requestAnimationFrame(() => this.#paint());
  }

  /** Which picture stands for the composite now. @returns {"run" | "picture" | "live" | "plain" | "planes"} */
  get showing() {
    const { environment, store } = this.view;
    const { layout } = store.state;
    const { background, preview } = layout.editor;
    const { run } = environment;
    if (layout.editor.shows !== "picture") return "planes";
    const current = run !== null && run.current && !store.inGesture && sameScene(run.layout, layout);
    if (environment.picture && (background === "auto" || background === "picture")) return "picture";
    if (run && background === "run" && !preview) return "run";
    if (current && preview && background !== "plain") return "run";
    return preview ? "live" : "plain";
  }

  /** The part of the canvas that can be seen, in whole pixels of the canvas. @returns {import("../scene/schema.js").Rect} */
  #part() {
    const { canvas } = this.view.store.state.layout;
    if (this.seen.zoom === 1) return { x: 0, y: 0, w: canvas.w, h: canvas.h };
    const wrap = this.wrap.getBoundingClientRect();
    const from = this.point({ clientX: wrap.left, clientY: wrap.top });
    const to = this.point({ clientX: wrap.right, clientY: wrap.bottom });
    const [x, y] = [Math.max(0, Math.floor(from.x)), Math.max(0, Math.floor(from.y))];
    return { x, y, w: Math.max(1, Math.min(canvas.w, Math.ceil(to.x)) - x), h: Math.max(1, Math.min(canvas.h, Math.ceil(to.y)) - y) };
  }

  #paint() {
    const { store, environment, scene } = this.view;
    const { canvas, editor } = store.state.layout;
    const context = this.canvas.getContext("2d");
    if (!context || !this.element.offsetWidth) return;
    const density = Math.min(globalThis.devicePixelRatio || 1, 2);
    const part = this.#part();
    const k = Math.min(1, PAINT_SIDE / Math.max(part.w, part.h), (this.element.offsetWidth * this.seen.zoom * density) / canvas.w);
    const [w, h] = [Math.max(1, Math.round(part.w * k)), Math.max(1, Math.round(part.h * k))];
    if (this.canvas.width !== w || this.canvas.height !== h) [this.canvas.width, this.canvas.height] = [w, h];
    this.#cover(this.canvas, part);
    context.fillStyle = GREY;
    context.fillRect(0, 0, w, h);
    const { showing } = this;
    if (showing === "planes") return this.#paintPlane(context, part);
    const url = showing === "picture" ? environment.picture : showing === "run" || editor.background === "run" ? environment.run?.url : null;
    const picture = url ? this.#picture(url) : null;
    if (picture) {
      const [px, py] = [picture.naturalWidth / canvas.w, picture.naturalHeight / canvas.h];
      context.drawImage(picture, part.x * px, part.y * py, part.w * px, part.h * py, 0, 0, w, h);
    }
    if (picture && showing === "live") {
      context.fillStyle = "rgb(128 128 128 / 0.5)";
      context.fillRect(0, 0, w, h);
    }
    if (showing === "live" || (showing === "run" && !picture)) paint(context, part, scene.painted, { hard: !store.inGesture });
  }

  /** A plane of the control picture, of those that have a reference. @param {CanvasRenderingContext2D} context @param {import("../scene/schema.js").Rect} part */
  #paintPlane(context, part) {
    const { store, scene } = this.view;
    const { layout } = store.state;
    const { canvas, editor } = layout;
    if (editor.shows === "picture") return;
    const k = Math.min(1, (store.inGesture ? HELD_SIDE : PLANE_SIDE) / Math.max(canvas.w, canvas.h));
    const size = { w: Math.max(1, Math.round(canvas.w * k)), h: Math.max(1, Math.round(canvas.h * k)) };
    const subjects = scene.members.filter((member) => member.reference && !member.off).map((member) => member.box);
    paintPlane(context, part, planesOf(layout, subjects, size.w, size.h)[editor.shows], editor.shows, size, canvas);
  }

  /** A background picture if it is loaded already; else it is asked for and painted later. @param {string} url */
  #picture(url) {
    const known = this.pictures.get(url);
    if (known) return known.complete && known.naturalWidth ? known : null;
    const image = new Image();
    image.onload = () => this.#schedulePaint();
    image.src = url;
    if (this.pictures.size > 4) this.pictures.clear();
    this.pictures.set(url, image);
    return null;
  }
}

/** @param {import("../render/place.js").Placement} placement @param {import("../scene/schema.js").Box} box */
function leavesBox({ rect }, box) {
  const [x, y] = [BEYOND * box.w, BEYOND * box.h];
  return rect.x < box.x - x || rect.y < box.y - y || rect.x + rect.w > box.x + box.w + x || rect.y + rect.h > box.y + box.h + y;
}

/** @param {string} name */
function drawing(name) {
  const svg = document.createElementNS(SVG, "svg");
  setAttribute(svg, "class", name);
  setAttribute(svg, "aria-hidden", "true");
  setAttribute(svg, "preserveAspectRatio", "none");
  return svg;
}

/** @param {SVGSVGElement} svg @param {import("../scene/schema.js").Size} canvas @param {readonly {kind: string, paths: readonly (readonly {x: number, y: number}[])[], colour: string}[]} wanted */
function draw(svg, canvas, wanted) {
  setAttribute(svg, "viewBox", `0 0 ${canvas.w} ${canvas.h}`);
  const nodes = [...svg.children];
  setChildren(
    svg,
    wanted.map(({ paths, colour, kind }, i) => {
      const line = nodes[i] ?? document.createElementNS(SVG, "path");
      setAttribute(line, "d", paths.map((points) => `M${points.map(({ x, y }) => `${x.toFixed(2)} ${y.toFixed(2)}`).join("L")}`).join(""));
      setAttribute(line, "stroke", colour);
      setAttribute(line, "class", kind);
      return line;
    }),
  );
}

/** @template T @param {readonly T[]} points @returns {T[]} */
function closed(points) {
  return [...points, points[0]];
}

/** @param {number} value @param {number} whole */
function percent(value, whole) {
  return `${((100 * value) / whole).toFixed(4)}%`;
}
