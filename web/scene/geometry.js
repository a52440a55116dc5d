/**
 * Arithmetic on rectangles. Everything is in pixels of the canvas, x to the right, y down.
 *
 * @typedef {import("./schema.js").Rect} Rect
 * @typedef {import("./schema.js").Size} Size
 * @typedef {"n" | "ne" | "e" | "se" | "s" | "sw" | "w" | "nw"} Handle
 * @typedef {"left" | "center" | "right" | "top" | "middle" | "bottom"} Alignment
 * @typedef {{axis: "x" | "y", at: number}} Guide  a line that a snapped edge lies on
 */

/** The shortest side that the editor makes: one latent token. */
export const MIN_SIDE = 16;

/** @type {readonly Handle[]} */
export const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];

/** @param {number} value @param {number} low @param {number} high */
export function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}

/** The rectangle spanned by two points. @param {number} x1 @param {number} y1 @param {number} x2 @param {number} y2 @returns {Rect} */
export function fromPoints(x1, y1, x2, y2) {
  return { x: Math.min(x1, x2), y: Math.min(y1, y2), w: Math.abs(x2 - x1), h: Math.abs(y2 - y1) };
}

/** @param {readonly Rect[]} rects @returns {Rect} */
export function bounds(rects) {
  const x = Math.min(...rects.map((r) => r.x));
  const y = Math.min(...rects.map((r) => r.y));
  return {
    x,
    y,
    w: Math.max(...rects.map((r) => r.x + r.w)) - x,
    h: Math.max(...rects.map((r) => r.y + r.h)) - y,
  };
}

/** @param {Rect} a @param {Rect} b */
export function overlaps(a, b) {
  return a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
}

/** @param {Rect} r @param {number} x @param {number} y */
export function contains(r, x, y) {
  return x >= r.x && x < r.x + r.w && y >= r.y && y < r.y + r.h;
}

/**
 * Puts a rectangle back where it may be: wholly inside the canvas, or (`inside` false) at least MIN_SIDE of it.
 * @param {Rect} rect @param {Size} canvas @param {boolean} inside @returns {Rect}
 */
export function confine(rect, canvas, inside) {
  if (inside) {
    const w = Math.min(rect.w, canvas.w);
    const h = Math.min(rect.h, canvas.h);
    return { x: clamp(rect.x, 0, canvas.w - w), y: clamp(rect.y, 0, canvas.h - h), w, h };
  }
  const keepX = Math.min(MIN_SIDE, rect.w, canvas.w);
  const keepY = Math.min(MIN_SIDE, rect.h, canvas.h);
  return {
    x: clamp(rect.x, keepX - rect.w, canvas.w - keepX),
    y: clamp(rect.y, keepY - rect.h, canvas.h - keepY),
    w: rect.w,
    h: rect.h,
  };
}

/**
 * Drags a handle by (dx, dy): the opposite edge or corner stays where it is.
 * @param {Rect} rect @param {Handle} handle @param {number} dx @param {number} dy
 * @param {{canvas: Size, inside: boolean, aspect?: number | null, free?: boolean}} options  aspect: width / height to
 *   keep; free: wherever it comes to lie
 * @returns {Rect}
 */
export function resize(rect, handle, dx, dy, { canvas, inside, aspect = null, free = false }) {
  // Where the fixed point lies: 0 = left/top edge, 1 = right/bottom edge, 0.5 = the middle (edges that do not move).
  const fx = handle.includes("e") ? 0 : handle.includes("w") ? 1 : 0.5;
  const fy = handle.includes("s") ? 0 : handle.includes("n") ? 1 : 0.5;
  const ax = rect.x + fx * rect.w;
  const ay = rect.y + fy * rect.h;
  let w = fx === 0.5 ? rect.w : rect.w + (fx === 0 ? dx : -dx);
  let h = fy === 0.5 ? rect.h : rect.h + (fy === 0 ? dy : -dy);
  const maxW = inside ? room(ax, fx, canvas.w) : Infinity;
  const maxH = inside ? room(ay, fy, canvas.h) : Infinity;
  if (aspect) {
    if (fx === 0.5) w = h * aspect;
    else if (fy !== 0.5) w = Math.max(w, h * aspect);
    const least = Math.max(MIN_SIDE, MIN_SIDE * aspect);
    w = Math.min(Math.max(w, least), Math.max(least, Math.min(maxW, maxH * aspect)));
    h = w / aspect;
  } else {
    if (fx !== 0.5) w = Math.max(MIN_SIDE, Math.min(w, maxW));
    if (fy !== 0.5) h = Math.max(MIN_SIDE, Math.min(h, maxH));
  }
  const next = { x: ax - fx * w, y: ay - fy * h, w, h };
  return free ? next : confine(next, canvas, inside);
}

