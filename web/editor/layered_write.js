/**
 * Writes layers as a Photoshop file (PSD; 8 bits, RGB, rows packed), as `layered.js` reads it.
 *
 * @typedef {import("./layered.js").Layer & {hidden: boolean}} WrittenLayer
 */

import { MAX_LAYERS, MAX_SIDE } from "./layered.js";

/** Pixels of the canvas and of all layers together that are written: four bytes each, and as much again for the file. */
export const MAX_WRITTEN = 1 << 25;
/** Letters of a layer's name: those of the format's old field, and of the one for any script. */
const [MAX_PLAIN, MAX_NAME] = [63, 255];
const [RLE, RGB, HIDDEN, ALPHA] = [1, 3, 2, -1];
/** In the order of the pixels' bytes: some readers go by the order alone. */
const CHANNELS = [0, 1, 2, ALPHA];

/** Numbers in the file's order, one after the other. */
class Writer {
  constructor() {
    /** @type {Uint8Array[]} */
    this.parts = [];
    this.length = 0;
  }

  /** @param {Uint8Array} bytes */
  bytes(bytes) {
    this.parts.push(bytes);
    this.length += bytes.length;
    return this;
  }

  /** @param {...number} values */
  u8(...values) {
    return this.bytes(Uint8Array.from(values, (value) => value & 255));
  }

  /** @param {...number} values  also negative ones */
  u16(...values) {
    return this.u8(...values.flatMap((value) => [value >> 8, value]));
  }

  /** @param {...number} values  also negative ones */
  u32(...values) {
    return this.u8(...values.flatMap((value) => [value >> 24, value >> 16, value >> 8, value]));
  }

  /** @param {string} text  ASCII */
  text(text) {
    return this.u8(...[...text].map((letter) => letter.charCodeAt(0)));
  }

  /** A part that says how long it is, filled up to a multiple of `unit`. @param {Writer} part @param {number} [unit] */
  part(part, unit = 1) {
    part.fill(unit);
    this.u32(part.length).parts.push(...part.parts);
    this.length += part.length;
    return this;
  }

  /** @param {number} unit */
  fill(unit) {
    return this.bytes(new Uint8Array((unit - (this.length % unit)) % unit));
  }

  /** @returns {ArrayBuffer} */
  join() {
    const whole = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole.buffer;
  }
}

/**
 * @param {{w: number, h: number, layers: readonly WrittenLayer[], merged: Uint8ClampedArray}} picture
 *   layers: bottom first, their pixels RGBA; merged: all of it as one picture, RGBA of w x h, its opacity left out
 * @returns {ArrayBuffer} @throws {RangeError} beyond the bounds of sides, layers and pixels
 */
export function writeLayers({ w, h, layers, merged }) {
  const sides = [w, h, ...layers.flatMap((layer) => [layer.w, layer.h])];
  if (sides.some((side) => !(side >= 1 && side <= MAX_SIDE)) || layers.length > MAX_LAYERS) throw new RangeError("layers");
  if (writtenPixels({ w, h }, layers) > MAX_WRITTEN) throw new RangeError("pixels");
  const info = new Writer().u16(layers.length);
  const data = layers.map((layer) => CHANNELS.map((id) => ({ id, bytes: channelOf(layer, id === ALPHA ? 3 : id) })));
  layers.forEach((layer, i) => writeRecord(info, layer, data[i].map(({ id, bytes }) => ({ id, length: bytes.length }))));
  for (const { bytes } of data.flat()) info.bytes(bytes);
  const file = new Writer().text("8BPS").u16(1, 0, 0, 0, RGB).u32(h, w).u16(8, RGB);
  // No colour table, no resources; after the layers no mask of all of them.
  file.u32(0, 0).part(new Writer().part(info, 2).u32(0), 2);
  // The merged picture has the row lengths of all channels first.
  const planes = [0, 1, 2].map((offset) => packPlane({ w, h, pixels: merged }, offset));
  file.u16(RLE);
  for (const { lengths } of planes) file.bytes(lengths);
  for (const { rows } of planes) file.bytes(rows);
  return file.join();
}

/** @param {{w: number, h: number}} canvas @param {readonly {w: number, h: number}[]} layers */
export function writtenPixels(canvas, layers) {
  return [canvas, ...layers].reduce((sum, { w, h }) => sum + w * h, 0);
}

/** @param {Writer} info @param {WrittenLayer} layer @param {readonly {id: number, length: number}[]} channels */
function writeRecord(info, { name, x, y, w, h, opacity, hidden }, channels) {
  info.u32(y, x, y + h, x + w).u16(channels.length);
  for (const { id, length } of channels) info.u16(id).u32(length);
  info.text("8BIMnorm").u8(Math.round(opacity * 255), 0, hidden ? HIDDEN : 0, 0);
  const plain = name.replace(/[^\x20-\x7e]/gu, "?").slice(0, MAX_PLAIN);
  const wide = nameUnits(name);
  // Neither a mask of the layer nor ranges of blending.
  const extra = new Writer().u32(0, 0).u8(plain.length).text(plain).fill(4);
  info.part(extra.text("8BIMluni").part(new Writer().u32(wide.length).u16(...wide), 4), 4);
}

/** As many whole letters as there is room for. @param {string} name */
function nameUnits(name) {
  /** @type {number[]} */
  const units = [];
  for (const letter of name) {
    if (units.length + letter.length > MAX_NAME) break;
    units.push(...Array.from({ length: letter.length }, (_, i) => letter.charCodeAt(i)));
  }
  return units;
}

/** Of even length: some readers go on from there without looking at the length. @param {{w: number, h: number, pixels: Uint8ClampedArray}} layer @param {number} offset */
function channelOf(layer, offset) {
  const { lengths, rows } = packPlane(layer, offset);
  return new Uint8Array(new Writer().u16(RLE).bytes(lengths).bytes(rows).fill(2).join());
}

/** One channel, row by row. @param {{w: number, h: number, pixels: Uint8ClampedArray}} picture @param {number} offset @returns {{lengths: Uint8Array, rows: Uint8Array}} */
function packPlane({ w, h, pixels }, offset) {
  const lengths = new Uint8Array(2 * h);
  const packed = new Uint8Array(h * (w + Math.ceil(w / 128)));
  let end = 0;
  for (let row = 0; row < h; row += 1) {
    const begin = end;
    end = packRow(pixels, 4 * row * w + offset, w, packed, end);
    lengths[2 * row] = (end - begin) >> 8;
    lengths[2 * row + 1] = (end - begin) & 255;
  }
  return { lengths, rows: packed.slice(0, end) };
}

/** Runs of up to 128: a value three times or more in a row is repeated, the rest stands as it is. @param {Uint8ClampedArray} pixels @param {number} at @param {number} width @param {Uint8Array} packed @param {number} end @returns {number} the new end */
function packRow(pixels, at, width, packed, end) {
  const value = (/** @type {number} */ column) => pixels[at + 4 * column];
  const same = (/** @type {number} */ column) => {
    let run = 1;
    while (run < 128 && column + run < width && value(column + run) === value(column)) run += 1;
    return run;
  };
  let to = end;
  for (let column = 0; column < width; ) {
    let run = same(column);
    if (run > 2) {
      packed[to] = 257 - run;
      packed[to + 1] = value(column);
      [to, column] = [to + 2, column + run];
      continue;
    }
    const head = to;
    let count = 0;
    for (to += 1; run < 3 && count < 128 && column < width; run = column < width ? same(column) : 0) {
      packed[to] = value(column);
      [to, column, count] = [to + 1, column + 1, count + 1];
    }
    packed[head] = count - 1;
  }
  return to;
}
