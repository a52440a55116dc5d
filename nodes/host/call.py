"""One forward pass in the host: hands every block's attention to the engine, lets tokens leave, runs what follows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import comfy.ldm.flux.layers as flux_layers
import comfy.ldm.modules.attention as host_attention
import torch

from ...contextgen_core.attention import Memo, Span, run
from ...contextgen_core.backbones import rebuild_double, rebuild_single, view
from ...contextgen_core.backbones.flux import pack
from ...contextgen_core.errors import InputError
from ...contextgen_core.hosts.passes import Pass, PassRequest, adapted_spans, plan_pass, run_afters, stretches
from ...contextgen_core.hosts.remembered import Recalled, Recorder, Remembered
from ...contextgen_core.methods.boundary import BlockWork, Bound
from .families import BlockKey, Family, family_of_transformer

if TYPE_CHECKING:
    from ...contextgen_core.backbones import DoubleBlock, SingleBlock

Options = dict[str, Any]
Acting = tuple[tuple[Bound, Hashable], ...]
Vectors = Mapping[str, Mapping[str, torch.Tensor]]  # by the method's name and their own

MEMO: Memo[Pass] = Memo()  # what one sampling run has planned; emptied after it
STEADY_KEY = "contextgen_steady"  # in transformer_options: whether the weights stay the same over the run
REMEMBERED = Remembered()  # keys and values that are the same in all of its steps; emptied with it
VECTORS: Memo[Vectors] = Memo()  # what its conditionings carry beside their plans, likewise

_uncompiled: Any = torch.compiler.disable  # whose annotations fit its use as a decorator with arguments alone
_plan: Callable[[PassRequest], Pass] = _uncompiled(lambda request: plan_pass(request, MEMO))


def _torch_backend() -> bool:
    """Whether the host attends with torch alone, so that torch's own log-sum-exp kernels are no change of taste."""
    name = getattr(host_attention.optimized_attention, "__name__", "")
    return name in ("attention_pytorch", "attention_sub_quad", "attention_split", "attention_basic")


def begin(
    transformer: Any,
    acting: Acting,
    vectors: Vectors,
    modules: Mapping[str, Any],
    given: Options,
    dtype: torch.dtype,
) -> Call:
    """Plans a call from the arguments ``given`` to the diffusion model, which computes in ``dtype``."""
    family = family_of_transformer(transformer)
    if family is None:
        raise RuntimeError(f"a layout has reached {type(transformer).__name__}, which no method knows")
    options, x, context = given.get("transformer_options") or {}, given["x"], given["context"]
    theirs = options.get("patches_replace", {}).get("dit", {})
    bounds = tuple(bound for bound, _ in acting)
    beside = () if any(bound.method.sizes(bound.plan)[1] for bound in bounds) else given.get("ref_latents") or ()
    request = PassRequest(
        bounds=bounds,
        moments=tuple(moment for _, moment in acting),
        text=context.shape[1],  # without phrases: they are joined later
        blocks=family.counts,
        noise=bounds[0].method.sizes(bounds[0].plan)[0],
        watched=frozenset(number for number, key in enumerate(family.keys) if key in theirs),
        references=tuple(_grid(latent) for latent in beside),
        positions=family.backbone.positions,
        torch_backend=_torch_backend() and "optimized_attention_override" not in options,
        device=x.device,
        dtype=dtype,
    )
    batch = (id(transformer), tuple(options.get("uuids") or ()), len(x))  # of which conditionings, in which model
    if batch[1]:
        # The host copies them for each step. The copies of the first one stand for all, so that who made something of
        # them sees that they are the same.
        copies = vectors
        vectors = VECTORS.get(batch, lambda: copies)
    call = Call(transformer, family, request, vectors, modules, _rows(options, len(x)), given)
    # A patch of others may change the fixed tokens from step to step.
    alone = not theirs and not any(options.get("patches", {}).values())
    if alone and options.get(STEADY_KEY) and batch[1]:
        call.remember(batch, len(batch[1]))
    return call


