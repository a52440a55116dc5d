"""make demo: the cases of contextgen_core.demo, then the same ones in a ComfyUI through its API, where one is found.

Writes output/demo/: pictures and report.json. A ComfyUI is looked for as scripts/test.py does.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [str(ROOT / "scripts"), str(ROOT / "tests" / "host"), *sys.path[1:]]

import live_server  # noqa: E402
import numpy as np  # noqa: E402
import test as suites  # noqa: E402  scripts/test.py
from PIL import Image  # noqa: E402

from contextgen_core import demo  # noqa: E402

OUT = ROOT / "output" / "demo"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def api_prompt(case: demo.Case) -> dict[str, Any]:
    """A case as a ComfyUI API prompt on the small model; reference n is the input picture ``reference_n.png``."""
    width, height = case.layout.width, case.layout.height
    prompt = {"tiny": node("ContextGenTinyModel")}
    model, references = ["tiny", 0], None
    if case.adapter:
        name = f"ContextGen small model: {case.adapter}"
        prompt["adapter"] = node("ContextGenDPOLoRALoader", model=model, adapter=name)
        model = ["adapter", 0]
    for number, reference in enumerate(case.references, 1):
        picture = f"picture {number}"
        prompt[picture] = node("LoadImage", image=f"reference_{number}.png")
        more = {"references": references} if references else {}
        prompt[f"reference {number}"] = node(
            "ReferenceBundle",
            image=[picture, 0],
            subject_mask=[picture, 1],
            invert_mask=True,
            name=reference.name,
            size=reference.tokens,
            **more,
        )
        references = [f"reference {number}", 0]
    layout = case.layout.to_json()
    prompt["layout"] = node("LayoutComposer", width=width, height=height, layout=layout, references=references)
    prompt["text"] = node("ContextGenTextEncode", clip=["tiny", 1], prompt=case.prompt)
    prompt["conditioning"] = node(
        "ContextGenConditioning", conditioning=["text", 0], vae=["tiny", 2], layout=["layout", 0]
    )
    prompt["patch"] = node("ContextGenPatchModel", model=model)
    prompt["shift"] = node(
        "ModelSamplingFlux", model=["patch", 0], max_shift=1.15, base_shift=0.5, width=width, height=height
    )
    prompt["sampler"] = node(
        "KSampler",
        model=["shift", 0],
        positive=["conditioning", 0],
        negative=["text", 0],
        latent_image=["conditioning", 1],
        seed=demo.SEED,
        steps=demo.STEPS,
        cfg=1.0,
        sampler_name="euler",
        scheduler="simple",
        denoise=1.0,
    )
    prompt["decode"] = node("VAEDecode", samples=["sampler", 0], vae=["tiny", 2])
    prompt["save"] = node("SaveImage", images=["decode", 0], filename_prefix=case.name)
    return prompt


def in_comfyui(cases: list[demo.Case], host: suites.Host) -> list[dict[str, Any]]:
    """Runs the cases on a live server and compares each picture with the one of the diffusers host."""
    reports = []
    with live_server.running(host.path, str(host.python)) as server:
        for case in cases:
            for number, reference in enumerate(case.references, 1):
                picture = Image.fromarray(np.dstack([reference.pixels, reference.mask]))
                picture.save(server.base / "input" / f"reference_{number}.png")
            start = time.perf_counter()
            entry = server.run(api_prompt(case))
            seconds = time.perf_counter() - start
            picture = Image.open(io.BytesIO(server.images({"outputs": {"save": entry["outputs"]["save"]}})[0]))
            name = f"{case.name}_result_comfyui.png"
            picture.save(OUT / name)
            other = np.asarray(Image.open(OUT / f"{case.name}_result.png"), np.int16)
            difference = int(np.abs(np.asarray(picture.convert("RGB"), np.int16) - other).max())
            reports.append(
                {
                    "case": case.name,
                    "host": f"ComfyUI {suites.host_version(host.path)}",
                    "seconds": {"prompt": round(seconds, 2)},
                    "largest_pixel_difference_to_diffusers": difference,
                }
            )
    return reports


def main() -> int:
    start = time.perf_counter()
    cases = list(demo.cases())
    reports = [demo.run(case, OUT) for case in cases]
    host = next((host for host in suites.find_hosts() if host.python), None)
    if host is None:
        print("no ComfyUI found (set COMFYUI_PATH): only the diffusers host was shown")
    else:
        reports += in_comfyui(cases, host)
    report = {"cases": reports, "seconds": round(time.perf_counter() - start, 1)}
    (OUT / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for entry in reports:
        line = f"{entry['case']} on {entry['host']}: {sum(entry['seconds'].values()):.1f} s"
        if "kept_tokens" in entry:
            line += f", {entry['kept_tokens']} of {entry['tokens']} tokens, weights {entry['weights']}"
        else:
            line += f", differs by at most {entry['largest_pixel_difference_to_diffusers']} of 255"
        print(line)
    print(f"pictures and report.json in {OUT.relative_to(ROOT)}, {report['seconds']} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
