"""Where the golden cases lie (tests/golden/README.md). They are listed by name: a missing one fails its tests."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"
CONTEXTGEN = GOLDEN / "contextgen"
CONTEXTGEN_CASES = [CONTEXTGEN / "nonsquare.npz", CONTEXTGEN / "single_ref.npz"]
CONTEXTGEN_ADAPTER = CONTEXTGEN / "transformer_00007.safetensors"
LAMIC_CASE = GOLDEN / "lamic" / "lamic_two_refs.npz"
SIGMA = GOLDEN / "sigma"
SIGMA_CASE = SIGMA / "sigma_two_subjects.npz"
SIGMA_ADAPTER = SIGMA / "sigma_lora.safetensors"
ELIGEN = GOLDEN / "eligen"
ELIGEN_CASE = ELIGEN / "eligen_two_boxes.npz"
ELIGEN_QWEN_CASE = ELIGEN / "eligen_qwen_two.npz"
ELIGEN_QWEN_WEIGHTS, ELIGEN_QWEN_ADAPTER = (
    ELIGEN / "qwen_transformer.safetensors",
    ELIGEN / "eligen_qwen_lora.safetensors",
)
ELIGEN_ADAPTER = ELIGEN / "eligen_flux_lora.safetensors"
