/**
 * Who hides whom: the automatic painting order, and how much of each subject stays visible. Masks are small pictures of
 * the whole canvas, one byte a pixel, 0 = nothing there. The rule is that of `contextgen_core/ordering.py`; both sides
 * are tested with `tests/vectors/automatic_order.json`.
 */

const CROWDING = 0.1;
const NO_OVERLAP = 0.5;

/**
 * Painting order, bottom first: the larger and the more overlapped go below, one wholly inside another above it.
 * @param {readonly Uint8Array[]} masks  all of one length @returns {number[]} indices; empty masks come last
 */
export function automaticOrder(masks) {
  const areas = masks.map((mask) => mask.reduce((sum, pixel) => sum + (pixel ? 1 : 0), 0));
  const solid = masks.map((_, i) => i).filter((i) => areas[i] > 0);
  /** @type {Map<number, number[]>} */
  const above = new Map(solid.map((i) => [i, []]));
  /** @type {Map<number, {of: number, iou: number}[]>} */
  const overlaps = new Map(solid.map((i) => [i, []]));
  const waiting = new Map(solid.map((i) => [i, 0]));
  for (const i of solid) {
    for (const j of solid) {
      if (j <= i) continue;
      const shared = intersection(masks[i], masks[j]);
      if (shared === Math.min(areas[i], areas[j])) {
        const [first, then] = areas[j] > areas[i] ? [j, i] : [i, j];
        above.get(first)?.push(then);
        waiting.set(then, (waiting.get(then) ?? 0) + 1);
      } else if (shared) {
        const iou = shared / (areas[i] + areas[j] - shared);
        overlaps.get(i)?.push({ of: j, iou });
        overlaps.get(j)?.push({ of: i, iou });
      }
    }
  }
  const scores = new Map(solid.map((i) => [i, score(areas, i, overlaps.get(i) ?? [])]));
  const free = solid.filter((i) => !waiting.get(i));
  const order = [];
  while (free.length) {
    free.sort((a, b) => (scores.get(a) ?? 0) - (scores.get(b) ?? 0) || a - b);
    const i = /** @type {number} */ (free.shift());
    order.push(i);
    for (const j of above.get(i) ?? []) {
      const left = (waiting.get(j) ?? 0) - 1;
      waiting.set(j, left);
      if (left === 0) free.push(j);
    }
  }
  return [...order, ...masks.map((_, i) => i).filter((i) => areas[i] === 0)];
}

/**
 * Pixels of each mask that nothing in front covers, as a share of those it has on the canvas.
 * @param {readonly (Uint8Array | null)[]} masks  bottom first; null for what paints nothing
 * @returns {(number | null)[]} null where the mask is null or empty
 */
export function visibleShares(masks) {
  const length = masks.find((mask) => mask)?.length ?? 0;
  const covered = new Uint8Array(length);
  /** @type {(number | null)[]} */
  const shares = masks.map(() => null);
  for (let i = masks.length - 1; i >= 0; i -= 1) {
    const mask = masks[i];
    if (!mask) continue;
    let total = 0;
    let seen = 0;
    for (let p = 0; p < length; p += 1) {
      if (!mask[p]) continue;
      total += 1;
      if (!covered[p]) seen += 1;
      covered[p] = 1;
    }
    shares[i] = total ? seen / total : null;
  }
  return shares;
}

/** @param {readonly number[]} areas @param {number} i @param {readonly {of: number, iou: number}[]} overlaps */
function score(areas, i, overlaps) {
  if (!overlaps.length) return NO_OVERLAP;
  let weight = 0;
  let portion = 0;
  for (const { of: j, iou } of overlaps) {
    weight += iou;
    portion += (iou * areas[i]) / (areas[i] + areas[j]);
  }
  return Math.min(Math.max(1 - portion / weight - CROWDING * weight, 0), 1);
}

/** @param {Uint8Array} a @param {Uint8Array} b */
function intersection(a, b) {
  let shared = 0;
  for (let p = 0; p < a.length; p += 1) if (a[p] && b[p]) shared += 1;
  return shared;
}
