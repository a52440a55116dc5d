"""The run: resuming changes nothing, stopping loses nothing, mistakes are one sentence."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from contextgen_core.errors import InputError
from contextgen_core.tiny.autoencoder import NARROW, Taesd
from contextgen_core.training import __main__ as command
from contextgen_core.training import checkpoint, run
from contextgen_core.training.config import Config, OptimizerConfig, from_dict, load
from contextgen_core.training.latents import LatentSet, encode_scenes
from contextgen_core.training.small_world import world
from contextgen_core.training.tasks import TransformerTask


class Line(nn.Module):
    """y = a x + b, to be found."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (self.line(x) - y).square().mean()
        return loss, {"error": loss.detach()}


class LineTask:
    """The smallest task. `at` is called with the number of each step that begins."""

    def __init__(self, at: Any = None) -> None:
        torch.manual_seed(0)
        self.model: Any = Line()
        self.seeds: list[int] = []
        self.at = at

    def inputs(self, seed: int, part: int, done: float = 0.0, number: int = 0) -> tuple[Tensor, Tensor]:
        if self.at:
            self.at(len(self.seeds))
        self.seeds.append(seed)
        x = torch.randn(8, 1, generator=torch.Generator().manual_seed(seed))
        return x, 3 * x + 1

    def extra(self) -> dict[str, Tensor]:
        return {}

    def restore_extra(self, extra: dict[str, Tensor]) -> None:
        pass

    def finish(self, output: Path | None) -> None:
        assert output is not None
        (output / "finished").write_text(f"{float(self.model.line.weight.detach()):.9f}")

    def sample(self, path: Path | None) -> None:
        pass


def config(output: Path, **more: Any) -> Config:
    tree = {
        "stage": "base",
        "output": str(output),
        "steps": 12,
        "ema": 0.9,
        "optimizer": {"rate": 0.1, "warmup": 3, "tail": 0.5},
    }
    return from_dict({**tree, "every": {"log": 4, "save": 5}, **more})


def state(task: Any) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in checkpoint.training_state(task.model).items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in first.items())


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_stopped_by_a_signal_resumes_to_the_same_weights(tmp_path: Path, accumulate: int) -> None:
    whole = LineTask()
    assert run.Run(config(tmp_path / "whole", accumulate=accumulate), whole).go() == 12

    def interrupt(seen: int) -> None:
        if seen == 7 * accumulate:
            os.kill(os.getpid(), signal.SIGTERM)

    broken = LineTask(interrupt)
    assert run.Run(config(tmp_path / "broken", accumulate=accumulate), broken).go() == 8
    assert not (tmp_path / "broken" / "finished").exists()
    resumed = LineTask()
    assert run.Run(config(tmp_path / "broken", accumulate=accumulate), resumed).go() == 12
    assert broken.seeds + resumed.seeds == whole.seeds
    assert equal(state(resumed), state(whole))
    assert (tmp_path / "broken" / "finished").read_text() == (tmp_path / "whole" / "finished").read_text()


def test_the_handlers_of_the_surroundings_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run.Run(config(tmp_path, steps=1), LineTask()).go()
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_product_is_the_average_and_the_training_weights_go_on_untouched(tmp_path: Path) -> None:
    task = LineTask()
    made = run.Run(config(tmp_path), task)
    made.go()
    assert float((tmp_path / "finished").read_text()) != pytest.approx(float(task.model.line.weight.detach()), abs=1e-9)
    assert float((tmp_path / "finished").read_text()) == pytest.approx(
        float(made.average.tensors["line.weight"]), abs=1e-8
    )


def test_metrics_are_json_lines_with_rate_and_remaining_time(tmp_path: Path) -> None:
    run.Run(config(tmp_path, steps=60), LineTask()).go()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(4, 61, 4))
    assert {"loss", "rate", "samples_per_second", "remaining", "norm"} <= lines[0].keys()
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    task = LineTask()
    made = run.Run(config(tmp_path), task)

    def poison(seen: int) -> None:
        if seen == 7:
            with torch.no_grad():
                task.model.line.weight.fill_(float("nan"))

    task.at = poison
    with pytest.raises(InputError, match="The loss became nan at step 7; lower optimizer.rate"):
        made.go()
    kept = checkpoint.latest(tmp_path / "checkpoints")
    assert kept is not None and kept.name == "step_000005"
    assert torch.isfinite(checkpoint.load(kept).tensors["line.weight"]).all()


