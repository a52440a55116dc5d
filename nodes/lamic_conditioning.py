"""LAMICConditioning: phrases, scene text, references and their regions in one conditioning."""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import torch
from comfy_api.latest import io

from ..contextgen_core import prepare
from ..contextgen_core.composite.compose import Scene
from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.lamic.method import LAMIC, LamicOptions, bound, segment_texts
from ..contextgen_core.methods.lamic.regions import giving_way_to_the_front, ways_from_text
from ..contextgen_core.methods.lamic.text import OFFICIAL, SPANS, segment_counts
from . import host
from .pictures import empty_latent, encode_pictures
from .sockets import LayoutType, chosen, naming, schema, to_bytes, warned

NODE = LAMIC.source
OVERLAPS = SHARED, FRONT, LISTED = "shared", "front", "listed"
BACKGROUNDS = GREY, GIVEN = "grey", "as given"
T5_TOKENS = 512
MAX_GAIN = 4.0


class LAMICConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["layout", "regional", "training-free", "multi reference", "kontext", "lamic", "contextgen"],
            inputs=[
                io.Clip.Input("clip"),
                io.Vae.Input("vae"),
                LayoutType.Input("layout"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True, default=""),
                io.Combo.Input("overlap", options=list(OVERLAPS), default=SHARED, optional=True),
                io.String.Input("gives_way", optional=True, multiline=True, default=""),
                io.Mask.Input("region_masks", optional=True),
                io.Combo.Input("background", options=list(BACKGROUNDS), default=GREY, optional=True),
                io.String.Input("enhance", optional=True, default="1"),
                io.Combo.Input("text_spans", options=list(SPANS), default=OFFICIAL, optional=True),
                io.Int.Input("text_tokens", optional=True, default=T5_TOKENS, min=16, max=4096),
                io.Int.Input("batch_size", optional=True, default=1, min=1, max=64),
            ],
            outputs=[
                io.Conditioning.Output("conditioning_out"),
                io.Latent.Output("latent"),
                io.String.Output("final_text"),
            ],
        )

    @classmethod
    def execute(
        cls,
        clip: Any,
        vae: Any,
        layout: Scene,
        prompt: str,
        overlap: str = SHARED,
        gives_way: str = "",
        region_masks: torch.Tensor | None = None,
        background: str = GREY,
        enhance: str = "1",
        text_spans: str = OFFICIAL,
        text_tokens: int = T5_TOKENS,
        batch_size: int = 1,
    ) -> io.NodeOutput:
        chosen(NODE, "overlap", overlap, OVERLAPS)
        chosen(NODE, "background", background, BACKGROUNDS)
        chosen(NODE, "text_spans", text_spans, SPANS)
        latent = {"samples": empty_latent(layout, batch_size)}
        texts = segment_texts(layout, prompt)
        clip = _padded(clip, text_tokens)
        counts = segment_counts(texts, lambda text: _count(clip, text), text_spans)
        conditioning = _encoded(clip, texts, counts, text_tokens)
        if not layout.layout.instances:
            return io.NodeOutput(conditioning, latent, texts[-1])
        with naming(NODE, "gives_way" if overlap == LISTED else "layout"):
            ways = _ways(layout, overlap, gives_way)
        options = LamicOptions(
            counts, ways, _masks(layout, region_masks), _gains(len(texts) - 1, enhance), background == GREY
        )
        with naming(NODE, "gives_way" if overlap == LISTED else "layout"):
            prepared = prepare(layout, LAMIC.name, options)
        told = warned(NODE, prepared.warnings)
        latents = encode_pictures(NODE, vae, prepared.pictures)
        latents = [_enhanced(one, gain) for one, gain in zip(latents, prepared.gains, strict=True)]
        bound = host.attach(conditioning, LAMIC, prepared.plan, latents)
        return io.NodeOutput(bound, latent, "".join(texts), ui=told)


# --- text -----------------------------------------------------------------------------------------------------------


