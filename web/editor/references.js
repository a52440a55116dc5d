/**
 * The pictures of the connected references: what the graph says about them, loaded and cut out.
 *
 * @typedef {{url: string, channel: "r" | "g" | "b" | "a" | null, invert: boolean}} MaskSource
 *   a picture and which of its channels marks the subject (a: opacity); null = the whole picture
 * @typedef {{name: string, named: boolean, image: string | null, mask: MaskSource | null, exact: boolean,
 *   size: import("./model.js").Size | null}} Source
 *   name: what the layout may call it; named: the user gave the name; image: its URL, null when unknown before a run;
 *   exact: false when the graph changes the picture on its way in a manner unknown here; size: its real size where
 *   `image` is a smaller copy
 * @typedef {Source & {number: number, cutout: import("./preview.js").Cutout | null}} Reference
 * @typedef {import("./model.js").Ref} Ref
 */

import { scratch } from "./preview.js";

/** Longest side of a loaded picture that is kept, pixels. */
const KEPT_SIDE = 1024;
const HALF = 128;

export class ReferenceLibrary {
  constructor() {
    /** @type {readonly Reference[]} */
    this.references = [];
    /** @type {Set<() => void>} */
    this.listeners = new Set();
    /** @type {Map<string, import("./preview.js").Cutout | null>} null while loading or after a failure */
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
    for (const key of this.cutouts.keys()) if (!keys.has(key)) this.cutouts.delete(key);
    for (const source of sources) void this.#load(source);
    this.#publish(sources);
  }

  /** True while a picture is on its way. */
  get loading() {
    return this.references.some((reference) => reference.image && !this.cutouts.get(keyOf(reference)));
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
    this.cutouts.set(key, null);
    try {
      const cutout = await loadCutout(source);
      if (!this.cutouts.has(key)) return;
      this.cutouts.set(key, cutout);
      this.#publish(this.references);
    } catch {
      // The file is gone or is no picture: the reference stays without a thumbnail, and is asked for again on a change.
      this.cutouts.delete(key);
    }
  }

  /** @param {readonly Source[]} sources */
  #publish(sources) {
    this.references = sources.map((source, index) => ({
      ...source,
      number: index + 1,
      cutout: this.cutouts.get(keyOf(source)) ?? null,
    }));
    for (const listener of [...this.listeners]) listener();
  }
}

/** @param {Source} source */
function keyOf(source) {
  return JSON.stringify([source.image, source.mask, source.size]);
}

/** @param {Source} source @returns {Promise<import("./preview.js").Cutout>} */
async function loadCutout(source) {
  const picture = await loadPicture(/** @type {string} */ (source.image));
  const mask = source.mask === null ? null : source.mask.url === source.image ? picture : await loadPicture(source.mask.url);
  return cutOut(picture, mask, source.mask, source.size);
}

/** @param {string} url @returns {Promise<HTMLImageElement>} */
async function loadPicture(url) {
  const image = new Image();
  image.decoding = "async";
  image.src = url;
  await image.decode();
  return image;
}

/**
 * @param {HTMLImageElement} picture @param {HTMLImageElement | null} mask @param {MaskSource | null} rule
 * @param {import("./model.js").Size | null} realSize @returns {import("./preview.js").Cutout}
 */
function cutOut(picture, mask, rule, realSize) {
  const { naturalWidth, naturalHeight } = picture;
  // The subject's rectangle is measured on the full picture, so that boxes land on the very pixels the node computes.
  const full = scratch(naturalWidth, naturalHeight);
  full.drawImage(picture, 0, 0);
  const image = full.getImageData(0, 0, naturalWidth, naturalHeight);
  if (mask && rule && rule.channel) {
    const channel = "rgba".indexOf(rule.channel);
    full.clearRect(0, 0, naturalWidth, naturalHeight);
    full.drawImage(mask, 0, 0, naturalWidth, naturalHeight);
    const { data } = full.getImageData(0, 0, naturalWidth, naturalHeight);
    for (let p = 0; p < data.length; p += 4) image.data[p + 3] = rule.invert ? 255 - data[p + channel] : data[p + channel];
  } else {
    for (let p = 3; p < image.data.length; p += 4) image.data[p] = 255;
  }
  const subject = tightBox(image);
  full.putImageData(image, 0, 0);
  const k = Math.min(1, KEPT_SIDE / Math.max(naturalWidth, naturalHeight));
  const small = scratch(Math.max(1, Math.round(naturalWidth * k)), Math.max(1, Math.round(naturalHeight * k)));
  small.imageSmoothingQuality = "high";
  small.drawImage(full.canvas, 0, 0, small.canvas.width, small.canvas.height);
  const [width, height] = realSize ? [realSize.w, realSize.h] : [naturalWidth, naturalHeight];
  const [rx, ry] = [width / naturalWidth, height / naturalHeight];
  return {
    width,
    height,
    subject: [Math.round(subject[0] * rx), Math.round(subject[1] * ry), Math.round(subject[2] * rx), Math.round(subject[3] * ry)],
    picture: small.canvas,
    pictureSize: { w: small.canvas.width, h: small.canvas.height },
  };
}

/** The half-open rectangle around opacity of one half and more; the whole picture where there is none. @param {ImageData} image @returns {[number, number, number, number]} */
function tightBox({ data, width, height }) {
  let [x1, y1, x2, y2] = [width, height, 0, 0];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (data[4 * (y * width + x) + 3] < HALF) continue;
      if (x < x1) x1 = x;
      if (x >= x2) x2 = x + 1;
      if (y < y1) y1 = y;
      y2 = y + 1;
    }
  }
  return x2 > x1 ? [x1, y1, x2, y2] : [0, 0, width, height];
}
