"""Whatever a user gets wrong gives one clear sentence before sampling, in the real server, and the queue goes on."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import live_server
import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = re.compile(r"[A-Z][A-Za-z]+, \w+: [^\n]{20,600}\.")

Prompt = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def box(**changes: Any) -> dict[str, Any]:
    return {"id": "b1", "x": 8, "y": 8, "w": 64, "h": 64, "ref": "cat", **changes}


def text(*boxes: Any, **changes: Any) -> str:
    return json.dumps({"v": 1, "canvas": {"w": 128, "h": 128}, "boxes": list(boxes), **changes})


def graph(layout: str | None = None, /, **changes: Any) -> Prompt:
    """The whole small workflow; a value of None in ``changes`` takes a node out, a node replaces one."""
    made: Prompt = {
        "model": node("ContextGenTinyModel"),
        "picture": node("LoadImage", image="contextgen_cat.png"),
        "reference": node(
            "ReferenceBundle",
            image=["picture", 0],
            subject_mask=["picture", 1],
            invert_mask=True,
            name="cat",
            size=16,
        ),
        "layout": node(
            "LayoutComposer",
            width=128,
            height=128,
            layout=text(box()) if layout is None else layout,
            references=["reference", 0],
        ),
        "text": node("ContextGenTextEncode", clip=["model", 1], prompt="a meadow"),
        "conditioning": node(
            "ContextGenConditioning", conditioning=["text", 0], vae=["model", 2], layout=["layout", 0]
        ),
        "patch": node("ContextGenPatchModel", model=["model", 0]),
        "sampler": node(
            "KSampler",
            model=["patch", 0],
            positive=["conditioning", 0],
            negative=["text", 0],
            latent_image=["conditioning", 1],
            seed=1,
            steps=1,
            cfg=1.0,
            sampler_name="euler",
            scheduler="simple",
            denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="errors"),
    }
    for name, value in changes.items():
        if isinstance(value, dict) and "class_type" not in value:
            made[name]["inputs"].update(value)
        else:
            made[name] = value
    return made


@pytest.fixture(scope="module")
def stocked(server: live_server.Server) -> live_server.Server:
    """The server with a sample picture and with files that are not what they should be."""
    shutil.copy(ROOT / "assets" / "samples" / "contextgen_cat.png", server.base / "input")
    models = server.base / "models"
    for name in ("loras", "vae", "diffusion_models"):
        (models / name).mkdir(exist_ok=True)
    import comfy.supported_models
    import comfy.taesd.taesd

    save_file(comfy.taesd.taesd.TAESD(latent_channels=4).state_dict(), models / "vae" / "four_channels.safetensors")
    config = comfy.supported_models.SD3({"image_model": "sd3"})
    config.unet_config = {"in_channels": 16, "patch_size": 2, "depth": 1, "input_size": None, "adm_in_channels": 32}
    config.unet_config.update(
        context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 32, "out_features": 64}}
    )
    config.unet_config.update(num_patches=4, pos_embed_max_size=2, pos_embed_scaling_factor=None)
    config.set_inference_dtype(torch.float32, None)
    other = config.get_model({}, "")
    save_file(
        {k: v.contiguous() for k, v in other.diffusion_model.state_dict().items()},
        models / "diffusion_models" / "sd3.safetensors",
    )
    loras = models / "loras"
    pair = {f"{factor}.weight": torch.zeros(4, 4) for factor in ("lora_A", "lora_B")}
    save_file(
        {f"transformer.transformer_blocks.0.attn.to_q.{k}": v for k, v in pair.items()}, loras / "narrow.safetensors"
    )
    unet = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_"
    save_file(
        {f"{unet}down.weight": torch.zeros(4, 320), f"{unet}up.weight": torch.zeros(320, 4)}, loras / "sd15.safetensors"
    )
    whole = (loras / "narrow.safetensors").read_bytes()
    (loras / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (loras / "pickle.safetensors").write_bytes(pickle.dumps({"weight": [1, 2, 3]}))
    (loras / "empty.safetensors").write_bytes(b"")
    return server


def adapter(name: str) -> Prompt:
    loader = node("ContextGenDPOLoRALoader", model=["model", 0], adapter=name)
    return graph(adapter=loader, patch={"model": ["adapter", 0]})


def own_picture(**inputs: Any) -> Prompt:
    return graph(
        picture=node("EmptyImage", width=64, height=64, batch_size=1, color=255),
        reference=node("ReferenceBundle", image=["picture", 0], name="cat", **inputs),
    )


def with_mask(value: float, width: int = 64) -> Prompt:
    made = own_picture(subject_mask=["mask", 0])
    made["mask"] = node("SolidMask", value=value, width=width, height=64)
    return made


NESTED = "[" * 60 + "]" * 60
CASES: dict[str, tuple[Prompt, str, str]] = {
    # name: (prompt, start of the sentence, a word of it)
    "no references": (graph(text(box())), "LayoutComposer, layout", "connect"),
    "no mask and no alpha": (own_picture(), "ReferenceBundle, subject_mask", "neither transparency nor a mask"),
    "empty mask": (with_mask(0.0, 48), "ReferenceBundle, subject_mask", "48"),
    "empty mask of the right size": (
        {
            **with_mask(0.0),
            "picture": node("EmptyImage", width=80, height=64, batch_size=1, color=255),
            "mask": node("SolidMask", value=0.0, width=80, height=64),
        },
        "ReferenceBundle, subject_mask",
        "empty mask",
    ),
    "load image without transparency": (with_mask(0.0), "ReferenceBundle, subject_mask", "transparency"),
    "box outside": (graph(text(box(x=500))), "LayoutComposer, layout", "outside"),
    "box inverted": (graph(text(box(w=-5))), "LayoutComposer, layout", "w = -5"),
    "box NaN": (graph(text(box(x=float("nan")))), "LayoutComposer, layout", "NaN"),
    "box zero area": (graph(text(box(h=0))), "LayoutComposer, layout", "h = 0"),
    "box 1e308": (graph(text(box(w=1e308))), "LayoutComposer, layout", "1e+308"),
    "too many boxes": (graph(text(*(box(id=f"b{i}") for i in range(51)))), "LayoutComposer, layout", "51"),
    "not JSON": (graph("four boxes, please"), "LayoutComposer, layout", "JSON"),
    "10 MB of JSON": (graph(text(box(label="x" * 10_000_000))), "LayoutComposer, layout", "65536"),
    "deep nesting": (graph(text(box(), editor=json.loads(NESTED))), "LayoutComposer, layout", "deep"),
    "duplicate ids": (graph(text(box(), box())), "LayoutComposer, layout", "same id"),
    "wrong types": (graph(text(box(x="left"))), "LayoutComposer, layout", "'left'"),
    "missing reference": (graph(text(box(ref="dog")), layout={"missing": "error"}), "LayoutComposer, layout", "'dog'"),
    "boxes without references": (graph(text(box(ref=None))), "ContextGenConditioning, layout", "bind"),
    "duplicate reference name": (
        graph(
            second=node(
                "ReferenceBundle",
                image=["picture", 0],
                subject_mask=["picture", 1],
                invert_mask=True,
                name="cat",
                references=["reference", 0],
            ),
            layout={"references": ["second", 0]},
        ),
        "ReferenceBundle, name",
        "another name",
    ),
    "bare boxes without a format": (
        graph(
            "", boxes=node("PrimitiveString", value="[[1, 2, 30, 40]]"), layout={"boxes": ["boxes", 0], "layout": ""}
        ),
        "LayoutComposer, boxes",
        "format",
    ),
    "not FLUX.1": (
        graph(
            other=node("UNETLoader", unet_name="sd3.safetensors", weight_dtype="default"), patch={"model": ["other", 0]}
        ),
        "ContextGenPatchModel, model",
        "Stable Diffusion 3 takes no pictures by ContextGen's position ids",
    ),
    "adapter of another model": (adapter("sd15.safetensors"), "ContextGenDPOLoRALoader, adapter", "FLUX.1"),
    "adapter of another width": (adapter("narrow.safetensors"), "ContextGenDPOLoRALoader, adapter", "narrow"),
    "truncated adapter": (adapter("truncated.safetensors"), "ContextGenDPOLoRALoader, adapter", "truncated"),
    "pickle renamed": (adapter("pickle.safetensors"), "ContextGenDPOLoRALoader, adapter", "pickle"),
    "empty adapter": (adapter("empty.safetensors"), "ContextGenDPOLoRALoader, adapter", "empty"),
    "VAE of another latent size": (
        graph(vae=node("VAELoader", vae_name="four_channels.safetensors"), conditioning={"vae": ["vae", 0]}),
        "ContextGenConditioning, vae",
        "4 channels",
    ),
    "template without a place": (graph(text={"template": "draw it"}), "ContextGenTextEncode, template", "{prompt}"),
    "block range": (graph(patch={"ica_first": 5, "ica_last": 3}), "ContextGenPatchModel, ica_first", "first <= last"),
    "percent range": (
        graph(patch={"start_percent": 0.9, "end_percent": 0.1}),
        "ContextGenPatchModel, start_percent",
        "before",
    ),
    "latent of another size": (
        graph(
            latent=node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
            sampler={"latent_image": ["latent", 0]},
        ),
        "KSampler, latent_image",
        "64x64",
    ),
}
del CASES["no references"][0]["layout"]["inputs"]["references"]


def failure(server: live_server.Server, prompt: Prompt) -> dict[str, Any]:
    with pytest.raises(live_server.PromptError) as failed:
        server.run(prompt)
    assert isinstance(failed.value.details, list), f"refused before it ran: {failed.value}"
    return next(message for kind, message in failed.value.details if kind == "execution_error")


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_and_a_usable_queue(stocked: live_server.Server, name: str) -> None:
    prompt, start, word = CASES[name]
    error = failure(stocked, prompt)
    message = error["exception_message"].strip()
    assert SENTENCE.fullmatch(message), message
    assert message.startswith(start + ": "), message
    assert word in message, message
    assert stocked.json("/queue") == {"queue_running": [], "queue_pending": []}


def test_a_good_prompt_runs_after_all_that(stocked: live_server.Server) -> None:
    assert len(stocked.images(stocked.run(graph()))) >= 1


def test_sizes_are_rounded_to_tokens_and_it_is_said(stocked: live_server.Server) -> None:
    entry = stocked.run(graph(layout={"width": 130, "height": 119}))
    from io import BytesIO

    from PIL import Image

    picture = Image.open(BytesIO(stocked.images({"outputs": {"save": entry["outputs"]["save"]}})[0]))
    assert picture.size == (128, 112)
    assert "130 x 119 is no multiple of 16" in stocked.log()


def test_interrupt_ends_the_run_and_the_next_one_works(stocked: live_server.Server) -> None:
    long_run = graph(sampler={"steps": 400, "seed": 99})
    prompt_id = stocked.submit(long_run)
    stocked.until(lambda: stocked.json("/queue")["queue_running"])
    stocked.interrupt()
    with pytest.raises(live_server.PromptError) as stopped:
        stocked.wait(prompt_id)
    assert any(kind == "execution_interrupted" for kind, _ in stopped.value.details)
    assert stocked.images(stocked.run(graph(sampler={"seed": 100})))
