"""What is made of a finished run: WebDataset shards, and a contact sheet in one HTML file.

Both are written from the manifest in the table's order, so they are the same whatever way the run took.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from .records import DONE, MANIFEST

SHEET = "contact_sheet.html"
SHEET_ROWS = 2000
THUMBNAIL = 160  # pixels, longer side


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The manifest's rows."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(folder / MANIFEST) as file:
        for batch in file.iter_batches(1000):
            yield from batch.to_pylist()


def write_shards(folder: Path, size: int) -> list[Path]:
    """Tar files of `size` rows each, ``NUMBER.png`` and ``NUMBER.json``, as WebDataset reads them. Each appears at
    once; those of an earlier call are replaced."""
    if size < 1:
        raise InputError(f"--shards is {size}; give the rows of a shard, 1 or more.")
    target = folder / "shards"
    target.mkdir(exist_ok=True)
    written: list[Path] = []
    shard: tarfile.TarFile | None = None
    held = 0
    fresh = target / ".fresh.tar"

    def close() -> None:
        nonlocal shard
        if shard is not None:
            shard.close()
            written.append(target / f"shard-{len(written):06d}.tar")
            os.replace(fresh, written[-1])
            shard = None

    for number, row in enumerate(r for r in rows(folder) if r["status"] == DONE):
        if shard is None:
            shard, held = tarfile.open(fresh, "w", format=tarfile.USTAR_FORMAT), 0
        about = {name: row[name] for name in ("row", "score", "seed")} | {"inputs": json.loads(row["inputs"])}
        _add(shard, f"{number:08d}.png", (folder / row["picture"]).read_bytes())
        _add(shard, f"{number:08d}.json", json.dumps(about, sort_keys=True).encode())
        held += 1
        if held == size:
            close()
    close()
    for old in target.glob("shard-*.tar"):
        if old not in written:
            old.unlink()
    return written


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # no times, no owners: the same rows give the same bytes
    entry.size = len(content)
    shard.addfile(entry, io.BytesIO(content))


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
:root {{ color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif }}
body {{ margin: 1rem }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 1rem }}
figure {{ margin: 0 }} img {{ width: 100%; image-rendering: auto }} figcaption {{ overflow-wrap: anywhere }}
table {{ border-collapse: collapse; margin-top: 1rem }} td, th {{ text-align: left; padding: .2rem .6rem .2rem 0 }}
</style>
<h1>{title}</h1>
<p>{said} <label>Order <select id="order"><option value="number">as in the table</option>
<option value="best">best score first</option><option value="worst">worst score first</option></select></label></p>
<main>
"""
_SCRIPT = """</main>
<script>
const main = document.querySelector("main"), figures = [...main.children];
document.getElementById("order").onchange = (event) => {
  const by = event.target.value, score = (f) => (f.dataset.score === "" ? -Infinity : Number(f.dataset.score));
  const key = { number: (f) => Number(f.dataset.number), best: (f) => -score(f), worst: score }[by];
  main.append(...figures.slice().sort((a, b) => key(a) - key(b) || a.dataset.number - b.dataset.number));
};
</script>
"""


def write_sheet(folder: Path) -> Path:
    """A page with a thumbnail of each picture, its row, score and seed, that can be ordered by score; then what
    failed. It needs nothing else and loads nothing. Of more than 2000 rows it shows the first."""
    path, fresh = folder / SHEET, folder / f".{SHEET}"
    counted = [0, 0]
    for row in rows(folder):
        counted[row["status"] != DONE] += 1
    shown = min(counted[0], SHEET_ROWS)
    said = f"{counted[0]} pictures, {counted[1]} failed rows." + (
        f" The first {shown} are shown." if shown < counted[0] else ""
    )
    with fresh.open("w", encoding="utf-8") as file:
        file.write(_PAGE.format(title=html.escape(folder.resolve().name), said=html.escape(said)))
        failed, number = [], 0
        for row in rows(folder):
            if row["status"] != DONE:
                failed.append((row["row"], row["error"]))
                failed = failed[:SHEET_ROWS]
                continue
            if number < SHEET_ROWS:
                file.write(_figure(folder, row, number))
            number += 1
        file.write(_SCRIPT)
        if failed:
            file.write("<table><tr><th>row</th><th>why it failed</th></tr>")
            file.writelines(f"<tr><td>{html.escape(r)}</td><td>{html.escape(e or '')}</td></tr>" for r, e in failed)
            file.write("</table>")
    os.replace(fresh, path)
    return path


def _figure(folder: Path, row: dict[str, Any], number: int) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(folder / row["picture"]) as picture:
        small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        small.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    score = "" if row["score"] is None else f"{row['score']:.4f}"
    name = html.escape(row["row"])
    link = html.escape(row["picture"])
    return (
        f'<figure data-number="{number}" data-score="{score}"><a href="{link}"><img loading="lazy" alt="row {name}"'
        f' src="data:image/jpeg;base64,{data}"></a><figcaption>{name}{" · " + score if score else ""}'
        f" · seed {row['seed']}</figcaption></figure>\n"
    )
