"""How phrases should be read where no adapter is trained for them: strength, steps, blocks and softness, judged.

    python bench/phrase_settings.py WEIGHTS [--autoencoder FILE] [--adapter FILE] [--scenes 24] [--members 2]
                                    [--steps 8] [--unnamed] [--only NAME ...]

WEIGHTS are a transformer of the small world that knows creatures by name, its autoencoder is the pack's own unless a
FILE is given. Each scene's prompt names its creatures (--unnamed: only place and light); each creature's name is the
phrase of its box. Judged are the creatures in their boxes: *exact*, and *taken*, nearer to another creature of the
scene than to itself. One line of JSON for each way.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from contextgen_core.composite.compose import compose  # noqa: E402
from contextgen_core.hosts.diffusers import load_transformer, merge_adapter  # noqa: E402
from contextgen_core.layout.box import Box  # noqa: E402
from contextgen_core.layout.layout import Instance, Layout  # noqa: E402
from contextgen_core.lora.adapter import load_adapter  # noqa: E402
from contextgen_core.methods.boundary import Prepared  # noqa: E402
from contextgen_core.methods.eligen.method import ELIGEN, EliGenOptions, EliGenSettings  # noqa: E402
from contextgen_core.tiny import model as tiny  # noqa: E402
from contextgen_core.tiny.autoencoder import compact  # noqa: E402
from contextgen_core.tiny.text import TOKENS, encode_words  # noqa: E402
from contextgen_core.training.small_world import evaluate, world  # noqa: E402
from contextgen_core.verbs import DiffusersModel, sample  # noqa: E402

WAYS = {
    "none": EliGenSettings(strength=0.0),
    "authors'": EliGenSettings(),
    "strength 2": EliGenSettings(strength=2.0),
    "strength 4": EliGenSettings(strength=4.0),
    "strength 8": EliGenSettings(strength=8.0),
    "first half of the steps": EliGenSettings(strength=2.0, end=0.5),
    "double blocks": EliGenSettings(strength=2.0, blocks=(0, 3)),
    "single blocks": EliGenSettings(strength=2.0, blocks=(3, 9)),
    "outside 0.1": EliGenSettings(strength=2.0, outside=0.1),
    "outside 0.3": EliGenSettings(strength=2.0, outside=0.3),
}


def scenes(count: int, members: int) -> list[tuple[int, world.Scene]]:
    """The first held-out scenes with so many creatures."""
    found: list[tuple[int, world.Scene]] = []
    number = 0
    while len(found) < count:
        scene = world.scene(0, "test", number, ("basic", "complex")[number % 2])
        if len(scene.members) == members:
            found.append((number, scene))
        number += 1
    return found


def prepared(scene: world.Scene) -> tuple[Prepared, dict[str, torch.Tensor]]:
    boxes = enumerate(scene.members, 1)
    instances = tuple(Instance(f"b{n}", Box(*map(float, m.box)), label=m.creature.name) for n, m in boxes)
    made = ELIGEN.prepare(compose(Layout(scene.size, scene.size, instances), ()), EliGenOptions(tokens=TOKENS))
    vectors = torch.cat([encode_words(phrase).tokens for phrase in made.phrases])
    return made, {"phrases": vectors[None]}


def judged(
    model: DiffusersModel, settings: EliGenSettings, chosen: list[tuple[int, world.Scene]], steps: int, named: bool
) -> dict:
    exact: list[bool] = []
    taken: list[bool] = []
    for number, scene in chosen:
        made, vectors = prepared(scene)
        words = encode_words(scene.naming((named,) * len(scene.members)))
        given = {"steps": steps, "seed": number, "settings": settings, "vectors": vectors}
        [picture] = sample(model, made, words.tokens[None], words.pooled[None], **given)
        found = {one.member: one for one in evaluate.judge(scene, picture, number)}
        exact += [one.exact for one in found.values()]
        taken += [_like_another(scene, member, picture, one.psnr) for member, one in found.items()]
    shares = {"exact": float(np.mean(exact)), "taken": float(np.mean(taken))}
    return {"creatures": len(exact), **{name: round(share, 3) for name, share in shares.items()}}


def _like_another(scene: world.Scene, member: int, picture: np.ndarray, own: float) -> bool:
    """Whether a member's box shows another creature of the scene rather than its own (PSNR against either)."""
    for other in scene.members:
        changed = list(scene.members)
        changed[member] = changed[member]._replace(creature=other.creature)
        seen = evaluate.judge(scene._replace(members=tuple(changed)), picture)
        if other is not scene.members[member] and any(one.member == member and one.psnr > own for one in seen):
            return True
    return False


def _floats(path: str) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in load_file(path).items() if not name.startswith("vae_")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--autoencoder")
    parser.add_argument("--adapter")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--unnamed", action="store_true")
    parser.add_argument("--only", nargs="*", choices=tuple(WAYS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformer = load_transformer(vars(tiny.TinyConfig()), _floats(options.weights))
    if options.adapter:
        merge_adapter(transformer, load_adapter(options.adapter))
    vae = compact(_floats(options.autoencoder)) if options.autoencoder else tiny.tiny_autoencoder()
    model = DiffusersModel(transformer, vae.encode, vae.decode, guided=False)
    chosen = scenes(options.scenes, options.members)
    for name in options.only or WAYS:
        told = {
            "way": name,
            "members": options.members,
            **judged(model, WAYS[name], chosen, options.steps, not options.unnamed),
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
