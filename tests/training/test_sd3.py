"""InstanceAssemble on Stable Diffusion 3: from annotated pictures and a model in diffusers' folders to an adapter that
the product loads and carries out alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from annotated_pictures import write_annotations
from networks import randomise
from tiny_sd3_pipeline import POOLED, save_tiny_sd3

from contextgen_core.backbones import backbone
from contextgen_core.backbones.flux import pack, unpack
from contextgen_core.errors import InputError
from contextgen_core.hosts.diffusers_sd3 import SD3Host
from contextgen_core.methods.boundary import Bound
from contextgen_core.methods.instance_assemble.files import check_fits, read_files
from contextgen_core.methods.instance_assemble.method import INSTANCE_ASSEMBLE
from contextgen_core.methods.instance_assemble.step import AssembleSettings
from contextgen_core.training.config import Config, load
from contextgen_core.training.small_world import world
from contextgen_core.training.stages import open_data, train
from contextgen_core.training.tasks import TransformerTask, build_transformer

CONFIG = Path(__file__).parents[2] / "configs" / "sd3_instance_assemble.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sd3")
    save_tiny_sd3(made / "model")
    (made / "pictures").mkdir()
    write_annotations(made / "pictures", [world.scene(0, "train", i, "basic") for i in range(3)])
    return made


def config_of(folder: Path, *overrides: str) -> Config:
    small = (
        f"model.weights={folder}/model",
        f"data.path={folder}/pictures",
        f"output={folder}/out",
        "data.size=128",
        "precision=fp32",
        "accumulate=1",
        "batch=2",
    )
    return load(CONFIG, [*small, *overrides])


def scattered(config: Config, data: Any = None) -> TransformerTask:
    """A task whose extra weights are away from their calm start, so that each of them matters."""
    made = TransformerTask(config, data)
    weights: Any = made.network.weights
    randomise(weights)
    return made


def test_the_published_config_trains_and_the_loss_falls(folder: Path) -> None:
    config = config_of(folder, "steps=12", "optimizer.rate=0.02", "optimizer.warmup=0", "lora.rank=2")
    data = open_data(config)

    def loss(*more: str) -> float:
        task = TransformerTask(config_of(folder, "lora.rank=2", *more), data)
        with torch.no_grad():
            return sum(float(task.model(*task.inputs(seed, 0))[0]) for seed in range(90, 94))

    assert train(config) == 12
    assert loss(f"model.adapter={folder}/out/adapter.safetensors") < 0.97 * loss()


def test_a_phrase_is_read_by_both_clips_and_bound_to_its_box(folder: Path) -> None:
    config = config_of(folder, "data.caption_drop=0")
    batch = TransformerTask(config, open_data(config)).inputs(3, 0)[0]
    assert batch.positive == (True, True)
    dropped = config_of(folder, "data.caption_drop=1")
    assert TransformerTask(dropped, open_data(dropped)).inputs(3, 0)[0].positive == (False, False)
    (vectors,) = batch.vectors.values()
    assert vectors.shape == (2, len(batch.plans[0].boxes), sum(POOLED)) and batch.pooled.shape == (2, sum(POOLED))
    assert batch.text.shape[1] == 77 + 256 and not torch.equal(vectors[0, 0], batch.pooled[0])


@pytest.mark.parametrize("kernel", ["batched", "grouped"])
def test_training_computes_what_the_inference_host_computes_from_the_saved_file(folder: Path, kernel: str) -> None:
    config = config_of(folder, f"method.kernel={kernel}")
    made = scattered(config, open_data(config))
    path = folder / f"{kernel}.safetensors"
    made.recipe.write(path, made.recipe.state(made.network), config)
    made.recipe.load(made.network, made.recipe.read(path, config))  # as the file's half precision has it
    batch, times, noise = made.inputs(7, 0)
    batch = replace(batch, positive=(True, False))  # the second without boxes, as what guidance leads away from
    file, transformer = read_files(path), build_transformer(config)
    check_fits(file, backbone(transformer))
    rows = []
    with torch.no_grad(), SD3Host(transformer) as host:
        trained = made.network(batch, noise, times)
        for row, plan in enumerate(batch.plans):
            one = slice(row, row + 1)
            latent = host.velocity(
                Bound(INSTANCE_ASSEMBLE, plan, AssembleSettings(ratio=1.0)),
                unpack(noise[one], plan.columns, plan.rows),
                text=batch.text[one],
                pooled=batch.pooled[one],
                timestep=1000 * times[one],
                vectors={name: vector[one] for name, vector in batch.vectors.items()},
                modules={INSTANCE_ASSEMBLE.name: file.build(dtype=torch.float32)},
                positive=[batch.positive[row]],
            )
            rows.append(pack(latent))
        boxed = made.network(replace(batch, positive=()), noise, times)
        nobody = made.network(replace(batch, positive=(False, False)), noise, times)
    for one, same, other in ((boxed, 0, 1), (nobody, 1, 0)):
        far = [(one[row] - trained[row]).abs().max() for row in (same, other)]
        assert far[0] < 1e-5 and far[1] > 1e-2
    assert (trained - torch.cat(rows)).abs().max() < 1e-5 * trained.abs().max()


def gradients(config: Config) -> dict[str, torch.Tensor]:
    made = scattered(config, open_data(config))
    made.model(*made.inputs(5, 0))[0].backward()
    weights: Any = made.network.weights
    return {name: p.grad for name, p in weights.named_parameters() if p.grad is not None}


def test_gradients_are_the_same_with_either_kernel_and_with_checkpointing(folder: Path) -> None:
    plain = gradients(config_of(folder, "model.checkpointing=false"))
    largest = max(g.abs().max() for g in plain.values())
    # The last block's layout tokens go no further, so what would carry them on has no gradient.
    assert any(".2/" in n or "blocks/2." in n for n in plain) and all(g.isfinite().all() for g in plain.values())
    for override in ("model.checkpointing=true", "method.kernel=batched"):
        other = gradients(config_of(folder, override))
        assert other.keys() == plain.keys()
        assert all((g - plain[n]).abs().max() < 2e-5 * largest for n, g in other.items()), override


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.name=contextgen", "is a Stable Diffusion 3, but ContextGen trains on FLUX.1; choose another model"),
        ("stage=base", "is a Stable Diffusion 3, but the stage base trains on FLUX.1"),
        ("flow.guidance=1", "flow.guidance is 1, but Stable Diffusion 3 takes none; set it to null"),
    ],
)
def test_what_stable_diffusion_3_cannot_train_is_told(folder: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TransformerTask(config_of(folder, override), None)
