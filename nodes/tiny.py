"""ContextGenTinyModel: a small FLUX.1 with its VAE and its words, so that every workflow runs without a download."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import comfy.sd
import torch
from comfy_api.latest import io

from ..contextgen_core.tiny.model import encode_words, tiny_autoencoder_state, tiny_transformer_state
from .host import build_flux, expect_sides
from .sockets import schema

NODE = "ContextGenTinyModel"
SIDES = (128, 192)  # pixels along both sides of the pictures that it knows

# A text with its weight in a batch of one: the form in which the host passes tokens around.
Tokens = dict[str, list[list[tuple[str, float]]]]


class WordTokenizer:
    """Keeps the text whole: the small model's words are looked up in :class:`WordEncoder`."""

    def __init__(self, embedding_directory: str | None = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        del embedding_directory, tokenizer_data  # what the host gives every tokenizer

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> Tokens:
        return {"l": [[(text, 1.0)]], "t5xxl": [[(text, 1.0)]]}

    def state_dict(self) -> dict[str, Any]:
        return {}


class WordEncoder(torch.nn.Module):
    """The words of the small model, in the place of FLUX's text encoders. It has no weights to speak of."""

    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        del model_options
        self.dtypes = {dtype or torch.float32}
        self.nothing = torch.nn.Parameter(torch.zeros(1, device=device, dtype=dtype), requires_grad=False)

    def set_clip_options(self, options: Mapping[str, Any]) -> None:
        pass

    def reset_clip_options(self) -> None:
        pass

    def encode_token_weights(self, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        """The text's words: (1, words, width) and pooled (1, width)."""
        words = encode_words(tokens["l"][0][0][0])
        return words.tokens[None], words.pooled[None]

    def load_sd(self, state: Mapping[str, torch.Tensor]) -> tuple[list[str], list[str]]:
        return [], []


class ContextGenTinyModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=NODE,
            search_aliases=["tiny", "test model", "demo", "toy", "contextgen"],
            inputs=[],
            outputs=[io.Model.Output("model_out"), io.Clip.Output("clip"), io.Vae.Output("vae")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        made = tiny_transformer_state()
        model = expect_sides(build_flux(dict(made.config), made.state), NODE, SIDES)
        target = SimpleNamespace(params={}, clip=WordEncoder, tokenizer=WordTokenizer)
        return io.NodeOutput(model, comfy.sd.CLIP(target, parameters=1), comfy.sd.VAE(sd=tiny_autoencoder_state()))