def _padded(clip: Any, tokens: int) -> Any:
    """A clone of the text encoders that pads T5 to so many tokens; tokenizers that do not know the option ignore it."""
    if clip is None:
        raise InputError(
            "there is no text encoder; load clip_l and t5xxl with DualCLIPLoader (type flux).", NODE, "clip"
        )
    clip = clip.clone()
    clip.set_tokenizer_option("t5xxl_min_length", tokens)
    return clip


def _count(clip: Any, text: str) -> int:
    """Tokens that T5 takes for a text alone, its end token included."""
    tokens = clip.tokenize(text, tokenizer_options={"t5xxl_min_length": 0})
    if "t5xxl" not in tokens:
        raise InputError(
            f"this text encoder gives {', '.join(tokens)} and no t5xxl; load clip_l and t5xxl with DualCLIPLoader (type"
            " flux).",
            NODE,
            "clip",
        )
    return sum(len(batch) for batch in tokens["t5xxl"])


def _encoded(clip: Any, texts: tuple[str, ...], counts: tuple[int, ...], limit: int) -> list[Any]:
    """The joined text's conditioning. Raises InputError where it does not hold all tokens that were counted."""
    needed = max(sum(counts), _count(clip, "".join(texts)))
    if needed <= limit:
        conditioning = clip.encode_from_tokens_scheduled(clip.tokenize("".join(texts)))
        limit = min(embedding.shape[1] for embedding, _ in conditioning)
        if needed <= limit:
            return conditioning
    raise InputError(
        f"the phrases of the boxes and the prompt take {needed} tokens together, there is room for {limit}; shorten the"
        " prompt, the labels of the boxes and the names of their references, or take fewer references.",
        NODE,
        "prompt",
    )


# --- regions and references -----------------------------------------------------------------------------------------


def _ways(scene: Scene, overlap: str, listed: str) -> dict[int, Any]:
    pairs = bound(scene)
    if overlap == FRONT:
        return {**giving_way_to_the_front(len(pairs))}
    if overlap == SHARED:
        return {}
    numbers = [str(n) for n, reference in enumerate(scene.references, 1) if reference is not None]
    return {**ways_from_text(listed, numbers, [reference.name for _, reference in pairs])}


def _masks(scene: Scene, masks: torch.Tensor | None) -> dict[int, Any]:
    """The masks that are not empty, by the number of the reference among those that stand in the scene."""
    if masks is None:
        return {}
    pictures = to_bytes(masks if masks.ndim == 3 else masks[None])
    boxes = len(scene.references)
    if len(pictures) != boxes:
        raise InputError(
            f"there are {len(pictures)} masks for {boxes} boxes; give one mask for each box, empty where the box's"
            " rectangle is to stay.",
            NODE,
            "region_masks",
        )
    held = [picture for picture, reference in zip(pictures, scene.references, strict=True) if reference is not None]
    return {number: picture for number, picture in enumerate(held) if picture.any()}


def _gains(count: int, text: str) -> dict[int, float]:
    """One factor for each reference, from one number or as many as there are."""
    words = [word.strip() for word in text.split(",")]
    try:
        gains = [float(word) for word in words]
    except ValueError:
        gains = [0.0]
    if not all(0 < gain <= MAX_GAIN for gain in gains):
        raise InputError(
            f"it is {text[:40]!r}; give numbers above 0 and up to {MAX_GAIN:g}, separated by commas.", NODE, "enhance"
        )
    if len(gains) == 1:
        gains *= count
    if len(gains) != count:
        raise InputError(
            f"there are {len(gains)} numbers for {count} boxes with a reference; give one for each, or one for all.",
            NODE,
            "enhance",
        )
    return dict(enumerate(gains))


def _enhanced(latent: torch.Tensor, gain: float) -> torch.Tensor:
    """The factor acts on the latent as the model reads it, after the host's scale and shift."""
    if gain == 1.0:
        return latent
    form = comfy.latent_formats.Flux()
    return form.process_out(gain * form.process_in(latent))
