import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { readLayers, seenOf } from "../../web/editor/layered.js";

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
        u8(255, 0, layer.hidden ? 2 : 0, 0);
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
    const { w, h, layers } = readLayers(psd([FOX, { ...CUP, hidden: true }, { ...CUP, folder: true, name: "Group" }, CUP], { packed }));
    expect([w, h]).toEqual([40, 30]);
    expect(layers.map((layer) => layer.name)).toEqual(["狐狸 Fox", "Cup"]);
    const [fox] = layers;
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
