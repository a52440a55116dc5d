"""make demo: the cases of contextgen_core.demo, then the same ones in a ComfyUI through its API, where one is found.

Writes output/demo/: pictures and report.json. A ComfyUI is looked for as scripts/test.py does. There the creatures are
the workflow tiny_demo, and the photographs a prompt that is put together here.
"""

from __future__ import annotations

import io
import json
import shutil
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

from contextgen_core.commands import demo  # noqa: E402

OUT = ROOT / "output" / "demo"
WORKFLOWS = {"creatures": ROOT / "workflows" / "api" / "tiny_demo.json"}


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
        for picture in demo.SAMPLES.glob("contextgen_creature_*.png"):
            shutil.copy(picture, server.base / "input")
        for case in cases:
            for number, reference in enumerate(case.references, 1):
                picture = Image.fromarray(np.dstack([reference.pixels, reference.mask]))
                picture.save(server.base / "input" / f"reference_{number}.png")
            prompt, saved = api_prompt(case), {"save": "result"}
            if case.name in WORKFLOWS:
                prompt = json.loads(WORKFLOWS[case.name].read_text(encoding="utf-8"))
                saved = {"42": "result", "52": "cla_only"}
            start = time.perf_counter()
            entry = server.run(prompt)
            seconds = time.perf_counter() - start
            differences = [compare(server, entry, node, f"{case.name}_{name}") for node, name in saved.items()]
            reports.append(
                {
                    "case": case.name,
                    "host": f"ComfyUI {suites.host_version(host.path)}",
                    "seconds": {"prompt": round(seconds, 2)},
                    "largest_pixel_difference_to_diffusers": max(differences),
                }
            )
    return reports


def compare(server: live_server.Server, entry: dict[str, Any], node: str, name: str) -> int:
    """Keeps a picture that the host saved; returns its largest difference to the one of diffusers, 0..255."""
    picture = Image.open(io.BytesIO(server.images({"outputs": {node: entry["outputs"][node]}})[0]))
    picture.save(OUT / f"{name}_comfyui.png")
    other = np.asarray(Image.open(OUT / f"{name}.png"), np.int16)
    return int(np.abs(np.asarray(picture.convert("RGB"), np.int16) - other).max())


def main() -> int:
    start = time.perf_counter()
    cases = list(demo.cases())
    reports = []
    for case in cases:
        reports.append(demo.run(case, OUT))
        print(demo.summary(reports[-1]), flush=True)
    host = next((host for host in suites.find_hosts() if host.python), None)
    if host is None:
        print("no ComfyUI found (set COMFYUI_PATH): only the diffusers host was shown")
    else:
        for entry in in_comfyui(cases, host):
            reports.append(entry)
            seconds, most = entry["seconds"]["prompt"], entry["largest_pixel_difference_to_diffusers"]
            print(f"{entry['case']} on {entry['host']}: {seconds:.1f} s, differs by at most {most} of 255")
    report = {"cases": reports, "seconds": round(time.perf_counter() - start, 1)}
    (OUT / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"pictures and report.json in {OUT.relative_to(ROOT)}, {report['seconds']} s in all")
    if any(case.drawn is not None for case in cases):
        print(f"look at {(OUT / 'creatures_sheet.png').relative_to(ROOT)} first")
    return 0


if __name__ == "__main__":
    sys.exit(main())
