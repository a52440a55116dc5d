"""Several processes train one model: they share the work or the weights, agree on the result, and resume as one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from contextgen_core.errors import InputError
from contextgen_core.tiny.autoencoder import NARROW, Taesd
from contextgen_core.training import __main__ as command
from contextgen_core.training import shard
from contextgen_core.training.config import from_dict
from contextgen_core.training.latents import encode_scenes
from contextgen_core.training.small_world import world

ROOT = Path(__file__).resolve().parents[2]
RUNNER = """
import shlex, sys
from contextgen_core.training.__main__ import main
for line in open(sys.argv[1]):
    assert main(shlex.split(line)) == 0, line
"""
ADAMW = "optimizer.name=adamw optimizer.rate=0.001"
STOP = "minutes=0.00001"  # after one step


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run of these tests, on two processes, in one start of them; and one run alone."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    chosen = [world.scene(0, "train", i, world.TIERS[i % 3]) for i in range(6)]
    encode_scenes(Taesd(NARROW), chosen, [world.render(s) for s in chosen], lose=True).save(folder / "scenes")
    tree = {
        "stage": "sft",
        "output": "",
        "steps": 4,
        "batch": 2,
        "ema": 0.5,
        "model": {"weights": "shipped"},
        "lora": {"rank": 4},
        "optimizer": {"name": "muon", "rate": 0.05, "warmup": 0},
        "data": {"path": str(folder / "scenes")},
        "method": {"kernel": "batched"},
        "every": {"log": 1, "save": 2},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))

    def line(name: str, more: str = "") -> str:
        return f"{shlex.quote(str(folder / 'config.yaml'))} {shlex.quote(f'output={folder / name}')} {more}"

    adapter = shlex.quote(f"model.adapter={folder / 'copied' / 'adapter.safetensors'}")
    dpo = f"{ADAMW} stage=dpo dpo.lose=pasted {adapter}"
    several = [
        line("whole"),
        line("parts", STOP),
        line("parts"),
        line("copied", ADAMW),
        line("divided", f"{ADAMW} shard=true {STOP}"),
        line("divided", f"{ADAMW} shard=true every.sample=4"),
        line("dpo", dpo),
        line("dpo_divided", f"{dpo} shard=true {STOP}"),
        line("dpo_divided", f"{dpo} shard=true"),
    ]
    (folder / "lines").write_text("\n".join(several))
    (folder / "runner.py").write_text(RUNNER)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*start, str(folder / "runner.py"), str(folder / "lines")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert command.main(shlex.split(line("alone"))) == 0
    return folder


def difference(runs: Path, first: str, second: str) -> float:
    """The largest difference of two runs' adapters."""
    a, b = (load_file(runs / name / "adapter.safetensors") for name in (first, second))
    assert a.keys() == b.keys()
    return max(float((a[k].float() - b[k].float()).abs().max()) for k in a)


def test_two_processes_average_their_gradients_and_write_one_log(runs: Path) -> None:
    assert difference(runs, "whole", "alone") > 1e-3  # the second process has a say
    assert (runs / "whole" / "metrics.jsonl").read_text().count("\n") == 4


def test_two_processes_resume_to_the_same_adapter(runs: Path) -> None:
    assert difference(runs, "whole", "parts") == 0


@pytest.mark.parametrize(("copied", "divided"), [("copied", "divided"), ("dpo", "dpo_divided")])
def test_divided_weights_train_and_resume_to_the_same_adapter(runs: Path, copied: str, divided: str) -> None:
    assert difference(runs, copied, divided) < 2e-5  # other orders of addition; one step moves weights by 1e-3


def test_dpo_moves_the_adapter_that_it_starts_from(runs: Path) -> None:
    assert difference(runs, "dpo", "copied") > 1e-4


def test_divided_weights_leave_sample_pictures(runs: Path) -> None:
    assert (runs / "divided" / "samples" / "step_000004.png").is_file()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"stage": "autoencoder"}, "this stage has none"),
        ({"optimizer": {"name": "muon"}}, "with shard use adamw"),
        ({"lora": {"one_sided": True}}, "set it to false"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_a_sentence(more: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        shard.check(from_dict({"stage": "sft", "output": "unused", "shard": True, **more}))
