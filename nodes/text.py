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
            search_aliases=["prompt", "clip text encode", "kontext prompt", "t5", "contextgen"],
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True, default=""),
                io.String.Input("template", optional=True, multiline=True, default=DEFAULT_TEMPLATE),
            ],
            outputs=[io.Conditioning.Output("conditioning_out"), io.String.Output("final_prompt")],
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
