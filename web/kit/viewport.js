/**
 * Which part of a canvas is seen, and where it lies on the screen. `zoom` 1 shows the whole canvas; x and y are the share
 * of the canvas at the upper left of what is seen.
 *
 * @typedef {{zoom: number, x: number, y: number}} Window
 * @typedef {{x: number, y: number}} Point
 * @typedef {{w: number, h: number}} Size
 */

export const MAX_ZOOM = 16;

/** @type {Readonly<Window>} */
export const WHOLE = Object.freeze({ zoom: 1, x: 0, y: 0 });

/** Inside the canvas, which is never seen smaller than whole. @param {Window} seen @returns {Window} */
export function bounded({ zoom, x, y }) {
  const z = Math.min(MAX_ZOOM, Math.max(1, zoom));
  const most = 1 - 1 / z;
  return { zoom: z, x: Math.min(most, Math.max(0, x)), y: Math.min(most, Math.max(0, y)) };
}

/** Zooms so that the canvas under a place of the frame (shares 0..1) stays there. @param {Window} seen @param {number} factor @param {Point} at @returns {Window} */
export function zoomed(seen, factor, at) {
  const zoom = Math.min(MAX_ZOOM, Math.max(1, seen.zoom * factor));
  return bounded({ zoom, x: seen.x + at.x / seen.zoom - at.x / zoom, y: seen.y + at.y / seen.zoom - at.y / zoom });
}

/** Moved by a share of the frame. @param {Window} seen @param {number} dx @param {number} dy @returns {Window} */
export function panned(seen, dx, dy) {
  return bounded({ zoom: seen.zoom, x: seen.x - dx / seen.zoom, y: seen.y - dy / seen.zoom });
}

/** A place of the screen in pixels of the canvas, whatever the zoom of graph and browser. @param {{clientX: number, clientY: number}} event @param {DOMRect} rect  of the element that shows the whole canvas @param {Size} canvas @returns {Point} */
export function toCanvas(event, rect, canvas) {
  return {
    x: ((event.clientX - rect.left) / Math.max(1, rect.width)) * canvas.w,
    y: ((event.clientY - rect.top) / Math.max(1, rect.height)) * canvas.h,
  };
}
