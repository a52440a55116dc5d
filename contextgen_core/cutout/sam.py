"""Segment Anything (Kirillov et al. 2023, arXiv 2304.02643) as a tool for cut-outs.

The network comes from the package segment-anything, imported when a checkpoint is opened; preparation,
caching and choice are ours. The architecture is read from the checkpoint's tensors, so official files,
renamed files and tiny test models need no table.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..errors import InputError
from ..input.checkpoint_file import read_checkpoint
from ..layout.box import Box
from ..lora.header import read_tensors
from ..masks import tight_box

MAX_EMBEDDINGS = 4
DECODER_HEADS = 8
OFFICIAL = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


class Point(NamedTuple):
    """A click at (x, y) in pixels of the picture: on the subject (`keep`) or on something that must stay
    out."""

    x: float
    y: float
    keep: bool = True


class Shape(NamedTuple):
    """The sizes a SAM checkpoint was built with. `image_size` in pixels; `window` in tokens; `global_blocks`
    attend everywhere."""

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch: int
    image_size: int
    window: int
    global_blocks: tuple[int, ...]
    prompt_width: int
    mask_channels: int
    decoder_depth: int
    decoder_mlp: int
    masks: int
    quality_depth: int
    quality_width: int

    @property
    def name(self) -> str:
        """vit_b, vit_l, vit_h, or the encoder's width for any other model."""
        return OFFICIAL.get(self.width, f"vit_{self.width}")


class Candidates(NamedTuple):
    """What SAM proposes for one prompt: `masks` bool (3, H, W) and its own estimate of each mask's IoU,
    float32 (3,), about 0..1."""

    masks: NDArray[np.bool_]
    quality: NDArray[np.float32]

    def best(self) -> int:
        """The index of the mask with the highest estimate; the first among equals."""
        return int(np.argmax(self.quality))


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".", 1)[0] for key in state if key.startswith(prefix)})


def read_shape(state: Mapping[str, Tensor]) -> Shape:
    """The architecture of a SAM checkpoint, from its tensors' shapes. Raises InputError where it is not
    one."""
    try:
        patches = state["image_encoder.patch_embed.proj.weight"].shape
        grid = int(state["image_encoder.pos_embed"].shape[1])
        depth = _count(state, "image_encoder.blocks.")
        spans = [int(state[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape[0] + 1) // 2 for i in range(depth)]
        windows = [span for span in spans if span != grid]
        width, head = int(patches[0]), int(state["image_encoder.blocks.0.attn.rel_pos_h"].shape[1])
        return Shape(
            width=width,
            depth=depth,
            heads=width // head,
            mlp_width=int(state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0]),
            patch=int(patches[2]),
            image_size=grid * int(patches[2]),
            window=windows[0] if windows else 0,
            global_blocks=tuple(i for i, span in enumerate(spans) if span == grid),
            prompt_width=int(state["image_encoder.neck.0.weight"].shape[0]),
            mask_channels=int(state["prompt_encoder.mask_downscaling.3.weight"].shape[0]),
            decoder_depth=_count(state, "mask_decoder.transformer.layers."),
            decoder_mlp=int(state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0]),
            masks=int(state["mask_decoder.mask_tokens.weight"].shape[0]) - 1,
            quality_depth=_count(state, "mask_decoder.iou_prediction_head.layers."),
            quality_width=int(state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0]),
        )
    except (KeyError, IndexError, ZeroDivisionError):
        raise InputError(
            "the file is not a Segment Anything (SAM 1) checkpoint; use sam_vit_b, sam_vit_l or sam_vit_h "
            "as published with segment-anything."
        ) from None


def build(shape: Shape) -> nn.Module:
    """An uninitialised SAM network of this shape on the meta device. Raises InputError where the package is
    missing."""
    try:
        from segment_anything.modeling import (
            ImageEncoderViT,
            MaskDecoder,
            PromptEncoder,
            Sam,
            TwoWayTransformer,
        )
    except ImportError as error:
        raise InputError(
            "cutting out with SAM needs the package segment-anything (with torchvision), and importing it failed: "
            f"{error}; install it with `pip install segment-anything`."
        ) from None
    grid = shape.image_size // shape.patch
    norm: Any = partial(nn.LayerNorm, eps=1e-6)
    with torch.device("meta"):
        return Sam(
            ImageEncoderViT(
                depth=shape.depth,
                embed_dim=shape.width,
                img_size=shape.image_size,
                mlp_ratio=shape.mlp_width / shape.width,
                norm_layer=norm,
                num_heads=shape.heads,
                patch_size=shape.patch,
                qkv_bias=True,
                use_rel_pos=True,
                global_attn_indexes=shape.global_blocks,
                window_size=shape.window,
                out_chans=shape.prompt_width,
            ),
            PromptEncoder(
                embed_dim=shape.prompt_width,
                image_embedding_size=(grid, grid),
                input_image_size=(shape.image_size, shape.image_size),
                mask_in_chans=shape.mask_channels,
            ),
            MaskDecoder(
                num_multimask_outputs=shape.masks,
                transformer=TwoWayTransformer(
                    depth=shape.decoder_depth,
                    embedding_dim=shape.prompt_width,
                    mlp_dim=shape.decoder_mlp,
                    num_heads=DECODER_HEADS,
                ),
                transformer_dim=shape.prompt_width,
                iou_head_depth=shape.quality_depth,
                iou_head_hidden_dim=shape.quality_width,
            ),
        )


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, .safetensors or PyTorch's form: a file that holds code is refused."""
    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        return read_tensors(path)[0]
    return read_checkpoint(path, "a SAM checkpoint as published with segment-anything")


