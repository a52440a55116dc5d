"""What the nodes promise: every input explained, and each node's own job in the real host."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_paths
import live_server
import pytest
import torch
from contextgen_pack.contextgen_core.errors import InputError
from contextgen_pack.contextgen_core.lora import adapter as adapters
from contextgen_pack.contextgen_core.methods.contextgen.method import CONTEXTGEN
from contextgen_pack.nodes import adapter, host, sockets

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = ROOT / "tests" / "host" / "object_info.json"
FILE_LISTS = {
    "adapter",
    "layout_weights",
    "lora",
    "sft_adapter",
    "sam_model",
}  # their options are what lies in the user's folders
KEPT = ("input", "input_order", "output", "output_name", "output_tooltips", "display_name", "description", "category")

Nodes = dict[str, Any]


# --- schemas --------------------------------------------------------------------------------------------------------


def our_object_info(server: live_server.Server) -> dict[str, Any]:
    """Our nodes as the frontend sees them, without what only some hosts send and what lies on this machine."""
    made: dict[str, Any] = {}
    for name, info in server.json("/object_info").items():
        if live_server.PACK_FOLDER not in info["python_module"]:
            continue
        made[name] = {key: info[key] for key in KEPT}
        for section in made[name]["input"].values():
            for key, (_, options) in [(key, value) for key, value in section.items() if len(value) == 2]:
                if key in FILE_LISTS:
                    options["options"] = []
    return dict(sorted(made.items()))


def visible(info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of each input that a user sees, by its id."""
    return {
        key: value[1] for section, found in info["input"].items() if section != "hidden" for key, value in found.items()
    }


def english(info: dict[str, Any]) -> dict[str, Any]:
    """A node's entry in locales/en: the words of its schema."""
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {
            key: {"name": options.get("display_name", key), "tooltip": options["tooltip"]}
            for key, options in visible(info).items()
        },
        "outputs": {str(number): {"name": name, "tooltip": text} for number, (name, text) in enumerate(outputs)},
    }


