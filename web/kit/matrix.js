/**
 * Turning in the plane. Degrees, clockwise on the screen (y points down).
 *
 * @typedef {{x: number, y: number}} Point
 * @typedef {{x: number, y: number, w: number, h: number}} Rect
 */

/** Sine and cosine, exact for quarter turns: a box turned by 90 degrees keeps whole edges. @param {number} degrees @returns {[number, number]} */
export function sinCos(degrees) {
  const quarter = ((degrees % 360) + 360) % 360;
  if (quarter % 90 === 0) return [[0, 1, 0, -1][quarter / 90], [1, 0, -1, 0][quarter / 90]];
  const angle = (degrees * Math.PI) / 180;
  return [Math.sin(angle), Math.cos(angle)];
}

/** @param {Point} point @param {Point} about @param {number} degrees @returns {Point} */
export function turn(point, about, degrees) {
  if (degrees === 0) return { x: point.x, y: point.y };
  const [sin, cos] = sinCos(degrees);
  const [x, y] = [point.x - about.x, point.y - about.y];
  return { x: about.x + x * cos - y * sin, y: about.y + x * sin + y * cos };
}

/** @param {Rect} rect @returns {Point} */
export function centreOf(rect) {
  return { x: rect.x + rect.w / 2, y: rect.y + rect.h / 2 };
}

/** The corners of a rectangle turned about `about`, clockwise from its upper left. @param {Rect} rect @param {number} degrees @param {Point} [about] @returns {Point[]} */
export function cornersOf(rect, degrees, about = centreOf(rect)) {
  return [
    { x: rect.x, y: rect.y },
    { x: rect.x + rect.w, y: rect.y },
    { x: rect.x + rect.w, y: rect.y + rect.h },
    { x: rect.x, y: rect.y + rect.h },
  ].map((corner) => turn(corner, about, degrees));
}

/** @param {readonly Point[]} points @returns {Rect} */
export function boundsOf(points) {
  const [xs, ys] = [points.map((point) => point.x), points.map((point) => point.y)];
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return { x, y, w: Math.max(...xs) - x, h: Math.max(...ys) - y };
}

/** The same direction in (-180, 180], to 1/100 degree. @param {number} degrees */
export function normaliseAngle(degrees) {
  const whole = Math.floor(degrees * 100 + 0.5) / 100;
  const angle = ((((whole + 180) % 360) + 360) % 360) - 180;
  return angle === -180 ? 180 : Math.floor(angle * 100 + 0.5) / 100;
}
