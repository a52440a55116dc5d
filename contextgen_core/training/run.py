"""The run: one loop for every stage, on one process or many, that can be stopped and resumed at any step with the
same result.

Every random number of a step comes from (seed, step, part, process), so nothing but the step has to be remembered.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import InputError
from . import checkpoint, shard
from .config import Config, OptimizerConfig
from .muon import Muon

logger = logging.getLogger("contextgen")


class Task(Protocol):
    """A stage: what trains, what a step reads, and what is left at the end."""

    model: nn.Module  # forward(*inputs) -> (loss, metrics)

    def inputs(self, seed: int, part: int, done: float = 0.0, number: int = 0) -> tuple[Any, ...]: ...
    def extra(self) -> dict[str, Tensor]: ...
    def restore_extra(self, extra: dict[str, Tensor]) -> None: ...
    def finish(self, output: Path | None) -> None: ...  # None: only take part in making divided weights whole
    def sample(self, path: Path | None) -> None: ...


def rate_at(step: int, steps: int, settings: OptimizerConfig) -> float:
    """The learning rate of a step: linear warm-up, constant, cosine down to floor * rate over the last `tail` share."""
    rate = settings.rate * min(1.0, (step + 1) / max(1, settings.warmup))
    start = steps * (1 - settings.tail)
    if step < start or settings.tail == 0:
        return rate
    done = (step - start) / max(1.0, steps - start)
    return rate * (settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * done)))


def step_seed(seed: int, step: int, part: int, process: int) -> int:
    """A well mixed seed below 2**63 for one part of one step on one process."""
    value = 0
    for number in (seed, step, part, process):
        value = (value * 0x9E3779B97F4A7C15 + number + 0x632BE59BD9B4E019) % 2**64
        value ^= value >> 31
    return value % 2**63


def _optimizer(settings: OptimizerConfig, parameters: list[nn.Parameter], precision: str) -> torch.optim.Optimizer:
    if settings.name == "adamw":
        return torch.optim.AdamW(parameters, settings.rate, settings.betas, weight_decay=settings.weight_decay)
    if settings.name == "muon":
        return Muon(
            parameters,
            settings.rate,
            weight_decay=settings.weight_decay,
            vector_share=settings.vector_share,
            betas=settings.betas,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        )
    from prodigyopt import Prodigy

    return Prodigy(
        parameters,
        settings.rate,
        settings.betas,
        weight_decay=settings.weight_decay,  # pyright: ignore[reportArgumentType]
        use_bias_correction=settings.bias_correction,
        safeguard_warmup=settings.safeguard_warmup,
    )


class Average:
    """Exponential moving average of what trains, with a short memory at the start. decay 0 = off."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {k: v.clone() for k, v in checkpoint.training_state(model).items()} if decay else {}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in checkpoint.training_state(model).items():
            self.tensors[name].lerp_(value, 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model carries the average inside this context."""
        if not self.decay:
            yield
            return
        own = {k: v.clone() for k, v in checkpoint.training_state(model).items()}
        checkpoint.restore(model, self.tensors)
        try:
            yield
        finally:
            checkpoint.restore(model, own)


class _Stop:
    """Turns SIGINT and SIGTERM into a wish that is granted after the step at hand."""

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._wish)
        return self

    def _wish(self, *_: object) -> None:
        self.wanted = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Run:
    """One training run in `config.output`; `go` continues from the newest checkpoint there and returns the steps
    done."""

    def __init__(self, config: Config, task: Task) -> None:
        from accelerate import Accelerator

        self.config, self.task = config, task
        self.output = Path(config.output)
        self.folder = self.output / "checkpoints"
        self.accelerator = Accelerator(
            mixed_precision="no" if config.precision == "fp32" else config.precision,
            cpu=not torch.accelerator.is_available(),  # unasked, several processes on CPUs do not find each other
        )
        if config.shard:
            shard.check(config)
            divided: Any = task
            shard.divide(divided.network.transformer, self.accelerator.device, self.accelerator.num_processes)
        task.model.to(self.accelerator.device)
        parameters = [p for p in task.model.parameters() if p.requires_grad]
        if not parameters:
            raise InputError("Nothing trains in this stage; check lora.rank and the stage.")
        optimizer = _optimizer(config.optimizer, parameters, config.precision)
        self.optimizer = self.accelerator.prepare(optimizer)
        self.model = task.model if config.shard else self.accelerator.prepare(task.model)
        self.parameters = parameters
        self.average = Average(task.model, config.ema)
        self.step, self.seconds = 0, 0.0
        self._metrics = _Metrics(self.output, self.accelerator.is_main_process)

    def resume(self) -> None:
        """Takes up the newest checkpoint, if there is one."""
        path = checkpoint.latest(self.folder)
        if path is None:
            return
        loaded = checkpoint.load(path)
        checkpoint.restore(self.task.model, loaded.tensors)
        if self.average.decay:
            for name, value in loaded.average.items():
                self.average.tensors[name].copy_(shard.alike(value, self.average.tensors[name]))
        self.task.restore_extra(loaded.extra)
        shard.load_optimizer_state(self.optimizer, loaded.optimizer)
        self.step, self.seconds = loaded.step, loaded.seconds
        self._tell("resumed", self.step)

    def go(self) -> int:
        """Trains to the last step, the time limit or a signal; saves in each case."""
        self.resume()
        if self.step == 0:
            self.save()  # an early crash must not lose the anchor
        began = time.monotonic() - self.seconds
        saved = self.step
        with _Stop() as stop:
            while self.step < self.config.steps and not self._ends(stop.wanted):
                values = self._one_step()
                self.step += 1
                self.seconds = time.monotonic() - began
                self._report(values)
                every = self.config.every
                if every.save and self.step % every.save == 0:
                    self.save()
                    saved = self.step
                if every.sample and self.step % every.sample == 0:
                    self._leave(self.task.sample, self.output / "samples" / f"step_{self.step:06d}.png")
        if saved != self.step:
            self.save()
        finished = self.step >= self.config.steps
        if finished:
            self._leave(self.task.finish, self.output)
        self._metrics.close()
        self._tell("finished" if finished else "stopped", self.step)
        return self.step

    def _tell(self, what: str, step: int) -> None:
        if self.accelerator.is_main_process:
            logger.info("%s at step %d of %d", what, step, self.config.steps)

    def _leave(self, write: Callable[[Path | None], None], path: Path) -> None:
        """Has the task write something made with the average weights. Where they are divided every process takes
        part, and the main one writes."""
        main = self.accelerator.is_main_process
        if main or self.config.shard:
            with self.average.applied(self.task.model):
                write(path if main else None)

    def _ends(self, wanted: bool) -> bool:
        """Whether any process was asked to stop, or the time is up; the same answer on every process, at the same
        step."""
        late = bool(self.config.minutes) and self.seconds > 60 * self.config.minutes
        if self.accelerator.num_processes == 1:
            return wanted or late
        votes = torch.tensor([float(wanted or late)], device=self.accelerator.device)
        return bool(torch.as_tensor(self.accelerator.reduce(votes, "sum")).item())

    def _one_step(self) -> dict[str, float]:
        config, accelerator = self.config, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, config.steps, config.optimizer)
        total: dict[str, float] = {}
        for part in range(config.accumulate):
            seed = step_seed(config.seed, self.step, part, accelerator.process_index)
            number = (self.step * config.accumulate + part) * accelerator.num_processes + accelerator.process_index
            inputs = self.task.inputs(seed, part, self.step / config.steps, number)
            last = part == config.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(self.model), accelerator.autocast():
                loss, metrics = self.model(*inputs)
            if not torch.isfinite(loss):
                raise InputError(
                    f"The loss became {loss.item()} at step {self.step}; lower optimizer.rate or optimizer.clip"
                    " and start again:"
                    " it resumes from the last checkpoint."
                )
            accelerator.backward(loss / config.accumulate)
            for name, value in {"loss": loss.detach(), **metrics}.items():
                total[name] = total.get(name, 0.0) + float(value) / config.accumulate
        if config.optimizer.clip:
            norm = accelerator.clip_grad_norm_(self.parameters, config.optimizer.clip)
            total["norm"] = float(shard.whole(norm)) if norm is not None else 0.0
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.task.model, self.step)
        return total

    def _report(self, values: dict[str, float]) -> None:
        self._metrics.add(values)
        every = self.config.every.log
        if not every or self.step % every:
            return
        per_step = self.seconds / self.step
        samples = self.config.batch * self.config.accumulate * self.accelerator.num_processes
        line = self._metrics.write(
            self.step,
            rate=self.optimizer.param_groups[0]["lr"],
            seconds=round(self.seconds, 1),
            samples=self.step * samples,
            samples_per_second=round(samples / per_step, 2),
            remaining=round(per_step * (self.config.steps - self.step)),
        )
        if not self.accelerator.is_main_process:
            return
        logger.info(
            "step %d/%d  loss %.4f  %.1f samples/s  %s left",
            self.step,
            self.config.steps,
            line["loss"],
            samples / per_step,
            _clock(line["remaining"]),
        )

    def save(self) -> None:
        """Writes a checkpoint (main process)."""
        self.accelerator.wait_for_everyone()
        if not (self.accelerator.is_main_process or self.config.shard):
            return
        state = checkpoint.Checkpoint(
            self.step,
            self.seconds,
            shard.whole_state(checkpoint.training_state(self.task.model)),
            shard.whole_state(self.average.tensors),
            shard.whole_state(self.task.extra()),
            shard.optimizer_state(self.optimizer),
        )
        if not self.accelerator.is_main_process:
            return
        checkpoint.save(self.folder, state, self.config.to_dict(), self.config.every.keep)


class _Metrics:
    """Means between two lines of the log, as JSONL and, where TensorBoard is installed, as its events."""

    def __init__(self, output: Path, writes: bool) -> None:
        self.path = output / "metrics.jsonl"
        self.writes = writes
        self.sums: dict[str, float] = {}
        self.count = 0
        self.board: Any = None
        if not writes:
            return
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The output folder {str(output)!r} cannot be made ({error.strerror}); choose another."
            ) from error
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(output / "tensorboard"))
        except ImportError:
            pass

    def add(self, values: dict[str, float]) -> None:
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def write(self, step: int, **more: float) -> dict[str, Any]:
        line = {"step": step, **{k: round(v / max(1, self.count), 6) for k, v in self.sums.items()}, **more}
        self.sums, self.count = {}, 0
        if self.writes:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if self.board is not None:
                for name, value in line.items():
                    self.board.add_scalar(name, value, step)
        return line

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
