"""A training run from its newest checkpoint, or its start, to its end."""

from pathlib import Path

from fmlm_cli.engine.checkpoint import TrainState, carry_over
from fmlm_cli.engine.loop import TrainingRun, train
from fmlm_cli.engine.signals import graceful_stop
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.events import Caution, Emit, Note


def train_to_the_end(run: TrainingRun, emit: Emit, *, carried_over: Path | None = None) -> TrainState:
    """Go on from the newest checkpoint that is whole, or begin; the state at the end.

    `carried_over`: another run's checkpoint, whose state of the optimizer a run begins with.
    Raises `Interrupted`, with a checkpoint saved, on Ctrl-C or SIGTERM; `DivergedError`; `UserError` for
    checkpoints that are damaged or another run's.
    """
    state = _begin(run, emit, carried_over)
    try:
        with graceful_stop() as stop:
            return train(run, state, stop)
    except DivergedError as error:
        if not run.keeps_checkpoints:
            raise
        kept = run.checkpoints.all()
        good = f"the last good checkpoint is {kept[-1][1]}" if kept else "there is no checkpoint yet"
        raise DivergedError(f"{error}; {good}") from None


def _begin(run: TrainingRun, emit: Emit, carried_over: Path | None) -> TrainState:
    """Give model, optimizer and sinks the state in which the run is; that state."""
    state, passed_over = run.checkpoints.restore(run.model, run.optimizer)
    for damaged in passed_over:
        emit(Caution(f"{damaged}; going on from an older checkpoint"))
    if state.step:
        emit(Note(f"resuming after step {state.step:,} of {run.total_steps:,}"))
    elif carried_over is not None:
        carry_over(carried_over, run.model, run.optimizer)
    for sink in run.sinks if run.runtime.ranks.is_writer else ():
        sink.rewind(state.step)
    return state
