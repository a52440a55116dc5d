"""Whole sampling runs of the differential part: on diffusers in this process, in each ComfyUI in one of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from contextgen_core.backbones.flux import pack, unpack
from contextgen_core.commands.parity import transformer
from contextgen_core.hosts.diffusers import FluxHost, load_transformer, noise_ids
from contextgen_core.hosts.diffusers_qwen import QwenHost, load_qwen
from contextgen_core.hosts.diffusers_sd3 import SD3Host, load_sd3
from contextgen_core.hosts.remembered import Remembered
from contextgen_core.lora.adapter import load_adapter
from contextgen_core.lora.switched import SwitchedAdapter
from contextgen_core.methods.instance_assemble.encoder import AssembleWeights
from contextgen_core.methods.instance_assemble.files import AssembleFile, read_files, write_file

from ..child import Child
from ..comfy import hosts
from ..frame import ROOT, NotHere
from . import Position
from .cases import POOLED, TEXT, Built, Case, normal

GOLDEN = ROOT / "tests" / "golden"
MODELS = (  # name here, family, folder of the golden cases, weights, name of the configuration
    ("flux", "flux", "contextgen", "transformer.safetensors", "transformer"),
    ("assemble", "flux", "instance_assemble", "transformer.safetensors", "flux"),
    ("sd3", "sd3", "instance_assemble", "sd3_transformer.safetensors", "sd3"),
    ("qwen", "qwen", "eligen", "qwen_transformer.safetensors", "qwen"),
)
LOADERS = {"flux": load_transformer, "sd3": load_sd3, "qwen": load_qwen}
HOSTS = {"flux": FluxHost, "sd3": SD3Host, "qwen": QwenHost}


def golden(folder: str, name: str) -> str:
    return str(GOLDEN / folder / name)


def model_name(case: Case) -> str:
    """InstanceAssemble's weights are for a FLUX.1 of their own size."""
    return "assemble" if case["model"] == "flux" and "instance_assemble" in case["methods"] else case["model"]


