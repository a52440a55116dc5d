"""The methods on diffusers' ``FluxTransformer2DModel``: for training, the demo, ``sample`` and parity.

Nothing of diffusers is copied: every block gets an attention processor of ours, and its ``forward`` is wrapped, so that
tokens leave and steps follow. All state of a call travels in ``joint_attention_kwargs``, so gradient checkpointing,
which runs a block a second time during the backward pass, sees the same state again.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional

from ..attention import Attend, Memo, SameTensors, Span, run, sdpa
from ..backbones import Backbone, backbone, rebuild_double, rebuild_single, rotate, view
from ..backbones.flux import shift
from ..errors import InputError
from ..lora.adapter import Adapter, to_diffusers
from ..methods.boundary import BlockCounts, BlockWork, Bound, RunPosition
from .passes import Pass, PassRequest, active, adapted_spans, plan_pass, run_rows, stretches
from .remembered import Recalled, Recorder, Remembered

if TYPE_CHECKING:
    from ..backbones import DoubleBlock, SingleBlock

Rotary = tuple[Tensor, Tensor]  # cos and sin, (1 or B, S, D)
Streams = tuple[Tensor, Tensor]  # text (B, T, D) and image (B, S - T, D)
STATE = "layout"  # in joint_attention_kwargs


class BlockState(Protocol):
    """What the blocks of one forward pass ask for; it travels in ``joint_attention_kwargs``."""

    def block(self, block: int, module: Any, original: Callable[..., Streams], arguments: Mapping[str, Any]) -> Streams:
        """The block's result from its ``arguments``: by ``original``, the module's own forward, or otherwise."""
        ...


class PassState(BlockState, Protocol):
    """What the attention asks for besides."""

    def rotate(self, x: Tensor) -> Tensor:
        """Position by rope: (B, H, S, D), text first."""
        ...

    def attention(self, block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, S, D) three times -> (B, S, H * D)."""
        ...


