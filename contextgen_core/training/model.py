"""ContextGen's network under training: the method on diffusers' FLUX, and the batched attention that suits small
pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..backbones import rotate
from ..errors import InputError
from ..hosts.diffusers import STATE, FluxHost, PassState, Streams
from ..layout.tokens import TokenBox
from ..methods.boundary import Bound, RunPosition
from ..methods.contextgen.method import CONTEXTGEN
from ..methods.contextgen.schedule import Rule, make_schedule
from ..methods.contextgen.sequence import Plan, position_ids
from ..methods.contextgen.settings import Settings
from .batch import Batch
from .latents import PICTURES

# ---- batched attention ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _BatchedCall:
    """The state of one forward pass, in place of the host's own: every sample of the batch in the same few products.

    The tokens are text, noise, layout, then N references of equal length, none pruned. Only for batches whose
    plans have the same shape; the groups are those of `contextgen_core.visibility`, told apart by `reads` and
    `valid`."""

    leave: int
    base: int  # image tokens that stay
    text: int
    references: int
    ica: tuple[int, int]
    reads: Tensor  # (B, text + base, text + base + N * R): 0 where a base token may read in ICA blocks, else -inf
    valid: Tensor  # (B * N, 1, R): 0 where a reference token may be read, else -inf
    rotary: tuple[Tensor, Tensor]

    def rotate(self, x: Tensor) -> Tensor:
        return rotate(x, self.rotary)

    def block(self, block: int, module: Any, original: Callable[..., Streams], arguments: Mapping[str, Any]) -> Streams:
        text, image = original(**arguments)
        return text, image[:, : self.base] if block == self.leave - 1 else image

    def attention(self, block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, S, D) three times -> (B, S, H * D)."""
        batch, heads, length, width = q.shape
        q, k, v = (x.reshape(batch * heads, length, width) for x in (q, k, v))
        base = self.text + self.base
        if length == base:
            out = softmax_product(q, k, None, v)
        else:
            ica = self.ica[0] <= block < self.ica[1]
            bias = self.reads.repeat_interleave(heads, 0) if ica else None
            rows = slice(None) if ica else slice(0, base)
            own = softmax_product(q[:, :base], k[:, rows], bias, v[:, rows])
            out = torch.cat([own, self._references(q, k, v, heads)], dim=1)
        return out.reshape(batch, heads, length, width).transpose(1, 2).flatten(2)

    def _references(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Every reference over the text and its own readable tokens. (B H, S, D) -> (B H, N R, D)"""
        base, n = self.text + self.base, self.references

        def own(x: Tensor) -> Tensor:
            return x[:, base:].unflatten(1, (n, -1)).flatten(0, 1)  # (B H N, R, D)

        def words(x: Tensor) -> Tensor:
            return x[:, : self.text].repeat_interleave(n, 0)  # (B H N, T, D)

        bias = (
            functional.pad(self.valid, (self.text, 0)).unflatten(0, (-1, n)).repeat_interleave(heads, 0).flatten(0, 1)
        )
        out = softmax_product(own(q), torch.cat([words(k), own(k)], 1), bias, torch.cat([words(v), own(v)], 1))
        return out.unflatten(0, (-1, n)).flatten(1, 2)


def run_state(
    transformer: Any,
    state: PassState,
    batch: Batch,
    hidden: Tensor,
    text: Tensor,
    times: Tensor,
    guidance: Tensor | None,
) -> Tensor:
    """The transformer on image tokens (B, n, 64) and text (B, T, E), with attention and positions by a state in place
    of the host's own."""
    return transformer(
        hidden_states=hidden,
        encoder_hidden_states=text,
        pooled_projections=batch.pooled,
        timestep=times,
        guidance=guidance,
        img_ids=torch.zeros(hidden.shape[1], 3, device=hidden.device),  # the state has its own table
        txt_ids=torch.zeros(text.shape[1], 3, device=hidden.device),
        joint_attention_kwargs={STATE: state},
        return_dict=False,
    )[0]


def softmax_product(q: Tensor, k: Tensor, bias: Tensor | None, v: Tensor) -> Tensor:
    """Plain attention as two batched products: on small pictures and CPUs faster than the fused kernels. (B, S, D)"""
    scores = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2))
    if bias is not None:
        scores = scores + bias
    return torch.bmm(scores.softmax(-1), v)