class Segmenter(nn.Module):
    """A SAM network that remembers the embeddings of the last few pictures, so that another click costs only
    the small decoder."""

    def __init__(self, sam: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.sam: Any = sam
        self.shape = shape
        self._embeddings: OrderedDict[bytes, Tensor] = OrderedDict()
        self.encoded = 0
        """How often a picture went through the large encoder: tests and logs read it."""

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Segmenter:
        """Build the network and take over the tensors as float32. Raises InputError where they do not fit
        together."""
        shape = read_shape(state)
        try:
            sam = build(shape)
            sam.load_state_dict({key: tensor.float() for key, tensor in state.items()}, strict=True, assign=True)
        except (RuntimeError, ValueError, AssertionError, ZeroDivisionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                "the SAM checkpoint's tensors do not fit together; it is damaged, or of another family (SAM "
                "2, HQ-SAM, MobileSAM)."
            ) from None
        sam.pixel_mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
        sam.pixel_std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
        return cls(sam.requires_grad_(False).eval(), shape)

    @classmethod
    def from_file(cls, path: str | Path) -> Segmenter:
        """Read a checkpoint and build its network on the CPU."""
        return cls.from_state(read_state(path))

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        scale = self.shape.image_size / max(width, height)
        return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))

    @torch.inference_mode()
    def embed(self, pixels: NDArray[np.uint8]) -> Tensor:
        """The embedding of uint8 (H, W, 3), kept on the CPU under the picture's content; recomputed only for
        a new picture."""
        key = hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).digest()
        known = self._embeddings.get(key)
        if known is not None:
            self._embeddings.move_to_end(key)
            return known
        height, width = pixels.shape[:2]
        small = Image.fromarray(pixels).resize(self._fitted(width, height), Image.Resampling.BILINEAR)
        planes = torch.from_numpy(np.array(small)).permute(2, 0, 1)  # (3, h, w)
        batch = self.sam.preprocess(planes.to(self.sam.device, torch.float32))[None]
        embedding = self.sam.image_encoder(batch).cpu()
        self.encoded += 1
        self._embeddings[key] = embedding
        while len(self._embeddings) > MAX_EMBEDDINGS:
            self._embeddings.popitem(last=False)
        return embedding

    def _hint(self, mask: NDArray[np.uint8]) -> Tensor:
        """A known mask as the decoder's low-resolution input (1, 1, s, s): logits of +-8 in the padded square
        frame."""
        height, width = mask.shape
        side = 4 * (self.shape.image_size // self.shape.patch)
        fit_w, fit_h = self._fitted(width, height)
        small_w, small_h = (max(1, round(v * side / self.shape.image_size)) for v in (fit_w, fit_h))
        canvas = np.zeros((side, side), np.float32)
        canvas[:small_h, :small_w] = (
            np.asarray(Image.fromarray(mask).resize((small_w, small_h), Image.Resampling.BILINEAR)) / 255.0
        )
        return torch.from_numpy(canvas * 16 - 8)[None, None]

    @torch.inference_mode()
    def propose(
        self,
        pixels: NDArray[np.uint8],
        *,
        box: Box | None = None,
        points: tuple[Point, ...] = (),
        mask: NDArray[np.uint8] | None = None,
    ) -> Candidates:
        """SAM's masks for one subject.

        pixels: uint8 (H, W, 3). box: xyxy, half-open, in pixels. points: in pixels. mask: uint8 (H, W), 255 =
        subject, a rough one to start from; without a box its tight box is used. Raises InputError where
        nothing says what to cut out.
        """
        if mask is not None and box is None:
            box = tight_box(mask)
        if box is None and not any(point.keep for point in points):
            raise InputError("nothing says what to cut out; click a point on the subject, or draw a box around it.")
        height, width = pixels.shape[:2]
        device = self.sam.device
        fit_w, fit_h = self._fitted(width, height)
        scale = torch.tensor([fit_w / width, fit_h / height])
        embedding = self.embed(pixels).to(device)
        coordinates = torch.tensor([[[p.x, p.y] for p in points]]) * scale if points else None
        labels = torch.tensor([[int(p.keep) for p in points]])
        corners = None if box is None else (torch.tensor([[box.x1, box.y1], [box.x2, box.y2]]) * scale).reshape(1, 4)
        sparse, dense = self.sam.prompt_encoder(
            points=None if coordinates is None else (coordinates.to(device), labels.to(device)),
            boxes=None if corners is None else corners.to(device),
            masks=None if mask is None else self._hint(mask).to(device),
        )
        logits, quality = self.sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        full = self.sam.postprocess_masks(logits, (fit_h, fit_w), (height, width))[0]  # (3, H, W)
        return Candidates((full > self.sam.mask_threshold).cpu().numpy(), quality[0].float().cpu().numpy())