def _grid(latent: torch.Tensor) -> tuple[int, int]:
    """Rows and columns in tokens of a latent (B, C, h, w) or (B, C, frames, h, w); frames stand below each other."""
    frames = latent.shape[2] if latent.ndim == 5 else 1
    rows, columns = ((side + 1) // 2 for side in latent.shape[-2:])
    return frames * rows, columns


def _rows(options: Options, batch: int) -> tuple[bool, ...]:
    """For each row of the batch whether it belongs to the positive conditioning."""
    kinds = options.get("cond_or_uncond") or [0]
    return tuple(kind == 0 for kind in kinds for _ in range(batch // len(kinds)))


class Call:
    """One forward pass: born in the wrapper, confirmed by ``post_input``, read by the blocks, then gone."""

    def __init__(
        self,
        transformer: Any,
        family: Family,
        request: PassRequest,
        vectors: Vectors,
        modules: Mapping[str, Any],
        positive: tuple[bool, ...],
        given: Options,
    ) -> None:
        self.transformer = transformer
        self.family = family
        self.request = request
        self.passed = _plan(request)
        self.fixed: Recalled | Recorder | None = None
        self.vecs: dict[tuple[float | None, float | None], torch.Tensor] = {}
        self.vectors = vectors
        self.modules = modules
        self.positive = positive
        self.states: list[dict[str, Any]] = [{} for _ in request.bounds]
        self.probe: Callable[..., None] | None = None
        self.given = given
        self.started = not family.post_input
        self.blocks_reached: set[int] = set()
        self.attention_reached: set[int] = set()
        self.short_pe: dict[int, torch.Tensor] = {}
        self.placed_pe: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def owned(self) -> bool:
        """Whether any method decides about the tokens."""
        return bool(self.passed.owners)

    @property
    def node(self) -> str:
        """The node to name where something stands in the way."""
        return (*self.passed.owners, *self.request.bounds)[0].method.node

    @property
    def noise_tokens(self) -> int:
        rows, columns = self.request.noise
        return rows * columns

    def context(self, context: torch.Tensor) -> torch.Tensor:
        """The text with the methods' phrases before it, (B, phrases + T, C)."""
        if not self.passed.forward.phrases:
            return context
        parts = [
            self.vectors[bound.method.name]["phrases"].to(context)
            for bound in self.request.bounds
            if bound.method.joins_text and "phrases" in self.vectors.get(bound.method.name, {})
        ]
        joined = torch.cat(parts, dim=1)
        if joined.shape[1] != self.passed.forward.phrases:
            raise RuntimeError(f"{joined.shape[1]} phrase tokens where the plan has {self.passed.forward.phrases}")
        return torch.cat([joined.expand(len(context), -1, -1), context], dim=1)

    def options(self, options: Options) -> Options:
        """A copy of transformer_options with this call's hooks around whatever is there."""
        changed = {**options}
        if self.family.post_input:
            patches = {**options.get("patches", {})}
            patches["post_input"] = [*patches.get("post_input", []), self.post_input]
            changed["patches"] = patches
        replaced = {**options.get("patches_replace", {})}
        theirs: dict[BlockKey, Any] = replaced.get("dit", {})
        ours = {key: _Block(self, number, theirs.get(key)) for number, key in enumerate(self.family.keys)}
        replaced["dit"] = {**theirs, **ours}
        return {**changed, "patches_replace": replaced}

    def post_input(self, args: Options) -> Options:
        """Rewrites the ids of the tokens and drops those that nobody reads. Runs after all other patches."""
        img, txt = args["img"], args["txt"]
        forward = self.passed.forward
        expected = self.noise_tokens + forward.conditions
        if self.owned and img.shape[1] != expected:
            raise InputError(
                f"another node has changed the picture's tokens ({img.shape[1]} instead of"
                f" {expected}); remove nodes that add or drop reference tokens.",
                self.node,
                "model",
            )
        text = txt.shape[1] - forward.phrases
        if (text, img.dtype, img.device) != (self.request.text, self.request.dtype, self.request.device):
            # Another patch has added text tokens, or the host computes in another dtype than its input's.
            self.request = replace(self.request, text=text, dtype=img.dtype, device=img.device)
            self.passed = _plan(self.request)
        self.started = True
        if not self.owned:
            return args
        changed = {**args, "img": self._embedded(img)}
        if self.passed.kept is not None:
            changed["img"] = changed["img"].index_select(1, self.passed.kept)
        if self.passed.ids is not None:
            changed["img_ids"] = self.passed.ids[None].expand(img.shape[0], -1, -1)
        if forward.text_ids is not None:
            changed["txt_ids"] = forward.text_ids.to(img.device)[None].expand(img.shape[0], -1, -1)
        return changed

    @property
    def switched(self) -> Any | None:
        """The adapter that segments switch, from its method's modules."""
        bound = self.passed.segments_of
        return None if bound is None else self.modules.get(bound.method.name)

    def _embedded(self, img: torch.Tensor) -> torch.Tensor:
        """Image tokens with a switched adapter's part of their embedding; what went into it is in the arguments."""
        pairs = self.switched.embedding() if self.switched is not None else ()
        if not pairs:
            return img
        latents = [self.given["x"], *(self.given.get("ref_latents") or ())]
        tokens = torch.cat([pack(latent).to(img).expand(len(img), -1, -1) for latent in latents], dim=1)
        first = self.request.text + self.passed.forward.phrases
        img = img.clone()
        for span in adapted_spans(self.passed.segments, first, first + img.shape[1]):
            for pair in pairs:
                img[:, slice(*span)] += pair(tokens[:, slice(*span)]).to(img.dtype)
        return img

    def remember(self, key: Hashable, chunks: int) -> None:
        """Lets the fixed tokens' keys and values come from an earlier step of the run, or serve the later ones.

        ``key`` tells the run's models and conditionings apart, which the batch has in so many ``chunks``
        """
        fixed = self.passed.fixed
        if fixed is None:
            return
        (owner,) = self.passed.owners  # joined passes have no fixed tokens
        key = (self.request, key)
        self.fixed = REMEMBERED.recall(key)
        if self.fixed is not None:
            self.request = replace(self.request, recalled=True)
            self.passed = _plan(self.request)
        elif self._alike(chunks):
            limit = owner.method.memory_limit(owner.settings)
            self.fixed = REMEMBERED.recorder(key, fixed, self.request.blocks.all, chunks, limit)

    def _alike(self, chunks: int) -> bool:
        """Whether the fixed tokens of a chunk's pictures are the same: a batch of texts has a pooled one for each."""
        decides = [self.given.get("y"), self.given.get("guidance"), *(self.given.get("ref_latents") or ())]
        rows = (value.unflatten(0, (chunks, -1)) for value in decides if value is not None and len(value) > chunks)
        return all(bool((row == row[:, :1]).all()) for row in rows)

    def vec_of(self, timestep: float | None, guidance: float | None) -> torch.Tensor:
        """The conditioning vector (B, D) of tokens with a timestep or guidance of their own."""
        if (timestep, guidance) not in self.vecs:
            self.vecs[timestep, guidance] = self._vec(timestep, guidance)
        return self.vecs[timestep, guidance]

    def _vec(self, timestep: float | None, guidance: float | None) -> torch.Tensor:
        given, model = self.given, self.transformer
        at = given["timestep"]
        at = at if timestep is None else torch.full_like(at, timestep)
        dtype = given["x"].dtype
        vec = model.time_in(flux_layers.timestep_embedding(at, 256).to(dtype))
        if model.params.guidance_embed and given.get("guidance") is not None:
            strong = given["guidance"] if guidance is None else torch.full_like(given["guidance"], guidance)
            vec = vec + model.guidance_in(flux_layers.timestep_embedding(strong, 256).to(dtype))
        return vec + model.vector_in(given["y"][:, : model.params.vec_in_dim])

    def shorten_pe(self, pe: torch.Tensor, length: int) -> torch.Tensor:
        if pe.shape[2] in (1, length):
            return pe
        if length not in self.short_pe:
            self.short_pe[length] = pe[:, :, :length].contiguous()
        return self.short_pe[length]

    def place_texts(self, pe: torch.Tensor) -> torch.Tensor:
        """The rotations of all tokens with those of the texts by the method's ids, where no patch could give them."""
        ids = self.passed.forward.text_ids
        if ids is None or self.family.post_input:
            return pe
        if self.placed_pe is None or self.placed_pe[0] is not pe:
            words = _rope_of(self.transformer, ids.to(pe.device)).to(pe.dtype)  # (1, 1, T, D / 2, 2, 2)
            axis = 1 if pe.shape[2] == 1 else 2  # of the tokens, by the host's version
            words = words.transpose(1, 2) if axis == 1 else words
            rest = pe.narrow(axis, len(ids), pe.shape[axis] - len(ids))
            self.placed_pe = pe, torch.cat([words.expand(len(pe), -1, -1, -1, -1, -1), rest], dim=axis)
        return self.placed_pe[1]

    def check(self) -> None:
        """The call is over. Raises unless every hook of ours was reached."""
        count = len(self.family.keys)
        attention = len(self.attention_reached) if self.owned else count
        if not self.started or attention < count or len(self.blocks_reached) < count:
            raise self.missed()
        if isinstance(self.fixed, Recorder):
            self.fixed.done()

    def missed(self) -> InputError:
        count = len(self.family.keys)
        reached = self.attention_reached if self.owned else self.blocks_reached
        return InputError(
            f"another node replaces parts of {self.family.label} so that the layout did not reach"
            f" {count - len(reached)} of {count} blocks; remove nodes that replace {self.family.label}'s"
            " forward pass or blocks.",
            self.node,
            "model",
        )


class _Block:
    """The replacement of one block: gives its attention to the core, lets tokens leave, runs what follows."""

    def __init__(self, call: Call, number: int, theirs: Callable[..., Any] | None) -> None:
        self.call = call
        self.number = number
        self.theirs = theirs

    def __call__(self, args: Options, extra: Options) -> Options:
        call = self.call
        if call.owned and args.get("attn_mask") is not None:
            raise InputError(
                f"another node puts an attention mask on {call.family.label}'s blocks, which has no meaning for the"
                " layout's tokens; remove it.",
                call.node,
                "model",
            )
        if not call.started:
            raise call.missed()
        call.blocks_reached.add(self.number)
        pe = args.get("pe")
        if call.owned:
            length = call.passed.lengths[self.number]
            self._check_tokens(args, length)
            pe = call.shorten_pe(call.place_texts(args["pe"]), length)
            options = self._options(args.get("transformer_options") or {}, length)
            args = {**args, "pe": pe, "transformer_options": options}
        ran = False

        def original(given: Options) -> Options:
            nonlocal ran
            ran = True
            if call.passed.segments:
                return self._rebuilt(self._guard(given, pe))
            return extra["original_block"](self._guard(given, pe) if call.owned else given)

        # Foreign code may build its own arguments: what it leaves out of ours is put back.
        out = original(args) if self.theirs is None else self.theirs(args, {**extra, "original_block": original})
        if call.passed.afters[self.number]:
            out = self._after(args, out, ran)
        return self._leave(out)

    def _check_tokens(self, args: Options, length: int) -> None:
        """Where no patch has shown the tokens before the first block."""
        if self.call.family.post_input or "txt" not in args:
            return
        found = args["txt"].shape[1] + args["img"].shape[1]
        if found != length:
            raise InputError(
                f"another node has changed the tokens ({found} instead of {length}); remove nodes that add or drop"
                " tokens.",
                self.call.node,
                "model",
            )

    def _options(self, options: Options, length: int) -> Options:
        options = {**options}
        if "img_slice" in options:  # the host sets it once for all single blocks
            options["img_slice"] = [options["img_slice"][0], length]
        return options

    def _guard(self, args: Options, pe: torch.Tensor | None) -> Options:
        options = dict(args.get("transformer_options") or {})
        theirs = options.get("optimized_attention_override")
        options["optimized_attention_override"] = partial(self._attention, theirs)
        return {**args, "pe": pe, "transformer_options": options}

    def _attention(
        self,
        theirs: Callable[..., Any] | None,
        func: Callable[..., Any],
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        heads: int,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Stands in for the host's attention: q, k, v (B, H, S, D) after RoPE -> (B, S, H*D).

        0.3.64's Qwen-Image hands them over as (B, S, H*D).
        """
        if q.ndim == 3:
            q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
            kwargs["skip_reshape"] = True
        mask = kwargs.pop("mask", args[0] if args else None)
        if mask is not None or not kwargs.get("skip_reshape") or kwargs.get("skip_output_reshape"):
            raise InputError(
                f"another node changes how {self.call.family.label} calls its attention; remove nodes that replace"
                f" {self.call.family.label}'s blocks or add attention masks.",
                self.call.node,
                "model",
            )
        self.call.attention_reached.add(self.number)
        if self.call.probe is not None:
            self.call.probe(self.call.passed.forward, self.number, q, k)
        if self.call.fixed is not None:
            k, v = self.call.fixed.join(self.number, k, v)
        options = {**kwargs.get("transformer_options", {})}
        options.pop("optimized_attention_override", None)
        if theirs is not None:
            options["optimized_attention_override"] = theirs  # a foreign override must not come back into ours
        kwargs["transformer_options"] = options

        def attend(
            q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None, /
        ) -> torch.Tensor:
            if theirs is not None:
                return theirs(func, q, k, v, heads, mask=mask, **kwargs)
            return func(q, k, v, heads, mask=mask, **kwargs)

        return run(self.call.passed.programs[self.number], q, k, v, attend)

    def _rebuilt(self, args: Options) -> Options:
        """The block from its weights as functions, in the place of the original."""
        call, img, vec, pe = self.call, args["img"], args["vec"], args["pe"]
        options = args["transformer_options"]
        if any(options.get("patches", {}).get(name) for name in ("attn1_patch", "attn1_output_patch")):
            raise InputError(
                "another node patches FLUX's attention, which a model with tokens of different timesteps or adapters"
                " does not run; remove it, or leave these switches at their defaults.",
                call.node,
                "model",
            )
        block = view(call.family.block_of(call.transformer, self.number))
        double = self.number < call.family.backbone.double
        length = img.shape[1] + (args["txt"].shape[1] if double else 0)
        parts = stretches(call.passed.segments, length, call.vec_of)
        additions = None if call.switched is None else call.switched.additions(self.number)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            override = options["optimized_attention_override"]
            func = host_attention.optimized_attention
            func = getattr(func, "__wrapped__", func)
            return override(func, q, k, v, q.shape[1], skip_reshape=True, transformer_options=options)

        if double:
            image, text = rebuild_double(
                cast("DoubleBlock", block), img, args["txt"], vec, attend, pe, parts, additions
            )
            return {"img": image, "txt": text}
        return {"img": rebuild_single(cast("SingleBlock", block), img, vec, attend, pe, parts, additions)}

    def _after(self, args: Options, out: Options, ran: bool) -> Options:
        call = self.call
        out = {**out}
        double = self.number < call.family.backbone.double
        text = out.get("txt") if double else None
        start = 0 if double else call.request.text + call.passed.forward.phrases

        def work(which: int, image: torch.Tensor) -> BlockWork:
            bound = call.passed.bounds[which]
            return BlockWork(
                number=self.number,
                double=double,
                image=image,
                text=text,
                noise=Span(start, start + call.noise_tokens),
                vec=args["vec"],
                rope=args.get("pe"),
                rope_of=partial(_rope_of, call.transformer),
                block=view(call.family.block_of(call.transformer, self.number)),
                modules=call.modules.get(bound.method.name),
                vectors=call.vectors.get(bound.method.name, {}),
                positive=call.positive,
                ran=ran,
            )

        out["img"] = run_afters(call.passed, self.number, call.states, out["img"], work)
        return out

    def _leave(self, out: Options) -> Options:
        """Where tokens leave for good, only those before them go on."""
        leave = self.call.passed.leave[self.number]
        if leave is None:
            return out
        double = self.number < self.call.family.backbone.double
        image = leave - (self.call.request.text + self.call.passed.forward.phrases if double else 0)
        return {**out, "img": out["img"][:, :image].clone()}  # a view would keep the dropped rows in memory


def _rope_of(transformer: Any, ids: torch.Tensor) -> Any:
    """The host's rotations of position ids (n, axes) or (B, n, axes)."""
    return transformer.pe_embedder(ids if ids.ndim == 3 else ids[None])