@dataclass
class State:
    """One forward pass. ``passes`` has one entry for each picture of the batch, or one for all."""

    passes: tuple[Pass, ...]
    blocks: BlockCounts
    rotary: Rotary
    rope_of: Callable[[Tensor], Rotary]
    attend: Attend
    noise: int  # tokens
    vectors: Mapping[str, Tensor]
    modules: Mapping[str, Any]
    positive: Sequence[bool]
    states: Sequence[Sequence[dict[str, Any]]]  # for each pass and each of its methods
    vec_of: Callable[[float | None, float | None], Tensor]
    fixed: Recalled | Recorder | None = None

    def rotate(self, x: Tensor) -> Tensor:
        return rotate(x, self.rotary)

    def attention(self, block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.fixed is not None:
            k, v = self.fixed.join(block, k, v)
        if len(self.passes) == 1:
            return run(self.passes[0].programs[block], q, k, v, self.attend)
        out = q.new_zeros((q.shape[0], q.shape[2], q.shape[1] * q.shape[3]))
        for i, passed in enumerate(self.passes):
            rows = passed.lengths[block]  # shorter than the batch's longest: the padding sees nothing
            q_i, k_i, v_i = (x[i : i + 1, :, :rows] for x in (q, k, v))
            out[i : i + 1, :rows] = run(passed.programs[block], q_i, k_i, v_i, self.attend)
        return out

    def block(self, block: int, module: Any, original: Callable[..., Streams], arguments: Mapping[str, Any]) -> Streams:
        rebuilt = bool(self.passes[0].segments)
        streams = self._rebuilt(block, module, arguments) if rebuilt else original(**arguments)
        text, image = streams
        work = partial(self._work, block, module, text, arguments)
        image = run_rows(self.passes, block, self.states, image, work)
        # Of pictures with different references the longest decides: shorter ones are padded, and nobody sees that.
        goes_on = max(_goes_on(passed, block) for passed in self.passes)
        return text, image[:, : goes_on - text.shape[1]]

    def _rebuilt(self, block: int, module: Any, arguments: Mapping[str, Any]) -> Streams:
        text, image, vec = (arguments[name] for name in ("encoder_hidden_states", "hidden_states", "temb"))
        passed = self.passes[0]
        assert passed.segments_of is not None  # noqa: S101 - whoever has segments has a method
        adapter = self.modules.get(passed.segments_of.method.name)
        words = text.shape[1]
        parts = stretches(passed.segments, words + image.shape[1], self.vec_of)
        additions = None if adapter is None else adapter.additions(block)
        attend = partial(self.attention, block)
        if block < self.blocks.double:
            double = cast("DoubleBlock", view(module))
            image, words_on = rebuild_double(double, image, text, vec, attend, self.rotary, parts, additions)
            return cast("Tensor", words_on), image
        joint = torch.cat([text, image], dim=1)
        single = cast("SingleBlock", view(module))
        joint = rebuild_single(single, joint, vec, attend, self.rotary, parts, additions)
        return joint[:, :words], joint[:, words:]

    def _work(
        self,
        block: int,
        module: Any,
        text: Tensor,
        arguments: Mapping[str, Any],
        passed: Pass,
        rows: Span,
        which: int,
        image: Tensor,
    ) -> BlockWork:
        """What a step sees of the ``rows`` of the batch."""
        chosen = slice(*rows)
        return BlockWork(
            number=block,
            double=block < self.blocks.double,
            image=image,
            text=text[chosen],
            noise=Span(0, self.noise),
            vec=arguments["temb"][chosen],
            rope=self.rotary if len(self.rotary[0]) == 1 else tuple(table[chosen] for table in self.rotary),
            rope_of=self.rope_of,
            block=view(module),
            modules=self.modules.get(passed.bounds[which].method.name),
            vectors={name: vector[chosen] if len(vector) > 1 else vector for name, vector in self.vectors.items()},
            positive=self.positive[chosen],
        )


class Processor:
    """Attention of one block: the stock projections, our rope table, our visibility."""

    def __init__(self, block: int) -> None:
        self.block = block

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        encoder_hidden_states_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
        layout: PassState | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        if layout is None:
            raise RuntimeError("a transformer with layouts is called through its host's velocity")

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # B S (H D) -> B H S D

        q, k = attn.norm_q(heads(attn.to_q(hidden_states))), attn.norm_k(heads(attn.to_k(hidden_states)))
        v = heads(attn.to_v(hidden_states))
        if encoder_hidden_states is not None:
            text_q = attn.norm_added_q(heads(attn.add_q_proj(encoder_hidden_states)))
            text_k = attn.norm_added_k(heads(attn.add_k_proj(encoder_hidden_states)))
            text_v = heads(attn.add_v_proj(encoder_hidden_states))
            q, k, v = (torch.cat(pair, dim=2) for pair in ((text_q, q), (text_k, k), (text_v, v)))
        q, k = layout.rotate(q).to(v.dtype), layout.rotate(k).to(v.dtype)
        out = layout.attention(self.block, q, k, v)
        if encoder_hidden_states is None:
            return out
        text, image = out.split([encoder_hidden_states.shape[1], hidden_states.shape[1]], dim=1)
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)


_AnyHost = TypeVar("_AnyHost", bound="BlocksHost")


class BlocksHost:
    """A transformer whose blocks ask a :class:`PassState` until :meth:`remove` is called; a context manager."""

    def __init__(self, transformer: Any, double: Sequence[Any], single: Sequence[Any] = ()) -> None:
        self.transformer = transformer
        self.blocks = [*double, *single]
        self.counts = BlockCounts(len(double), len(single))
        self._memo: Memo[Pass] = Memo()
        self._tables: Memo[Rotary] = Memo()
        self._before = [block.attn.processor for block in self.blocks]
        for index, block in enumerate(self.blocks):
            block.attn.processor = Processor(index)
            block.forward = hooked_forward(index, block, block.forward)

    def __enter__(self: _AnyHost) -> _AnyHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def backbone(self) -> Backbone:
        return backbone(self.transformer)

    def table(self, key: Hashable, make: Callable[[], Rotary]) -> Rotary:
        """A pass's position table, made once for all calls of a sampling run; in training each batch has its own."""
        return make() if torch.is_grad_enabled() else self._tables.get(key, make)

    def remove(self) -> None:
        """Gives the transformer back as it was."""
        for block, processor in zip(self.blocks, self._before, strict=True):
            block.attn.processor = processor
            del block.forward  # ours; the class's comes to light again


