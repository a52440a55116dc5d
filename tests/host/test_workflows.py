"""Every workflow in workflows/api runs headless: on a live server, or up to the weights that are not there. The
small ones make the pictures that they made before."""

from __future__ import annotations

import io
import json
import warnings
from typing import Any

import live_server
import pytest
import stored_pictures
from PIL import Image
from workflow_files import API, ROOT, load, pictures

WEIGHTS = {"unet_name", "clip_name1", "clip_name2", "vae_name"}
OTHER_WEIGHTS = {"phrases_qwen_image": {"unet_name", "clip_name", "vae_name"}}
ADAPTERS = {"adapter", "layout_weights", "lora"}


SMALL = sorted(path.stem for path in API.glob("tiny_*.json"))


@pytest.fixture(scope="module")
def arithmetic() -> str:
    here = stored_pictures.arithmetic()
    if here not in stored_pictures.load()["painted"]:
        warnings.warn(f"pictures are compared to one step of 255, no bytes are recorded for {here}", stacklevel=1)
    return here


@pytest.mark.parametrize("name", SMALL)
def test_small_workflow_makes_the_pictures_it_made_before(
    stocked: live_server.Server,
    name: str,
    arithmetic: str,
    host_version: tuple[int, ...],
    request: pytest.FixtureRequest,
) -> None:
    prompt = load(name)
    stocked.forget()
    made = stored_pictures.made(stocked, name, stocked.run(prompt))
    layout, batch = prompt["30"]["inputs"], prompt["32"]["inputs"].get("batch_size", 1)
    saved = [pixels.shape for key, pixels in made.items() if key.startswith(f"{name}/42/")]
    assert saved == [(layout["height"], layout["width"], 3)] * batch
    record, version = stored_pictures.load(), ".".join(map(str, host_version))
    if request.config.getoption("--update"):
        stored_pictures.update(record, name, prompt, made, arithmetic, version)
    assert stored_pictures.complaints(record, prompt, made, arithmetic, version) == []
    assert stored_pictures.names(record, name) == set(made), "stored and made"


def test_no_picture_is_stored_of_a_workflow_that_is_gone() -> None:
    assert {name.split("/")[0] for name in stored_pictures.names(stored_pictures.load())} == set(SMALL)


def test_a_run_can_be_repeated_and_the_layout_matters(stocked: live_server.Server) -> None:
    prompt = load("tiny_two_subjects")

    def picture(change: dict[str, Any]) -> bytes:
        # Another file name makes the host run the sampler's consumers again; other seeds would hide the point.
        changed = {key: {**node, "inputs": {**node["inputs"], **change.get(key, {})}} for key, node in prompt.items()}
        return pictures(stocked, stocked.run(changed))[0].tobytes()

    first = picture({"42": {"filename_prefix": "first"}})
    layout = json.loads(prompt["30"]["inputs"]["layout"])
    layout["boxes"][1]["x"] -= 32
    other = picture({"30": {"layout": json.dumps(layout)}})
    stocked.forget()
    again = picture({"42": {"filename_prefix": "again"}})
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "name",
    [
        "two_subjects",
        "four_subjects_overlap",
        "lamic_two_subjects",
        "twelve_phrases_flux",
        "phrases_schnell",
        "eligen_phrases",
        "eligen_phrases_and_references",
        "eligen_regions",
        "phrases_qwen_image",
        *sorted(path.stem for path in API.glob("sigma_*.json")),
    ],
)
def test_real_workflow_lacks_nothing_but_the_weights(stocked: live_server.Server, name: str) -> None:
    with pytest.raises(live_server.PromptError) as refused:
        stocked.submit(load(name))
    missing = set()
    for node in refused.value.details["node_errors"].values():
        for error in node["errors"]:
            assert error["type"] == "value_not_in_list", error
            missing.add(error["extra_info"]["input_name"])
    # 0.3.64 does not check the choices of V3 nodes; there the loader itself says that the adapter is missing.
    assert missing - ADAPTERS == OTHER_WEIGHTS.get(name, WEIGHTS)


TEMPLATES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_is_listed_and_says_the_same_as_its_headless_twin(stocked: live_server.Server, name: str) -> None:
    assert name in stocked.json("/workflow_templates")[live_server.PACK_FOLDER]
    template = json.loads(stocked.get(f"/api/workflow_templates/{live_server.PACK_FOLDER}/{name}.json"))
    types = sorted(node["type"] for node in template["nodes"] if node["type"] not in ("MarkdownNote", "Note"))
    assert types == sorted(node["class_type"] for node in load(name).values())
    thumbnail = stocked.get(f"/api/workflow_templates/{live_server.PACK_FOLDER}/{name}.jpg")
    assert Image.open(io.BytesIO(thumbnail)).width >= 256


PUBLIC = "https://huggingface.co/"
OFFERED = {
    "flux1-dev-kontext_fp8_scaled.safetensors": "diffusion_models",
    "clip_l.safetensors": "text_encoders",
    "t5xxl_fp16.safetensors": "text_encoders",
    "ae.safetensors": "vae",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_host_can_offer_the_files_that_a_template_needs(name: str) -> None:
    template = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    for node in template["nodes"]:
        files = OFFERED.keys() & {value for value in node.get("widgets_values", []) if isinstance(value, str)}
        models = {one["name"]: one for one in node["properties"].get("models", [])}
        assert files <= models.keys(), node["type"]
        for one in models.values():
            assert one["name"] in node["widgets_values"] and one["url"].startswith(PUBLIC)
            assert one["url"].split("?")[0].endswith("/" + one["name"])
            assert OFFERED.get(one["name"], one["directory"]) == one["directory"]


@pytest.mark.parametrize("name", [name for name in TEMPLATES if f"tiny_{name}" in TEMPLATES])
def test_sizes_are_typed_once(name: str) -> None:
    for twin in (name, f"tiny_{name}"):
        for node in load(twin).values():
            if node["class_type"] == "ModelSamplingFlux":
                assert (node["inputs"]["width"], node["inputs"]["height"]) == (["30", 5], ["30", 6])


def test_the_templates_of_contextgen_and_lamic_have_twins_for_the_small_model() -> None:
    ours = {"two_subjects", "four_subjects_overlap", "insert_into_photo", "boxes_from_detector", "four_seeds_best"}
    ours |= {"cutout_to_result", "lamic_two_subjects"}
    assert {f"tiny_{name}" for name in ours} <= set(TEMPLATES)
    for name in ours:
        small = load(f"tiny_{name}")
        assert "ContextGenTinyModel" in {node["class_type"] for node in small.values()}
        assert not {"UNETLoader", "CLIPVisionLoader", "VAELoader"} & {node["class_type"] for node in small.values()}
        assert (small["30"]["inputs"]["width"], small["30"]["inputs"]["height"]) == (128, 128)
