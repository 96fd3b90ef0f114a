"""The training loop."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from fmlm_cli.engine.batch import Batch, Objective
from fmlm_cli.engine.checkpoint import Checkpoints, TrainState
from fmlm_cli.engine.device.arrivals import Arrivals, Post, post
from fmlm_cli.engine.device.clock import Clock
from fmlm_cli.engine.device.feeding import Feeder
from fmlm_cli.engine.device.loss_scale import LossScale
from fmlm_cli.engine.device.working_copy import WorkingCopy
from fmlm_cli.engine.numerics.course import remarks, take_up
from fmlm_cli.engine.optimizer import Schedule
from fmlm_cli.engine.records import Record, Sink, metrics_log
from fmlm_cli.engine.runtime import Runtime, count_flops, measure_peak
from fmlm_cli.engine.signals import StoppedError, StopRequest
from fmlm_cli.engine.step import OnNonfinite, StepTaken, train_step
from fmlm_cli.events import Evaluated, Trained

TimedStep = tuple[StepTaken, float]  # and the seconds for which the device had to wait for its batches


@dataclass(frozen=True)
class Rhythm:
    """After how many steps there is a training record, an evaluation, a checkpoint."""

    log: int
    evaluate: int
    checkpoint: int


@dataclass(frozen=True)
class TrainingRun:
    """All that the loop needs.

    `prepare(step)`: this process's batches of a step (from 1); a pure function, called from a thread of its
    own. `evaluate(step, stop)`: the fields of the evaluation records, or `StoppedError` if a
    stop is asked for. `before_step(step)` may change what of the model is trained, as a function of the step
    alone. `enough()` ends the run early after an evaluation. `clip`: the largest norm of a gradient.
    `keeps_checkpoints`: whether they outlive the run, so that there is one of its end. `working`: what
    computes in the model's place. `scale`: for float16. `on_nonfinite`: what becomes of a step that is not
    finite. `tells_spikes`: whether values far above their course are remarked. `post`: how values travel from
    the device.
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
    working: WorkingCopy[Any] | None = None
    scale: LossScale | None = None
    on_nonfinite: OnNonfinite = "stop"
    tells_spikes: bool = False
    post: Post = post

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.schedule.total_steps

    def record(self, record: Record) -> None:
        """Write a record once to each sink."""
        if self.runtime.ranks.is_writer:
            for sink in self.sinks:
                sink.write(record)

    @property
    def seconds_to_save(self) -> float:
        """See `Checkpoints`."""
        return self.checkpoints.seconds_to_save(self.model)

    def save(self, state: TrainState, *, last: bool = False) -> Path:
        """Write a checkpoint; its folder. One process writes it alone, unless they hold parts of the model.

        `last`: see `Checkpoints.save`.
        """
        is_writer = self.runtime.ranks.is_writer
        if is_writer or self.runtime.shard:
            log = metrics_log(self.sinks) if is_writer else None
            if log is not None:
                state = replace(state, records=log.sha256(state.step, state.evaluated))
            sync = log.sync if log is not None else lambda: None
            self.checkpoints.save(self.model, self.optimizer, state, after=sync, last=last)
        return self.checkpoints.folder(state.step)


def train(run: TrainingRun, state: TrainState, stop: StopRequest) -> TrainState:
    """Train from `state` to the end; the state there.

    The device is given steps before what came of the ones before them is known here: `state` is that of the
    latest step that has arrived, and evaluations, checkpoints and the end wait for all. Raises
    `DivergedError` for a step whose loss or gradient is not finite, with the weights from before it, or for
    too many that were skipped. If a
    stop is requested, what is at work, a step or an evaluation, is left between two batches: raises
    `Interrupted` after saving a checkpoint.
    """
    ranks = run.runtime.ranks
    state = _evaluate(run, state, stop)  # before the first step; or what a run that was stopped still owes
    if run.scale is not None and state.loss_scale:
        run.scale.restore(state.loss_scale, state.good_steps)
    clock = Clock(run.runtime, ranks.world * measure_peak(run.runtime))
    prompt = ranks.world == 1 or run.runtime.device.type == "cpu"  # where values are there at once
    underway = Arrivals[TimedStep](run.post, promptly=prompt)
    run.model.train()
    with Feeder(run.prepare, run.runtime) as feeder:
        first = state.step + 1
        feeder.order(first)
        while not _is_over(run, state):
            run.checkpoints.look()
            batches, waited = feeder.take(underway.all_there)
            step = state.step + len(underway) + 1
            if step < run.total_steps:
                feeder.order(step + 1)
            run.before_step(step)
            if step == first:
                clock.flops_per_token = _flops_per_token(run, batches[0]) if batches else 0.0
                clock.skip()
                waited = 0.0  # before there was anything to do
            try:
                begun = time.monotonic()
                taken = _take(run, step, batches, stop)
            except StoppedError:
                break
            if step > first:  # in which layers are compiled
                stop.keep_free(run.seconds_to_save + time.monotonic() - begun)
            underway.send((taken, waited), taken.values)
            state = _receive(run, state, clock, underway, wait=_is_pause(run, step))
            if _is_pause(run, step):
                state = _evaluate_and_save(run, state, clock, stop)
    state = _receive(run, state, clock, underway, wait=True)
    if ranks.any(stop.asked):
        _leave(run, state, stop)
    return state


