"""Cases of the differential part inside a ComfyUI: ``in_comfy.py COMFYUI FILES`` in its interpreter.

Reads a case as one line of JSON after the other from standard input, samples it with the host's own sampler through the
patched model, and writes one line with the picture, or with the sentence that refused it.
"""

import sys

# Python puts this folder, whose modules have names like those of others, first on the path.
del sys.path[0]

import base64  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import traceback  # noqa: E402
import types  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
NAME = "contextgen_pack"


def main(host: str, files: str) -> None:
    said, sys.stdout = sys.stdout, sys.stderr  # the host prints
    sys.path[:] = [host, *(entry for entry in sys.path if entry and Path(entry).resolve() != ROOT)]
    sys.argv[1:] = []

    import comfy.cli_args  # pyright: ignore[reportMissingImports]

    comfy.cli_args.args.cpu = True
    for name, folder in ((NAME, ROOT), (f"{NAME}.nodes", ROOT / "nodes")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    import torch

    torch.set_num_threads(1)
    sampler = Sampler(json.loads(files))
    said.write("ready\n")
    said.flush()
    for line in sys.stdin:
        said.write(json.dumps(sampler.answer(json.loads(line))) + "\n")
        said.flush()


def pack(name: str) -> Any:
    return importlib.import_module(f"{NAME}.{name}")


def unpacked(value: Any) -> Any:
    """The inverse of :func:`campaign.differential.runs.packed`."""
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"])
    return tuple(map(unpacked, value)) if isinstance(value, list) else value


class Sampler:
    """``files``: what each small model and method is read from, by its name."""

    def __init__(self, files: dict[str, Any]) -> None:
        self.files = files
        self.models: dict[str, Any] = {}
        self.host = pack("nodes.host")
        self.refused = pack("contextgen_core.errors").InputError

    def answer(self, case: dict[str, Any]) -> dict[str, str]:
        import torch
        from safetensors.torch import save

        try:
            picture = self.sample(case)
            return {"picture": base64.b64encode(save({"x": picture.float().contiguous()})).decode()}
        except self.refused as error:
            return {"refused": str(error)}
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()[-2000:]}
        finally:
            torch.set_grad_enabled(True)

    def model(self, name: str) -> Any:
        if name not in self.models:
            import torch

            transformer = pack("contextgen_core.commands.parity").transformer
            family, config, weights, which = self.files["models"][name]
            build = getattr(self.host, f"build_{family}")
            self.models[name] = build(*transformer(config, weights, which), torch.float32)
        return self.models[name]

    def modules(self, method: str, settings: Any, name: str) -> Any:
        """A method's extra weights, None where it has none."""
        import comfy.ops  # pyright: ignore[reportMissingImports]

        if method == "instance_assemble":
            read = pack("contextgen_core.methods.instance_assemble.files").read_files
            return read(*self.files["assemble"][name]).build(comfy.ops.manual_cast.Linear)
        if method == "sigma_gen" and settings.scope == "conditions":
            double = self.host.family_of(self.model(name)).counts.double
            adapter = pack("contextgen_core.lora.adapter").load_adapter(self.files["adapter"])
            return pack("contextgen_core.lora.switched").SwitchedAdapter(adapter, double)
        return None

    def sample(self, case: dict[str, Any]) -> Any:
        import comfy.samplers  # pyright: ignore[reportMissingImports]
        import torch
        from safetensors.torch import load

        tensors = load(base64.b64decode(case["tensors"]))
        model = self.model(case["model"])
        scaled = model.model.latent_format
        methods = []
        for name, plan, given in case["methods"]:
            method = pack("contextgen_core.methods.registry").method(name)
            kind = type(method.default_settings())
            given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
            if "rule" in given:
                given["rule"] = pack("contextgen_core.methods.contextgen.schedule").Rule(given["rule"])
            methods.append((method, method.plan_from(unpacked(plan)), kind(**given)))

        def conditioning(kind: str, bound: bool) -> list[Any]:
            values = {"pooled_output": tensors[f"{kind} pooled"], "guidance": case["guidance"]}
            made = [[tensors[f"{kind} text"], values]]
            if not bound:
                return made
            number = 0
            for method, plan, _ in methods:
                latents = []
                for _ in method.sizes(plan)[1]:
                    latents.append(scaled.process_out(tensors[f"latent {number}"]))
                    number += 1
                vectors = {}
                for key in tensors:
                    start = f"vector {method.name} "
                    if key.startswith(start):
                        content = key.endswith(" content")
                        vectors[key[len(start) :]] = scaled.process_out(tensors[key]) if content else tensors[key]
                made = self.host.attach(made, method, plan, latents, vectors)
            return made

        patched = model
        for method, _, settings in methods:
            modules = self.modules(method.name, settings, case["model"])
            patched = self.host.install(patched, method, settings, modules)
        guider = comfy.samplers.CFGGuider(patched)
        positive = conditioning("positive", True)
        guider.set_conds(positive, conditioning("negative", case["negative"] == "same"))
        guider.set_cfg(case["cfg"])
        start = tensors["noise"]
        if case["family"] == "qwen":
            start = start[:, :, None]
        euler = comfy.samplers.sampler_object("euler")
        sigmas = torch.tensor(case["sigmas"])
        done = guider.sample(start, torch.zeros_like(start), euler, sigmas, disable_pbar=True, seed=0)
        done = scaled.process_in(done)
        return done[:, :, 0] if done.ndim == 5 else done


if __name__ == "__main__":
    main(*sys.argv[1:3])