class FlowNetwork(nn.Module):
    """The transformer with ContextGen's attention; `forward` gives the velocity of the noise tokens.

    kernel: "grouped" (any plans, exact and pruned: the product's own path) or "batched" (plans of one shape).
    boxes False lets every noise token read every reference, cumulative False starts every reference's position ids
    at the layout's corner: both for the ablations alone, and on the batched kernel alone."""

    def __init__(
        self,
        transformer: Any,
        settings: Settings,
        kernel: str = "grouped",
        guidance: float | None = None,
        boxes: bool = True,
        cumulative: bool = True,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.settings = settings
        self.method = CONTEXTGEN
        self.kernel = kernel
        self.guidance = guidance
        if kernel != "batched" and not (boxes and cumulative):
            raise InputError(
                "method.masks and method.offsets can be changed on the batched kernel alone; set method.kernel"
                " to batched."
            )
        self.boxes, self.cumulative = boxes, cumulative
        self._host = [FluxHost(transformer)]  # in a list: not a submodule
        self.reader = PICTURES

    def forward(self, batch: Batch, noisy: Tensor, times: Tensor, position: RunPosition | None = None) -> Tensor:
        """noisy (B, M, 64), times (B,) in 0..1 -> velocity (B, M, 64)."""
        guidance = None if self.guidance is None else torch.full_like(times, self.guidance)
        if self.kernel == "batched":
            return self._batched(batch, noisy, times, guidance)
        return self._host[0].velocity(
            [(Bound(self.method, plan, self.settings),) for plan in batch.plans],
            noisy,
            batch.conditions,
            text=batch.text,
            pooled=batch.pooled,
            timestep=times,
            guidance=guidance,
            position=position,
        )

    def _batched(self, batch: Batch, noisy: Tensor, times: Tensor, guidance: Tensor | None) -> Tensor:
        if not isinstance(batch.conditions, Tensor):
            raise InputError(
                "The batched kernel needs pictures and references of one size; set method.kernel to grouped."
            )
        hidden = torch.cat([noisy, batch.conditions], dim=1)
        call = self._call(batch.plans, batch.text.shape[1], noisy.device, layout=batch.conditions.shape[1] > 0)
        if call.leave == 0:
            hidden = hidden[:, : call.base]
        return run_state(self.transformer, call, batch, hidden, batch.text, times, guidance)[:, : noisy.shape[1]]

    def _call(self, plans: Sequence[Plan], text: int, device: torch.device, layout: bool) -> _BatchedCall:
        first = plans[0]
        n, base = len(first.references), (1 + layout) * first.noise_tokens  # the base may be asked by words alone
        length = first.references[0].tokens if n else 0
        if any(len(p.references) != n or any(r.tokens != length for r in p.references) for p in plans):
            raise InputError(
                "The batched kernel needs the same number of references in each picture; set method.kernel to grouped."
            )
        model = self.transformer
        double, single = len(model.transformer_blocks), len(model.single_transformer_blocks)
        schedule = make_schedule(
            double, single, rule=self.settings.rule, ica_blocks=self.settings.ica_blocks, references=n > 0
        )
        ica = [i for i in range(double + single) if schedule[i].rule is not Rule.CLA]
        reads = np.full((len(plans), text + base, text + base + n * length), -math.inf, np.float32)
        reads[:, :, : text + base] = 0
        valid = np.zeros((len(plans) * n, 1, length), np.float32)
        for b, plan in enumerate(plans):
            for k, reference in enumerate(plan.references):
                hidden = np.where(np.frombuffer(reference.valid, np.uint8) > 0, np.float32(0), np.float32(-math.inf))
                valid[b * n + k, 0] = hidden
                box = reference.box if self.boxes else TokenBox(0, 0, plan.width, plan.height)
                start = text + base + k * length
                noise = reads[b, text : text + plan.noise_tokens].reshape(plan.height, plan.width, -1)
                noise[box.y1 : box.y2, box.x1 : box.x2, start : start + length] = hidden
            if self.settings.rule is Rule.ICA_PAPER:
                reads[b, text : text + plan.noise_tokens, text : text + base] = self._paper(plan)
        return _BatchedCall(
            leave=schedule.leave,
            base=base,
            text=text,
            references=n,
            ica=(ica[0], ica[-1] + 1) if ica else (0, 0),
            reads=torch.from_numpy(reads).to(device),
            valid=torch.from_numpy(valid).to(device),
            rotary=self._table(first, text, device),
        )

    def _paper(self, plan: Plan) -> np.ndarray:
        """The printed formula's bias of noise rows over noise and layout: a row in boxes reads the noise of those
        boxes alone. (M, 2 M)"""
        cover = np.zeros((len(plan.references), plan.height, plan.width), bool)
        for k, reference in enumerate(plan.references):
            box = reference.box if self.boxes else TokenBox(0, 0, plan.width, plan.height)
            cover[k, box.y1 : box.y2, box.x1 : box.x2] = True
        inside = cover.reshape(len(cover), -1).astype(np.float32)  # N M
        shared = inside.T @ inside > 0
        bias = np.zeros((plan.noise_tokens, 2 * plan.noise_tokens), np.float32)
        rows = inside.any(0)
        bias[rows] = np.where(np.pad(shared, ((0, 0), (0, plan.noise_tokens)))[rows], 0, -math.inf)
        return bias

    def _table(self, plan: Plan, text: int, device: torch.device) -> tuple[Tensor, Tensor]:
        numbers = position_ids(plan)
        if not self.cumulative:
            one = position_ids(Plan(plan.width, plan.height, plan.references[:1]))
            own = [one[2 * plan.noise_tokens :]] * len(plan.references)
            numbers = np.concatenate([one[: 2 * plan.noise_tokens], *own])
        ids = functional.pad(torch.from_numpy(numbers).float(), (0, 0, text, 0))
        cos, sin = self.transformer.pos_embed(ids.to(device))
        return cos.float()[None], sin.float()[None]