def _take(run: TrainingRun, step: int, batches: Sequence[Batch], stop: StopRequest) -> StepTaken:
    """Give the device a step."""
    return train_step(
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
        working=run.working,
        scale=run.scale,
        on_nonfinite=run.on_nonfinite,
    )


def _flops_per_token(run: TrainingRun, batch: Batch) -> float:
    """Forward and backward (twice the forward) of one batch, by its tokens."""
    run.model.eval()  # without dropout, so that nothing is drawn
    flops = count_flops(lambda: run.objective.loss(run.model, batch.to(run.runtime.device)))
    run.model.train()
    return 3 * flops / max(batch.tokens, 1)


def _receive(
    run: TrainingRun, state: TrainState, clock: Clock, underway: Arrivals[TimedStep], *, wait: bool
) -> TrainState:
    """Take what has arrived into the state, and write the records that are due; with `wait` for all."""
    for (taken, waited), values in underway.receive(wait=wait):
        result = taken.result(values)
        for remark in remarks(state, taken, result):
            run.record(remark)
        settled = run.tells_spikes and taken.step > run.schedule.settled_after
        state = take_up(state, taken, result, settled=settled)
        state = replace(state, seconds=state.seconds + clock.arrived(taken.tokens, waited))
        if state.step == run.total_steps or state.step % run.rhythm.log == 0:
            state = _log(run, state, clock)
    return state


def _is_pause(run: TrainingRun, step: int) -> bool:
    """Whether there may be something to do after a step for which it has to have arrived."""
    rhythm = run.rhythm
    return step == run.total_steps or step % rhythm.evaluate == 0 or _is_saved(run, step)


def _is_saved(run: TrainingRun, step: int) -> bool:
    """Whether there is a checkpoint of a step, other than the last."""
    return step % run.rhythm.checkpoint == 0 or run.checkpoints.stays(step)


def _evaluate_and_save(run: TrainingRun, state: TrainState, clock: Clock, stop: StopRequest) -> TrainState:
    """Evaluate and save where it is time to."""
    state = _evaluate(run, state, stop)
    is_over = _is_over(run, state)
    due = run.keeps_checkpoints if is_over else _is_saved(run, state.step)
    if due and not run.runtime.leaves(stop.asked):
        run.save(state, last=is_over)
    clock.skip()
    return state


def _is_over(run: TrainingRun, state: TrainState) -> bool:
    """Whether there is nothing left to train."""
    if state.step == run.total_steps:
        return True
    return state.evaluated == state.step and run.runtime.ranks.any(run.enough())


def _leave(run: TrainingRun, state: TrainState, stop: StopRequest) -> NoReturn:
    """Save, if there has been a step, and end; for the same reason on all ranks."""
    ranks = run.runtime.ranks
    stop.signal = next(number for number in ranks.gather(stop.signal) if number is not None)
    saved = f"saved in {run.save(state, last=True)}" if state.step else "there is nothing to save yet"
    ranks.any(True)  # nobody leaves before it is saved
    raise stop.interrupted(f" at step {state.step} of {run.total_steps}; {saved}")


def _log(run: TrainingRun, state: TrainState, clock: Clock) -> TrainState:
    """Write a record of the steps since the last one: the loss is the mean over all their targets.

    Steps that were not taken have no part in it; of nothing but such there is none.
    """
    if not state.window_steps:
        return state
    fields = {
        "step": state.step,
        "loss": state.window_loss / max(state.window_count, 1),
        "grad_norm": state.window_norm / state.window_steps,
        "learning_rate": run.schedule.at(state.step),
        "tokens": state.tokens,
        "seconds": round(state.seconds, 3),
        **({"skipped": state.skipped} if state.skipped else {}),
        **({"loss_scale": state.loss_scale} if run.scale is not None else {}),
        **clock.figures(),
    }
    run.record(Trained(fields, run.total_steps, clock.seconds_left(run.total_steps - state.step)))
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
