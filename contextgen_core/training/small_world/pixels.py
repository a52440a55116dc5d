"""Training data as pictures on disk, in the authors' format: composed, encoded and packed anew for every step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...backbones.flux import pack
from ...composite.compose import Scene, compose
from ...composite.references import Reference
from ...errors import InputError
from ...layout.box import Box
from ...layout.layout import Instance, Layout
from ...layout.tokens import TOKEN
from ...methods.contextgen.prompt import wrap
from ...methods.contextgen.references import PreparedReference, prepare
from ...methods.contextgen.sequence import plan_from_scene
from .. import imig
from ..batch import Batch
from ..config import Config
from ..latents import encode
from ..stream import Source, opened


class Encoders(Protocol):
    """Pictures to packed latents, prompts to vectors."""

    def pictures(self, pictures: np.ndarray) -> Tensor: ...
    def words(self, prompt: str) -> tuple[Tensor, Tensor]: ...


class TinyEncoders:
    """The small world's own."""

    def __init__(self, config: Config) -> None:
        from ..parts import autoencoder

        self.vae = autoencoder(config)

    def pictures(self, pictures: np.ndarray) -> Tensor:
        """uint8 (N, H, W, 3) -> (N, tokens, 64)."""
        return encode(self.vae, pictures)

    def words(self, prompt: str) -> tuple[Tensor, Tensor]:
        """(T, E) token vectors and the pooled one (P,)."""
        from ...tiny.text import encode_words

        return encode_words(prompt)


class PretrainedEncoders:
    """FLUX's: its VAE (the mean, so that a step is repeatable), T5 padded to 512 and CLIP-L's pooled vector."""

    def __init__(self, config: Config) -> None:
        from diffusers import AutoencoderKL
        from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, T5EncoderModel

        source = config.model.weights
        dtype = torch.float32 if config.precision == "fp32" else torch.bfloat16
        try:
            self.vae: Any = AutoencoderKL.from_pretrained(source, subfolder="vae", torch_dtype=dtype)
            self.clip: Any = CLIPTextModel.from_pretrained(source, subfolder="text_encoder", torch_dtype=dtype)
            self.t5: Any = T5EncoderModel.from_pretrained(source, subfolder="text_encoder_2", torch_dtype=dtype)
            self.clip_words: Any = CLIPTokenizer.from_pretrained(source, subfolder="tokenizer")
            self.t5_words: Any = AutoTokenizer.from_pretrained(source, subfolder="tokenizer_2")
        except OSError as error:
            raise InputError(
                f"{source!r} lacks a part of FLUX.1-Kontext-dev; download it whole and set model.weights to it."
            ) from error
        if torch.cuda.is_available():
            for part in (self.vae, self.clip, self.t5):
                part.to("cuda")

    def pictures(self, pictures: np.ndarray) -> Tensor:
        return _encoded(self.vae, pictures)

    @torch.no_grad()
    def words(self, prompt: str) -> tuple[Tensor, Tensor]:
        clip = self.clip_words(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        t5 = self.t5_words(prompt, padding="max_length", max_length=512, truncation=True, return_tensors="pt")
        pooled = self.clip(clip.input_ids.to(self.clip.device)).pooler_output[0]
        return self.t5(t5.input_ids.to(self.t5.device)).last_hidden_state[0].cpu(), pooled.cpu()


class SD3Encoders:
    """Stable Diffusion 3's: its VAE (the mean), and CLIP-L, CLIP-G and T5 (256 tokens) as its pipeline joins them."""

    def __init__(self, config: Config) -> None:
        from diffusers import StableDiffusion3Pipeline

        dtype = torch.float32 if config.precision == "fp32" else torch.bfloat16
        try:
            self.pipeline: Any = StableDiffusion3Pipeline.from_pretrained(
                config.model.weights, transformer=None, torch_dtype=dtype
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"{config.model.weights!r} lacks a part of stable-diffusion-3-medium-diffusers; download it whole and"
                " set model.weights to it."
            ) from error
        self.vae = self.pipeline.vae
        if torch.cuda.is_available():
            self.pipeline.to("cuda")

    def pictures(self, pictures: np.ndarray) -> Tensor:
        return _encoded(self.vae, pictures)

    @torch.no_grad()
    def words(self, prompt: str) -> tuple[Tensor, Tensor]:
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            prompt, None, None, do_classifier_free_guidance=False, max_sequence_length=256
        )
        return tokens[0].cpu(), pooled[0].cpu()


@torch.no_grad()
def _encoded(vae: Any, pictures: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) -> (N, tokens, 64) by a diffusers VAE, as its transformer reads them."""
    values = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
    latents = vae.encode(values).latent_dist.mode()
    return pack((latents - vae.config.shift_factor) * vae.config.scaling_factor).cpu()


def encoders_of(config: Config) -> Encoders:
    """Those of the run's model."""
    if config.model.kind == "tiny":
        return TinyEncoders(config)
    from diffusers import DiffusionPipeline

    try:
        whole: Any = DiffusionPipeline.load_config(config.model.weights)
    except OSError as error:
        raise InputError(
            f"No model was found at {config.model.weights!r}; download it and set model.weights to its folder."
        ) from error
    return SD3Encoders(config) if whole["_class_name"].startswith("StableDiffusion3") else PretrainedEncoders(config)


