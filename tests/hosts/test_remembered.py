"""Condition tokens that are the same in every step: computed once, with the same pictures as without."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from golden import CONTEXTGEN, SIGMA_ADAPTER, SIGMA_CASE
from safetensors.torch import load_file

from contextgen_core.attention import Span
from contextgen_core.backbones.flux import pack
from contextgen_core.hosts.diffusers import FluxHost, load_transformer
from contextgen_core.hosts.remembered import Recorder, Remembered
from contextgen_core.lora.adapter import load_adapter
from contextgen_core.lora.switched import SwitchedAdapter
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.sigma_gen.method import SIGMA_GEN, Settings, plan_of

APART = Settings(timestep="zero", scope="conditions", cross=False, context=False)


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    with np.load(SIGMA_CASE) as stored:
        return {key: torch.from_numpy(stored[key]) if stored[key].dtype.kind == "f" else stored[key] for key in stored}


@pytest.fixture(scope="module")
def transformer() -> Any:
    config = json.loads((CONTEXTGEN / "config.json").read_text())["transformer"]
    return load_transformer(config, load_file(CONTEXTGEN / "transformer.safetensors"))


def trajectory(transformer: Any, case: dict[str, Any], settings: Settings, remembered: Remembered | None) -> list[Any]:
    """Latents after each of the golden Euler steps."""
    modules = {"sigma_gen": SwitchedAdapter(load_adapter(SIGMA_ADAPTER), 3)} if settings.scope != "all" else {}
    bound = Bound(SIGMA_GEN, plan_of(case["i_s"], case["i_c"]), settings)
    x, after = case["noise_packed"], []
    conditions = torch.cat([pack(case["i_s_latent"]), pack(case["i_c_latent"])], dim=1)
    sigmas = case["trajectory_sigmas"]
    with torch.no_grad(), FluxHost(transformer) as host:
        for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
            velocity = host.velocity(
                bound,
                x,
                conditions,
                text=case["text_embeds"],
                pooled=case["pooled"],
                timestep=now[None],
                guidance=case["guidance"],
                modules=modules,
                remembered=remembered,
            )
            x = x + (then - now) * velocity
            after.append(x)
    return after


@pytest.mark.parametrize("remembered", [None, Remembered()], ids=["anew", "remembered"])
@pytest.mark.parametrize(("name", "context"), [("indep", False), ("nocross", True)])
def test_the_golden_trajectories(
    transformer: Any, case: dict[str, Any], name: str, context: bool, remembered: Remembered | None
) -> None:
    settings = Settings(timestep="zero", scope="conditions", cross=False, context=context)
    for made, golden in zip(
        trajectory(transformer, case, settings, remembered), case[f"trajectory_{name}"], strict=True
    ):
        assert (made[0] - golden).abs().max() < 2e-5
    assert remembered is None or (len(remembered) > 0) or context


class Lengths:
    """The tokens that enter the blocks, call by call."""

    def __init__(self, transformer: Any) -> None:
        self.seen: list[int] = []
        block = transformer.single_transformer_blocks[0]
        self.hook = block.proj_mlp.register_forward_hook(lambda _module, args, _out: self.seen.append(args[0].shape[1]))


@pytest.mark.parametrize("scope", ["all", "conditions"])
@pytest.mark.parametrize("cross", [True, False])
def test_after_the_first_step_only_text_and_noise_are_computed(
    transformer: Any, case: dict[str, Any], scope: str, cross: bool
) -> None:
    settings = Settings(timestep="zero", scope=scope, cross=cross, context=False)
    anew = trajectory(transformer, case, settings, None)
    lengths, remembered = Lengths(transformer), Remembered()
    once = trajectory(transformer, case, settings, remembered)
    lengths.hook.remove()
    assert len(lengths.seen) == 4 and lengths.seen[0] == 512 + 64 + 32 + 64
    assert set(lengths.seen[1:]) == {512 + 64}
    for a, b in zip(anew, once, strict=True):
        assert (a - b).abs().max() < 1e-5  # of values up to 9
    assert remembered.held == 9 * 2 * (32 + 64) * 32 * 4


def test_what_is_not_the_same_in_every_step_is_not_remembered(transformer: Any, case: dict[str, Any]) -> None:
    for change in ({"timestep": "current"}, {"context": True}, {"memory": 0.0}):
        remembered = Remembered()
        settings = Settings(**{"timestep": "zero", "cross": False, "context": False, **change})
        trajectory(transformer, case, settings, remembered)
        assert len(remembered) == 0 and remembered.held == 0


def test_what_does_not_fit_is_computed_in_every_step(transformer: Any, case: dict[str, Any]) -> None:
    remembered = Remembered()
    small = trajectory(transformer, case, Settings(**{**vars(APART), "memory": 1e-6}), remembered)
    assert len(remembered) == 0
    assert torch.equal(small[-1], trajectory(transformer, case, APART, None)[-1])


def velocity(host: FluxHost, case: dict[str, Any], remembered: Remembered | None, **changed: Any) -> torch.Tensor:
    conditions = torch.cat([pack(case["i_s_latent"]), pack(case["i_c_latent"])], dim=1)
    given = {
        "conditions": changed.pop("conditions", conditions),
        "pooled": case["pooled"],
        "guidance": case["guidance"],
        **changed,
    }
    bound = Bound(SIGMA_GEN, plan_of(case["i_s"], case["i_c"]), Settings(timestep="zero", context=False, cross=False))
    return host.velocity(
        bound,
        case["noise_packed"],
        text=case["text_embeds"],
        timestep=torch.ones(1),
        remembered=remembered,
        **given,
    )


@pytest.mark.parametrize("name", ["pooled", "conditions", "guidance"])
def test_other_words_or_pictures_are_not_answered_from_what_was_remembered(
    transformer: Any, case: dict[str, Any], name: str
) -> None:
    length = pack(case["i_s_latent"]).shape[1] + pack(case["i_c_latent"]).shape[1]
    generator = torch.Generator().manual_seed(0)
    other = {
        "pooled": lambda: torch.randn(case["pooled"].shape, generator=generator),
        "conditions": lambda: torch.randn(1, length, 64, generator=generator),
        "guidance": lambda: case["guidance"] + 2,
    }[name]()
    remembered = Remembered()
    with torch.no_grad(), FluxHost(transformer) as host:
        velocity(host, case, remembered)
        assert len(remembered) == 1
        made = velocity(host, case, remembered, **{name: other})
        assert torch.equal(made, velocity(host, case, None, **{name: other}))


def test_the_position_table_is_made_once_in_a_run(
    transformer: Any, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    rope = FluxHost._rope

    def counted(self: FluxHost, ids: torch.Tensor) -> Any:
        made.append(len(ids))
        return rope(self, ids)

    monkeypatch.setattr(FluxHost, "_rope", counted)
    trajectory(transformer, case, Settings(), None)
    assert len(made) == 1


def keys(batch: int, value: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    k = torch.arange(batch).float().reshape(-1, 1, 1, 1).expand(-1, 2, 5, 3) + value
    return k, -k


def recorded(remembered: Remembered, blocks: Sequence[int], limit: int = 10**6, chunks: int = 2) -> Recorder:
    recorder = remembered.recorder("run", Span(3, 5), 2, chunks, limit)
    for block in blocks:
        recorder.join(block, *keys(4, block))
    recorder.done()
    return recorder


def test_a_pass_that_did_not_end_leaves_nothing_behind() -> None:
    remembered = Remembered()
    recorded(remembered, [0])
    assert remembered.recall("run") is None and remembered.held == 0


def test_a_conditioning_is_kept_once_for_all_pictures_of_the_batch() -> None:
    remembered = Remembered()
    recorded(remembered, [1, 0])
    recalled = remembered.recall("run")
    assert recalled is not None and remembered.recall("other") is None
    assert remembered.held == 2 * 2 * (2 * 2 * 2 * 3) * 4  # blocks, keys and values, (chunks, heads, tokens, width)
    k, v = recalled.join(1, *(x[:, :, :3] for x in keys(4, 7)))
    assert k.shape == v.shape == (4, 2, 5, 3)
    assert k[:, 0, 4, 0].tolist() == [1, 1, 3, 3] and k[:, 0, 0, 0].tolist() == [7, 8, 9, 10]
    assert torch.equal(v, -k)
    remembered.clear()
    assert remembered.recall("run") is None and remembered.held == 0


def test_what_does_not_fit_is_said_once_a_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "contextgen")
    remembered = Remembered()
    for _ in range(3):
        recorder = remembered.recorder("run", Span(3, 5), 2, 2, limit=1)
        recorder.join(0, *keys(4, 7))
        recorder.done()
    assert len(caplog.records) == 1 and not remembered.held
    remembered.clear()
    remembered.recorder("run", Span(3, 5), 2, 2, limit=1).join(0, *keys(4, 7))
    assert len(caplog.records) == 2
