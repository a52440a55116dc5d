/**
 * Undo and redo over immutable snapshots. Pure: each function returns a new history.
 *
 * @template T
 * @typedef {{past: readonly T[], present: T, future: readonly T[]}} History
 */

export const LIMIT = 100;

/** @template T @param {T} present @returns {History<T>} */
export function createHistory(present) {
  return { past: [], present, future: [] };
}

/** A new entry; what was undone is given up. @template T @param {History<T>} history @param {T} present @returns {History<T>} */
export function record(history, present) {
  return { past: [...history.past, history.present].slice(-LIMIT), present, future: [] };
}

/** The present changes without an entry of its own. @template T @param {History<T>} history @param {T} present @returns {History<T>} */
export function amend(history, present) {
  return { ...history, present };
}

/** @template T @param {History<T>} history @returns {History<T>} */
export function undo(history) {
  const previous = history.past.at(-1);
  if (previous === undefined) return history;
  return { past: history.past.slice(0, -1), present: previous, future: [history.present, ...history.future] };
}

/** @template T @param {History<T>} history @returns {History<T>} */
export function redo(history) {
  const [next, ...future] = history.future;
  if (next === undefined) return history;
  return { past: [...history.past, history.present], present: next, future };
}
