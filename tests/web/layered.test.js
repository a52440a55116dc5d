import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { MAX_SIDE, readLayers, seenOf } from "../../web/editor/layered.js";
import { MAX_WRITTEN, writeLayers } from "../../web/editor/layered_write.js";

/** Writes what the reader reads, by the same published format. */
function psd(layers, { w = 40, h = 30, depth = 8, mode = 3, packed = false } = {}) {
  const out = [];
  const u8 = (...values) => out.push(...values.map((value) => value & 255));
  const u16 = (value) => u8(value >> 8, value);
  const u32 = (value) => u8(value >> 24, value >> 16, value >> 8, value);
  const text = (value) => u8(...[...value].map((letter) => letter.charCodeAt(0)));
  const sized = (body) => {
    const at = out.length;
    u32(0);
    body();
    const length = out.length - at - 4;
    [24, 16, 8, 0].forEach((shift, i) => (out[at + i] = (length >> shift) & 255));
  };
  const rows = (layer, c) => Array.from({ length: layer.h }, (_, y) => Array.from({ length: layer.w }, (_, x) => layer.at(x, y)[c]));
  // One literal run and, where a row is of one value, a repeated one.
  const pack = (row) => (row.length > 1 && row.every((value) => value === row[0]) ? [257 - row.length, row[0]] : [row.length - 1, ...row]);
  text("8BPS");
  u16(1);
  u8(0, 0, 0, 0, 0, 0);
  u16(4);
  u32(h);
  u32(w);
  u16(depth);
  u16(mode);
  sized(() => {});
  sized(() => {});
  sized(() =>
    sized(() => {
      u16(-layers.length);
      const data = layers.map((layer) => [0, 1, 2, 3].map((c) => {
        const list = rows(layer, c);
        if (!packed) return [0, 0, ...list.flat()];
        const runs = list.map(pack);
        return [0, 1, ...runs.flatMap((run) => [run.length >> 8, run.length & 255]), ...runs.flat()];
      }));
      layers.forEach((layer, i) => {
        [layer.y, layer.x, layer.y + layer.h, layer.x + layer.w].forEach(u32);
        u16(4);
        [0, 1, 2, -1].forEach((id, c) => (u16(id), u32(data[i][c].length)));
        text("8BIMnorm");
        u8(layer.opacity ?? 255, 0, layer.hidden ? 2 : 0, 0);
        sized(() => {
          sized(() => {});
          sized(() => {});
          u8(3);
          text("abc");
          text("8BIMluni");
          sized(() => (u32(layer.name.length), [...layer.name].forEach((letter) => u16(letter.charCodeAt(0)))));
          if (layer.folder) (text("8BIMlsct"), sized(() => u32(1)));
        });
      });
      data.flat().forEach((channel) => u8(...channel));
    }),
  );
  return new Uint8Array(out).buffer;
}

const FOX = { name: "狐狸 Fox", x: 5, y: -2, w: 6, h: 4, at: (x, y) => [x * 10, y * 20, 7, x > 1 && y < 3 ? 255 : 0] };
const CUP = { name: "Cup", x: 20, y: 10, w: 3, h: 3, at: () => [1, 2, 3, 255] };

describe("layers of a PSD", () => {
  it.each([false, true])("visible ones with name, place and pixels, bottom first (packed: %s)", (packed) => {
    const { w, h, layers } = readLayers(psd([{ ...FOX, opacity: 51 }, { ...CUP, hidden: true }, { ...CUP, folder: true, name: "Group" }, CUP], { packed }));
    expect([w, h]).toEqual([40, 30]);
    expect(layers.map((layer) => layer.name)).toEqual(["狐狸 Fox", "Cup"]);
    const [fox] = layers;
    expect(layers.map((layer) => layer.opacity)).toEqual([0.2, 1]);
    expect([fox.x, fox.y, fox.w, fox.h]).toEqual([5, -2, 6, 4]);
    expect([...fox.pixels.slice(4 * (1 * 6 + 3), 4 * (1 * 6 + 3) + 4)]).toEqual([30, 20, 7, 255]);
    expect(seenOf(fox)).toEqual({ x: 7, y: -2, w: 4, h: 3 });
    expect(seenOf({ ...fox, pixels: new Uint8ClampedArray(fox.pixels.length) })).toBeNull();
  });

  it("refuses 16 bits, other colours, and what is no PSD", () => {
    for (const wrong of [psd([FOX], { depth: 16 }), psd([FOX], { mode: 4 }), psd([FOX], { w: 0 }), new ArrayBuffer(0), new ArrayBuffer(99)]) {
      expect(() => readLayers(wrong)).toThrow();
    }
  });

  it("a damaged or cut file is read or refused, in no time and within its bounds", () => {
    const whole = new Uint8Array(psd([FOX, CUP], { packed: true }));
    fc.assert(
      fc.property(fc.nat(whole.length), fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 6 }), (length, changes) => {
        const bytes = whole.slice(0, length);
        for (const [at, value] of changes) if (at < length) bytes[at] = value;
        try {
          for (const layer of readLayers(bytes.buffer).layers) expect(layer.pixels.length).toBe(4 * layer.w * layer.h);
        } catch (error) {
          expect(error).toSatisfy((one) => one instanceof RangeError || one instanceof TypeError);
        }
      }),
    );
  });
});

