"""`fmlm pretrain` and `fmlm continue`: one road, from fresh weights or from a checkpoint's."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, to_yaml
from fmlm_cli.engine.checkpoint import begin_again, complete_checkpoints
from fmlm_cli.engine.ranks.protocol import OneProcess, Ranks
from fmlm_cli.engine.records import MetricsLog, Teller, read_metrics
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.trackers.sink import check_trackers, tracked
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Doing, Emit, Note, ignore, starting_anew
from fmlm_cli.model.ending import let_go
from fmlm_cli.recipes.pretraining.finish import finish_run
from fmlm_cli.recipes.pretraining.live_run import LiveRun, runtime_of, settle_attention_of
from fmlm_cli.recipes.pretraining.micro_size import with_micro_size
from fmlm_cli.recipes.pretraining.planning.agreement import (
    check_same_plan,
    check_same_software,
    plan_as_told,
)
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan, plan_run
from fmlm_cli.recipes.pretraining.planning.resume import check_changes, check_same_run, settings_to_resume
from fmlm_cli.recipes.pretraining.report.describe import describe_run, facts_for_trackers
from fmlm_cli.recipes.pretraining.timing import with_timed_budget
from fmlm_cli.recipes.publishing import check_push, push_finished
from fmlm_cli.recipes.shared.checkpoints import check_model_files, lost_of_model
from fmlm_cli.recipes.shared.training import train_to_the_end


@dataclass(frozen=True)
class PretrainResult:
    """Where a finished run lies, and the records of its metrics.jsonl."""

    run: storage.RunDirectory
    records: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class _Told:
    """What the writer tells the others: its settings without gaps, or None if nothing is left to do."""

    settings: PretrainSettings | None


def pretrain(
    settings: PretrainSettings,
    *,
    overwrite: bool = False,
    resume: bool = False,
    allow_changes: bool = False,
    keep_steps: Collection[int] = (),
    emit: Emit = ignore,
    ranks: Ranks | None = None,
) -> PretrainResult:
    """Train a masked LM into the run directory `settings.out`, from scratch or from a checkpoint.

    `keep_steps`: there are checkpoints of these steps too, and they stay whatever `settings.checkpoint` says.
    `ranks`: the processes that train it together, this one alone if None; the writer owns the folder, and
    decides for all. `allow_changes`: go on under other settings than the run was started with, where that can
    be. Raises `UserError` for anything wrong with the settings or the data, before anything is written;
    `Interrupted`, with a checkpoint saved, on Ctrl-C or SIGTERM.
    """
    if allow_changes and not resume:
        raise UserError("--allow-changes is for going on with a run: give --resume too")
    if settings.out is None:
        raise UserError("no output folder: give --out RUN")
    run, ranks = storage.RunDirectory(Path(settings.out)), ranks or OneProcess()
    check_same_software(ranks)
    if not ranks.is_writer:
        return _follow(run, keep_steps, ranks, allow_changes=allow_changes)
    with storage.owned_folder(
        run.root, storage.RUN, overwrite=overwrite, resume=resume, tell=lambda text: emit(Note(text))
    ) as folder:
        resuming = resume and run.config.is_file()
        if not (overwrite or resuming or folder.is_empty):
            raise UserError(f"{run.root} has lost its {run.config.name}: put it back, or pass --overwrite")
        if resume and not complete_checkpoints(run.checkpoints) and not run.is_finished:
            emit(starting_anew(run.root))
        if resuming:
            settings = settings_to_resume(settings, run)
        check_trackers(settings.logging.to)
        check_push(settings.hub, begun=resuming, emit=emit)
        runtime = _checked_runtime(ranks.from_writer(settings), ranks, emit)
        settings = with_timed_budget(settings, ranks.world, emit)
        plan = plan_run(settings, emit)
        if resuming:
            _check_goes_on(plan, run, allow_changes=allow_changes)
        if resuming and _has_its_model(run, emit):
            ranks.from_writer(_Told(None))
            return _was_finished(run, settings, emit)
        ranks.from_writer(_Told(plan.settings))
        check_same_plan(plan, ranks)
        emit(Doing("trying the model on its device"))
        describe_run(plan, runtime, settle_attention_of(plan, runtime), emit)
        plan = with_micro_size(plan, runtime, emit)
        if overwrite:
            storage.check_outside(run.root, plan.made_from)
        emit(Doing("preparing the first steps"))  # it compiles, which may fail, and writes nothing
        live = LiveRun(plan, run, runtime, emit, allow_changes=allow_changes)
        with storage.clear_disk_errors(run.root):
            if overwrite:
                folder.clear()
            storage.write_text(run.config, to_yaml(plan.settings))
            return _train(live, keep_steps, emit)


def _was_finished(run: storage.RunDirectory, settings: PretrainSettings, emit: Emit) -> PretrainResult:
    """What is left to do for a run that has its model: it may not be on the Hub yet."""
    emit(Note(f"{run.root} is finished: nothing to resume; its model is {run.final}"))
    push_finished(run.root, settings.hub, emit)
    return PretrainResult(run, read_metrics(run.metrics))


def _check_goes_on(plan: RunPlan, run: storage.RunDirectory, *, allow_changes: bool) -> None:
    """Refuse a plan that is not the run's own, or not one that it can become."""
    if run.is_finished or not allow_changes:
        check_same_run(plan.settings, run)
    else:
        check_changes(plan, run)


