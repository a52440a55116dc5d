/**
 * Loads a picture and cuts its subject out, beside the page: a picture of 8000 x 8000 pixels would stop it for seconds.
 * Not a .js file, since the host imports each of those into the page.
 *
 * In: {id, image, mask: URL | null, channel: 0..3, invert, kept: longest side to keep}
 * Out: {id, width, height, subject: [x1, y1, x2, y2], picture: ImageBitmap} or {id, failed: true}
 */

const HALF = 128;
/** Rows read at a time: the whole of a large picture would take its size in memory once more. */
const ROWS = 256;

self.addEventListener("message", async ({ data }) => {
  try {
    const done = await cutOut(data);
    self.postMessage({ id: data.id, ...done }, [done.picture]);
  } catch {
    self.postMessage({ id: data.id, failed: true });
  }
});

async function cutOut({ image, mask, channel, invert, kept }) {
  const picture = await load(image);
  const { width, height } = picture;
  const ruling = mask === null ? null : mask === image ? picture : await load(mask);
  const full = surface(width, height);
  full.drawImage(picture, 0, 0);
  const masked = ruling && surface(width, Math.min(ROWS, height));
  let [x1, y1, x2, y2] = [width, height, 0, 0];
  for (let top = 0; top < height; top += ROWS) {
    const rows = Math.min(ROWS, height - top);
    const band = full.getImageData(0, top, width, rows);
    const { data } = band;
    const rule = masked && maskRows(masked, ruling, { width, height, top, rows });
    for (let p = 3; p < data.length; p += 4) data[p] = rule ? (invert ? 255 - rule[p - 3 + channel] : rule[p - 3 + channel]) : 255;
    for (let y = 0; y < rows; y += 1) {
      const from = 4 * y * width + 3;
      let first = 0;
      while (first < width && data[from + 4 * first] < HALF) first += 1;
      if (first === width) continue;
      let last = width - 1;
      while (data[from + 4 * last] < HALF) last -= 1;
      x1 = Math.min(x1, first);
      x2 = Math.max(x2, last + 1);
      y1 = Math.min(y1, top + y);
      y2 = top + y + 1;
    }
    full.putImageData(band, 0, top);
  }
  // The subject's rectangle is measured on the full picture, so that boxes land on the very pixels the node computes.
  const subject = x2 > x1 ? [x1, y1, x2, y2] : [0, 0, width, height];
  const k = Math.min(1, kept / Math.max(width, height));
  const small = surface(Math.max(1, Math.round(width * k)), Math.max(1, Math.round(height * k)));
  small.imageSmoothingQuality = "high";
  small.drawImage(full.canvas, 0, 0, small.canvas.width, small.canvas.height);
  return { width, height, subject, picture: small.canvas.transferToImageBitmap() };
}

/** The rows of the mask that belong to these of the picture, at the picture's size. */
function maskRows(context, mask, { width, height, top, rows }) {
  context.clearRect(0, 0, width, rows);
  context.drawImage(mask, 0, -top, width, height);
  return context.getImageData(0, 0, width, rows).data;
}

async function load(url) {
  const answer = await fetch(url, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(String(answer.status));
  return createImageBitmap(await answer.blob());
}

function surface(width, height) {
  return new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
}
