"""The small autoencoder: TAESD for 16-channel latents, in plain torch, with the host's key names.

TAESD (github.com/madebyollin/taesd, MIT) turns pictures in [0, 1] into latents eight times smaller. The form here
takes any stage widths and any number of residual blocks up to TAESD's own, so that a narrow one can be trained
quickly; `full_state` pads it with zeros to the exact 64-wide TAESD that hosts load, computing the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

LATENT_CHANNELS = 16
VAE_SCALE, VAE_SHIFT = 0.3611, 0.1159  # FLUX's latent format: the host's own scaling then cancels
_WIDTH = 64
_ENCODER_BLOCKS, _DECODER_BLOCKS = (1, 3, 3, 3), (3, 3, 3, 1)


class TaesdShape(NamedTuple):
    """Channels and residual blocks of the four stages, encoder from fine to coarse, decoder from coarse to fine."""

    encoder: tuple[int, int, int, int] = (_WIDTH, _WIDTH, _WIDTH, _WIDTH)
    encoder_blocks: tuple[int, int, int, int] = _ENCODER_BLOCKS
    decoder: tuple[int, int, int, int] = (_WIDTH, _WIDTH, _WIDTH, _WIDTH)
    decoder_blocks: tuple[int, int, int, int] = _DECODER_BLOCKS


FULL = TaesdShape()
NARROW = TaesdShape((16, 32, 64, 64), (0, 1, 3, 3), (64, 64, 32, 16), (3, 3, 2, 1))


class Block(nn.Module):
    """Three convolutions beside a skip, then ReLU. (B, C, H, W) -> (B, C, H, W)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


def _stage(width: int, blocks: int, places: int) -> list[nn.Module]:
    """`places` modules, so that the numbering is TAESD's own: blocks first, ReLU where TAESD would have further
    blocks."""
    return [Block(width) if k < blocks else nn.ReLU() for k in range(places)]


class Taesd(nn.Module):
    """Encoder and decoder. Pictures (B, 3, H, W) in [0, 1]; latents (B, 16, H/8, W/8) of about unit variance."""

    def __init__(self, shape: TaesdShape = FULL) -> None:
        super().__init__()
        self.shape = shape
        e, d = shape.encoder, shape.decoder
        eb, db = shape.encoder_blocks, shape.decoder_blocks
        self.taesd_encoder = nn.Sequential(
            _conv(3, e[0]),
            *_stage(e[0], eb[0], 1),
            _conv(e[0], e[1], 2, False),
            *_stage(e[1], eb[1], 3),
            _conv(e[1], e[2], 2, False),
            *_stage(e[2], eb[2], 3),
            _conv(e[2], e[3], 2, False),
            *_stage(e[3], eb[3], 3),
            _conv(e[3], LATENT_CHANNELS),
        )
        self.taesd_decoder = nn.Sequential(
            Clamp(),
            _conv(LATENT_CHANNELS, d[0]),
            nn.ReLU(),
            *_stage(d[0], db[0], 3),
            nn.Upsample(scale_factor=2),
            _conv(d[0], d[1], 1, False),
            *_stage(d[1], db[1], 3),
            nn.Upsample(scale_factor=2),
            _conv(d[1], d[2], 1, False),
            *_stage(d[2], db[2], 3),
            nn.Upsample(scale_factor=2),
            _conv(d[2], d[3], 1, False),
            *_stage(d[3], db[3], 1),
            _conv(d[3], 3),
        )

    def encode(self, pictures: Tensor) -> Tensor:
        return self.taesd_encoder(pictures)

    def decode(self, latents: Tensor) -> Tensor:
        return self.taesd_decoder(latents)


def full_state(narrow: Mapping[str, Tensor], mean: Tensor, deviation: Tensor) -> dict[str, Tensor]:
    """The 64-wide TAESD that computes the same as a narrow one, as the host's state dict (vae_scale and vae_shift
    included).

    narrow: state dict of a `Taesd` of any shape; mean, deviation (16,) of its raw latents, folded into the
    encoder's last convolution so that the latents leave it normalised."""
    out: dict[str, Tensor] = {}
    for name, zero in Taesd(FULL).state_dict().items():
        padded = torch.zeros_like(zero)
        small = narrow.get(name)
        if small is not None:
            padded[tuple(slice(0, n) for n in small.shape)] = small.to(padded.dtype)
        out[name] = padded
    last = f"taesd_encoder.{len(Taesd(FULL).taesd_encoder) - 1}"
    out[f"{last}.weight"] /= deviation.view(-1, 1, 1, 1)
    out[f"{last}.bias"] = (out[f"{last}.bias"] - mean) / deviation
    out["vae_scale"], out["vae_shift"] = torch.tensor(VAE_SCALE), torch.tensor(VAE_SHIFT)
    return out


def grown(net: Taesd, shape: TaesdShape) -> Taesd:
    """A Taesd of a deeper shape (same widths) that computes the same: a new block's last convolution is zero, so that
    it hands on what it gets."""
    out = Taesd(shape)
    own = net.state_dict()
    with torch.no_grad():
        for module in out.modules():
            if isinstance(module, Block):
                for k in (0, 2):
                    nn.init.kaiming_normal_(module.conv[k].weight, nonlinearity="relu")  # type: ignore[arg-type]
                module.conv[4].weight.zero_()  # type: ignore[union-attr, operator]
                module.conv[4].bias.zero_()  # type: ignore[union-attr, operator]
        for name, value in out.state_dict().items():
            if name in own:
                value.copy_(own[name])
    return out


def compact(state: Mapping[str, Tensor]) -> Taesd:
    """The narrowest `Taesd` that computes what a padded state dict does: channels and blocks that are all zero are
    left out.

    state: TAESD keys without vae_scale and vae_shift. Several times faster than the padded form."""
    encoder_stages, decoder_stages = (0, 2, 6, 10), (1, 7, 12, 17)  # the convolution that opens each stage
    shape = TaesdShape(
        _widths(state, "taesd_encoder", encoder_stages),
        _blocks(state, "taesd_encoder", (1, 3, 7, 11), _ENCODER_BLOCKS),
        _widths(state, "taesd_decoder", decoder_stages),
        _blocks(state, "taesd_decoder", (3, 8, 13, 18), _DECODER_BLOCKS),
    )
    net = Taesd(shape)
    net.load_state_dict({k: state[k][tuple(slice(0, n) for n in v.shape)] for k, v in net.state_dict().items()})
    return net.eval().requires_grad_(False)


def _widths(state: Mapping[str, Tensor], part: str, opening: tuple[int, ...]) -> tuple[int, int, int, int]:
    used = [int(state[f"{part}.{k}.weight"].flatten(1).any(1).nonzero().max()) + 1 for k in opening]
    return used[0], used[1], used[2], used[3]


def _blocks(
    state: Mapping[str, Tensor], part: str, first: tuple[int, ...], most: tuple[int, ...]
) -> tuple[int, int, int, int]:
    counts = [
        sum(bool(state[f"{part}.{k + b}.conv.4.weight"].any()) for b in range(n))
        for k, n in zip(first, most, strict=True)
    ]
    return counts[0], counts[1], counts[2], counts[3]
