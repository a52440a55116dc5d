"""Weights that stay away from the device, on a machine that has none.

The host leaves the weights of a module where they are when memory is short, and brings them for each call of it; with
asynchronous offload into one buffer for each of two streams, which the next module's weights then overwrite. Here the
host's code for that runs on the CPU: while a diffusion model works, the weights that it left out lie on the device
"meta", which holds no numbers; the host's copies find the true ones; and a buffer that was given back is filled with
NaN. Whoever reads a weight without asking the host for it, or after giving it back, paints another picture.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import comfy.model_base
import comfy.model_management as management
import comfy.ops
import torch

CPU = torch.device("cpu")
LEFT_OUT = "prev_comfy_cast_weights"  # what the host puts on a module whose weights it leaves where they are


class _Stream:
    """In the place of a CUDA stream: all is done in the order in which it was asked for."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def wait_stream(self, _other: object) -> None: ...

    def synchronize(self) -> None: ...


class _State:
    """share: of each model's weights that may be loaded, None for all of them. true: weights by the id of what stands
    in for them. brought: how often one was."""

    def __init__(self) -> None:
        self.share: float | None = None
        self.true: dict[int, torch.Tensor] = {}
        self.brought = 0
        self.streams = management.NUM_STREAMS  # the host's own


_state = _State()


def set_share(share: float | None) -> None:
    """From now on models load at most this share of their weights, 0 for next to nothing; None for all."""
    management.unload_all_models()
    streams = [] if share is None else [_Stream(), _Stream()]
    _state.share, _state.brought = share, 0
    management.NUM_STREAMS = len(streams) or _state.streams
    management.stream_counters.pop(CPU, None)
    management.STREAMS.pop(CPU, None)
    getattr(management, "STREAM_CAST_BUFFERS", {}).clear()
    if streams:
        management.STREAMS[CPU] = streams


def brought() -> int:
    """How often a weight that was left out was brought since the share was set."""
    return _state.brought


@contextlib.contextmanager
def _hidden() -> Iterator[None]:
    modules = [one for loaded in management.current_loaded_models for one in loaded.model.model.modules()]
    kept: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
    for module in dict.fromkeys(modules):
        if hasattr(module, LEFT_OUT):
            kept += [(module, name, value) for name, value in module._parameters.items() if value is not None]
    for module, name, value in kept:
        module._parameters[name] = stand_in = torch.nn.Parameter(torch.empty_like(value, device="meta"), False)
        _state.true[id(stand_in)] = value
    cast = management.cast_to

    @functools.wraps(cast)
    def cast_to(weight: torch.Tensor, *words: Any, **more: Any) -> torch.Tensor:
        true = _state.true.get(id(weight))
        if true is None:
            return cast(weight, *words, **more)
        _state.brought += 1
        r = more.pop("r", None)
        if r is None:
            return cast(true, *words, **{**more, "copy": True})
        return r.copy_(true)

    management.cast_to = cast_to  # only now: 0.30.0 undoes it after packs are loaded and after prompts
    try:
        yield
    finally:
        management.cast_to = cast
        for module, name, value in kept:
            module._parameters[name] = value
        _state.true.clear()


def install(put: Callable[[Any, str, Any], None]) -> None:
    """Puts this into the host by ``put(owner, name, value)``; without a share it changes nothing."""
    load, apply = management.LoadedModel.model_load, comfy.model_base.BaseModel.apply_model

    @functools.wraps(load)
    def model_load(self: Any, memory: float = 0, *words: Any, **more: Any) -> Any:
        if _state.share is not None:
            memory = max(0.1, _state.share * self.model_memory())  # 0 would mean all
        return load(self, memory, *words, **more)

    @functools.wraps(apply)
    def apply_model(self: Any, *words: Any, **more: Any) -> Any:
        if _state.share is None or _state.true:
            return apply(self, *words, **more)
        with _hidden():
            return apply(self, *words, **more)

    put(management.LoadedModel, "model_load", model_load)
    put(comfy.model_base.BaseModel, "apply_model", apply_model)
    uncast = getattr(comfy.ops, "uncast_bias_weight", None)
    if uncast is None:  # 0.3.64 takes new memory for each copy
        return

    @functools.wraps(uncast)
    def uncast_bias_weight(s: Any, weight: Any, bias: Any, offload_stream: Any) -> None:
        uncast(s, weight, bias, offload_stream)
        stream = offload_stream[0] if offload_stream else None
        if isinstance(stream, _Stream) and (buffer := management.STREAM_CAST_BUFFERS.get(stream)) is not None:
            buffer.fill_(-1)  # NaN in all kinds of numbers that weights have

    put(comfy.ops, "uncast_bias_weight", uncast_bias_weight)
