"""Puts methods on a model: the wrappers, what they refuse before sampling, and the place in the run of each step."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...contextgen_core.errors import InputError
from ...contextgen_core.methods.boundary import Bound, Forward, Method
from ...contextgen_core.methods.registry import method as method_named
from .call import MEMO, REMEMBERED, STEADY_KEY, VECTORS, Call, Options, begin
from .conditioning import PLAN, VECTOR, plans_of, scaled_content, take
from .families import Family, family_of, family_of_transformer
from .memory import prepare_sampling
from .sizes import shift_doubt
from .weights import modules_of, set_modules

log = logging.getLogger("contextgen")

KEY = "contextgen"
MOMENTS_KEY = "contextgen_moments"  # in transformer_options: what of the place in the run matters, by method's name
MODULES_KEY = "contextgen_modules"  # in transformer_options: extra weights, by method's name
PROBE_KEY = "contextgen_probe"  # in transformer_options: who wants to see queries and keys, Probe or nobody

Probe = Callable[[Forward, int, torch.Tensor, torch.Tensor], None]  # number of the block; q, k: (B, H, S, D)


class Installed(NamedTuple):
    """The methods on a model, in the order in which they were put there, each with its settings."""

    entries: tuple[tuple[str, Any], ...] = ()

    def settings(self, name: str) -> Any | None:
        return dict(self.entries).get(name)

    def bounds(self, plans: Options) -> tuple[Bound, ...]:
        """The methods that have a plan; ``plans`` by the method's name, as tuples."""
        known = [(method_named(name), settings) for name, settings in self.entries if name in plans]
        return tuple(Bound(method, method.plan_from(plans[method.name]), settings) for method, settings in known)


def install(model: Any, method: Method, settings: Any, modules: torch.nn.Module | None = None) -> Any:
    """A clone of ``model`` that follows the method's layouts in its conditionings. Without one it is the model itself.

    ``modules`` are the method's extra weights; the host loads, moves and frees them with the model. Putting a method
    on twice lets the later settings hold. Raises InputError for a family that cannot carry it.
    """
    family_of(model)
    before = installed_on(model)
    others = tuple(entry for entry in before.entries if entry[0] != method.name)
    installed = Installed((*others, (method.name, settings)))
    clone = model.clone()
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, _outer_sample),
        (WrappersMP.PREPARE_SAMPLING, prepare_sampling),
        (WrappersMP.APPLY_MODEL, _apply_model),
        (WrappersMP.DIFFUSION_MODEL, _diffusion_model),
    ):
        clone.remove_wrappers_with_key(kind, KEY)
        clone.add_wrapper_with_key(kind, KEY, partial(wrapper, installed))
    clone.remove_callbacks_with_key(CallbacksMP.ON_CLEANUP, KEY)
    clone.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, _forget)
    if modules is not None or method.name in dict(before.entries):
        set_modules(clone, method, modules)
    return clone


def _forget(_patcher: Any) -> None:
    """Drops what a run has planned and remembered: tensors on the device that the host's own planning does not know."""
    MEMO.clear()
    REMEMBERED.clear()
    VECTORS.clear()


def installed_on(model: Any) -> Installed:
    wrappers = model.get_wrappers(WrappersMP.DIFFUSION_MODEL, KEY)
    return wrappers[0].args[0] if wrappers else Installed()


def methods_of(model: Any) -> tuple[tuple[Method, Any], ...]:
    """The methods on a model with their settings, in the order in which they were put there."""
    return tuple((method_named(name), settings) for name, settings in installed_on(model).entries)


def settings_of(model: Any, method: Method) -> Any | None:
    """The settings that :func:`install` put on a model for a method, None if it is not there."""
    return installed_on(model).settings(method.name)


def watched(model: Any, probe: Probe) -> Any:
    """A clone of ``model`` in which ``probe`` sees the queries and keys of every block that a layout reaches."""
    clone = model.clone()
    clone.model_options["transformer_options"] = {**clone.model_options["transformer_options"], PROBE_KEY: probe}
    return clone


# --- before sampling ------------------------------------------------------------------------------------------------


