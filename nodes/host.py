"""The method in ComfyUI: the only file that touches the host's patch points.

Works unchanged on ComfyUI 0.3.64 and later, through documented hooks only:

* the layout's plan travels inside the conditioning (``model_conds``), its pictures as ``reference_latents``;
* an OUTER_SAMPLE wrapper refuses, before sampling, what cannot compose;
* an APPLY_MODEL wrapper decides which references this step reads;
* a DIFFUSION_MODEL wrapper makes one :class:`_Call` for one forward pass. A ``post_input`` patch of that call
  rewrites the position ids and drops what nobody reads, and a replacement around every block hands its attention
  to the core. Patches that other nodes have put there are called from inside ours, whatever the node order.

A call that does not come through all of its hooks raises: a silent no-op would be the worst bug.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import comfy.conds
import comfy.ldm.flux.model
import comfy.ldm.modules.attention as host_attention
import comfy.model_base
import torch
from comfy.patcher_extension import WrappersMP

from ..contextgen_core.attention.run import Program, choose_kernel, compile_programs, run
from ..contextgen_core.errors import InputError
from ..contextgen_core.methods.contextgen.schedule import Rule
from ..contextgen_core.methods.contextgen.sequence import Plan, TokenSequence, active_references
from ..contextgen_core.methods.contextgen.settings import (
    Arrangement,
    Settings,
    arrange,
    image_ids,
    references_read,
    windows,
)
from .host_memory import prepare_sampling
from .sockets import naming

log = logging.getLogger("contextgen")

KEY = "contextgen"
READ_KEY = "contextgen_read"  # in transformer_options: the references that this step reads
PROBE_KEY = "contextgen_probe"  # in transformer_options: who wants to see queries and keys, Probe or nobody
NODE = "ContextGenPatchModel"

Options = dict[str, Any]
Probe = Callable[[TokenSequence, Rule, torch.Tensor, torch.Tensor], None]  # q, k: (B, H, S, D) of one block


# --- conditioning ---------------------------------------------------------------------------------------------------


def attach_plan(conditioning: list[Any], plan: Plan, latents: list[torch.Tensor]) -> list[Any]:
    """A copy of ``conditioning`` that carries the plan and its pictures (layout first) as reference latents.

    Raises InputError if it carries reference latents already: the plan counts every one.
    """
    made = []
    for embedding, values in conditioning:
        if values.get("reference_latents"):
            raise InputError(
                f"ContextGenConditioning, conditioning: it already carries {len(values['reference_latents'])} "
                "reference"
                " latents; remove the ReferenceLatent nodes, references belong into Reference Bundle."
            )
        conds = {**values.get("model_conds", {}), KEY: comfy.conds.CONDConstant(plan.as_tuple())}
        made.append([embedding, {**values, "model_conds": conds, "reference_latents": list(latents)}])
    return made


def plan_of(values: Options) -> Plan | None:
    """The plan inside a conditioning's values, if there is one."""
    cond = values.get("model_conds", {}).get(KEY)
    return None if cond is None else Plan.from_tuple(cond.cond)


# --- installing -----------------------------------------------------------------------------------------------------


def flux_of(model: Any) -> Any:
    """The FLUX.1 transformer inside a ComfyUI MODEL. Raises InputError, naming the model, for anything else."""
    base = model.model
    flux: Any = getattr(base, "diffusion_model", None)
    if type(base) is not comfy.model_base.Flux or not isinstance(flux, comfy.ldm.flux.model.Flux):
        found = type(base).__name__ if type(flux).__module__.startswith("comfy.") else type(flux).__name__
        raise InputError(
            f"this is {found}, not FLUX.1; load FLUX.1-Kontext with Load Diffusion Model"
            " (bf16, fp16, fp8) or a GGUF loader. Nunchaku models run none of ComfyUI's patches and cannot be used."
        )
    params = flux.params
    if len(params.axes_dim) != 3 or getattr(params, "global_modulation", False) or flux.in_channels != 64:
        raise InputError(
            f"this FLUX variant takes {flux.in_channels} channels a token and"
            f" {len(params.axes_dim)} position axes, FLUX.1-Kontext 64 and 3; load flux1-dev-kontext."
        )
    return flux


def block_counts(model: Any) -> tuple[int, int]:
    """Double and single blocks of a ComfyUI FLUX.1 MODEL."""
    flux = flux_of(model)
    return len(flux.double_blocks), len(flux.single_blocks)


def install(model: Any, settings: Settings) -> Any:
    """A clone of ``model`` that follows the layouts in its conditionings. Without a layout it is the model itself."""
    with naming(NODE, "model"):
        flux_of(model)
    clone = model.clone()
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, _outer_sample),
        (WrappersMP.PREPARE_SAMPLING, prepare_sampling),
        (WrappersMP.APPLY_MODEL, _apply_model),
        (WrappersMP.DIFFUSION_MODEL, _diffusion_model),
    ):
        clone.remove_wrappers_with_key(kind, KEY)  # patched twice: the later settings hold
        clone.add_wrapper_with_key(kind, KEY, partial(wrapper, settings))
    return clone


