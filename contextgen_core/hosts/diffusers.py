"""The method on diffusers' ``FluxTransformer2DModel``: for training, the embedded demo and parity runs.

Nothing of diffusers is copied: every block gets an attention processor of ours, and one forward hook lets the
references leave. All state of a call travels in ``joint_attention_kwargs``, so gradient checkpointing, which runs
a block a second time during the backward pass, sees the same state again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..attention import Attend, Memo, Program, choose_kernel, compile_blocks, run, sdpa
from ..errors import InputError
from ..lora.adapter import Adapter, to_diffusers
from ..methods.contextgen.sequence import Plan, TokenSequence
from ..methods.contextgen.settings import Arrangement, Settings, arrange, image_ids, references_read
from ..methods.contextgen.visibility import block_groups

Plans = Plan | Sequence[Plan]
Rotary = tuple[Tensor, Tensor]  # cos and sin, (1 or B, S, D)


@dataclass(frozen=True)
class _Call:
    """Everything the blocks of one forward pass need. ``programs`` has one tuple per distinct plan of the batch."""

    leave: int  # the references leave after this many blocks
    base: int  # image tokens that stay: noise and layout
    programs: tuple[tuple[Program, ...], ...]
    rotary: Rotary
    attend: Attend

    def rotate(self, x: Tensor) -> Tensor:
        cos, sin = (table[:, None, : x.shape[2]] for table in self.rotary)  # B 1 S D
        pairs = x.unflatten(-1, (-1, 2))
        turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
        return (x.float() * cos + turned.float() * sin).to(x.dtype)

    def attention(self, block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if len(self.programs) == 1:
            return run(self.programs[0][block], q, k, v, self.attend)
        out = q.new_zeros((q.shape[0], q.shape[2], q.shape[1] * q.shape[3]))
        for i, programs in enumerate(self.programs):
            rows = programs[block].length  # shorter than the batch's longest: the padding sees nothing
            q_i, k_i, v_i = (x[i : i + 1, :, :rows] for x in (q, k, v))
            out[i : i + 1, :rows] = run(programs[block], q_i, k_i, v_i, self.attend)
        return out


class _Processor:
    """Attention of one block: the stock projections, our rope table, our visibility."""

    def __init__(self, block: int) -> None:
        self.block = block

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
        contextgen: _Call | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        if contextgen is None:
            raise RuntimeError("a ContextGen transformer is called through ContextGenFlux.velocity")

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (-1, attn.head_dim)).transpose(1, 2)  # B S (H D) -> B H S D

        q, k = attn.norm_q(heads(attn.to_q(hidden_states))), attn.norm_k(heads(attn.to_k(hidden_states)))
        v = heads(attn.to_v(hidden_states))
        if encoder_hidden_states is not None:
            text_q = attn.norm_added_q(heads(attn.add_q_proj(encoder_hidden_states)))
            text_k = attn.norm_added_k(heads(attn.add_k_proj(encoder_hidden_states)))
            text_v = heads(attn.add_v_proj(encoder_hidden_states))
            q, k, v = (torch.cat(pair, dim=2) for pair in ((text_q, q), (text_k, k), (text_v, v)))
        q, k = contextgen.rotate(q).to(v.dtype), contextgen.rotate(k).to(v.dtype)
        out = contextgen.attention(self.block, q, k, v)
        if encoder_hidden_states is None:
            return out
        text, image = out.split([encoder_hidden_states.shape[1], hidden_states.shape[1]], dim=1)
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)


class ContextGenFlux:
    """A ``FluxTransformer2DModel`` that attends by ContextGen's rules until :meth:`remove` is called.

    Works as a context manager. Adapters (PEFT), autocast and gradient checkpointing of the transformer go on
    working, because its modules stay what they are.
    """

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer
        self._programs: Memo[tuple[Program, ...]] = Memo()
        self.blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        self._before = [block.attn.processor for block in self.blocks]
        for index, block in enumerate(self.blocks):
            block.attn.processor = _Processor(index)
        self._hooks = [
            block.register_forward_hook(_leave_after(index), with_kwargs=True)
            for index, block in enumerate(self.blocks)
        ]

    def __enter__(self) -> ContextGenFlux:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Gives the transformer its own attention processors back."""
        for block, processor in zip(self.blocks, self._before, strict=True):
            block.attn.processor = processor
        for hook in self._hooks:
            hook.remove()

    def velocity(
        self,
        plans: Plans,
        noise: Tensor,
        conditions: Tensor | Sequence[Tensor],
        *,
        text: Tensor,
        pooled: Tensor,
        timestep: Tensor,
        guidance: Tensor | None = None,
        settings: Settings | None = None,
        attend: Attend = sdpa,
        in_window: Callable[[float, float], bool] | None = None,
    ) -> Tensor:
        """The velocity of the noise tokens, (B, M, 64).

        noise       (B, M, 64) packed noisy latents, M = plan.width * plan.height
        conditions  packed layout, then every reference: (B, image_tokens - M, 64), or one (.., 64) per sample
        text        (B, T, C) token embeddings; pooled (B, P); timestep (B,) in 0..1; guidance (B,) or None
        plans       one plan for the whole batch, or one per sample (equal target grids)
        """
        settings = settings or Settings()
        one = isinstance(plans, Plan)
        arranged = self._arrange([plans] if isinstance(plans, Plan) else plans, settings, text.shape[1], in_window)
        sequences = [sequence for sequence, _ in arranged]
        hidden = _gather(sequences, noise, conditions, one)
        trains = torch.is_grad_enabled() and any(p.requires_grad for p in self.transformer.parameters())
        kernel = choose_kernel(settings.kernel, noise, grad=trains or noise.requires_grad)
        device = noise.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else text.dtype
        call = _Call(
            leave=max(schedule.leave for _, schedule in arranged),
            base=sequences[0].base_span.stop - text.shape[1],
            programs=tuple(
                self._programs.get(
                    (item, kernel, device, dtype),
                    lambda item=item: compile_blocks(block_groups(*item), kernel, device, dtype),
                )
                for item in arranged
            ),
            rotary=self._rotary(sequences, settings.round_ids, device),
            attend=attend,
        )
        out = self.transformer(
            hidden_states=hidden,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=timestep,
            guidance=guidance,
            img_ids=torch.zeros(hidden.shape[1], 3, device=noise.device),  # the processors have their own table
            txt_ids=torch.zeros(text.shape[1], 3, device=noise.device),
            joint_attention_kwargs={"contextgen": call},
            return_dict=False,
        )[0]
        return out[:, : noise.shape[1]]

    def _arrange(
        self,
        plans: Sequence[Plan],
        settings: Settings,
        text: int,
        in_window: Callable[[float, float], bool] | None,
    ) -> list[Arrangement]:
        if len({(plan.width, plan.height) for plan in plans}) != 1:
            raise InputError("The pictures of one batch differ in size; give each batch pictures of one size.")
        double = len(self.transformer.transformer_blocks)
        blocks = (double, len(self.blocks) - double)
        return [arrange(plan, settings, references_read(plan, settings, in_window), text, blocks) for plan in plans]

    def _rotary(self, sequences: Sequence[TokenSequence], rounded: bool, device: torch.device) -> Rotary:
        """cos and sin of every token, (1 or B, S, D) float32, zero where a shorter sample is padded."""
        longest = max(sequence.length for sequence in sequences)
        tables = []
        for sequence in sequences:
            ids = functional.pad(image_ids(sequence, rounded), (0, 0, sequence.text, 0))  # text is (0, 0, 0)
            pad = (0, 0, 0, longest - sequence.length)
            tables.append([functional.pad(t.float(), pad) for t in self.transformer.pos_embed(ids.to(device))])
        cos, sin = (torch.stack(column) for column in zip(*tables, strict=True))
        return cos, sin