/** Runs of all lengths, or any values. */
const pixelsOf = (w, h) => {
  const runs = fc.array(fc.tuple(fc.nat(255), fc.integer({ min: 1, max: 300 })), { minLength: 1, maxLength: 20 });
  const spread = (list) => {
    const row = list.flatMap(([value, count]) => Array(count).fill(value));
    return Uint8ClampedArray.from({ length: 4 * w * h }, (_, i) => row[((i >> 2) + (i & 3)) % row.length]);
  };
  const any = fc.uint8Array({ minLength: 4 * w * h, maxLength: 4 * w * h }).map((values) => new Uint8ClampedArray(values));
  return fc.oneof(runs.map(spread), any);
};
const side = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 126, max: 260 }));
const written = fc.tuple(side, fc.integer({ min: 1, max: 6 }), fc.boolean()).chain(([long, short, upright]) => {
  const [w, h] = upright ? [short, long] : [long, short];
  return fc.record({
    name: fc.stringMatching(/^[\x20-\x7eä狐🦊]{0,120}$/u),
    x: fc.integer({ min: -300, max: 300 }),
    y: fc.integer({ min: -300, max: 300 }),
    w: fc.constant(w),
    h: fc.constant(h),
    opacity: fc.nat(255).map((byte) => byte / 255),
    hidden: fc.boolean(),
    pixels: pixelsOf(w, h),
  });
});

describe("a PSD written", () => {
  it("is read as it was meant: order, names, places, opacity and pixels, without the hidden layers", () => {
    const picture = fc.tuple(side, side, fc.array(written, { maxLength: 5 }));
    fc.assert(
      fc.property(picture, ([w, h, layers]) => {
        const merged = new Uint8ClampedArray(4 * w * h).fill(7);
        const read = readLayers(writeLayers({ w, h, layers, merged }));
        expect([read.w, read.h]).toEqual([w, h]);
        const seen = layers.filter((layer) => !layer.hidden);
        expect(read.layers.map(({ pixels: _pixels, ...layer }) => layer)).toEqual(seen.map(({ pixels: _pixels, hidden: _hidden, ...layer }) => layer));
        read.layers.forEach((layer, i) => expect(Buffer.from(layer.pixels).equals(Buffer.from(seen[i].pixels))).toBe(true));
      }),
    );
  });

  it("a name longer than the format's ends with a whole letter", () => {
    const layer = { name: "🦊".repeat(200), x: 0, y: 0, w: 1, h: 1, opacity: 1, hidden: false, pixels: new Uint8ClampedArray(4) };
    const [read] = readLayers(writeLayers({ w: 1, h: 1, layers: [layer], merged: layer.pixels })).layers;
    expect(read.name).toBe("🦊".repeat(127));
  });

  it("has its channels in the order of RGBA and of even length, for readers that go by these", () => {
    const pixels = Uint8ClampedArray.from({ length: 4 * 5 * 3 }, (_, i) => (i * 37) % 251);
    const view = new DataView(writeLayers({ w: 5, h: 3, layers: [{ name: "", x: 0, y: 0, w: 5, h: 3, opacity: 1, hidden: false, pixels }], merged: pixels }));
    // Behind the header, three lengths, the number of layers, and the first one's place.
    const channels = [0, 1, 2, 3].map((i) => 26 + 16 + 2 + 18 + 6 * i).map((at) => [view.getInt16(at), view.getUint32(at + 2)]);
    // Three rows of a count and five values, their lengths, the kind of packing.
    expect(channels).toEqual([0, 1, 2, -1].map((id) => [id, 2 + 3 * 2 + 3 * 6]));
    const odd = new DataView(writeLayers({ w: 5, h: 3, layers: [{ name: "", x: 0, y: 0, w: 4, h: 3, opacity: 1, hidden: false, pixels: pixels.slice(0, 48) }], merged: pixels }));
    expect(odd.getUint32(64)).toBe(2 + 3 * 2 + 3 * 5 + 1);
  });

  it("has packed rows of its merged picture at its end, for programs without layers", () => {
    const merged = new Uint8ClampedArray([...Array(5).fill([9, 8, 7, 255]).flat(), 1, 2, 3, 255]);
    const bytes = [...new Uint8Array(writeLayers({ w: 6, h: 1, layers: [], merged }))];
    // Packed: the lengths of the three rows, then five of one value (257 - 5) and one by itself.
    expect(bytes.slice(-20)).toEqual([0, 1, 0, 4, 0, 4, 0, 4, 252, 9, 0, 1, 252, 8, 0, 2, 252, 7, 0, 3]);
  });

  it("has bounds that it keeps before it writes", () => {
    const layer = { name: "", x: 0, y: 0, w: 1, h: 1, opacity: 1, hidden: false, pixels: new Uint8ClampedArray(4) };
    const merged = new Uint8ClampedArray(4);
    const write = (changes, w = 1) => () => writeLayers({ w, h: 1, merged, layers: Array(2).fill({ ...layer, ...changes }) });
    expect(write({})).not.toThrow();
    expect(write({}, MAX_SIDE + 1)).toThrow(RangeError);
    expect(write({ h: 0 })).toThrow(RangeError);
    expect(write({ w: 8192, h: MAX_WRITTEN / 8192 / 2 })).toThrow(RangeError);
    expect(() => writeLayers({ w: 1, h: 1, merged, layers: Array(513).fill(layer) })).toThrow(RangeError);
  });
});