def test_schemas_are_the_released_ones_on_every_host(server: live_server.Server) -> None:
    """A difference is a decision: ids, order and types of a released node never change, inputs are only appended.

    CONTEXTGEN_SNAPSHOT=1 writes the file anew; its diff is the review.
    """
    found = our_object_info(server)
    if os.environ.get("CONTEXTGEN_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_everything_is_explained(server: live_server.Server) -> None:
    for name, info in our_object_info(server).items():
        assert info["category"].split("/")[0] == "ContextGen"
        assert len(info["category"].split("/")) <= 2
        assert info["display_name"] and len(info["description"]) > 40, name
        for section, inputs in info["input"].items():
            if section != "hidden":
                assert [key for key, value in inputs.items() if len(value[1].get("tooltip", "")) < 10] == [], name
        assert all(info["output_tooltips"]) and len(info["output_tooltips"]) == len(info["output"]), name


@pytest.mark.parametrize("language", ["en", "zh"])
def test_locales_and_help_pages_cover_every_node(server: live_server.Server, language: str) -> None:
    served = server.json("/i18n")[language]["nodeDefs"]
    for name, info in our_object_info(server).items():
        entry, words = served[name], english(info)
        if language == "en":
            assert entry == words  # a schema takes its words from there; a host may not change them
        assert entry["display_name"] and entry["description"]
        for part in ("inputs", "outputs"):
            assert set(entry.get(part, {})) == set(words[part]), name
            assert all(text["name"] and text["tooltip"] for text in entry.get(part, {}).values()), name
        page = server.get(f"/extensions/{live_server.PACK_FOLDER}/docs/{name}/{language}.md").decode()
        missing = [text["name"] for text in words["inputs"].values() if f"`{text['name']}`" not in page]
        assert not missing, f"{name}/{language}.md says nothing of {missing}"


# --- references -----------------------------------------------------------------------------------------------------


def disc(size: int = 64, channels: int = 3, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture (B, H, W, C) and the mask (1, H, W) of a disc in its middle."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    mask = (((y - size / 2) ** 2 + (x - size / 2) ** 2) < (size / 3) ** 2).float()
    picture = torch.rand((batch, size, size, 3), generator=torch.Generator().manual_seed(0))
    if channels == 4:
        picture = torch.cat([picture, mask[None, ..., None].expand(batch, -1, -1, -1)], -1)
    return picture, mask[None]


def bundle(nodes: Nodes, **inputs: Any) -> tuple[Any, ...]:
    picture, mask = disc()
    values = {"image": picture, "subject_mask": mask, "size": 16, **inputs}
    return nodes["ReferenceBundle"].execute(**values).args[0]


def test_a_batch_adds_numbered_references_behind_the_chain(pack_nodes: Nodes) -> None:
    first = bundle(pack_nodes, name="Anna")
    many = bundle(pack_nodes, image=disc(batch=3)[0], name="cup", references=first)
    assert [reference.name for reference in many] == ["Anna", "cup 1", "cup 2", "cup 3"]
    unnamed = bundle(pack_nodes, references=many)
    assert unnamed[-1].name == "reference 5"
    assert len(first) == 1, "the earlier bundle must not change"


def test_alpha_mask_and_inverted_mask_agree(pack_nodes: Nodes) -> None:
    _, mask = disc()
    by_mask = bundle(pack_nodes)[0].mask
    by_alpha = bundle(pack_nodes, image=disc(channels=4)[0], subject_mask=None)[0].mask
    by_load_image = bundle(pack_nodes, subject_mask=1 - mask, invert_mask=True)[0].mask
    assert (by_mask == by_alpha).all() and (by_mask == by_load_image).all()
    assert by_mask[32, 32] == 255 and by_mask[0, 0] == 0


def remarks(out: Any) -> str:
    """The warnings that the frontend shows on the node."""
    return "\n".join(out.ui["contextgen_warnings"])


def test_an_inverted_mask_is_noticed_on_the_node(pack_nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    node, (picture, mask) = pack_nodes["ReferenceBundle"], disc()
    with caplog.at_level(logging.WARNING, logger="contextgen"):
        assert remarks(node.execute(image=picture, subject_mask=mask)) == ""
        assert not caplog.records
        said = remarks(node.execute(image=picture, subject_mask=1 - mask, name="cup"))
    assert said.startswith("reference 'cup': ") and "exchanged" in said and said in caplog.text
    assert "whole picture" in remarks(node.execute(image=picture, subject_mask=torch.ones_like(mask)))
    speck = torch.zeros_like(mask)
    speck[0, 5, 5:7] = 1
    assert "0.05%" in remarks(node.execute(image=picture, subject_mask=speck))


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("kind", ["none", "same", "opposite", "empty of Load Image", "another size"])
def test_a_cut_out_stays_what_it_is_beside_any_mask(pack_nodes: Nodes, kind: str, invert: bool) -> None:
    """Swapping a reference: ContextGen Cutout's cut-out goes to image, the old wire of the mask is still there."""
    picture, mask = disc(channels=4)
    masks = {
        "none": None,
        "same": mask,
        "opposite": 1 - mask,
        "empty of Load Image": torch.zeros(1, 64, 64),
        "another size": torch.ones(1, 48, 40),
    }
    out = pack_nodes["ReferenceBundle"].execute(image=picture, subject_mask=masks[kind], invert_mask=invert)
    assert (out.args[0][0].mask == (mask[0] * 255).numpy()).all()
    contradicts = (kind, invert) in (("same", True), ("opposite", False)) or kind == "another size"
    assert ("pull the mask's wire" in remarks(out)) == contradicts


def test_a_reference_without_a_picture_leaves_the_others(pack_nodes: Nodes) -> None:
    first = bundle(pack_nodes, name="Anna")
    out = pack_nodes["ReferenceBundle"].execute(name="Ben", references=first)
    assert out.args[0] == first and "'Ben'" in remarks(out)


# --- layout ---------------------------------------------------------------------------------------------------------


def boxes(*entries: dict[str, Any], side: int = 128) -> str:
    made = [{"id": f"b{n}", "x": 8, "y": 8, "w": 64, "h": 64, **entry} for n, entry in enumerate(entries, 1)]
    return json.dumps({"v": 1, "canvas": {"w": side, "h": side}, "boxes": made})


def composed(nodes: Nodes, layout: str = "", **inputs: Any) -> Any:
    values = {"width": 128, "height": 128, "layout": layout, "references": bundle(nodes, name="disc"), **inputs}
    return nodes["LayoutComposer"].execute(**values)


def test_layout_outputs(pack_nodes: Nodes) -> None:
    out = composed(pack_nodes, boxes({"ref": "disc"}, {"x": 80, "w": 32, "label": "tree"}))
    scene, composite, found, masks, every, *sides = out.args
    assert sides == [128, 128]
    assert composite.shape == (1, 128, 128, 3)
    assert found == [
        [
            {"x": 8, "y": 8, "width": 64, "height": 64, "label": "disc"},
            {"x": 80, "y": 8, "width": 32, "height": 64, "label": "tree"},
        ]
    ]
    assert masks.shape == (2, 128, 128) and masks.sum(dim=(1, 2)).tolist() == [64 * 64, 32 * 64]
    assert torch.equal(every[0], masks.amax(dim=0))
    assert json.loads(out.ui["contextgen_layout"][0])["boxes"][0]["ref"] == "disc"
    thumbnail = out.ui["contextgen_references"][0]
    assert (thumbnail["name"], thumbnail["width"], thumbnail["height"]) == ("disc", 64, 64)
    assert (Path(folder_paths.get_temp_directory()) / thumbnail["image"]["filename"]).exists()
    again = composed(pack_nodes, out.ui["contextgen_layout"][0])
    assert torch.equal(again.args[1], composite) and again.ui == out.ui
    assert scene.painted == (0,)


def test_another_canvas_is_scaled_to_the_nodes_size(pack_nodes: Nodes) -> None:
    out = composed(pack_nodes, boxes({"ref": 1, "x": 16, "y": 16, "w": 128, "h": 128}, side=256))
    assert out.args[2][0][0] == {"x": 8, "y": 8, "width": 64, "height": 64}


def test_connected_boxes_seed_once_or_are_followed(pack_nodes: Nodes) -> None:
    upstream = [{"x": 32, "y": 40, "width": 48, "height": 56, "label": "DISC"}]
    drawn = boxes({"ref": "disc"})
    seeded = composed(pack_nodes, "", boxes=upstream).args[0].layout
    assert [(i.box.x1, i.reference) for i in seeded.instances] == [(32, "disc")]
    assert composed(pack_nodes, drawn, boxes=upstream).args[0].layout.instances[0].box.x1 == 8
    followed = composed(pack_nodes, drawn, boxes=upstream, boxes_policy="follow upstream").args[0].layout.instances
    assert [(i.id, i.box.x1, i.box.y2, i.reference) for i in followed] == [("b1", 32, 96, "disc")]


def test_own_composite_replaces_the_painted_one(pack_nodes: Nodes) -> None:
    own = torch.rand((1, 128, 128, 3), generator=torch.Generator().manual_seed(1))
    out = composed(pack_nodes, boxes({"ref": "disc"}), layout_image=own)
    assert (out.args[1] - own).abs().max() <= 0.5 / 255 + 1e-6


def test_the_rounded_sides_come_out_and_are_said_on_the_node(pack_nodes: Nodes) -> None:
    out = composed(pack_nodes, boxes({"ref": "disc"}), width=120, height=136)
    assert out.args[5:] == (128, 144) and "128 x 144" in remarks(out)


def test_a_box_whose_reference_is_missing_is_left_out(pack_nodes: Nodes) -> None:
    layout = boxes({"ref": "disc"}, {"ref": "gone", "label": "a cup", "x": 40})
    out = composed(pack_nodes, layout)
    scene = out.args[0]
    assert [reference is not None for reference in scene.references] == [True, False]
    assert scene.layout.instances[1].hidden and scene.layout.instances[1].label == ""
    assert "box 2" in remarks(out) and "left out" in remarks(out)
    assert json.loads(out.ui["contextgen_layout"][0]) == json.loads(
        composed(pack_nodes, layout).ui["contextgen_layout"][0]
    )
    assert "hidden" not in out.ui["contextgen_layout"][0], "the editor keeps its own boxes"
    with pytest.raises(InputError, match="'gone'"):
        composed(pack_nodes, layout, missing="error")


def test_an_empty_layout_has_one_empty_mask(pack_nodes: Nodes) -> None:
    scene, composite, found, masks = composed(pack_nodes, "").args[:4]
    assert found == [[]] and masks.shape == (1, 128, 128) and not masks.any()
    assert (composite == 128 / 255).all() and not scene.layout.instances


# --- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "fits"), [(128, True), (768, False)])
def test_a_sampling_shift_of_another_size_is_said(pack_nodes: Nodes, side: int, fits: bool) -> None:
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    model = pack_nodes["ContextGenTinyModel"].execute().args[0]
    scene = composed(pack_nodes, boxes({"ref": "disc"})).args[0]
    (shifted,) = ModelSamplingFlux().patch(model, 1.15, 0.5, side, side)
    doubt = host.shift_doubt(shifted, 128, 128)
    assert (doubt is None) == fits
    report = pack_nodes["ContextGenReport"].execute(layout=scene, model=shifted).args[1]
    assert ("warning: the model's sampling shift" in report) == (not fits)
    if doubt:
        assert "768 x 768" in doubt and doubt in report


# --- text -----------------------------------------------------------------------------------------------------------


class Recorder(torch.nn.Module):
    """Stands where FLUX's text encoders are; answers with as many tokens as it is given."""

    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
        super().__init__()
        self.dtypes = {torch.float32}
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def set_clip_options(self, options: Any) -> None: ...

    def reset_clip_options(self) -> None: ...

    def encode_token_weights(self, tokens: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1, len(tokens["t5xxl"][0]), 4096), torch.zeros(1, 768)


def test_t5_is_padded_to_512_without_touching_the_users_clip(pack_nodes: Nodes) -> None:
    from types import SimpleNamespace

    import comfy.sd
    from comfy.text_encoders.flux import FluxTokenizer

    clip = comfy.sd.CLIP(SimpleNamespace(params={}, clip=Recorder, tokenizer=FluxTokenizer), parameters=1)
    out = pack_nodes["ContextGenTextEncode"].execute(clip=clip, prompt="A photo of a cat", template='Show "{prompt}"!')
    assert out.args[0][0][0].shape == (1, 512, 4096)
    assert out.args[1] == 'Show "a cat"!'
    assert len(clip.tokenize("a cat")["t5xxl"][0]) == 256 and clip.tokenizer_options == {}


def test_stock_text_nodes_take_the_small_models_clip(pack_nodes: Nodes) -> None:
    import nodes as stock

    model, clip, _ = pack_nodes["ContextGenTinyModel"].execute().args
    cond = stock.CLIPTextEncode().encode(clip, "the shore at night")[0]
    other = stock.CLIPTextEncode().encode(clip, "a meadow at noon")[0]
    assert cond[0][0].shape == other[0][0].shape and not torch.equal(cond[0][0], other[0][0])
    assert cond[0][1]["pooled_output"].shape == (1, model.model.diffusion_model.params.vec_in_dim)


# --- conditioning ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(pack_nodes: Nodes) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of the small model."""
    return pack_nodes["ContextGenTinyModel"].execute().args


def conditioned(nodes: Nodes, small: tuple[Any, Any, Any], layout: str, **inputs: Any) -> Any:
    text = nodes["ContextGenTextEncode"].execute(clip=small[1], prompt="a meadow").args[0]
    scene = composed(nodes, layout).args[0]
    node = nodes["ContextGenConditioning"]
    return text, node.execute(conditioning=text, vae=small[2], layout=scene, **inputs)


def test_conditioning_carries_plan_and_pictures(pack_nodes: Nodes, small: Any) -> None:
    layout = boxes({"ref": "disc"}, {"ref": "disc", "x": 60}, {"x": 0, "w": 20})
    text, out = conditioned(pack_nodes, small, layout, batch_size=3)
    assert out.args[1]["samples"].shape == (3, 16, 16, 16) and not out.args[1]["samples"].any()
    plan, values = host.plan_of(out.args[0][0][1], CONTEXTGEN), out.args[0][0][1]
    assert plan is not None and [reference.name for reference in plan.references] == ["disc", "disc"]
    assert [tuple(latent.shape) for latent in values["reference_latents"]] == [(1, 16, 16, 16)] + 2 * [(1, 16, 8, 8)]
    assert "model_conds" not in text[0][1], "the incoming conditioning must not change"
    again = conditioned(pack_nodes, small, layout)[1].args[0][0][1]["reference_latents"]
    assert all(torch.equal(a, b) for a, b in zip(again, values["reference_latents"], strict=True))


def test_an_empty_layout_leaves_the_conditioning_alone(pack_nodes: Nodes, small: Any) -> None:
    text, out = conditioned(pack_nodes, small, "")
    assert out.args[0] is text
    assert out.args[1]["samples"].shape == (1, 16, 16, 16)


def test_the_small_vae_speaks_flux_latents(small: Any) -> None:
    """A latent as FLUX sees it has about unit size: the VAE's own scaling and the host's cancel."""
    picture, _ = disc(128)
    latent = small[2].encode(picture)
    seen = small[0].model.latent_format.process_in(latent)
    assert torch.allclose(seen, (latent - 0.1159) * 0.3611, atol=1e-5)
    decoded = small[2].decode(latent)
    assert decoded.shape == (1, 128, 128, 3) and decoded.isfinite().all()


# --- adapters -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_adapters(small: Any) -> tuple[str, str]:
    """Two adapter files of the small model in the loras folder, with the modules of the released one."""
    params = small[0].model.diffusion_model.params
    shapes = adapters.flux_shapes(
        params.hidden_size,
        params.depth,
        params.depth_single_blocks,
        text=params.context_in_dim,
        pooled=params.vec_in_dim,
    )
    wanted = ("x_embedder", "norm1.linear", "to_q", "to_k", "to_v", "to_out.0", "ff.net.2", "norm.linear", "proj_mlp")
    modules = [name for name in shapes if name.endswith((*wanted, "proj_out")) and "ff_context" not in name]
    modules.remove("proj_out")
    folder = Path(folder_paths.get_folder_paths("loras")[0])
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("dpo.safetensors", "sft.safetensors")):
        made = torch.Generator().manual_seed(seed)
        pairs = [
            adapters.LowRank(
                module,
                torch.randn(4, shapes[module][1], generator=made) / 8,
                torch.randn(shapes[module][0], 4, generator=made) / 8,
                4.0,
            )
            for module in modules
        ]
        adapters.write_adapter(folder / name, pairs)
    return "dpo.safetensors", "sft.safetensors"


def change(patched: Any, model: Any, key: str = "diffusion_model.single_blocks.1.linear2.weight") -> torch.Tensor:
    """What the patches add to one weight, as the host computes it."""
    import comfy.lora

    weight = model.model.state_dict()[key]
    return comfy.lora.calculate_weight(patched.patches[key], weight.clone(), key) - weight


def test_the_loader_counts_entries_and_says_what_matched(pack_nodes: Nodes, small: Any, two_adapters: Any) -> None:
    loader = pack_nodes["ContextGenDPOLoRALoader"]
    patched, report = loader.execute(model=small[0], adapter=two_adapters[0]).args
    count = sum(len(entries) for entries in patched.patches.values())
    modules = len(adapters.load_adapter(Path(folder_paths.get_full_path("loras", two_adapters[0]))).pairs)
    assert count == modules
    assert f"matched {modules} modules ({modules} patch entries), unmatched 0" in report and "rank 4, alpha 4" in report
    assert not small[0].patches, "the incoming model must not change"


def test_strength_zero_is_the_very_same_model(pack_nodes: Nodes, small: Any, two_adapters: Any) -> None:
    loader = pack_nodes["ContextGenDPOLoRALoader"]
    assert loader.execute(model=small[0], adapter=two_adapters[0], strength=0.0).args[0] is small[0]
    half, whole = (loader.execute(model=small[0], adapter=two_adapters[0], strength=s).args[0] for s in (0.5, 1.0))
    assert torch.allclose(2 * change(half, small[0]), change(whole, small[0]), atol=1e-6)


def test_flexibility_mixes_the_two_stages(pack_nodes: Nodes, small: Any, two_adapters: Any) -> None:
    loader, (dpo, sft) = pack_nodes["ContextGenDPOLoRALoader"], two_adapters

    def effect(**inputs: Any) -> torch.Tensor:
        return change(loader.execute(model=small[0], **inputs).args[0], small[0])

    only_dpo, only_sft = effect(adapter=dpo), effect(adapter=sft)
    assert torch.equal(effect(adapter=dpo, sft_adapter=sft, flexibility=1.0), only_dpo)
    assert torch.equal(effect(adapter=dpo, sft_adapter=sft, flexibility=0.0), only_sft)
    mixed = effect(adapter=dpo, sft_adapter=sft, flexibility=0.25)
    assert torch.allclose(mixed, 0.25 * only_dpo + 0.75 * only_sft, atol=1e-5)
    assert not torch.allclose(only_dpo, only_sft, atol=1e-3)


def test_a_file_outside_the_list_is_refused(pack_nodes: Nodes, small: Any) -> None:
    with pytest.raises(InputError, match=r"^ContextGenDPOLoRALoader, adapter: there is no file"):
        pack_nodes["ContextGenDPOLoRALoader"].execute(model=small[0], adapter="../../secret.safetensors")


# --- model patch and report -----------------------------------------------------------------------------------------


def test_patch_settings_reach_the_model(pack_nodes: Nodes, small: Any) -> None:
    patch = pack_nodes["ContextGenPatchModel"]
    default = host.settings_of(patch.execute(model=small[0]).args[0], CONTEXTGEN)
    assert (default.rule.value, default.ica_blocks, default.kernel, default.round_ids) == (
        "official",
        None,
        "auto",
        False,
    )
    double, single = host.family_of(small[0]).counts
    ranged = host.settings_of(patch.execute(model=small[0], ica_first=1, ica_last=-1).args[0], CONTEXTGEN)
    assert ranged.ica_blocks == (1, double + single // 2)


@pytest.mark.parametrize("field", ["rule", "kernel"])
def test_an_unknown_choice_is_named(pack_nodes: Nodes, small: Any, field: str) -> None:
    """0.3.64 lets any text through to V3 nodes."""
    with pytest.raises(InputError, match=rf"^ContextGenPatchModel, {field}: it is 'wild'; choose one of "):
        pack_nodes["ContextGenPatchModel"].execute(model=small[0], **{field: "wild"})
    with pytest.raises(InputError, match=r"^LayoutComposer, boxes_policy: it is 'wild'"):
        composed(pack_nodes, "", boxes_policy="wild")


def test_every_node_that_needs_flux_names_itself(pack_nodes: Nodes) -> None:
    other = SimpleNamespace(model=SimpleNamespace(diffusion_model=torch.nn.Linear(1, 1)))
    scene = composed(pack_nodes, boxes({"ref": "disc"})).args[0]
    for name, inputs in (
        ("ContextGenPatchModel", {}),
        ("ContextGenReport", {"layout": scene}),
        ("ContextGenDPOLoRALoader", {"adapter": adapter.SHIPPED + "dpo"}),
    ):
        with pytest.raises(InputError, match=f"^{name}, model: this is Linear, not FLUX.1; ") as raised:
            pack_nodes[name].execute(model=other, **inputs)
        assert (raised.value.node, raised.value.input) == (name, "model")


def test_the_innermost_name_stands() -> None:
    with pytest.raises(InputError, match="^Inner, name: the sentence$"), sockets.naming("Outer", "given"):
        with sockets.naming("Inner", "name"):
            raise InputError("the sentence")
    with pytest.raises(InputError, match="^Inner, SAM model: the sentence$"), sockets.naming("Outer", "given"):
        raise InputError("the sentence", "Inner", "SAM model")


def test_the_report_counts_the_models_own_tokens(pack_nodes: Nodes, small: Any) -> None:
    _, out = conditioned(pack_nodes, small, boxes({"ref": "disc"}))
    scene = composed(pack_nodes, boxes({"ref": "disc"})).args[0]
    report = pack_nodes["ContextGenReport"]
    overlay, text = report.execute(layout=scene, model=small[0], conditioning=out.args[0]).args
    assert overlay.shape == (1, 128, 128, 3)
    assert text.splitlines()[0].split()[:2] == ["text", str(out.args[0][0][0].shape[1])]
    assert "has not gone through ContextGen Patch Model" in text and "prompt template: pack default" in text
    patched = pack_nodes["ContextGenPatchModel"].execute(model=small[0], rule="cla").args[0]
    line = report.execute(layout=scene, model=patched).args[1].splitlines()[3]
    assert line.split() == "1 disc 16 tokens 0 kept".split()