def load_transformer(config: dict[str, Any], state: dict[str, Tensor]) -> Any:
    """A frozen ``FluxTransformer2DModel`` for inference from its configuration and weights."""
    from diffusers import FluxTransformer2DModel

    transformer = FluxTransformer2DModel(**config)
    transformer.load_state_dict(state)
    return transformer.eval().requires_grad_(False)


def merge_adapter(transformer: Any, adapter: Adapter) -> None:
    """Adds an adapter's change to the transformer's weights, for good. Raises InputError if a layer is missing."""
    for pair in to_diffusers(adapter).pairs:
        try:
            weight = transformer.get_submodule(pair.module).weight
        except AttributeError:
            raise InputError(f"The adapter changes {pair.module}, which this transformer does not have.") from None
        with torch.no_grad():
            weight += pair.delta().to(weight)


def _gather(
    sequences: Sequence[TokenSequence], noise: Tensor, conditions: Tensor | Sequence[Tensor], one: bool
) -> Tensor:
    """The image tokens that enter the transformer: (B, S - T, 64), shorter samples padded with zeros."""
    if one:
        if not isinstance(conditions, Tensor):
            conditions = torch.stack([part.reshape(part.shape[-2:]) for part in conditions])
        full = torch.cat([noise, conditions], dim=1)
        kept = sequences[0].kept
        return full if kept is None else full[:, torch.from_numpy(kept).to(full.device)]
    samples = []
    for i, sequence in enumerate(sequences):
        full = torch.cat([noise[i], conditions[i].reshape(-1, noise.shape[-1])], dim=0)
        kept = sequence.kept
        samples.append(full if kept is None else full[torch.from_numpy(kept).to(full.device)])
    return torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)


def _leave_after(index: int) -> Callable[..., Any]:
    """A forward hook that cuts the references off once nobody will read them."""

    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        state = kwargs.get("joint_attention_kwargs") or (args[4] if len(args) > 4 else None) or {}
        call = state.get("contextgen")
        if call is None or index != call.leave - 1:
            return output
        text, image = output
        return text, image[:, : call.base]

    return hook
