"""Records the README's two pictures of the first minute: drawing boxes in *tiny_two_subjects* and running it.

    python scripts/record.py [COMFYUI]

Starts that ComfyUI on the CPU with this pack and nothing else, lets Chromium draw (scripts/record.mjs), and writes
docs/images/first_minute.webp (animated) and docs/images/editor_and_result.webp. Needs ``npm ci`` and Chromium.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
MOST = 3_000_000  # bytes of the animation


def main(comfy: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COMFYUI_PATH": comfy}
        subprocess.run(["node", str(ROOT / "scripts" / "record.mjs"), folder], check=True, env=environment)  # noqa: S603, S607
        told = json.loads((Path(folder) / "frames.json").read_text(encoding="utf-8"))
        frames = [Image.open(Path(folder) / one["file"]).convert("RGB") for one in told]
        durations = [one["ms"] for one in told]
        for quality in (80, 65, 50):
            path = IMAGES / "first_minute.webp"
            frames[0].save(
                path, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=quality, method=4
            )
            if path.stat().st_size <= MOST:
                break
        frames[-1].save(IMAGES / "editor_and_result.webp", quality=88)
    for path in (IMAGES / "first_minute.webp", IMAGES / "editor_and_result.webp"):
        sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path.home() / "comfy" / "ComfyUI"))