def packed(value: Any) -> Any:
    """A plan's nested tuples as JSON."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return [packed(one) for one in value]
    return value if isinstance(value, (str, int, type(None))) else float(value)


class Runs:
    """The small models, and the ComfyUIs that answer; a context manager that ends these."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="contextgen-differential-")
        self.models: dict[str, tuple[Any, Any]] = {}
        self.modules: dict[tuple[str, str], Any] = {}
        self.hosts: dict[str, Child] = {}

    def __enter__(self) -> Runs:
        pictured = Path(self.folder.name) / "pictured.safetensors"
        write_file(pictured, _with_pictures(self._assemble("flux")))
        self.files = {
            "models": {
                name: [family, *(golden(folder, file) for file in ("config.json", weights)), which]
                for name, family, folder, weights, which in MODELS
            },
            "assemble": {"assemble": [str(pictured)], "sd3": self._files("sd3")},
            "adapter": golden("sigma", "sigma_lora.safetensors"),
        }
        with contextlib.suppress(NotHere):
            for host in hosts():
                program = Path(__file__).with_name("in_comfy.py")
                self.hosts[f"ComfyUI {host.version}"] = Child(program, [str(host.path), json.dumps(self.files)], host)
        for child in self.hosts.values():  # which start beside each other
            child.line()
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts.values():
            host.end()
        self.folder.cleanup()

    def _files(self, kind: str) -> list[str]:
        prefix = "sd3_" if kind == "sd3" else ""
        return [
            golden("instance_assemble", f"{prefix}{name}.safetensors") for name in ("layout", "pytorch_lora_weights")
        ]

    def _assemble(self, kind: str) -> AssembleFile:
        return read_files(*self._files(kind))

    # --- diffusers --------------------------------------------------------------------------------------------------

    def model(self, name: str) -> tuple[Any, Any]:
        """Two transformers with the same weights: one for the host, one that stays as it is."""
        if name not in self.models:
            family, config, weights, which = self.files["models"][name]
            given = transformer(config, weights, which)
            self.models[name] = (LOADERS[family](*given), LOADERS[family](*given))
        return self.models[name]

    def weights(self, built: Built, name: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for method, _, settings in built.bounds:
            key = (method.name, name)
            if method.name == "instance_assemble":
                if key not in self.modules:
                    self.modules[key] = read_files(*self.files["assemble"][name]).build()
                made[method.name] = self.modules[key]
            if method.name == "sigma_gen" and settings.scope == "conditions":
                if key not in self.modules:
                    double = len(self.model(name)[0].transformer_blocks)
                    self.modules[key] = SwitchedAdapter(load_adapter(self.files["adapter"]), double)
                made[method.name] = self.modules[key]
        return made

    @torch.no_grad()
    def sample(self, case: Case, built: Built, rows: Sequence[int], remembered: bool = False) -> torch.Tensor:
        """The latents of these rows of the batch after the run, (rows, 16, h, w). Raises InputError."""
        family, name = case["model"], model_name(case)
        hooked, plain = self.model(name)
        tensors = tensors_of(case, built)
        x = tensors["noise"][list(rows)] * case["sigmas"][0]
        modules, known = self.weights(built, name), Remembered()
        with HOSTS[family](hooked) as host:
            for method, plan, settings in built.bounds:
                method.check(plan, settings, host.backbone)
            for now, then in zip(case["sigmas"], case["sigmas"][1:], strict=False):

                def velocity(kind: str, at: float = now, x: torch.Tensor = x) -> torch.Tensor:
                    words = self._words(case, tensors, kind, at, len(x))
                    if kind == "negative" and case["negative"] == "plain":
                        return _plain(plain, family, x, words)
                    words["vectors"] = {k: v for one in built.vectors.values() for k, v in one.items()}
                    words |= {"modules": modules, "positive": [kind == "positive"] * len(x)}
                    words["position"] = Position(at, case["sigmas"], family)
                    if family != "flux":
                        return host.velocity(built.bounds, x, **words)  # type: ignore[arg-type]
                    latents = [pack(latent).expand(len(x), -1, -1) for latent in built.latents]
                    if remembered:
                        words["remembered"] = known if kind == "positive" else Remembered()
                    out = host.velocity(built.bounds, pack(x), torch.cat(latents, 1) if latents else None, **words)  # type: ignore[arg-type]
                    return unpack(out, built.columns, built.rows)

                v = velocity("positive")
                if case["cfg"] != 1:
                    other = velocity("negative")
                    v = other + case["cfg"] * (v - other)
                x = x + (then - now) * v
        return x

    def _words(
        self, case: Case, tensors: dict[str, torch.Tensor], kind: str, sigma: float, batch: int
    ) -> dict[str, Any]:
        words: dict[str, Any] = {
            "text": tensors[f"{kind} text"].expand(batch, -1, -1),
            "timestep": torch.full((batch,), sigma * (1000 if case["model"] == "sd3" else 1)),
        }
        if case["model"] != "qwen":
            words["pooled"] = tensors[f"{kind} pooled"].expand(batch, -1)
        if case["model"] == "flux":
            words["guidance"] = torch.full((batch,), case["guidance"])
        return words

    # --- ComfyUI ----------------------------------------------------------------------------------------------------

    def ask(self, host: str, case: Case, built: Built, kernel: str) -> torch.Tensor | str:
        """The latents of the whole batch, or the sentence that refused the case. Raises RuntimeError on a failure."""
        methods = []
        for method, plan, settings in built.bounds:
            given = {**case["settings"][method.name]}
            if hasattr(settings, "kernel"):
                given["kernel"] = kernel
            if method.name == "instance_assemble":
                given["pictures"] = settings.pictures
            methods.append([method.name, packed(method.plan_tuple(plan)), given])
        words = {key: case[key] for key in ("negative", "cfg", "sigmas", "guidance")}
        tensors = base64.b64encode(save({k: v.contiguous() for k, v in tensors_of(case, built).items()})).decode()
        answer = self.hosts[host].ask(
            {**words, "family": case["model"], "model": model_name(case), "methods": methods, "tensors": tensors}
        )
        if "failed" in answer:
            raise RuntimeError(answer["failed"] + "\n" + answer["trace"])
        return answer["refused"] if "refused" in answer else load(base64.b64decode(answer["picture"]))["x"]


def tensors_of(case: Case, built: Built) -> dict[str, torch.Tensor]:
    made = {"noise": normal(case, "noise", case["batch"], 16, 2 * built.rows, 2 * built.columns)}
    width = TEXT[case["model"]]
    for kind, length in (("positive", case["text"]), ("negative", case["negative_text"])):
        # A layout may count the words of its conditioning, so a negative that carries it has as many.
        length = case["text"] if case["negative"] == "same" else length
        made[f"{kind} text"] = normal(case, f"{kind} text", 1, length, width)
        made[f"{kind} pooled"] = normal(case, f"{kind} pooled", 1, POOLED)
    made |= {f"latent {number}": latent for number, latent in enumerate(built.latents)}
    return made | {f"vector {m} {name}": v for m, own in built.vectors.items() for name, v in own.items()}


def _plain(model: Any, family: str, x: torch.Tensor, words: dict[str, Any]) -> torch.Tensor:
    """The velocity of the model without us, (B, 16, h, w)."""
    rows, columns = (side // 2 for side in x.shape[-2:])
    given = {"encoder_hidden_states": words["text"], "timestep": words["timestep"], "return_dict": False}
    if family == "sd3":
        return model(hidden_states=x, pooled_projections=words["pooled"], **given)[0]
    if family == "qwen":
        out = model(hidden_states=pack(x), img_shapes=[[(1, rows, columns)]] * len(x), **given)[0]
    else:
        ids = {"img_ids": noise_ids(rows, columns), "txt_ids": torch.zeros(words["text"].shape[1], 3)}
        more = {"pooled_projections": words["pooled"], "guidance": words["guidance"]}
        out = model(hidden_states=pack(x), **given, **ids, **more)[0]
    return unpack(out, columns, rows)


def _with_pictures(file: AssembleFile) -> AssembleFile:
    """The same weights with random ones for pictures."""
    shapes = AssembleWeights(file.width, file.pooled, file.blocks, pictures=True).state_dict()
    generator = torch.Generator().manual_seed(0)
    more = {
        name: torch.randn(value.shape, generator=generator) * 0.4 / value.shape[-1] ** 0.5
        for name, value in sorted(shapes.items())
        if name not in file.tensors
    }
    return AssembleFile("pictured", file.family, file.width, file.pooled, file.blocks, {**file.tensors, **more})
