"""The training loop."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from fmlm_cli.engine.batch import Batch, Objective
from fmlm_cli.engine.checkpoint import Checkpoints, TrainState
from fmlm_cli.engine.optimizer import Schedule
from fmlm_cli.engine.records import Record, Sink, metrics_log
from fmlm_cli.engine.runtime import Runtime, count_flops, measure_peak
from fmlm_cli.engine.signals import StoppedError, StopRequest
from fmlm_cli.engine.step import StepResult, train_step
from fmlm_cli.events import Evaluated, Trained


@dataclass(frozen=True)
class Rhythm:
    """After how many steps there is a training record, an evaluation, a checkpoint."""

    log: int
    evaluate: int
    checkpoint: int


@dataclass(frozen=True)
class TrainingRun:
    """All that the loop needs.

    `prepare(step)`: the batches of a step (from 1), all processes' of them; a pure function, called from a
    thread of its own. `evaluate(step, stop)`: the fields of the evaluation records, or `StoppedError` if a
    stop is asked for. `before_step(step)` may change what of the model is trained, as a function of the step
    alone. `enough()` ends the run early after an evaluation. `clip`: the largest norm of a gradient.
    `keeps_checkpoints`: whether they outlive the run, so that there is one of its end.
    """

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    prepare: Callable[[int], Sequence[Batch]]
    evaluate: Callable[[int, StopRequest], Sequence[Mapping[str, Any]]]
    checkpoints: Checkpoints
    sinks: Sequence[Sink]
    rhythm: Rhythm
    seed: int
    runtime: Runtime
    clip: float | None
    before_step: Callable[[int], None] = lambda step: None
    enough: Callable[[], bool] = lambda: False
    keeps_checkpoints: bool = True

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.schedule.total_steps

    def record(self, record: Record) -> None:
        """Write a record once to each sink."""
        if self.runtime.ranks.is_writer:
            for sink in self.sinks:
                sink.write(record)

    def save(self, state: TrainState) -> Path:
        """Write a checkpoint; its folder. One process writes it alone: each has all weights and state."""
        if self.runtime.ranks.is_writer:
            log = metrics_log(self.sinks)
            if log is not None:
                log.sync()
                state = replace(state, records=log.sha256)
            self.checkpoints.save(self.model, self.optimizer, state)
        return self.checkpoints.folder(state.step)


def train(run: TrainingRun, state: TrainState, stop: StopRequest) -> TrainState:
    """Train from `state` to the end; the state there.

    If a stop is requested, what is at work, a step or an evaluation, is left between two batches: raises
    `Interrupted` after saving a checkpoint.
    """
    ranks = run.runtime.ranks
    state = _evaluate(run, state, stop)  # before the first step; or what a run that was stopped still owes
    clock = Clock(run, state)
    run.model.train()
    with ThreadPoolExecutor(1, "prepare") as pool:  # the next step's batches are made while this one computes
        ahead = pool.submit(run.prepare, state.step + 1)
        while not (_is_over(run, state) or ranks.any(stop.asked)):
            batches = ahead.result()
            step = state.step + 1
            if step < run.total_steps:
                ahead = pool.submit(run.prepare, step + 1)
            run.before_step(step)
            try:
                result = train_step(
                    run.model,
                    run.optimizer,
                    run.objective,
                    batches,
                    step=step,
                    seed=run.seed,
                    learning_rate=run.schedule.at(step),
                    clip=run.clip,
                    runtime=run.runtime,
                    stop=stop,
                )
            except StoppedError:
                break
            state = clock.advance(state, result, batches)
            state = _after_step(run, state, clock, stop)
    if ranks.any(stop.asked):
        _leave(run, state, stop)
    return state


def _after_step(run: TrainingRun, state: TrainState, clock: "Clock", stop: StopRequest) -> TrainState:
    """Log, evaluate and save where it is time to."""
    step, rhythm = state.step, run.rhythm
    if step == run.total_steps or step % rhythm.log == 0:
        state = _log(run, state, clock)
    evaluated = _evaluate(run, state, stop)
    if evaluated is not state:
        state = evaluated
        clock.skip()
    due = step % rhythm.checkpoint == 0 or step in run.checkpoints.keep_steps
    if (run.keeps_checkpoints if _is_over(run, state) else due) and not stop.asked:
        run.save(state)
        clock.skip()
    return state


def _is_over(run: TrainingRun, state: TrainState) -> bool:
    """Whether there is nothing left to train."""
    if state.step == run.total_steps:
        return True
    return state.evaluated == state.step and run.runtime.ranks.any(run.enough())


def _leave(run: TrainingRun, state: TrainState, stop: StopRequest) -> NoReturn:
    """Save, if there has been a step, and end."""
    saved = f"saved in {run.save(state)}" if state.step else "there is nothing to save yet"
    raise stop.interrupted(f" at step {state.step} of {run.total_steps}; {saved}")


def _log(run: TrainingRun, state: TrainState, clock: "Clock") -> TrainState:
    """Write a record of the steps since the last one: the loss is the mean over all their targets."""
    fields = {
        "step": state.step,
        "loss": state.window_loss / max(state.window_count, 1),
        "grad_norm": state.window_norm / state.window_steps,
        "learning_rate": run.schedule.at(state.step),
        "tokens": state.tokens,
        **clock.speed(),
    }
    run.record(Trained(fields, run.total_steps, clock.seconds_left(state.step)))
    return replace(state, window_loss=0.0, window_count=0, window_norm=0.0, window_steps=0)


def _evaluate(run: TrainingRun, state: TrainState, stop: StopRequest) -> TrainState:
    """Write the evaluation records of a step, if it is time to and that has not been done.

    All of them or, if a stop is asked for, none: then the step's evaluation is still to be done.
    """
    due = state.step == run.total_steps or state.step % run.rhythm.evaluate == 0
    if not due or state.evaluated == state.step:
        return state
    try:
        records = run.evaluate(state.step, stop)
    except StoppedError:
        return state
    for fields in records:
        run.record(Evaluated({"step": state.step, **fields}))
    return replace(state, evaluated=state.step)


class Clock:
    """Measures training time (not evaluation or saving), speed, and the share of the device's peak."""

    def __init__(self, run: TrainingRun, state: TrainState) -> None:
        self._runtime = run.runtime
        self._total_steps = run.total_steps
        self._peak = measure_peak(run.runtime)
        self._flops_per_token = self._count_flops(run, state.step + 1)
        self._recent: list[tuple[float, int]] = []
        self.skip()

    def _count_flops(self, run: TrainingRun, step: int) -> float:
        """Forward and backward (twice the forward) of one batch, by its tokens."""
        if step > run.total_steps:
            return 0.0
        batch = run.prepare(step)[0].to(run.runtime.device)
        run.model.eval()  # without dropout, so that nothing is drawn; `train` goes on in training mode
        return 3 * count_flops(lambda: run.objective.loss(run.model, batch)) / max(batch.tokens, 1)

    def skip(self) -> None:
        """Start timing the next step now."""
        self._runtime.synchronize()
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
