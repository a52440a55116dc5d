/**
 * One pointer at a time, from press to release, on one element: what all gestures have in common. The pointer is captured
 * there, since some renderers keep pointer events from ever reaching the document; whoever takes the press stops it.
 *
 * @typedef {{start: Point, client: Point, pointer: number, moved: boolean}} Press  start: where it began, in the caller's coordinates
 * @typedef {{x: number, y: number}} Point
 */

/** Movement below which a press is a click, CSS pixels. */
const CLICK = 4;

/** @template T */
export class Pointer {
  /**
   * @param {HTMLElement} target
   * @param {{point: (event: PointerEvent) => Point, down: (event: PointerEvent, at: Point) => T | null,
   *   begin?: (data: T, event: PointerEvent) => void, move: (data: T, at: Point, event: PointerEvent) => void,
   *   end: (data: T, at: Point, event: PointerEvent) => void, click: (data: T, event: PointerEvent) => void,
   *   cancel: (data: T, moved: boolean) => void}} to
   *   down: what the gesture is about, null = not ours; exactly one of end, click and cancel follows
   * @param {AbortSignal} signal
   */
  constructor(target, to, signal) {
    this.target = target;
    this.to = to;
    /** @type {(Press & {data: T}) | null} */
    this.active = null;
    const on = (/** @type {string} */ type, /** @type {(event: PointerEvent) => void} */ listener) =>
      target.addEventListener(type, /** @type {EventListener} */ (listener), { signal });
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event));
    for (const type of ["pointercancel", "lostpointercapture"]) on(type, (event) => this.#ours(event) && this.cancel());
    target.style.touchAction = "none";
  }

  /** Gives the gesture up. @returns {boolean} whether there was one */
  cancel() {
    const { active } = this;
    if (!active) return false;
    this.active = null;
    this.to.cancel(active.data, active.moved);
    return true;
  }

  /** @param {PointerEvent} event */
  #ours(event) {
    return this.active !== null && event.pointerId === this.active.pointer;
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (this.active) {
      // A second finger is not a second gesture.
      event.stopPropagation();
      return;
    }
    const start = this.to.point(event);
    const data = this.to.down(event, start);
    if (data === null) return;
    event.stopPropagation();
    event.preventDefault();
    this.active = { start, client: { x: event.clientX, y: event.clientY }, pointer: event.pointerId, moved: false, data };
    this.target.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const { active } = this;
    if (!active || event.pointerId !== active.pointer) return;
    event.stopPropagation();
    if (!active.moved) {
      if (Math.hypot(event.clientX - active.client.x, event.clientY - active.client.y) < CLICK) return;
      active.moved = true;
      this.to.begin?.(active.data, event);
    }
    this.to.move(active.data, this.to.point(event), event);
  }

  /** @param {PointerEvent} event */
  #up(event) {
    const { active } = this;
    if (!active || event.pointerId !== active.pointer) return;
    event.stopPropagation();
    const at = this.to.point(event);
    // A busy page may have dropped the last movement before the release.
    if (active.moved) this.to.move(active.data, at, event);
    this.active = null;
    if (active.moved) this.to.end(active.data, at, event);
    else this.to.click(active.data, event);
  }
}