def settings_of(model: Any) -> Settings | None:
    """The settings that :func:`install` put on a model, None if it is not patched."""
    wrappers = model.get_wrappers(WrappersMP.DIFFUSION_MODEL, KEY)
    return wrappers[0].args[0] if wrappers else None


# --- before sampling ------------------------------------------------------------------------------------------------


def _outer_sample(settings: Settings, executor: Any, noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    guider = executor.class_obj
    for conds in guider.conds.values():
        for cond in conds:
            plan = plan_of(cond)
            if plan is not None:
                _check_model(guider.model_patcher)
                _check_cond(plan, cond, noise)
    return executor(noise, *args, **kwargs)


def _check_model(patcher: Any) -> None:
    with naming(NODE, "model"):
        flux = flux_of(patcher)
    patched = [key for key in patcher.object_patches if key.endswith("forward_orig")]
    if patched or "forward_orig" in vars(flux):
        raise InputError(
            f"{NODE}, model: another node (TeaCache and its relatives) has replaced FLUX's forward pass, which"
            " would skip the layout; remove that node, ComfyUI's own EasyCache works."
        )
    patches = patcher.model_options.get("transformer_options", {}).get("patches", {})
    if any(type(patch).__name__ == "KV_Attn_Input" for patch in patches.get("attn1_patch", [])):
        raise InputError(
            f"{NODE}, model: Flux KV Cache drops the reference tokens after the first step and cannot work with a"
            " layout; remove the Flux KV Cache node."
        )


def _check_cond(plan: Plan, cond: Options, noise: torch.Tensor) -> None:
    if cond.get("area") is not None:
        raise InputError(
            "ContextGenConditioning, conditioning: an area (Conditioning Set Area) is set on the conditioning with"
            " the layout; remove it, the boxes of the layout say where things go."
        )
    if cond.get("attention_mask") is not None:
        raise InputError(
            "ContextGenConditioning, conditioning: it carries an attention mask (from a Redux style model), which"
            " has no meaning for the layout's tokens; apply the style model without attention mask."
        )
    want = (2 * plan.height, 2 * plan.width)
    have = tuple(noise.shape[-2:])
    if have != want:
        raise InputError(
            f"KSampler, latent_image: the latent is {have[1] * 8}x{have[0] * 8} pixels but the layout is"
            f" {want[1] * 8}x{want[0] * 8}; use the latent that ContextGenConditioning puts out."
        )
    sizes = [tuple(latent.shape[-2:]) for latent in cond.get("reference_latents", [])]
    wanted = [want, *((2 * r.height, 2 * r.width) for r in plan.references)]
    if sizes != wanted:
        raise InputError(
            f"ContextGenConditioning, conditioning: it carries {len(sizes)} reference latents where the layout has"
            f" {len(wanted)} pictures of its own; remove ReferenceLatent nodes after ContextGenConditioning."
        )


# --- each step ------------------------------------------------------------------------------------------------------


def _apply_model(settings: Settings, executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
    """Leaves in transformer_options which references this step reads. Only here is the sampling schedule known."""
    if kwargs.get(KEY) is None:
        return executor(x, t, *args, **kwargs)
    plan = Plan.from_tuple(kwargs[KEY])
    sampling = executor.class_obj.model_sampling

    def in_window(start: float, end: float) -> bool:
        return sampling.percent_to_sigma(end) <= sigma <= sampling.percent_to_sigma(start)

    if windows(plan, settings):  # only then: reading the sigma waits for the device
        sigma = float(t.flatten()[0])
        read = references_read(plan, settings, in_window)
    else:
        read = references_read(plan, settings)
    names = list(inspect.signature(executor.original).parameters)
    args, kwargs = _with_options(names[2:], args, kwargs, lambda options: {**options, READ_KEY: read})
    return executor(x, t, *args, **kwargs)


def _with_options(
    names: list[str], args: tuple[Any, ...], kwargs: Options, change: Callable[[Options], Options]
) -> tuple[tuple[Any, ...], Options]:
    """The same arguments with transformer_options changed, left in the slot where they were."""
    at = names.index("transformer_options")
    if at < len(args):
        return (*args[:at], change(args[at]), *args[at + 1 :]), kwargs
    return args, {**kwargs, "transformer_options": change(kwargs.get("transformer_options", {}))}


def _diffusion_model(settings: Settings, executor: Any, *args: Any, **kwargs: Any) -> Any:
    value = kwargs.pop(KEY, None)
    if value is None:
        return executor(*args, **kwargs)
    call, names = _begin(settings, executor, value, args, kwargs)
    # The host's own reference methods differ in ids only, which are rewritten, but for one that would also give
    # the references another modulation.
    kwargs["ref_latents_method"] = "offset"
    args, kwargs = _with_options(names, tuple(args), kwargs, call.options)
    out = executor(*args, **kwargs)
    call.check()
    return out


def _planned(
    settings: Settings, executor: Any, value: Any, args: tuple[Any, ...], kwargs: Options
) -> tuple[_Call, list[str]]:
    """Plans a call; also gives the names of the wrapped function's parameters."""
    names = list(inspect.signature(executor.original).parameters)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    options, x, context = given.get("transformer_options") or {}, given["x"], given["context"]
    plan, flux = Plan.from_tuple(value), executor.class_obj
    blocks = (len(flux.double_blocks), len(flux.single_blocks))
    theirs = options.get("patches_replace", {}).get("dit", {})
    request = _Request(
        plan=plan,
        settings=settings,
        read=options.get(READ_KEY, active_references(plan)),
        text=context.shape[1],
        blocks=blocks,
        foreign=frozenset(number for number, key in enumerate(_block_keys(blocks)) if key in theirs),
        torch_backend=_torch_backend() and "optimized_attention_override" not in options,
        device=x.device,
        dtype=x.dtype,
    )
    return _Call(request, _prepare(request)), names


# Outside of any graph: under torch.compile, everything after it is one graph without a break.
_uncompiled: Any = torch.compiler.disable  # whose annotations fit its use as a decorator with arguments alone
_begin: Callable[..., tuple[_Call, list[str]]] = _uncompiled(_planned)


def _block_keys(blocks: tuple[int, int]) -> list[tuple[str, int]]:
    """The host's names of all blocks, in the order in which we number them."""
    return [("double_block", i) for i in range(blocks[0])] + [("single_block", i) for i in range(blocks[1])]


def _torch_backend() -> bool:
    """Whether the host attends with torch alone, so that torch's own log-sum-exp kernels are no change of taste."""
    name = getattr(host_attention.optimized_attention, "__name__", "")
    return name in ("attention_pytorch", "attention_sub_quad", "attention_split", "attention_basic")


class _Request(NamedTuple):
    """All that decides how a call runs. ``foreign`` blocks are replaced by another node, too."""

    plan: Plan
    settings: Settings
    read: tuple[int, ...]
    text: int
    blocks: tuple[int, int]
    foreign: frozenset[int]
    torch_backend: bool
    device: torch.device
    dtype: torch.dtype


class _Prepared(NamedTuple):
    """What one request needs in the host, ready to use.

    image_tokens  of the plan, before anything is dropped
    lengths  joint tokens that enter each block
    leave    after this block the references leave, leaving ``stay`` tokens in the block's image output; -1: never
    ids      position ids (1, S - T, 3); kept: which image tokens go in (None: all)
    """

    arrangement: Arrangement
    image_tokens: int
    programs: tuple[Program, ...]
    lengths: tuple[int, ...]
    leave: int
    stay: int
    ids: torch.Tensor
    kept: torch.Tensor | None


@lru_cache(maxsize=16)
def _prepare(request: _Request) -> _Prepared:
    arrangement = arrange(
        request.plan, request.settings, request.read, request.text, request.blocks, full_rows=request.foreign
    )
    sequence, schedule = arrangement
    sample = torch.empty(0, device=request.device, dtype=request.dtype)
    try:
        kernel = choose_kernel(request.settings.kernel, sample, torch_backend=request.torch_backend)
        programs = compile_programs(sequence, schedule, kernel, request.device, request.dtype)
    except InputError as error:
        raise InputError(f"{NODE}, kernel: {error}") from error
    base = sequence.base_span.stop
    leaves = schedule.leave > 0 and sequence.pruned and bool(sequence.reference_spans)
    with torch.inference_mode(False):
        kept = None if sequence.kept is None else torch.from_numpy(sequence.kept).to(request.device)
        ids = image_ids(sequence, request.settings.round_ids).to(request.device)[None]
    return _Prepared(
        arrangement,
        request.plan.image_tokens,
        programs,
        tuple(sequence.length if number < schedule.leave else base for number in range(len(schedule))),
        schedule.leave - 1 if leaves else -1,
        base - (0 if schedule.leave > request.blocks[0] else request.text),
        ids,
        kept,
    )


_prepare_again: Callable[[_Request], _Prepared] = _uncompiled(_prepare)


class _Call:
    """One forward pass: born in the wrapper, confirmed by ``post_input``, read by the blocks, then gone."""

    def __init__(self, request: _Request, prepared: _Prepared) -> None:
        self.request = request
        self.prepared = prepared
        self.started = False
        self.reached: set[int] = set()
        self.short_pe: torch.Tensor | None = None
        self.probe: Probe | None = None

    def options(self, options: Options) -> Options:
        """A copy of transformer_options with this call's hooks around whatever is there."""
        self.probe = options.get(PROBE_KEY)
        patches = {**options.get("patches", {})}
        patches["post_input"] = [*patches.get("post_input", []), self.post_input]
        replace = {**options.get("patches_replace", {})}
        theirs = replace.get("dit", {})
        ours = {
            key: _Block(self, number, theirs.get(key)) for number, key in enumerate(_block_keys(self.request.blocks))
        }
        replace["dit"] = {**theirs, **ours}
        return {**options, "patches": patches, "patches_replace": replace}

    def post_input(self, args: Options) -> Options:
        """Rewrites the ids of the image tokens and drops those that nobody reads. Runs after all other patches."""
        img, txt = args["img"], args["txt"]
        request = self.request
        if img.shape[1] != self.prepared.image_tokens:
            raise InputError(
                f"{NODE}, model: another node has changed the picture's tokens ({img.shape[1]} instead of"
                f" {self.prepared.image_tokens}); remove nodes that add or drop reference tokens."
            )
        if (txt.shape[1], img.dtype, img.device) != (request.text, request.dtype, request.device):
            # Another patch has added text tokens, or the host computes in another dtype than its input's.
            self.request = request._replace(text=txt.shape[1], dtype=img.dtype, device=img.device)
            self.prepared = _prepare_again(self.request)
        self.started = True
        kept, ids = self.prepared.kept, self.prepared.ids.expand(img.shape[0], -1, -1)
        return {**args, "img": img if kept is None else img.index_select(1, kept), "img_ids": ids}

    def shorten_pe(self, pe: torch.Tensor, length: int) -> torch.Tensor:
        if pe.shape[2] == length:
            return pe
        if self.short_pe is None:
            self.short_pe = pe[:, :, :length].contiguous()
        return self.short_pe

    def check(self) -> None:
        """Raises unless every hook of ours was reached."""
        if not self.started or len(self.reached) < sum(self.request.blocks):
            raise self.missed()

    def missed(self) -> InputError:
        count = sum(self.request.blocks)
        return InputError(
            f"{NODE}, model: another node replaces parts of FLUX so that the layout did not reach"
            f" {count - len(self.reached)} of {count} blocks; remove nodes that replace FLUX's"
            " forward pass or blocks."
        )


class _Block:
    """The replacement of one block: gives its attention to the core and lets the references leave."""

    def __init__(self, call: _Call, number: int, theirs: Callable[..., Any] | None) -> None:
        self.call = call
        self.number = number
        self.theirs = theirs

    def __call__(self, args: Options, extra: Options) -> Options:
        if args.get("attn_mask") is not None:
            raise InputError(
                f"{NODE}, model: another node puts an attention mask on FLUX's blocks, which has no meaning for the"
                " layout's tokens; remove it."
            )
        if not self.call.started:
            raise self.call.missed()
        original = extra["original_block"]
        length = self.call.prepared.lengths[self.number]
        pe = self.call.shorten_pe(args["pe"], length)
        options = self._options(args.get("transformer_options") or {}, length)
        args = {**args, "pe": pe, "transformer_options": options}
        if self.theirs is None:
            out = original(self._guard(args, pe))
        else:
            # Foreign code may build its own arguments: what it leaves out of ours is put back.
            out = self.theirs(args, {**extra, "original_block": lambda given: original(self._guard(given, pe))})
        return self._leave(out)

    def _options(self, options: Options, length: int) -> Options:
        options = {**options}
        if "img_slice" in options:  # the host sets it once for all single blocks
            options["img_slice"] = [options["img_slice"][0], length]
        return options

    def _guard(self, args: Options, pe: torch.Tensor) -> Options:
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
        """Stands in for the host's attention: q, k, v (B, H, S, D) after RoPE -> (B, S, H*D)."""
        mask = kwargs.pop("mask", args[0] if args else None)
        if mask is not None or not kwargs.get("skip_reshape") or kwargs.get("skip_output_reshape"):
            raise InputError(
                f"{NODE}, model: another node changes how FLUX calls its attention; remove nodes that replace"
                " FLUX's blocks or add attention masks."
            )
        self.call.reached.add(self.number)
        if self.call.probe is not None:
            sequence, schedule = self.call.prepared.arrangement
            self.call.probe(sequence, schedule[self.number].rule, q, k)
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

        return run(self.call.prepared.programs[self.number], q, k, v, attend)

    def _leave(self, out: Options) -> Options:
        """After the last block that reads references, only text, noise and layout go on."""
        prepared = self.call.prepared
        if self.number != prepared.leave:
            return out
        return {**out, "img": out["img"][:, : prepared.stay].clone()}  # a view would keep the dropped rows in memory
