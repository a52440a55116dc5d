"""A tiny random Qwen-Image in the host, what it samples, and its text encoder without the language model."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import comfy.supported_models
import comfy.text_encoders.qwen_image as qwen_text
import torch

TEXT, BLOCKS = 24, 4
CONFIG = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "num_layers": BLOCKS,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT,
    "axes_dims_rope": (4, 6, 6),
}
WIDTH, HEIGHT = 8, 6  # tokens of a picture


def weights(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Fills a model with random weights, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            value = torch.randn(parameter.shape, generator=generator)
            scale = 0.9 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.2
            norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_((1 + 0.2 * value if norm else value * scale).to(parameter.dtype))
    return module


def build(dtype: torch.dtype = torch.float32, manual_cast: torch.dtype | None = None, **config: Any) -> Any:
    """A ComfyUI MODEL with random weights, the same for the same configuration."""
    model_config = comfy.supported_models.QwenImage({**CONFIG, **config})
    model_config.set_inference_dtype(dtype, manual_cast)
    model = model_config.get_model({}, "")
    weights(model.diffusion_model)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def text(length: int = 20, seed: int = 0, **values: Any) -> list[Any]:
    """A conditioning with random embeddings."""
    return [[torch.randn((1, length, TEXT), generator=torch.Generator().manual_seed(seed + 200)), values]]


def noise(seed: int = 0, batch: int = 1, width: int = WIDTH, height: int = HEIGHT) -> torch.Tensor:
    shape = (batch, 16, 1, 2 * height, 2 * width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 300))


class _Language(torch.nn.Module):
    """Stands for the language model: each token number becomes a vector of its own."""

    def __init__(self, width: int, padding: int) -> None:
        super().__init__()
        self.width, self.padding = width, padding

    def encode_token_weights(self, batch: list[list[tuple[int, float]]]) -> tuple[Any, ...]:
        [tokens] = batch
        rows = [torch.randn(self.width, generator=torch.Generator().manual_seed(number)) for number, _ in tokens]
        mask = torch.ones(1, len(rows) + self.padding, dtype=torch.long)
        mask[:, len(rows) :] = 0
        rows += [torch.full((self.width,), 9.0)] * self.padding
        return torch.stack(rows)[None], None, {"attention_mask": mask}


class Encoder:
    """A CLIP of the type qwen_image: the host's own tokenizer, template and cut, around :class:`_Language`."""

    def __init__(self, width: int = TEXT, padding: int = 0) -> None:
        self.tokenizer = qwen_text.QwenImageTokenizer()
        self.model = qwen_text.QwenImageTEModel.__new__(qwen_text.QwenImageTEModel)
        torch.nn.Module.__init__(self.model)
        self.model.clip_name, self.model.clip = "qwen25_7b", "clip_qwen25_7b"
        self.model.clip_qwen25_7b = _Language(width, padding)
        self.encoded = 0

    def clone(self) -> Encoder:
        return self

    def set_tokenizer_option(self, name: str, value: Any) -> None:
        pass

    def tokenize(self, text: str, **options: Any) -> dict[str, Any]:
        return self.tokenizer.tokenize_with_weights(text, **options)

    def encode_from_tokens_scheduled(self, tokens: Any) -> list[Any]:
        self.encoded += 1
        vectors, _, extra = self.model.encode_token_weights(tokens)
        return [[vectors, dict(extra)]]
