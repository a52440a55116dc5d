"""A tiny random Stable Diffusion 3 in diffusers' folders, with all its parts."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

LETTERS = [*string.ascii_lowercase, ",", " "]
POOLED = (8, 12)  # of CLIP-L and CLIP-G


def save_tiny_sd3(folder: Path, blocks: int = 3) -> None:
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = SD3Transformer2DModel(
            sample_size=16,
            num_layers=blocks,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            caption_projection_dim=32,
            pooled_projection_dim=sum(POOLED),
            out_channels=16,
            pos_embed_max_size=16,
        )
        sizes: dict[str, Any] = {
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "block_out_channels": (8,) * 4,
            "latent_channels": 16,
            "norm_num_groups": 4,
            "shift_factor": 0.0609,
            "scaling_factor": 1.5305,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        }
        vae = AutoencoderKL(**sizes)
        pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]  # the last is a word's beginning
        t5 = T5Config(vocab_size=64, d_model=24, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=vae,
            **_clip("", POOLED[0]),
            **_clip("_2", POOLED[1]),
            text_encoder_3=T5EncoderModel(t5),
            tokenizer_3=T5Tokenizer(vocab=[*pieces, *((letter, -3.0) for letter in LETTERS if letter != " ")]),
        ).save_pretrained(folder)


def _clip(place: str, width: int) -> dict[str, Any]:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=16,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    return {
        f"text_encoder{place}": CLIPTextModelWithProjection(config),
        f"tokenizer{place}": CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77),
    }
