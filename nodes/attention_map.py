"""ContextGenAttentionMap: where in the picture each reference was read."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageDraw

from ..contextgen_core.errors import InputError
from ..contextgen_core.lettering import lettering
from ..contextgen_core.methods.contextgen.attention_map import AttentionMaps, Recorder, describe, heat, scaled
from ..contextgen_core.methods.contextgen.method import CONTEXTGEN
from ..contextgen_core.methods.contextgen.sequence import Plan
from . import host
from .sockets import check_window, chosen, naming, preview, schema, to_bytes, to_image, window

NODE = "ContextGenAttentionMap"
TOGETHER, EACH = "all references", "each reference"
LAST = 0.99  # closer to the end there is no noise left to look through
CAPTION, LETTERS = 22, 10  # pixels


class ContextGenAttentionMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            category="ContextGen/check",
            search_aliases=["heatmap", "heat map", "cross attention", "explain", "debug", "contextgen"],
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive"),
                io.Latent.Input("latent"),
                io.Image.Input("image"),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False),
                *window(start=0.2, end=0.6, last=LAST, optional=False),
                io.Int.Input("looks", default=2, min=1, max=64),
                io.Combo.Input("scale", options=[TOGETHER, EACH], default=TOGETHER),
            ],
            outputs=[io.Image.Output("maps"), io.Mask.Output("heat"), io.String.Output("report")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: list[Any],
        latent: dict[str, Any],
        image: torch.Tensor,
        seed: int = 0,
        start_percent: float = 0.2,
        end_percent: float = 0.6,
        looks: int = 2,
        scale: str = TOGETHER,
    ) -> io.NodeOutput:
        chosen(NODE, "scale", scale, [TOGETHER, EACH])
        plan = _plan(model, positive)
        check_window(NODE, start_percent, end_percent)
        recorder = Recorder()
        bar = comfy.utils.ProgressBar(looks)
        with naming(NODE, "positive"):
            for percent in np.linspace(start_percent, end_percent, looks).tolist():
                look(model, positive, latent["samples"][:1], seed, percent, recorder)
                bar.update(1)
            maps = recorder.result()
        values = scaled(maps, scale == TOGETHER)
        picture = np.ascontiguousarray(to_bytes(image[0])[..., :3])
        drawn = [_captioned(heat(picture, one), maps, number) for number, one in enumerate(values)]
        height, width = picture.shape[:2]
        masks = torch.nn.functional.interpolate(
            torch.from_numpy(values)[:, None], size=(height, width), mode="bilinear"
        )[:, 0]
        report = describe(maps, [_inside(plan, number) for number in range(len(plan.references))])
        shown = [preview(Image.fromarray(one)) for one in drawn]
        return io.NodeOutput(
            torch.cat([to_image(one) for one in drawn]), masks, report, ui={"images": shown, "text": (report,)}
        )


def look(
    model: Any, positive: list[Any], samples: torch.Tensor, seed: int, percent: float, probe: host.Probe
) -> torch.Tensor:
    """One forward pass at one part of the run, watched by `probe`: the finished latent with the noise it had there.

    Goes through the host's own sampler for a single step, so that memory, conditioning and other patches are as in
    the run. Returns the model's guess of the finished latent.
    """
    comfy.model_management.throw_exception_if_processing_interrupted()
    watched = host.watched(model, probe)
    samples = comfy.sample.fix_empty_latent_channels(watched, samples)
    sigma = float(watched.get_model_object("model_sampling").percent_to_sigma(percent))
    return comfy.sample.sample_custom(
        watched,
        comfy.sample.prepare_noise(samples, seed),
        1.0,
        comfy.samplers.sampler_object("euler"),
        torch.tensor([sigma, 0.0]),
        positive,
        positive,
        samples,
        disable_pbar=True,
        seed=seed,
    )


def _plan(model: Any, positive: list[Any]) -> Plan:
    if host.settings_of(model, CONTEXTGEN) is None:
        raise InputError(
            "it does not follow layouts; take the model that comes out of ContextGen Patch Model.", NODE, "model"
        )
    plans = [plan for plan in (host.plan_of(values, CONTEXTGEN) for _, values in positive) if plan is not None]
    if len(plans) != 1:
        raise InputError(
            f"it holds {len(plans)} layouts; connect what comes out of ContextGen Conditioning.", NODE, "positive"
        )
    return plans[0]


def _inside(plan: Plan, number: int) -> np.ndarray:
    box = plan.references[number].box
    inside = np.zeros((plan.height, plan.width), bool)
    inside[box.y1 : box.y2, box.x1 : box.x2] = True
    return inside


def _captioned(picture: np.ndarray, maps: AttentionMaps, number: int) -> np.ndarray:
    shown = Image.fromarray(picture)
    draw = ImageDraw.Draw(shown)
    text, font = lettering(f"{maps.names[number]}: up to {100 * maps.mass[number].max():.1f} %", LETTERS)
    draw.rectangle((0, 0, shown.width, CAPTION), fill=(20, 20, 20))
    draw.text((5, 5), text, (240, 240, 240), font)
    return np.asarray(shown, dtype=np.uint8).copy()


NODES = (ContextGenAttentionMap,)
