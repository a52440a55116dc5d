/**
 * Layers of a Photoshop file (PSD; 8 bits, RGB): the visible ones with pixels, bottom first. A small reader of the published
 * format with bounds for all that it takes from the file; what it cannot read it refuses as a whole.
 *
 * @typedef {{name: string, x: number, y: number, w: number, h: number, opacity: number, pixels: Uint8ClampedArray<ArrayBuffer>}} Layer
 *   RGBA, in pixels of the file's canvas; opacity: 0 to 1, of the layer as a whole
 */

export const MAX_SIDE = 16384;
export const MAX_LAYERS = 512;
/** Pixels of all layers together. */
const MAX_PIXELS = 1 << 26;
const HIDDEN = 2;
const RGB = 3;
const [RAW, RLE] = [0, 1];

/** Reads numbers in the file's order, and never beyond its end. */
class Reader {
  /** @param {ArrayBuffer} buffer @param {number} [at] @param {number} [end] */
  constructor(buffer, at = 0, end = buffer.byteLength) {
    this.buffer = buffer;
    this.view = new DataView(buffer);
    this.at = at;
    this.end = end;
  }

  /** @param {number} count @returns {number} where they begin */
  take(count) {
    if (!(count >= 0) || this.at + count > this.end) throw new RangeError("beyond the end");
    this.at += count;
    return this.at - count;
  }

  /** @param {number} count */
  bytes(count) {
    return new Uint8Array(this.buffer, this.take(count), count);
  }

  /** @param {number} count */
  text(count) {
    return String.fromCharCode(...this.bytes(Math.min(count, 4096)));
  }

  u8() {
    return this.view.getUint8(this.take(1));
  }

  u16() {
    return this.view.getUint16(this.take(2));
  }

  i16() {
    return this.view.getInt16(this.take(2));
  }

  u32() {
    return this.view.getUint32(this.take(4));
  }

  i32() {
    return this.view.getInt32(this.take(4));
  }

  /** A part that says how long it is. @param {number} [length] */
  part(length = this.u32()) {
    const at = this.take(length);
    return new Reader(this.buffer, at, at + length);
  }
}

/** @param {ArrayBuffer} buffer @returns {{w: number, h: number, layers: Layer[]}} @throws {Error} for what is no such file */
export function readLayers(buffer) {
  const file = new Reader(buffer);
  if (file.text(4) !== "8BPS" || file.u16() !== 1) throw new TypeError("no PSD");
  file.take(8);
  const [h, w] = [file.u32(), file.u32()];
  if (!w || !h || w > MAX_SIDE || h > MAX_SIDE || file.u16() !== 8 || file.u16() !== RGB) throw new TypeError("not 8 bits RGB");
  file.part();
  file.part();
  const info = file.part().part();
  const count = Math.abs(info.i16());
  if (count > MAX_LAYERS) throw new RangeError("layers");
  const records = Array.from({ length: count }, () => readRecord(info));
  let room = MAX_PIXELS;
  /** @type {Layer[]} */
  const layers = [];
  for (const record of records) {
    const wanted = !record.hidden && !record.folder && record.w > 0 && record.h > 0;
    room -= wanted ? record.w * record.h : 0;
    if (room < 0) throw new RangeError("pixels");
    const pixels = wanted ? new Uint8ClampedArray(4 * record.w * record.h).fill(255) : null;
    for (const { id, length } of record.channels) {
      const data = info.part(length);
      const offset = id === -1 ? 3 : id;
      if (pixels && offset >= 0 && offset <= 3) readChannel(data, record, pixels, offset);
    }
    if (pixels) layers.push({ name: record.name, x: record.x, y: record.y, w: record.w, h: record.h, opacity: record.opacity, pixels });
  }
  return { w, h, layers };
}

/** @param {Reader} info */
function readRecord(info) {
  const [y, x, bottom, right] = [info.i32(), info.i32(), info.i32(), info.i32()];
  const [w, h] = [right - x, bottom - y];
  if (w < 0 || h < 0 || w > MAX_SIDE || h > MAX_SIDE) throw new RangeError("layer");
  const channels = Array.from({ length: Math.min(info.u16(), 64) }, () => ({ id: info.i16(), length: info.u32() }));
  info.take(8);
  const opacity = info.u8() / 255;
  info.take(1);
  const flags = info.u8();
  info.take(1);
  const extra = info.part();
  extra.part();
  extra.part();
  const letters = extra.u8();
  let name = extra.text(letters);
  extra.take((4 - ((letters + 1) % 4)) % 4);
  let folder = false;
  while (extra.end - extra.at >= 12) {
    extra.take(4);
    const key = extra.text(4);
    const block = extra.part();
    if (key === "luni") name = wideText(block);
    if (key === "lsct" && block.u32() > 0) folder = true;
  }
  return { x, y, w, h, channels, opacity, hidden: (flags & HIDDEN) !== 0, name, folder };
}

/** @param {Reader} block */
function wideText(block) {
  const letters = Math.min(block.u32(), 256);
  return Array.from({ length: letters }, () => String.fromCharCode(block.u16())).join("").replace(/\0+$/, "");
}

/** @param {Reader} data @param {{w: number, h: number}} size @param {Uint8ClampedArray} pixels @param {number} offset */
function readChannel(data, { w, h }, pixels, offset) {
  const packing = data.u16();
  if (packing === RAW) {
    const bytes = data.bytes(w * h);
    for (let i = 0; i < bytes.length; i += 1) pixels[4 * i + offset] = bytes[i];
    return;
  }
  if (packing !== RLE) throw new TypeError("packing");
  const lengths = Array.from({ length: h }, () => data.u16());
  lengths.forEach((length, row) => unpack(data.bytes(length), pixels, 4 * row * w + offset, w));
}

/** Runs of bytes: a count and that many, or one to be repeated. @param {Uint8Array} packed @param {Uint8ClampedArray} pixels @param {number} at @param {number} width */
function unpack(packed, pixels, at, width) {
  let column = 0;
  for (let i = 0; i < packed.length && column < width; ) {
    const count = packed[i];
    i += 1;
    if (count === 128) continue;
    const repeated = count > 128;
    for (let left = repeated ? 257 - count : count + 1; left > 0 && column < width; left -= 1) {
      pixels[at + 4 * column] = packed[i];
      column += 1;
      if (!repeated) i += 1;
    }
    if (repeated) i += 1;
  }
}

/** The part of a layer that is seen, as a rectangle of the file's canvas; null where nothing is. @param {Layer} layer @returns {{x: number, y: number, w: number, h: number} | null} */
export function seenOf({ x, y, w, h, pixels }) {
  let [x1, y1, x2, y2] = [w, h, 0, 0];
  for (let row = 0; row < h; row += 1) {
    for (let column = 0; column < w; column += 1) {
      if (pixels[4 * (row * w + column) + 3] < 128) continue;
      [x1, y1, x2, y2] = [Math.min(x1, column), Math.min(y1, row), Math.max(x2, column + 1), Math.max(y2, row + 1)];
    }
  }
  return x2 > x1 ? { x: x + x1, y: y + y1, w: x2 - x1, h: y2 - y1 } : null;
}