def _outer_sample(installed: Installed, executor: Any, noise: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    guider = executor.class_obj
    for conds in guider.conds.values():
        for cond in conds:
            plans = plans_of(cond)
            for method, plan in plans:
                family = _check_model(guider.model_patcher, installed, method, plan)
                _check_phrases(family, method, cond)
            _check_cond(plans, cond, noise)
    sized = any(plans_of(cond) for conds in guider.conds.values() for cond in conds)
    if sized and (doubt := shift_doubt(guider.model_patcher, noise.shape[-1] * 8, noise.shape[-2] * 8)):
        log.warning("%s", doubt)
    return executor(noise, *args, **kwargs)


def _check_model(patcher: Any, installed: Installed, method: Method, plan: Any) -> Family:
    if method.name not in dict(installed.entries):
        others = " and ".join(method_named(name).label for name, _ in installed.entries)
        raise InputError(
            f"the conditioning has a layout for {method.label}, but the model follows {others} alone; put the model"
            f" through {method.node}, too.",
            method.source,
            "conditioning",
        )
    try:
        family = family_of(patcher)
    except InputError as error:
        raise InputError(error.message, method.node, "model") from None
    transformer = patcher.model.diffusion_model
    if any(key.endswith("forward_orig") for key in patcher.object_patches) or "forward_orig" in vars(transformer):
        raise InputError(
            "another node (TeaCache and its relatives) has replaced FLUX's forward pass, which"
            " would skip the layout; remove that node, ComfyUI's own EasyCache works.",
            method.node,
            "model",
        )
    patches = patcher.model_options.get("transformer_options", {}).get("patches", {})
    if any(type(patch).__name__ == "KV_Attn_Input" for patch in patches.get("attn1_patch", [])):
        raise InputError(
            "Flux KV Cache drops the reference tokens after the first step and cannot work with a"
            " layout; remove the Flux KV Cache node.",
            method.node,
            "model",
        )
    method.check(plan, installed.settings(method.name), family.backbone)
    return family


def _check_phrases(family: Family, method: Method, cond: Options) -> None:
    phrases = cond.get("model_conds", {}).get(f"{VECTOR}{method.name}_phrases")
    known = family.backbone
    if not method.joins_text or phrases is None or not known.text or phrases.cond.shape[-1] == known.text:
        return
    raise InputError(
        f"the phrases have {phrases.cond.shape[-1]} numbers a token, {known.name} reads {known.text}; connect the text"
        " encoder of this model.",
        method.source,
        "clip",
    )


def _check_cond(plans: list[tuple[Method, Any]], cond: Options, noise: torch.Tensor) -> None:
    if not plans:
        return
    sources = [method.source for method, _ in plans]
    if cond.get("area") is not None:
        raise InputError(
            "an area (Conditioning Set Area) is set on the conditioning with"
            " the layout; remove it, the boxes of the layout say where things go.",
            sources[0],
            "conditioning",
        )
    if noise.ndim == 5 and noise.shape[2] != 1:
        raise InputError(
            f"the latent has {noise.shape[2]} layers, a layout is one picture; use the latent that {sources[0]} puts"
            " out.",
            "KSampler",
            "latent_image",
        )
    if cond.get("attention_mask") is not None:
        raise InputError(
            "it carries an attention mask (from a Redux style model), which"
            " has no meaning for the layout's tokens; apply the style model without attention mask.",
            sources[0],
            "conditioning",
        )
    have = tuple(noise.shape[-2:])
    wanted: list[tuple[int, int]] = []
    for method, plan in plans:
        (rows, columns), pictures = method.sizes(plan)
        if have != (2 * rows, 2 * columns):
            raise InputError(
                f"the latent is {have[1] * 8}x{have[0] * 8} pixels but the layout is"
                f" {columns * 16}x{rows * 16}; use the latent that {method.source} puts out.",
                "KSampler",
                "latent_image",
            )
        wanted += [(2 * height, 2 * width) for height, width in pictures]
    sizes = [tuple(latent.shape[-2:]) for latent in cond.get("reference_latents", [])]
    if wanted and sizes != wanted:
        raise InputError(
            f"it carries {len(sizes)} reference latents where the layout has"
            f" {len(wanted)} pictures of its own; remove ReferenceLatent nodes after {sources[0]}.",
            sources[0],
            "conditioning",
        )


# --- each step ------------------------------------------------------------------------------------------------------


class _Position:
    """Where in the sampling run a call stands; the sigma is read from the device when it is first asked for."""

    def __init__(self, sampling: Any, t: torch.Tensor, sigmas: torch.Tensor | None) -> None:
        self._sampling, self._t, self._sigmas = sampling, t, sigmas
        self._sigma: float | None = None

    @property
    def sigma(self) -> float:
        if self._sigma is None:
            self._sigma = float(self._t.flatten()[0])
        return self._sigma

    def within(self, start: float, end: float) -> bool:
        return self._sampling.percent_to_sigma(end) <= self.sigma <= self._sampling.percent_to_sigma(start)

    def before_step(self, ratio: float) -> bool:
        if self._sigmas is None:
            return ratio > 0
        step = int(ratio * (len(self._sigmas) - 1))
        return step > 0 and self.sigma > float(self._sigmas[step])


def _apply_model(installed: Installed, executor: Any, x: Any, t: Any, *args: Any, **kwargs: Any) -> Any:
    """Leaves in transformer_options what the methods need of the place in the run, which is known only here."""
    bounds = installed.bounds({key[len(PLAN) :]: value for key, value in kwargs.items() if key.startswith(PLAN)})
    if not bounds:
        return executor(x, t, *args, **kwargs)
    names = list(inspect.signature(executor.original).parameters)
    base = executor.class_obj
    kwargs = scaled_content(kwargs, base.process_latent_in)

    def told(options: Options) -> Options:
        position = _Position(base.model_sampling, t, options.get("sample_sigmas"))
        moments: dict[str, Hashable] = {}
        for method, plan, settings in bounds:
            timed = method.timed(plan, settings)  # only then: reading the sigma waits for the device
            moments[method.name] = method.moment(plan, settings, position if timed else None)
        modules = modules_of(base, [bound.method for bound in bounds])
        steady = not getattr(base.current_patcher, "current_hooks", None)  # else weights may change from step to step
        return {**options, MOMENTS_KEY: moments, MODULES_KEY: modules, STEADY_KEY: steady}

    args, kwargs = _with_options(names[2:], args, kwargs, told)
    family = family_of_transformer(base.diffusion_model)
    if family is None or family.wrapped:
        return executor(x, t, *args, **kwargs)
    _, vectors = take(kwargs)
    kind = {"device": x.device, "dtype": _dtype(base)}  # the host casts what it knows, later
    vectors = {name: {key: vector.to(**kind) for key, vector in its.items()} for name, its in vectors.items()}
    given = {**dict(zip(names[2:], args, strict=False)), **kwargs}
    call = _call(base.diffusion_model, bounds, vectors, {**given, "x": x, "context": given["c_crossattn"]}, base)
    if call is None:
        return executor(x, t, *args, **kwargs)
    args, kwargs = _with_options(names[2:], args, kwargs, call.options)
    out = executor(x, t, *args, **kwargs)
    call.check()
    return out


def _with_options(
    names: list[str], args: tuple[Any, ...], kwargs: Options, change: Callable[[Options], Options]
) -> tuple[tuple[Any, ...], Options]:
    """The same arguments with transformer_options changed, left in the slot where they were."""
    at = names.index("transformer_options")
    if at < len(args):
        return (*args[:at], change(args[at]), *args[at + 1 :]), kwargs
    return args, {**kwargs, "transformer_options": change(kwargs.get("transformer_options") or {})}


def _diffusion_model(installed: Installed, executor: Any, *args: Any, **kwargs: Any) -> Any:
    if not any(key.startswith(PLAN) for key in kwargs):
        return executor(*args, **kwargs)
    call, args, kwargs = _begin(installed, executor, args, kwargs)
    out = executor(*args, **kwargs)
    if call is not None:
        call.check()
    return out


def _planned(
    installed: Installed, executor: Any, args: tuple[Any, ...], kwargs: Options
) -> tuple[Call | None, tuple[Any, ...], Options]:
    """The call that carries the layouts out, None where nothing acts; and the arguments of the diffusion model."""
    plans, vectors = take(kwargs)
    names = list(inspect.signature(executor.original).parameters)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    call = _call(executor.class_obj, installed.bounds(plans), vectors, given)
    if call is None:
        return None, args, kwargs
    context = call.context(given["context"])
    if context is not given["context"]:
        args, kwargs = _with(names, args, kwargs, "context", context)
    if call.passed.ids is not None:
        # The host's own reference methods differ in ids only, which are rewritten, but for one that would also give
        # the references another modulation.
        kwargs["ref_latents_method"] = "offset"
    args, kwargs = _with_options(names, args, kwargs, call.options)
    return call, args, kwargs


# Outside of any graph: under torch.compile, everything after it is one graph without a break.
_uncompiled: Any = torch.compiler.disable  # whose annotations fit its use as a decorator with arguments alone
_begin: Callable[..., tuple[Call | None, tuple[Any, ...], Options]] = _uncompiled(_planned)


def _call(transformer: Any, bounds: tuple[Bound, ...], vectors: Any, given: Options, base: Any = None) -> Call | None:
    """The call of the methods that act now, from the model's arguments ``given``; None where none acts.

    ``base``: the host's model, where the arguments are those of its own, still in another dtype than the transformer's
    """
    options = given.get("transformer_options") or {}
    moments = options.get(MOMENTS_KEY, {})
    acting = [
        (bound, moment)
        for bound in bounds
        if (moment := moments.get(bound.method.name, bound.method.moment(bound.plan, bound.settings, None))) is not None
    ]
    if not acting:
        return None
    dtype = given["x"].dtype if base is None else _dtype(base)
    call: Call = begin(transformer, tuple(acting), vectors, options.get(MODULES_KEY, {}), given, dtype)
    call.probe = options.get(PROBE_KEY)
    if call.probe is not None and len(call.passed.owners) > 1:
        names = " and ".join(owner.method.label for owner in call.passed.owners)
        raise InputError(
            f"it holds layouts of {names}, and a map shows one method alone; connect one without the other."
        )
    return call


def _dtype(base: Any) -> torch.dtype:
    """What the host's model computes in."""
    return base.manual_cast_dtype or base.get_dtype()


def _with(
    names: list[str], args: tuple[Any, ...], kwargs: Options, name: str, value: Any
) -> tuple[tuple[Any, ...], Options]:
    at = names.index(name)
    if at < len(args):
        return (*args[:at], value, *args[at + 1 :]), kwargs
    return args, {**kwargs, name: value}