class FluxHost(BlocksHost):
    """A ``FluxTransformer2DModel`` that follows layouts.

    Adapters (PEFT), autocast and gradient checkpointing of the transformer go on working, because its modules stay
    what they are.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, transformer.transformer_blocks, transformer.single_transformer_blocks)

    def velocity(
        self,
        bounds: Bound | tuple[Bound, ...] | list[tuple[Bound, ...]],
        noise: Tensor,
        conditions: Tensor | Sequence[Tensor] | None = None,
        *,
        text: Tensor,
        pooled: Tensor,
        timestep: Tensor,
        guidance: Tensor | None = None,
        vectors: Mapping[str, Tensor] | None = None,
        modules: Mapping[str, Any] | None = None,
        positive: Sequence[bool] | None = None,
        position: RunPosition | None = None,
        remembered: Remembered | None = None,
        attend: Attend = sdpa,
    ) -> Tensor:
        """The velocity of the noise tokens, (B, M, 64).

        bounds      the methods at work, for the whole batch; or a list with those of each sample (equal noise grids)
        noise       (B, M, 64) packed noisy latents
        conditions  condition pictures, packed: (B, n, 64), or one (.., 64) for each sample; None where there are none
        text        (B, T, C) token embeddings; pooled (B, P); timestep (B,) in 0..1; guidance (B,) or None
        vectors     what the methods' phrases were encoded to, by name, batch first
        modules     extra weights by the method's name
        positive    which samples belong to the positive conditioning; None: all
        position    where in the sampling run the call stands; None: as if every part of a layout were active
        remembered  of this sampling run, in which nothing changes but noise and timestep; None: nothing is remembered
        """
        one = not isinstance(bounds, list)
        samples = as_samples(bounds)
        grids = {bound.method.sizes(bound.plan)[0] for sample in samples for bound in sample}
        if [rows * columns for rows, columns in grids] != [noise.shape[1]]:
            raise InputError("The pictures of one batch differ in size; give each batch pictures of one size.")
        passes = tuple(self._pass(sample, noise, text, position) for sample in samples)
        fixed: Recalled | Recorder | None = None
        if one and remembered is not None and passes[0].fixed is not None and not torch.is_grad_enabled():
            given = SameTensors(
                pooled, guidance, *([conditions] if isinstance(conditions, Tensor) else conditions or ())
            )
            fixed, passes = self._fixed(passes[0], remembered, samples[0], noise, text, position, given)
        phrases = passes[0].forward.phrases
        if phrases:
            text = torch.cat([(vectors or {})["phrases"].expand(len(text), -1, -1).to(text), text], dim=1)
        hidden = _gather(passes, noise, conditions, one)
        state = State(
            passes=passes,
            blocks=self.counts,
            rotary=self.table((passes, text.shape[1]), lambda: self._rotary(passes, samples, text)),
            rope_of=self._rope,
            attend=attend,
            noise=noise.shape[1],
            vectors=vectors or {},
            modules=modules or {},
            positive=positive or [True] * len(noise),
            states=[[{} for _ in passed.bounds] for passed in passes],
            vec_of=partial(self._vec, pooled, timestep, guidance),
            fixed=fixed,
        )
        with self._embedding(state, hidden):
            velocity = self._run(state, hidden, text, pooled, timestep, guidance)[:, : noise.shape[1]]
        if isinstance(fixed, Recorder):
            fixed.done()
        return velocity

    def _fixed(
        self,
        passed: Pass,
        remembered: Remembered,
        bounds: tuple[Bound, ...],
        noise: Tensor,
        text: Tensor,
        position: RunPosition | None,
        given: SameTensors,
    ) -> tuple[Recalled | Recorder | None, tuple[Pass, ...]]:
        """Where the fixed tokens' keys and values come from or go to, and the pass that fits.

        given  what the fixed tokens and their modulation are made of
        """
        assert passed.fixed is not None  # noqa: S101 - asked before
        (owner,) = passed.owners  # joined passes have no fixed tokens
        key, limit = (bounds, noise.shape, given), owner.method.memory_limit(owner.settings)
        recalled = remembered.recall(key)
        if recalled is not None:
            return recalled, (self._pass(bounds, noise, text, position, recalled=True),)
        return remembered.recorder(key, passed.fixed, self.counts.all, len(noise), limit), (passed,)

    def _run(
        self, state: State, hidden: Tensor, text: Tensor, pooled: Tensor, timestep: Tensor, guidance: Tensor | None
    ) -> Tensor:
        return self.transformer(
            hidden_states=hidden,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=timestep,
            guidance=guidance,
            img_ids=torch.zeros(hidden.shape[1], 3, device=hidden.device),  # the processors have their own table
            txt_ids=torch.zeros(text.shape[1], 3, device=hidden.device),
            joint_attention_kwargs={STATE: state},
            return_dict=False,
        )[0]

    def _vec(
        self, pooled: Tensor, timestep: Tensor, guidance: Tensor | None, own: float | None, strength: float | None
    ) -> Tensor:
        """The conditioning vector (B, D) of tokens with a timestep or guidance of their own."""
        at = timestep if own is None else torch.full_like(timestep, own)
        if guidance is None:
            return self.transformer.time_text_embed(at.to(pooled) * 1000, pooled)
        strong = guidance if strength is None else torch.full_like(guidance, strength)
        return self.transformer.time_text_embed(at.to(pooled) * 1000, strong.to(pooled) * 1000, pooled)

    @contextmanager
    def _embedding(self, state: State, hidden: Tensor) -> Iterator[None]:
        """Lets a switched adapter's part of the embedding act on its tokens."""
        passed = state.passes[0]
        adapter = None if passed.segments_of is None else state.modules.get(passed.segments_of.method.name)
        pairs = adapter.embedding() if adapter is not None else ()
        if not pairs:
            yield
            return
        first = passed.lengths[0] - hidden.shape[1]
        spans = adapted_spans(passed.segments, first, passed.lengths[0])

        def add(_module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
            output = output.clone()
            for span in spans:
                for pair in pairs:
                    output[:, slice(*span)] += pair(args[0][:, slice(*span)]).to(output.dtype)
            return output

        hook = self.transformer.x_embedder.register_forward_hook(add)
        try:
            yield
        finally:
            hook.remove()

    def _pass(
        self,
        bounds: tuple[Bound, ...],
        noise: Tensor,
        text: Tensor,
        position: RunPosition | None,
        recalled: bool = False,
    ) -> Pass:
        trains = torch.is_grad_enabled() and any(p.requires_grad for p in self.transformer.parameters())
        autocast = torch.is_autocast_enabled(noise.device.type)
        acting, moments = active(bounds, position)
        request = PassRequest(
            bounds=acting,
            moments=moments,
            text=text.shape[1],
            blocks=self.counts,
            noise=bounds[0].method.sizes(bounds[0].plan)[0],
            grad=trains or noise.requires_grad,
            recalled=recalled,
            device=noise.device,
            dtype=torch.get_autocast_dtype(noise.device.type) if autocast else text.dtype,
        )
        return plan_pass(request, self._memo)

    def _rope(self, ids: Tensor) -> Rotary:
        """cos and sin (1 or B, n, D) of position ids (n, 3) or (B, n, 3)."""
        tables = [self.transformer.pos_embed(one) for one in (ids if ids.dim() == 3 else ids[None])]
        cos, sin = (torch.stack([table.float() for table in column]) for column in zip(*tables, strict=True))
        return cos, sin

    def _rotary(self, passes: Sequence[Pass], samples: Sequence[tuple[Bound, ...]], text: Tensor) -> Rotary:
        """cos and sin of every token, (1 or B, S, D) float32, zero where a shorter sample is padded."""
        longest = max(passed.lengths[0] for passed in passes)
        tables = []
        for passed, bounds in zip(passes, samples, strict=True):
            ids = passed.ids
            if ids is None:
                ids = noise_ids(*bounds[0].method.sizes(bounds[0].plan)[0]).to(text.device)
            words = passed.forward.text_ids
            words = ids.new_zeros((text.shape[1], ids.shape[1])) if words is None else words.to(ids)
            pad = (0, 0, 0, longest - passed.lengths[0])
            tables.append([functional.pad(t[0], pad) for t in self._rope(torch.cat([words, ids]))])
        cos, sin = (torch.stack(column) for column in zip(*tables, strict=True))
        return cos, sin


@dataclass(frozen=True)
class FlowPosition:
    """A step of a run over ``sigmas`` (falling from 1 to 0), for a picture of so many noise tokens."""

    sigma: float
    sigmas: Sequence[float]
    tokens: int

    def within(self, start: float, end: float) -> bool:
        return self._at(end) <= self.sigma <= self._at(start)

    def before_step(self, ratio: float) -> bool:
        step = int(ratio * (len(self.sigmas) - 1))
        return step > 0 and self.sigma > self.sigmas[step]

    def _at(self, share: float) -> float:
        """The sigma at a share of the run, by FLUX's shift."""
        if share <= 0:
            return math.inf
        return float(shift(torch.tensor(1 - share, dtype=torch.float64), self.tokens)) if share < 1 else 0.0


def noise_ids(rows: int, columns: int) -> Tensor:
    """FLUX's own position ids of the noise tokens, float32 (rows * columns, 3): 0, row, column."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).reshape(-1, 3).float()


def _goes_on(passed: Pass, block: int) -> int:
    leave = passed.leave[block]
    return passed.lengths[block] if leave is None else leave


def as_samples(bounds: Bound | tuple[Bound, ...] | list[tuple[Bound, ...]]) -> list[tuple[Bound, ...]]:
    """The methods at work on each picture of a batch, or one entry for all."""
    if isinstance(bounds, list):
        return bounds
    return [(bounds,) if isinstance(bounds, Bound) else bounds]


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


def _gather(passes: Sequence[Pass], noise: Tensor, conditions: Tensor | Sequence[Tensor] | None, one: bool) -> Tensor:
    """The image tokens that enter the transformer: (B, n, 64), shorter samples padded with zeros."""
    if conditions is None:
        conditions = noise[:, :0]
    if one:
        if not isinstance(conditions, Tensor):
            conditions = torch.stack([part.reshape(part.shape[-2:]) for part in conditions])
        full = torch.cat([noise, conditions], dim=1)
        kept = passes[0].kept
        return full if kept is None else full[:, kept]
    samples = []
    for i, passed in enumerate(passes):
        full = torch.cat([noise[i], conditions[i].reshape(-1, noise.shape[-1])], dim=0)
        samples.append(full if passed.kept is None else full[passed.kept])
    return torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)


def hooked_forward(index: int, block: Any, original: Callable[..., Streams]) -> Callable[..., Streams]:
    """A block's forward: its own, or what the methods of the call make of it."""
    names = list(inspect.signature(original).parameters)

    def forward(*args: Any, **kwargs: Any) -> Streams:
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        state: BlockState | None = (arguments.get("joint_attention_kwargs") or {}).get(STATE)
        return original(**arguments) if state is None else state.block(index, block, original, arguments)

    return forward