/** Longest side that fits when the point at fraction f stays at `at`. @param {number} at @param {number} f @param {number} side */
function room(at, f, side) {
  if (f === 0) return side - at;
  if (f === 1) return at;
  return 2 * Math.min(at, side - at);
}

/** @param {Rect} rect @param {Handle} handle @returns {{x: number, y: number}} the point that the handle holds */
export function handlePoint(rect, handle) {
  const fx = handle.includes("e") ? 1 : handle.includes("w") ? 0 : 0.5;
  const fy = handle.includes("s") ? 1 : handle.includes("n") ? 0 : 0.5;
  return { x: rect.x + fx * rect.w, y: rect.y + fy * rect.h };
}

/** The same area and centre with another shape, made smaller if it would not fit. @param {Rect} rect @param {number} aspect @param {Size} canvas @returns {Rect} */
export function reshape(rect, aspect, canvas) {
  const area = rect.w * rect.h;
  const w = Math.min(Math.sqrt(area * aspect), canvas.w, canvas.h * aspect);
  const h = w / aspect;
  return confine({ x: rect.x + (rect.w - w) / 2, y: rect.y + (rect.h - h) / 2, w, h }, canvas, true);
}

/** Lines that edges stick to: of other boxes and of the canvas. @param {readonly Rect[]} others @param {Size} canvas */
export function snapLines(others, canvas) {
  return {
    x: [0, canvas.w / 2, canvas.w, ...others.flatMap((r) => [r.x, r.x + r.w / 2, r.x + r.w])],
    y: [0, canvas.h / 2, canvas.h, ...others.flatMap((r) => [r.y, r.y + r.h / 2, r.y + r.h])],
  };
}

/**
 * The smallest shift that brings one of `edges` onto one of `lines`, if there is one within `reach`; otherwise onto the grid.
 * @param {readonly number[]} edges @param {readonly number[]} lines @param {number} reach @param {number} grid  0 = no grid
 * @returns {{shift: number, line: number | null}}
 */
export function snap(edges, lines, reach, grid) {
  /** @type {{shift: number, line: number | null}} */
  let best = { shift: 0, line: null };
  let least = reach;
  for (const line of lines) {
    for (const edge of edges) {
      const distance = Math.abs(line - edge);
      if (distance < least || (distance === least && best.line === null)) {
        least = distance;
        best = { shift: line - edge, line };
      }
    }
  }
  if (best.line === null && grid > 0) best.shift = Math.round(edges[0] / grid) * grid - edges[0];
  return best;
}

/**
 * Lines the rectangles up; a single one with the canvas, several with each other.
 * @template {Rect} R @param {readonly R[]} rects @param {Alignment} how @param {Size} canvas @returns {R[]}
 */
export function align(rects, how, canvas) {
  const frame = rects.length > 1 ? bounds(rects) : { x: 0, y: 0, w: canvas.w, h: canvas.h };
  return rects.map((r) => {
    switch (how) {
      case "left":
        return { ...r, x: frame.x };
      case "center":
        return { ...r, x: frame.x + (frame.w - r.w) / 2 };
      case "right":
        return { ...r, x: frame.x + frame.w - r.w };
      case "top":
        return { ...r, y: frame.y };
      case "middle":
        return { ...r, y: frame.y + (frame.h - r.h) / 2 };
      default:
        return { ...r, y: frame.y + frame.h - r.h };
    }
  });
}

/** Equal gaps along an axis; the outermost two stay. @template {Rect} R @param {readonly R[]} rects @param {"x" | "y"} axis @returns {R[]} */
export function distribute(rects, axis) {
  const side = axis === "x" ? "w" : "h";
  if (rects.length < 3) return [...rects];
  const sorted = [...rects].sort((a, b) => a[axis] + a[side] / 2 - (b[axis] + b[side] / 2));
  const first = sorted[0];
  const last = sorted[sorted.length - 1];
  const inner = sorted.reduce((sum, r) => sum + r[side], 0);
  const gap = (last[axis] + last[side] - first[axis] - inner) / (sorted.length - 1);
  /** @type {Map<R, number>} */
  const starts = new Map();
  let at = first[axis];
  for (const r of sorted) {
    starts.set(r, at);
    at += r[side] + gap;
  }
  return rects.map((r) => ({ ...r, [axis]: starts.get(r) ?? r[axis] }));
}