class PixelSet:
    """The subsets named in `data.folders`, folders or shards, drawn by their shares."""

    def __init__(self, config: Config) -> None:
        if not config.data.folders:
            raise InputError(
                "data.folders is empty in the training config; name at least one subset, such as {imig-basic: 1}."
            )
        if config.data.size % TOKEN:
            raise InputError(f"data.size is {config.data.size}; give a multiple of {TOKEN}.")
        self.root = Path(config.data.path)
        folders = {self.root / name: share for name, share in config.data.folders.items()}
        self.stream = opened(folders, "imig", config.seed, config.batch, config.data.window, alike=False)
        self.subsets = [] if self.stream else [imig.read_subset(folder) for folder in folders]
        shares = np.array(list(folders.values()), float)
        self.shares = shares / shares.sum()
        self.encoders = encoders_of(config)

    def __len__(self) -> int:
        return len(self.stream) if self.stream else sum(len(s) for s in self.subsets)

    def draw(self, rng: np.random.Generator, config: Config, done: float = 0.0, number: int = 0) -> Batch:
        """A batch of items, each with its own references: random ones, or those that the stream gives to batch `number`
        of the run."""
        references = config.stage != "base"
        made = [self._sample(item, rng, config, references) for item in self._items(rng, config.batch, number)]
        weights = None
        return Batch(
            plans=tuple(m[0] for m in made),
            target=torch.stack([m[1] for m in made]),
            conditions=[m[2] for m in made],
            text=torch.stack([m[3] for m in made]),
            pooled=torch.stack([m[4] for m in made]),
            weight=weights,
            lose=torch.stack([m[5] for m in made]) if config.stage == "dpo" else None,
        )

    def _items(self, rng: np.random.Generator, count: int, number: int) -> Iterator[imig.Item]:
        if self.stream:
            yield from map(imig.packed_item, self.stream.batch(number))
            return
        for _ in range(count):
            subset = self.subsets[int(rng.choice(len(self.subsets), p=self.shares))]
            yield subset[int(rng.integers(len(subset)))]

    def _sample(
        self, item: imig.Item, rng: np.random.Generator, config: Config, with_references: bool
    ) -> tuple[Any, ...]:
        scene, target = arrange(item, config, rng)
        if not with_references:
            scene = Scene(
                scene.layout,
                (None,) * len(scene.references),
                scene.composite,
                scene.painted,
                scene.visible,
                scene.warnings,
                scene.fit,
            )
        size = config.data.size
        prepared: list[PreparedReference | None] = [
            None if r is None else prepare(r, size, size) for r in scene.references
        ]
        layout = self.encoders.pictures(scene.composite[None])[0]
        own = [self.encoders.pictures(p.pixels[None])[0] for p in prepared if p is not None]
        prompt = "" if rng.random() < config.data.caption_drop else item.prompt
        text, pooled = self.encoders.words(wrap(prompt))
        clean = self.encoders.pictures(target[None])[0]
        lose = layout
        if config.stage == "dpo" and config.dpo.lose == "pasted":
            unwanted = pasted(scene, target) if item.unwanted is None else squared(item.unwanted, size)[1]
            lose = self.encoders.pictures(unwanted[None])[0]
        return plan_from_scene(scene, prepared), clean, torch.cat([layout, *own]), text, pooled, lose


def arrange(item: imig.Item, config: Config, rng: np.random.Generator) -> tuple[Scene, np.ndarray]:
    """The composed scene and the target picture, uint8 (size, size, 3). Boxes follow the picture when it becomes
    square."""
    size = config.data.size
    (width, height), target = squared(item.target, size)
    instances, references = [], []
    for k, subject in enumerate(item.subjects):
        repaint = subject.repaint is not None and rng.random() < config.data.repaint
        path, mask_path = subject.reference, subject.mask
        if repaint and subject.repaint is not None:
            path, mask_path = subject.repaint, subject.repaint_mask
        pixels = imig.read_picture(path)
        mask = imig.read_mask(mask_path, pixels.shape[:2])
        references.append(Reference(str(k + 1), pixels, mask, tokens=(config.data.reference // TOKEN) ** 2))
        box = subject.box.scaled(size / width, size / height)
        box = Box(*(round(v) for v in (box.x1, box.y1, box.x2, box.y2)))
        instances.append(Instance(f"b{k + 1}", box, k + 1, subject.phrase[:200]))
    fit = "instance" if config.model.kind == "tiny" else "image"
    return compose(Layout(size, size, tuple(instances)), references, fit), target


def squared(source: Source, size: int) -> tuple[tuple[int, int], np.ndarray]:
    """A picture's width and height, and its pixels as a square, uint8 (size, size, 3)."""
    image = Image.fromarray(imig.read_picture(source))
    return image.size, np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def pasted(scene: Scene, target: np.ndarray) -> np.ndarray:
    """The composite's subjects over the target picture: what a model that copies would make, with a plausible
    background."""
    painted = (scene.composite != 128).any(-1, keepdims=True)
    return np.where(painted, scene.composite, target)
