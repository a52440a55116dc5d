"""Judges of transformers get their inputs in their own arithmetic."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from contextgen_core.hosts import eyes  # noqa: E402


class Processor:
    def apply_chat_template(self, *_: Any, **__: Any) -> Any:
        from transformers import BatchFeature

        return BatchFeature({"input_ids": torch.tensor([[5, 6]]), "pixel_values": torch.zeros(1, 3, 4, 4)})

    def batch_decode(self, said: torch.Tensor, **_: Any) -> list[str]:
        return [" ".join(map(str, row)) for row in said.tolist()]


class Model(torch.nn.Conv2d):
    dtype = torch.bfloat16

    def generate(self, input_ids: torch.Tensor, pixel_values: torch.Tensor, **_: Any) -> torch.Tensor:
        self(pixel_values)  # fails where the types differ
        return torch.cat([input_ids, torch.tensor([[7]])], 1)


def test_a_judge_in_bfloat16_gets_its_picture_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = SimpleNamespace(AutoProcessor=Processor(), AutoModelForImageTextToText=Model(3, 1, 1).to(torch.bfloat16))
    monkeypatch.setattr(eyes, "_loaded", lambda kind, *_, **__: getattr(parts, kind))
    assert eyes.VisionJudge("folder", "cpu")(np.zeros((4, 4, 3), np.uint8), "cat", "a red cat", "colour") == "7"
