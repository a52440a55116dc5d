"""What the host is told about the memory of a step, and that telling it changes nothing else."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.patcher_extension
import pytest
import tiny_flux
import torch
from contextgen_pack.contextgen_core.methods.contextgen.sequence import Plan
from contextgen_pack.contextgen_core.methods.contextgen.settings import Settings
from tiny_flux import conditioned, noise, sample, text


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_flux.build()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """(most, least) bytes that the host asked its memory planner for."""
    calls: list[tuple[float, float]] = []
    load = comfy.model_management.load_models_gpu

    def recording(models: Any, memory_required: float = 0, minimum_memory_required: Any = None, **rest: Any) -> Any:
        calls.append((memory_required, minimum_memory_required))
        return load(models, memory_required=memory_required, minimum_memory_required=minimum_memory_required, **rest)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", recording)
    return calls


def expected(model: Any, plan: Plan, references: int, batch: int = 1, conds: int = 1) -> tuple[float, float]:
    """The host's own formula over the tokens that are computed with; 4 latent pixels a token."""
    tokens = plan.noise_tokens + references
    shape = [batch, 16, 2 * plan.height, 2 * plan.width]
    one = [1, 16, 4 * tokens * batch]
    most = model.model.memory_required([2 * batch, *shape[1:]], cond_shapes={"ref_latents": [one] * conds})
    least = model.model.memory_required(shape, cond_shapes={"ref_latents": [one]})
    return most, least


@pytest.mark.parametrize("batch", [1, 2])
def test_the_host_plans_for_the_tokens_that_are_read(model: Any, asked: list[tuple[float, float]], batch: int) -> None:
    plan = tiny_flux.plan(references=3, strength=0.0)  # the last one is never read
    kept = sum(sum(reference.valid) for reference in plan.references[:2])
    start = noise(batch=batch)
    sample(tiny_flux.install(model, Settings()), conditioned(plan), text(), start=start)
    assert asked == [pytest.approx(expected(model, plan, kept, batch))]


def test_unpruned_and_unpatched_are_planned_whole(model: Any, asked: list[tuple[float, float]]) -> None:
    plan = tiny_flux.plan(references=3)
    every = sum(reference.tokens for reference in plan.references)
    sample(tiny_flux.install(model, Settings(kernel="grouped", prune=False)), conditioned(plan), text())
    sample(model, conditioned(plan), text())
    assert asked == [pytest.approx(expected(model, plan, every))] * 2
    assert every > sum(sum(reference.valid) for reference in plan.references)


def test_the_smaller_pictures_reach_nobody_but_the_planner(model: Any) -> None:
    """Also where another node's wrapper hands on conditionings of its own making."""
    patched = tiny_flux.install(model, Settings())
    positive = conditioned(tiny_flux.plan())
    seen: list[torch.Size] = []

    def copying(executor: Any, model: Any, shape: Any, conds: Any, *args: Any, **kwargs: Any) -> Any:
        real, conds, models = executor(model, shape, conds, *args, **kwargs)
        return real, {kind: [{**cond, "note": 1} for cond in group] for kind, group in conds.items()}, models

    def looking(executor: Any, *args: Any, **kwargs: Any) -> Any:
        seen.extend(latent.shape for latent in kwargs["ref_latents"])
        return executor(*args, **kwargs)

    plain = sample(patched, positive)
    kinds = comfy.patcher_extension.WrappersMP
    patched.add_wrapper_with_key(kinds.PREPARE_SAMPLING, "foreign", copying)
    patched.add_wrapper_with_key(kinds.APPLY_MODEL, "foreign", looking)
    assert torch.equal(sample(patched, positive), plain)
    whole = [latent.shape for latent in tiny_flux.latents(tiny_flux.plan())]
    assert seen == whole * 3
