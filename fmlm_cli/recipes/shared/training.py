"""Training runs: put together, and taken from their newest checkpoint, or their start, to their end."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from fmlm_cli.engine.batch import Batch, Objective
from fmlm_cli.engine.checkpoint import Checkpoints, TrainState, carry_over
from fmlm_cli.engine.device.loss_scale import LossScale
from fmlm_cli.engine.device.working_copy import WorkingCopy
from fmlm_cli.engine.loop import Rhythm, TrainingRun, train
from fmlm_cli.engine.optimizer import OptimizerOptions, Schedule, make_optimizer
from fmlm_cli.engine.records import FAILED, Record, Sink, metrics_log
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import StopRequest, graceful_stop
from fmlm_cli.engine.step import DivergedError, OnNonfinite
from fmlm_cli.errors import one_line
from fmlm_cli.events import Caution, Emit, Note, Remarked


class Trainee(Protocol):
    """What is trained: a model and its objective, and what of them depends on the step alone."""

    seed: int
    runtime: Runtime

    @property
    def model(self) -> nn.Module:
        """The model."""
        ...

    @property
    def objective(self) -> Objective:
        """What it learns."""
        ...

    def prepare(self, step: int) -> Sequence[Batch]:
        """The batches of a step (from 1): a pure function of it."""
        ...

    def before_step(self, step: int) -> None:
        """What of the model is trained may change here."""
        ...

    def evaluate(self, step: int, stop: StopRequest) -> Sequence[Mapping[str, Any]]:
        """The fields of the evaluation records after a step, or `StoppedError`."""
        ...

    def enough(self) -> bool:
        """Whether the run ends early, after an evaluation."""
        ...


class Options(OptimizerOptions, Protocol):
    """What of the settings decides how a gradient becomes a step."""

    @property
    def clip(self) -> float | None:
        """The largest norm of a gradient."""
        ...


def assemble(
    trainee: Trainee,
    options: Options,
    *,
    scales: Mapping[str, float],
    schedule: Schedule,
    rhythm: Rhythm,
    checkpoints: Checkpoints,
    sinks: Sequence[Sink],
    keeps_checkpoints: bool = True,
    working: WorkingCopy[Any] | None = None,
    on_nonfinite: OnNonfinite = "stop",
    tells_spikes: bool = False,
) -> TrainingRun:
    """A run of whatever is trained. `scales`: factors of the learning rate, by parameter name."""
    runtime = trainee.runtime
    return TrainingRun(
        model=trainee.model,
        objective=trainee.objective,
        optimizer=make_optimizer(options, trainee.model, scales),
        schedule=schedule,
        prepare=trainee.prepare,
        evaluate=trainee.evaluate,
        checkpoints=checkpoints,
        sinks=sinks,
        rhythm=rhythm,
        seed=trainee.seed,
        runtime=runtime,
        clip=options.clip,
        before_step=trainee.before_step,
        enough=trainee.enough,
        keeps_checkpoints=keeps_checkpoints,
        working=working,
        scale=LossScale(runtime.device) if runtime.precision == torch.float16 else None,
        on_nonfinite=on_nonfinite,
        tells_spikes=tells_spikes,
    )


def train_to_the_end(
    run: TrainingRun,
    emit: Emit,
    *,
    carried_over: Path | None = None,
    opening: Callable[[TrainState], Sequence[Record]] = lambda state: (),
) -> TrainState:
    """Go on from the newest checkpoint that is whole, or begin; the state at the end.

    `carried_over`: another run's checkpoint, whose state of the optimizer a run begins with. `opening`: the
    first records, by the state that it goes on from.
    Raises `Interrupted`, with a checkpoint saved, if asked to stop; `DivergedError`; `UserError` for
    checkpoints that are damaged or another run's.
    """
    state = _begin(run, emit, carried_over)
    for record in opening(state):
        run.record(record)
    try:
        with graceful_stop() as stop, run.checkpoints.settled():
            stop.check_limit(run.seconds_to_save)
            stop.keep_free(run.seconds_to_save)
            state = train(run, state, stop)
            stop.keep_free(0.0)
            return state
    except Exception as error:
        if run.keeps_checkpoints:
            _record_failure(run, error)
        if not (run.keeps_checkpoints and isinstance(error, DivergedError)):
            raise
        kept = run.checkpoints.all()
        good = f"the last good checkpoint is {kept[-1][1]}" if kept else "there is no checkpoint yet"
        raise DivergedError(f"{error}; {good}") from None


def _record_failure(run: TrainingRun, error: Exception) -> None:
    """Leave in the records why the run ended, where it can still be; when it goes on they are cut back."""
    log = metrics_log(run.sinks) if run.runtime.ranks.is_writer else None
    if log is None:
        return
    steps = [*(record["step"] for record in log.records), *(step for step, _ in run.checkpoints.all())]
    record = {"step": max(steps, default=0) + 1, "remark": FAILED, "error": one_line(error)}
    with contextlib.suppress(Exception):  # the disk may be full, which is why it ends
        log.write(Remarked(record, ""))


def _begin(run: TrainingRun, emit: Emit, carried_over: Path | None) -> TrainState:
    """Give model, optimizer and sinks the state in which the run is; that state.

    The writer chooses it, and the others load what it has chosen.
    """
    ranks = run.runtime.ranks
    state = _restore(run, emit) if ranks.is_writer else None
    step = ranks.from_writer(None if state is None else state.step)
    if state is None:
        state = run.checkpoints.load(step, run.model, run.optimizer) if step else TrainState(step=0)
    if not step and carried_over is not None:
        carry_over(carried_over, run.model, run.optimizer)
    for sink in run.sinks if ranks.is_writer else ():
        sink.rewind(state.step, state.evaluated)
    return state


def _restore(run: TrainingRun, emit: Emit) -> TrainState:
    """Load the newest checkpoint that is whole, and that belongs to the records; its state."""
    log = metrics_log(run.sinks)

    def objection(state: TrainState) -> str | None:
        return log.change_since(state.step, state.evaluated, state.records) if log and state.records else None

    state, passed_over = run.checkpoints.restore(run.model, run.optimizer, objection)
    for damaged in passed_over:
        emit(Caution(f"{damaged}; going on from an older checkpoint"))
    if state.step:
        emit(Note(f"resuming after step {state.step:,} of {run.total_steps:,}"))
    return state
