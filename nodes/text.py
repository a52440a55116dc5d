"""ContextGenTextEncode: the prompt in its frame, T5 padded to 512 tokens."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.contextgen.prompt import DEFAULT_TEMPLATE, describe, wrap
from .sockets import naming, schema

NODE = "ContextGenTextEncode"
TEMPLATE_KEY = "contextgen_template"  # in the conditioning's values, for the report
T5_TOKENS = 512


class ContextGenTextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            display_name="ContextGen Text Encode",
            description=(
                "Encodes the prompt as ContextGen was trained: wrapped in an edit instruction, with T5 padded to 512 "
                "tokens. Describe the whole scene; which subject stands where is the layout's business."
            ),
            search_aliases=["prompt", "clip text encode", "kontext prompt", "t5", "contextgen"],
            inputs=[
                io.Clip.Input(
                    "clip",
                    display_name="clip",
                    tooltip="FLUX's text encoders (CLIP-L and T5-XXL). They are not changed.",
                ),
                io.String.Input(
                    "prompt",
                    display_name="prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What the whole picture shows. Rich prompts with actions and a place work best.",
                ),
                io.String.Input(
                    "template",
                    display_name="template",
                    optional=True,
                    multiline=True,
                    default=DEFAULT_TEMPLATE,
                    tooltip="The instruction around the prompt; {prompt} is where it goes. Empty: the prompt alone.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning_out", display_name="conditioning", tooltip="For ContextGen Conditioning."
                ),
                io.String.Output("final_prompt", display_name="final prompt", tooltip="The text that was encoded."),
            ],
        )

    @classmethod
    def execute(cls, clip: Any, prompt: str, template: str = DEFAULT_TEMPLATE) -> io.NodeOutput:
        if clip is None:
            raise InputError(
                "there is no text encoder; load clip_l and t5xxl with DualCLIPLoader (type flux).", NODE, "clip"
            )
        with naming(NODE, "template"):
            text = wrap(prompt, template)
        # The host pads FLUX's T5 to 256. The option belongs to a clone; tokenizers that do not know it ignore it.
        clip = clip.clone()
        clip.set_tokenizer_option("t5xxl_min_length", T5_TOKENS)
        encoded = clip.encode_from_tokens_scheduled(clip.tokenize(text), add_dict={TEMPLATE_KEY: describe(template)})
        return io.NodeOutput(encoded, text)
