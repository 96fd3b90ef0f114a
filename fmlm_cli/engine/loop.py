"""The training loop."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from fmlm_cli.engine.batch import Batch, Objective
from fmlm_cli.engine.checkpoint import Checkpoints, TrainState
from fmlm_cli.engine.optimizer import Schedule
from fmlm_cli.engine.records import MetricsLog
from fmlm_cli.engine.runtime import count_flops, measure_peak, synchronize
from fmlm_cli.engine.signals import StopRequest
from fmlm_cli.engine.step import StepResult, train_step
from fmlm_cli.errors import Interrupted
from fmlm_cli.events import Emit, Evaluated, Trained, ignore

TIMING_FIELDS = ("tokens_per_second", "peak_share", "seconds")


@dataclass(frozen=True)
class TrainingRun:
    """All that the loop needs. `prepare(step)` gives the batches of a step (from 1) and must be a pure function;
    `evaluate(step)` gives the fields of the evaluation records. `before_step(step)` may change what of the model is
    trained, as a function of the step alone. `enough()` ends the run early after an evaluation. `save_last`: whether
    there is a checkpoint of the end.
    """

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    prepare: Callable[[int], Sequence[Batch]]
    evaluate: Callable[[int], Sequence[Mapping[str, Any]]]
    checkpoints: Checkpoints
    metrics: MetricsLog
    seed: int
    device: torch.device
    precision: torch.dtype
    clip: float | None
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    emit: Emit = ignore
    stop: StopRequest = field(default_factory=StopRequest)
    before_step: Callable[[int], None] = lambda step: None
    enough: Callable[[], bool] = lambda: False
    save_last: bool = True

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.schedule.total_steps


def train(run: TrainingRun, state: TrainState) -> TrainState:
    """Train from `state` to the end; the state there.

    Raises `Interrupted` after saving a checkpoint if a stop was requested.
    """
    if state.step == 0:
        _evaluate(run, 0)
    clock = Clock(run, state)
    run.model.train()
    with ThreadPoolExecutor(1, "prepare") as pool:  # the next step's batches are made while this one computes
        ahead = pool.submit(run.prepare, state.step + 1)
        for step in range(state.step + 1, run.total_steps + 1):
            batches = ahead.result()
            if step < run.total_steps:
                ahead = pool.submit(run.prepare, step + 1)
            run.before_step(step)
            result = train_step(
                run.model,
                run.optimizer,
                run.objective,
                batches,
                step=step,
                seed=run.seed,
                learning_rate=run.schedule.at(step),
                clip=run.clip,
                device=run.device,
                precision=run.precision,
            )
            state = clock.advance(state, result, batches)
            state, last = _after_step(run, state, clock)
            if last:
                break
    return state


def _after_step(run: TrainingRun, state: TrainState, clock: "Clock") -> tuple[TrainState, bool]:
    """Log, evaluate and save where it is time to; stop if asked to. Also whether this step is the last."""
    last = state.step == run.total_steps
    if last or state.step % run.log_every == 0:
        state = _log(run, state, clock)
    if last or state.step % run.evaluate_every == 0:
        _evaluate(run, state.step)
        clock.skip()
        last = last or run.enough()
    stopping = run.stop.signal is not None and not last
    if stopping or (run.save_last if last else state.step % run.checkpoint_every == 0):
        saved = run.checkpoints.save(run.model, run.optimizer, state)
        clock.skip()
        if stopping:
            raise Interrupted(
                f"stopped at step {state.step} of {run.total_steps}; saved in {saved}; the same command with --resume goes on",
                run.stop.exit_code,
            )
    return state, last


def _log(run: TrainingRun, state: TrainState, clock: "Clock") -> TrainState:
    """Write a record of the steps since the last one: the loss is the mean over all their targets."""
    record = {
        "step": state.step,
        "loss": state.window_loss / max(state.window_count, 1),
        "grad_norm": state.window_norm / state.window_steps,
        "learning_rate": run.schedule.at(state.step),
        "tokens": state.tokens,
        **clock.speed(),
    }
    run.metrics.write(record)
    run.emit(Trained(record, run.total_steps, clock.seconds_left(state.step)))
    return replace(state, window_loss=0.0, window_count=0, window_norm=0.0, window_steps=0)


def _evaluate(run: TrainingRun, step: int) -> None:
    for fields in run.evaluate(step):
        record = {"step": step, **fields}
        run.metrics.write(record)
        run.emit(Evaluated(record))


class Clock:
    """Measures training time (not evaluation or saving), speed, and the share of the device's measured peak."""

    def __init__(self, run: TrainingRun, state: TrainState) -> None:
        self._device = run.device
        self._total_steps = run.total_steps
        self._peak = measure_peak(run.device, run.precision)
        self._flops_per_token = self._count_flops(run, state.step + 1)
        self._recent: list[tuple[float, int]] = []
        self.skip()

    def _count_flops(self, run: TrainingRun, step: int) -> float:
        """Forward and backward (twice the forward) of one batch, by its tokens."""
        if step > run.total_steps:
            return 0.0
        batch = run.prepare(step)[0].to(run.device)
        run.model.eval()
        return 3 * count_flops(lambda: run.objective.loss(run.model, batch)) / max(batch.tokens, 1)

    def skip(self) -> None:
        """Start timing the next step now."""
        synchronize(self._device)
        self._begin = time.perf_counter()

    def advance(self, state: TrainState, result: StepResult, batches: Sequence[Batch]) -> TrainState:
        """The state after a step that has just ended."""
        now = time.perf_counter()
        seconds, self._begin = now - self._begin, now
        tokens = sum(batch.tokens for batch in batches)
        self._recent = [*self._recent[-49:], (seconds, tokens)]
        return replace(
            state,
            step=state.step + 1,
            tokens=state.tokens + tokens,
            window_loss=state.window_loss + result.loss_sum,
            window_count=state.window_count + result.count,
            window_norm=state.window_norm + result.grad_norm,
            window_steps=state.window_steps + 1,
            seconds=state.seconds + seconds,
        )

    def speed(self) -> dict[str, float]:
        """Tokens a second and share of the peak, over the latest steps."""
        per_second = sum(tokens for _, tokens in self._recent) / max(sum(s for s, _ in self._recent), 1e-9)
        return {
            "tokens_per_second": round(per_second, 1),
            "peak_share": round(per_second * self._flops_per_token / self._peak, 4),
        }

    def seconds_left(self, step: int) -> float:
        """Time that the remaining steps will take at the present speed."""
        return (self._total_steps - step) * sum(s for s, _ in self._recent) / len(self._recent)