def _follow(
    run: storage.RunDirectory, keep_steps: Collection[int], ranks: Ranks, *, allow_changes: bool
) -> PretrainResult:
    """Do a process's part of a run whose writer is another one: nothing is written or said."""
    runtime = _checked_runtime(ranks.from_writer(PretrainSettings()), ranks, ignore)
    told = ranks.from_writer(_Told(None))
    if told.settings is None:  # there is nothing left to do
        return PretrainResult(run, [])
    plan = plan_as_told(told.settings, ranks)
    check_same_plan(plan, ranks)
    settle_attention_of(plan, runtime)
    plan = with_micro_size(plan, runtime, ignore)
    return _train(LiveRun(plan, run, runtime, ignore, allow_changes=allow_changes), keep_steps, ignore)


def _checked_runtime(settings: PretrainSettings, ranks: Ranks, emit: Emit) -> Runtime:
    if settings.speed.shard and settings.checkpoint.background is True:
        raise UserError(
            "checkpoint.background=true: what is sharded is written by all processes at once, which no "
            "thread can do beside training; set it to auto, or speed.shard to false"
        )
    if settings.speed.shard and ranks.world == 1:
        emit(Note("speed.shard: there is one process, which holds all of the model"))
    return runtime_of(settings, ranks)


def _train(live: LiveRun, keep_steps: Collection[int], emit: Emit) -> PretrainResult:
    """Train from where the run stands to its end, and leave what it is to leave."""
    run, patient = live.run, live.settings.checkpoint.on_error == "continue"
    log = MetricsLog(run.metrics, patient=patient)
    is_writer = live.runtime.ranks.is_writer
    trackers = live.settings.logging.to if is_writer else ()
    with tracked(trackers, facts_for_trackers(live.plan, run.root, live.runtime), log, emit) as sinks:
        training = live.training_run(log, Teller(emit), *sinks, keep_steps=keep_steps)
        state = train_to_the_end(training, emit, carried_over=live.carried_over, opening=live.opening)
    live.goes_on_alone()
    if is_writer:
        finish_run(live, state, log.records)
        push_finished(run.root, live.settings.hub, emit)
    let_go(live.model)
    return PretrainResult(run, log.records)


def _has_its_model(run: storage.RunDirectory, emit: Emit) -> bool:
    """Whether a run's final model is there, as the run left it.

    One that has lost files is to be made again, and the user is told. Raises `UserError` where there is
    nothing to make it from, and for one that was changed.
    """
    if not run.is_finished:
        return False
    lost = lost_of_model(run.final)
    if lost is None:
        check_model_files(run.final)
        return True
    if not complete_checkpoints(run.checkpoints):
        raise UserError(
            f"{run.final} has lost its {lost}, and there is no checkpoint to make it again from: "
            f"put the file back, or {begin_again(run.final)}"
        )
    emit(Caution(f"{run.final} has lost its {lost}: the model is made again from the newest checkpoint"))
    return False
