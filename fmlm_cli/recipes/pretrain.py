"""`fmlm pretrain`: a token store becomes a masked language model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmlm_cli import storage
from fmlm_cli.analysis.figures import draw_loss_curve
from fmlm_cli.config import PretrainSettings, to_yaml
from fmlm_cli.corpus.rows import RowOrder, RowReader
from fmlm_cli.corpus.tokenizers import save_tokenizer
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import Checkpoints, TrainState
from fmlm_cli.engine.device import resolve_device, resolve_precision
from fmlm_cli.engine.loop import TrainingRun, train
from fmlm_cli.engine.metrics import MetricsLog, read_metrics
from fmlm_cli.engine.optimizer import Schedule, make_adamw
from fmlm_cli.engine.signals import StopRequest, graceful_stop
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Note, Table, ignore
from fmlm_cli.masking.strategies import nearest_segments
from fmlm_cli.model.build import (
    dropout_rates,
    load_model,
    parameter_counts,
    read_config,
    save_model,
    tokenizer_for,
)
from fmlm_cli.recipes.evaluation import HeldOut, make_objective
from fmlm_cli.recipes.model_card import model_card
from fmlm_cli.recipes.resolve import (
    Plan,
    check_same_run,
    packing_report,
    resolve,
    saved_settings,
    settings_to_resume,
)
from fmlm_cli.recipes.samples import sample_predictions


@dataclass(frozen=True)
class PretrainResult:
    """Where a finished run lies, and the records of its metrics.jsonl."""

    run: storage.RunDirectory
    records: Sequence[dict[str, Any]]


def pretrain(
    settings: PretrainSettings, *, overwrite: bool = False, resume: bool = False, emit: Emit = ignore
) -> PretrainResult:
    """Pre-train a masked LM into the run directory `settings.out`.

    Raises `UserError` for anything wrong with the settings or the data, before anything is written;
    `Interrupted`, with a checkpoint saved, on Ctrl-C or SIGTERM.
    """
    if settings.out is None:
        raise UserError("no output folder: give --out RUN")
    run = storage.RunDirectory(Path(settings.out))
    storage.claim_output(run.root, marker=storage.RUN_CONFIG, overwrite=overwrite, resume=resume)
    if overwrite and run.config.is_file():
        saved_settings(run)  # a config.yaml of something else is no run, and is not ours to remove
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    resuming = resume and run.config.is_file()
    if resuming:
        settings = settings_to_resume(settings, run)
    plan = resolve(settings, emit)
    if resuming:
        check_same_run(plan, run)
        if run.is_finished:
            emit(Note(f"{run.root} is finished: nothing to resume; its model is {run.final}"))
            return PretrainResult(run, read_metrics(run.metrics))
    _describe(plan, device, precision, emit)
    if overwrite and plan.store.root.resolve().is_relative_to(run.root.resolve()):
        raise UserError(f"the store {plan.store.root} lies inside {run.root}: choose another --out")
    with storage.sole_owner(run.root), storage.clear_disk_errors(run.root):
        if not resuming:
            storage.clear_folder(run.root, last=run.config)
        storage.write_text(run.config, to_yaml(plan.settings))
        return _Job(plan, run, device, precision, emit).run_to_the_end()


def _describe(plan: Plan, device: torch.device, precision: torch.dtype, emit: Emit) -> None:
    """Say what is about to happen, and what about it may not be what the user wants."""
    settings = plan.settings
    counts = parameter_counts(plan.model)
    emit(
        Table(
            "pre-training",
            {
                "model": f"{settings.model.name}, {counts['total'] / 1e6:.1f} M parameters ({counts['without_embeddings'] / 1e6:.1f} M without embeddings)",
                "data": f"{plan.store.root} ({plan.store.fingerprint[:16]}), vocabulary {plan.store.vocabulary:,}",
                **packing_report(plan),
                "masking": plan.timetable.description,
                "budget": f"{plan.total_steps:,} steps of {settings.batch.size} rows = {_passes(plan)}",
                "learning rate": f"{settings.optimizer.learning_rate:g}, {settings.optimizer.schedule} decay",
                "device": f"{_where(device, precision)}, {torch.get_num_threads()} threads",
            },
        )
    )


def _where(device: torch.device, precision: torch.dtype) -> str:
    return f"{device}, {str(precision).removeprefix('torch.')}"


def _passes(plan: Plan) -> str:
    masks = plan.strategy.masks_per_sequence
    return f"{plan.passes:.2f} passes over the data" + (f", each under {masks} masks" if masks > 1 else "")


def cautions(plan: Plan) -> list[str]:
    """What the console and the model card have to say about the limits of this run."""
    found = []
    if plan.strategy.cycle > 1 and plan.passes < 2:
        found.append(
            f"the budget makes {plan.passes:.2f} passes over the data; below 2, {plan.strategy.name} masks with scope epoch act "
            f"almost as random ones (fewer rows with data.max_rows, or scope batch, would change that)"
        )
    schedule, last = plan.timetable.schedule, plan.timetable.last
    if schedule is not None and last.cycle > 1 and last.cycle != nearest_segments(schedule.final):
        found.append(
            f"the number of segments changes only between cycles of passes: in {plan.passes:.2f} passes the mask rate goes to "
            f"{last.rate:.1%}, not to {1 / nearest_segments(schedule.final):.1%}"
        )
    if not plan.store.has("validation"):
        found.append("the store has no validation split: there is no evaluation")
    return found


class _Job:
    """A planned run on its device: everything between the plan and the finished model."""

    def __init__(
        self, plan: Plan, run: storage.RunDirectory, device: torch.device, precision: torch.dtype, emit: Emit
    ) -> None:
        self.plan, self.run, self.device, self.precision, self.emit = plan, run, device, precision, emit
        self.settings = plan.settings
        self.model = plan.model.to(device)
        self.objective = make_objective(
            plan.store, plan.strategy, self.settings.seed, static_shapes=device.type == "cuda"
        )
        self.dropout = dropout_rates(read_config(self.settings.model.name))  # what the final model is given
        self.order = RowOrder(len(plan.reader), self.settings.seed)
        self.cautions = cautions(plan)
        self.held_out = self._held_out()
        if self.held_out and not self.held_out.has_targets:
            self.cautions.append(
                "the validation split is too small to mask a token of it: there is no evaluation"
            )
            self.held_out = None
        for text in self.cautions:
            emit(Caution(text))

    def _held_out(self) -> HeldOut | None:
        settings, store, rows = self.settings, self.plan.store, self.plan.reader
        if not store.has("validation"):
            return None
        reader = RowReader(
            store,
            "validation",
            packing=rows.plan.packing,
            sequence_length=rows.sequence_length,
            max_rows=settings.evaluation.max_rows,
        )
        return HeldOut.of(store, reader, settings.batch.micro_size or 1)

    def prepare(self, step: int) -> list[Batch]:
        """The batches of a step (from 1): a pure function of the step."""
        number = self.plan.sequences_per_step
        position = (step - 1) * number + np.arange(number)
        index, epoch = self.order.locate(position)
        rows, progress = self.plan.reader.read(index), (step - 1) / max(1, self.plan.total_steps - 1)
        batches: list[Batch] = []
        for chosen, strategy, mask_epoch in self.plan.timetable.at(progress, epoch):
            part = rows if len(chosen) == len(index) else rows.take(chosen)
            objective, micro = replace(self.objective, strategy=strategy), self.settings.batch.micro_size or 1
            batches += objective.prepare(part, epoch[chosen], micro, mask_epoch)
        return batches

    def evaluate(self) -> list[dict[str, Any]]:
        """The fields of the evaluation records."""
        return [self.held_out.run(self.model, self.device, self.precision)] if self.held_out else []

    def run_to_the_end(self) -> PretrainResult:
        """Train from the newest checkpoint, or from the start; then leave the model, its card and its picture."""
        settings = self.settings
        optimizer = make_adamw(
            self.model,
            weight_decay=settings.optimizer.weight_decay,
            betas=settings.optimizer.betas,
            epsilon=settings.optimizer.epsilon,
        )
        checkpoints = Checkpoints(
            self.run.checkpoints,
            settings.checkpoint.keep,
            self.plan.identity,
            self._save_model,
            self._load_model,
        )
        state, passed_over = checkpoints.restore(self.model, optimizer)
        for line in passed_over:
            self.emit(Caution(f"{line}; going on from an older checkpoint"))
        if state.step:
            self.emit(Note(f"resuming after step {state.step:,} of {self.plan.total_steps:,}"))
        metrics = MetricsLog(self.run.metrics, keep_through=state.step if state.step else -1)
        try:
            with graceful_stop() as stop:
                state = train(self._training_run(optimizer, checkpoints, metrics, stop), state)
        except DivergedError as error:
            kept = checkpoints.all()
            good = f"the last good checkpoint is {kept[-1][1]}" if kept else "there is no checkpoint yet"
            raise DivergedError(f"{error}; {good}") from None
        return self._finish(state, metrics)

    def _training_run(
        self,
        optimizer: torch.optim.Optimizer,
        checkpoints: Checkpoints,
        metrics: MetricsLog,
        stop: StopRequest,
    ) -> TrainingRun:
        settings, chosen = self.settings, self.settings.optimizer
        assert chosen.learning_rate and settings.logging.every_steps
        assert settings.evaluation.every_steps and settings.checkpoint.every_steps
        total = self.plan.total_steps
        warmup = round(chosen.warmup_share * total)
        return TrainingRun(
            model=self.model,
            objective=self.objective,
            optimizer=optimizer,
            schedule=Schedule(chosen.learning_rate, total, warmup, chosen.schedule, chosen.final_share),
            prepare=self.prepare,
            evaluate=self.evaluate,
            checkpoints=checkpoints,
            metrics=metrics,
            seed=settings.seed,
            device=self.device,
            precision=self.precision,
            clip=chosen.clip,
            log_every=settings.logging.every_steps,
            evaluate_every=settings.evaluation.every_steps,
            checkpoint_every=settings.checkpoint.every_steps,
            emit=self.emit,
            stop=stop,
        )

    def _save_model(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer: every checkpoint is a Hugging Face folder."""
        save_model(self.model.pretrained, folder, self.dropout)
        save_tokenizer(tokenizer_for(self.model.pretrained, self.plan.store.tokenizer), folder)

    def _load_model(self, folder: Path) -> None:
        self.model.pretrained.load_state_dict(load_model(str(folder)).state_dict())

    def _finish(self, state: TrainState, metrics: MetricsLog) -> PretrainResult:
        evaluations = [record for record in metrics.records if "eval_loss" in record]
        curve = draw_loss_curve(metrics.records, self.run.plots)
        where = _where(self.device, self.precision)
        with storage.complete_folder(self.run.final) as folder:
            self._save_model(folder)
            storage.write_text(
                folder / "README.md", model_card(self.plan, state, evaluations, self.cautions, where)
            )
        if self.held_out:
            for prediction in sample_predictions(self.model, self.plan.store.tokenizer, self.held_out):
                self.emit(prediction)
        self.emit(Table("done", self._results(state, evaluations, curve)))
        return PretrainResult(self.run, metrics.records)

    def _results(self, state: TrainState, evaluations: list[dict[str, Any]], curve: Path) -> dict[str, str]:
        rows = {"model": f"{self.run.final} (a Hugging Face folder)", "loss curve": str(curve)}
        if evaluations:
            last = evaluations[-1]
            below = last["unigram_loss"] - last["eval_loss"]
            said = (
                f"{below:.2f} below" if below > 0 else f"{-below:.2f} above: it has not yet learnt more than"
            )
            rows["held-out loss"] = (
                f"{last['eval_loss']:.3f} (perplexity {last['eval_perplexity']:,.1f}, accuracy {last['eval_accuracy']:.1%}), from {evaluations[0]['eval_loss']:.3f}"
            )
            rows["unigram loss"] = f"{last['unigram_loss']:.3f}; the model is {said} word frequencies"
        rows["trained"] = (
            f"{state.step:,} steps, {state.tokens:,} tokens, {_passes(self.plan)}, {state.seconds / 60:.1f} min"
        )
        if self.held_out:
            rows["evaluate"] = f"fmlm evaluate --from {self.run.root} --data {self.plan.store.root}"
        rows["in Python"] = f'AutoModelForMaskedLM.from_pretrained("{self.run.final}")'
        return rows
