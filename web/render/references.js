/**
 * The pictures of the connected references: what the graph says about them, loaded and cut out.
 *
 * @typedef {{url: string, channel: "r" | "g" | "b" | "a" | null, invert: boolean}} MaskSource
 *   a picture and which of its channels marks the subject (a: opacity); null = the whole picture
 * @typedef {{name: string, named: boolean, image: string | null, mask: MaskSource | null, exact: boolean,
 *   size: import("../scene/schema.js").Size | null}} Source
 *   name: what the layout may call it; named: the user gave the name; image: its URL, null when unknown before a run;
 *   exact: false when the graph changes the picture on its way in a manner unknown here; size: its real size where
 *   `image` is a smaller copy
 * @typedef {Source & {number: number, cutout: import("./place.js").Cutout | null, broken: boolean}} Reference
 *   cutout: null while it loads; broken: the file is gone or is no picture
 * @typedef {import("../scene/schema.js").Ref} Ref
 */

/** Longest side of a loaded picture that is kept, pixels. */
const KEPT_SIDE = 1024;

export class ReferenceLibrary {
  constructor() {
    /** @type {readonly Reference[]} */
    this.references = [];
    /** @type {Set<() => void>} */
    this.listeners = new Set();
    /** @type {Map<string, import("./place.js").Cutout | "loading" | "broken">} */
    this.cutouts = new Map();
    this.signature = "";
  }

  /** @param {() => void} listener @returns {() => void} ends the subscription */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Takes over what the graph holds now; loads what is new. @param {readonly Source[]} sources */
  update(sources) {
    const signature = JSON.stringify(sources);
    if (signature === this.signature) return;
    this.signature = signature;
    const keys = new Set(sources.map(keyOf));
    // What failed is asked for again on any change.
    for (const [key, state] of this.cutouts) if (!keys.has(key) || state === "broken") this.cutouts.delete(key);
    for (const source of sources) void this.#load(source);
    this.#publish(sources);
  }

  /** True while a picture is on its way. */
  get loading() {
    return this.references.some((reference) => this.cutouts.get(keyOf(reference)) === "loading");
  }

  /** The reference that a box names, as the node finds it: by number, or by a name that only one has. @param {Ref} ref */
  find(ref) {
    if (typeof ref === "number") return this.references[ref - 1] ?? null;
    const found = this.references.filter((reference) => reference.name === ref);
    return found.length === 1 ? found[0] : null;
  }

  /** What a box shall store to mean this reference: its name where the user gave one and it is the only one. @param {Reference} reference @returns {Ref} */
  refOf(reference) {
    return reference.named && this.find(reference.name) === reference ? reference.name : reference.number;
  }

  dispose() {
    this.listeners.clear();
    this.cutouts.clear();
  }

  /** @param {Source} source */
  async #load(source) {
    const key = keyOf(source);
    if (!source.image || this.cutouts.has(key)) return;
    this.cutouts.set(key, "loading");
    // The file may be gone or be no picture: the reference then stays, without a thumbnail.
    const cutout = await loadCutout(source).catch(() => /** @type {const} */ ("broken"));
    if (this.cutouts.get(key) !== "loading") return;
    this.cutouts.set(key, cutout);
    this.#publish(this.references);
  }

  /** @param {readonly Source[]} sources */
  #publish(sources) {
    this.references = sources.map((source, index) => {
      const state = this.cutouts.get(keyOf(source));
      const cutout = typeof state === "object" ? state : null;
      return { ...source, number: index + 1, cutout, broken: state === "broken" };
    });
    for (const listener of [...this.listeners]) listener();
  }
}

/** @param {Source} source */
function keyOf(source) {
  return JSON.stringify([source.image, source.mask, source.size]);
}

/** @type {{worker: Worker, waiting: Map<number, (answer: any) => void>, next: number} | null} */
let loader = null;

/** Asks the worker, which all editors of the page share. @param {Record<string, unknown>} task @returns {Promise<any>} */
function ask(task) {
  loader ??= startLoader();
  const { worker, waiting } = loader;
  const id = (loader.next += 1);
  return new Promise((resolve) => {
    waiting.set(id, resolve);
    worker.postMessage({ id, ...task });
  });
}

function startLoader() {
  const worker = new Worker(new URL("./cutout_worker.mjs", import.meta.url), { type: "module" });
  /** @type {Map<number, (answer: any) => void>} */
  const waiting = new Map();
  worker.addEventListener("message", ({ data }) => {
    waiting.get(data.id)?.(data);
    waiting.delete(data.id);
  });
  return { worker, waiting, next: 0 };
}

/** @param {Source} source @returns {Promise<import("./place.js").Cutout>} */
async function loadCutout({ image, mask, size }) {
  const full = (/** @type {string} */ url) => new URL(url, document.baseURI).href;
  const rule = mask?.channel ? mask : null;
  const found = await ask({
    image: full(/** @type {string} */ (image)),
    mask: rule && full(rule.url),
    channel: "rgba".indexOf(rule?.channel ?? "r"),
    invert: rule?.invert ?? false,
    kept: KEPT_SIDE,
  });
  if (found.failed) throw new Error("no picture");
  const { width, height } = size ? { width: size.w, height: size.h } : found;
  const [rx, ry] = [width / found.width, height / found.height];
  const [x1, y1, x2, y2] = found.subject;
  return {
    width,
    height,
    subject: [Math.round(x1 * rx), Math.round(y1 * ry), Math.round(x2 * rx), Math.round(y2 * ry)],
    picture: found.picture,
    pictureSize: { w: found.picture.width, h: found.picture.height },
  };
}