def test_a_full_disk_is_named_and_the_last_checkpoint_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(seen: int) -> None:
        if seen == 6:
            monkeypatch.setattr(torch, "save", full)

    with pytest.raises(InputError, match="the disk is full; the checkpoint step_000005 is intact"):
        run.Run(config(tmp_path), LineTask(fill)).go()
    assert not list((tmp_path / "checkpoints").glob(".draft*"))


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run.Run(config(tmp_path), LineTask()).go()
    newest = checkpoint.latest(tmp_path / "checkpoints")
    assert newest is not None
    (newest / "trained.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="is damaged; delete that folder"):
        run.Run(config(tmp_path, steps=20), LineTask()).go()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run.Run(config(tmp_path), LineTask()).go()
    other = LineTask()
    other.model.line = nn.Linear(1, 2)
    with pytest.raises(InputError, match="belongs to another model"):
        run.Run(config(tmp_path, steps=20), other).go()


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    run.Run(config(tmp_path, steps=30), LineTask()).go()
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == ["step_000025", "step_000030"]


def test_learning_rate_rises_stays_and_falls() -> None:
    settings = OptimizerConfig(rate=1.0, warmup=10, tail=0.5, floor=0.1)
    rates = [run.rate_at(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[49] == 1.0
    assert rates[75] == pytest.approx(0.55) and 0.1 <= rates[99] < 0.11
    assert all(a >= b for a, b in zip(rates[50:], rates[51:], strict=False))


def test_seeds_of_steps_parts_and_processes_differ() -> None:
    seeds = {run.step_seed(a, b, c, d) for a in range(3) for b in range(20) for c in range(3) for d in range(3)}
    assert len(seeds) == 3 * 20 * 3 * 3
    assert all(0 <= s < 2**63 for s in seeds)


# ---- the real stages -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> LatentSet:
    torch.manual_seed(0)
    chosen = [world.scene(0, "train", i, world.TIERS[i % 3]) for i in range(6)]
    made = encode_scenes(Taesd(NARROW), chosen, [world.render(s) for s in chosen], lose=True)
    return made


def stage(output: Path, name: str, steps: int, **more: Any) -> Config:
    model = {"layers": 1, "single_layers": 2, **more.pop("model", {})}
    tree = {
        "stage": name,
        "output": str(output),
        "steps": steps,
        "batch": 2,
        "ema": 0.9,
        "lora": {"rank": 4},
        "model": model,
    }
    return from_dict(
        {**tree, "every": {"log": 1, "save": 2}, "method": {"kernel": "batched"}, "optimizer": {"rate": 1e-2}, **more}
    )


def test_sft_then_dpo_resume_to_the_same_weights_and_the_anchor_survives(tmp_path: Path, data: LatentSet) -> None:
    sft = TransformerTask(stage(tmp_path / "sft", "sft", 3), data)
    run.Run(sft.config, sft).go()
    adapter = tmp_path / "sft" / "adapter.safetensors"
    dpo: dict[str, Any] = {"model": {"adapter": str(adapter)}, "dpo": {"beta": 50.0}}
    whole = TransformerTask(stage(tmp_path / "whole", "dpo", 4, **dpo), data)
    run.Run(whole.config, whole).go()
    first = TransformerTask(stage(tmp_path / "parts", "dpo", 2, **dpo), data)
    run.Run(first.config, first).go()
    adapter.write_bytes(
        (tmp_path / "parts" / "adapter.safetensors").read_bytes()
    )  # a newer file must not move the anchor
    second = TransformerTask(stage(tmp_path / "parts", "dpo", 4, **dpo), data)
    run.Run(second.config, second).go()
    assert equal(second.extra(), whole.extra())
    assert equal(state(second), state(whole))
    assert equal(
        load_file(tmp_path / "parts" / "adapter.safetensors"), load_file(tmp_path / "whole" / "adapter.safetensors")
    )


def test_compiled_blocks_train_to_the_same_weights(tmp_path: Path, data: LatentSet) -> None:
    from torch._dynamo.utils import counters

    plain = TransformerTask(stage(tmp_path / "plain", "sft", 2), data)
    run.Run(plain.config, plain).go()
    counters.clear()
    compiled = TransformerTask(stage(tmp_path / "compiled", "sft", 2, model={"compile": "aot_eager"}), data)
    run.Run(compiled.config, compiled).go()
    assert counters["stats"]["unique_graphs"] >= 3  # each of the blocks became a program
    for name, value in state(plain).items():
        torch.testing.assert_close(state(compiled)[name], value, rtol=1e-3, atol=1e-4)


# ---- configs -------------------------------------------------------------------------------------


def test_overrides_replace_settings_and_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("stage: sft\noutput: here\nmodel: {kind: tiny}\noptimizer: {rate: 1e-3}\n")
    made = load(
        path,
        [
            "optimizer.rate=2e-4",
            "steps=7",
            "method.ica_blocks=[1, 3]",
            "flow.guidance=1.0",
            "model.weights=a.safetensors",
        ],
    )
    assert (made.optimizer.rate, made.steps, made.method.ica_blocks, made.flow.guidance) == (2e-4, 7, (1, 3), 1.0)
    assert made.model.weights == "a.safetensors"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage: sft\noutput: x\nspeed: 3\n", "unknown setting 'speed'"),
        ("stage: sft\noutput: x\nlora: {rnk: 3}\n", "unknown setting 'lora.rnk'"),
        ("stage: sleep\noutput: x\n", "stage is 'sleep'"),
        ("output: x\n", "has no 'stage'"),
        ("stage: sft\noutput: x\nsteps: many\n", "steps is 'many'"),
        ("stage: sft\noutput: x\nsteps: 0\n", "steps is 0"),
        ("stage: sft\noutput: x\nlora: 3\n", "lora is 3"),
        ("stage: sft\noutput: x\nmodel: {compile: fast}\n", "model.compile is 'fast'"),
        ("stage: [sft\n", "not valid YAML at line"),
        ("", "holds no settings"),
    ],
)
def test_a_broken_config_is_one_sentence_and_status_two(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert command.main([str(path)]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.path="], "data.path is empty"),
        (["data.path=/nowhere/at/all"], "There are no encoded scenes"),
        (["data.kind=imig", "data.path=/nowhere", "data.folders={imig-basic: 1}"], "There is no filtered_prompts.json"),
        (["nonsense"], "not of the form key=value"),
    ],
)
def test_missing_files_are_named(
    tmp_path: Path, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"stage: sft\noutput: {tmp_path}/out\n")
    assert command.main([str(path), *overrides]) == 2
    assert message in capsys.readouterr().err


def test_every_shipped_config_is_valid() -> None:
    folder = Path(__file__).parents[2] / "configs"
    found = sorted(folder.glob("*.yaml"))
    assert {"kontext_sft.yaml", "kontext_dpo.yaml", "tiny_base.yaml", "tiny_sft.yaml", "tiny_dpo.yaml"} <= {
        p.name for p in found
    }
    for path in found:
        load(path)
