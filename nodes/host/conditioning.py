"""Layouts in a conditioning: plans as numbers, pictures as reference latents, encoded phrases beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import comfy.conds
import torch

from ...contextgen_core.errors import InputError
from ...contextgen_core.methods.boundary import CONTENT, Method
from ...contextgen_core.methods.registry import methods

PLAN, VECTOR = "layout_plan_", "layout_vector_"  # in model_conds and in the model's arguments, before the method's name

Options = dict[str, Any]


def attach(
    conditioning: list[Any],
    method: Method,
    plan: Any,
    latents: list[torch.Tensor],
    vectors: Mapping[str, torch.Tensor] | None = None,
) -> list[Any]:
    """A copy of ``conditioning`` that carries a method's plan.

    latents  of the plan's pictures in its order, as reference latents
    vectors  encoded phrases by name, each with a batch of 1 first

    Raises InputError if there are pictures and it carries reference latents already: the plan counts every one.
    """
    carrying = []
    for embedding, values in conditioning:
        if latents and values.get("reference_latents"):
            raise InputError(
                f"it already carries {len(values['reference_latents'])} reference latents; remove the ReferenceLatent"
                " nodes, references belong into Reference Bundle.",
                method.source,
                "conditioning",
            )
        conds = {**values.get("model_conds", {}), PLAN + method.name: comfy.conds.CONDConstant(method.plan_tuple(plan))}
        for name, vector in (vectors or {}).items():
            conds[f"{VECTOR}{method.name}_{name}"] = comfy.conds.CONDRegular(vector)
        pictures = {"reference_latents": list(latents)} if latents else {}
        carrying.append([embedding, {**values, "model_conds": conds, **pictures}])
    return carrying


def scaled_content(arguments: Options, process_latent_in: Callable[[torch.Tensor], torch.Tensor]) -> Options:
    """A model's arguments with the latents among the vectors as the model reads them."""
    return {
        key: process_latent_in(value) if key.startswith(VECTOR) and key.endswith(f"_{CONTENT}") else value
        for key, value in arguments.items()
    }


def plan_of(values: Options, method: Method) -> Any | None:
    """The method's plan inside a conditioning's values, if there is one."""
    cond = values.get("model_conds", {}).get(PLAN + method.name)
    return None if cond is None else method.plan_from(cond.cond)


def plans_of(values: Options) -> list[tuple[Method, Any]]:
    """All plans inside a conditioning's values, in the registry's order."""
    found = [(method, plan_of(values, method)) for method in methods()]
    return [(method, plan) for method, plan in found if plan is not None]


def take(arguments: Options) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    """Removes what :func:`attach` put there from a model's arguments: plans as tuples, vectors, by method's name."""
    plans: dict[str, Any] = {}
    vectors: dict[str, dict[str, torch.Tensor]] = {}
    for key in [key for key in arguments if key.startswith((PLAN, VECTOR))]:
        value = arguments.pop(key)
        if key.startswith(PLAN):
            plans[key[len(PLAN) :]] = value
            continue
        name = next(m.name for m in methods() if key.startswith(f"{VECTOR}{m.name}_"))
        vectors.setdefault(name, {})[key[len(f"{VECTOR}{name}_") :]] = value
    return plans, vectors
