"""`fmlm pretrain` and `fmlm continue`: one road, from fresh weights or from a checkpoint's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmlm_cli import storage
from fmlm_cli.analysis.report.figures.training import draw_loss_curve
from fmlm_cli.config import PretrainSettings, saved_settings, to_yaml
from fmlm_cli.corpus.rows.reading import Int64s, RowReader, Rows
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.tokenizer.loading import save_tokenizer
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import Checkpoints, TrainState, carry_over
from fmlm_cli.engine.loop import TrainingRun, train
from fmlm_cli.engine.optimizer import Schedule, make_adamw
from fmlm_cli.engine.records import MetricsLog, evaluations_of, read_metrics
from fmlm_cli.engine.runtime import resolve_device, resolve_precision
from fmlm_cli.engine.signals import StopRequest, graceful_stop
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Facts, Note, ignore
from fmlm_cli.masking import Strategy
from fmlm_cli.model.build import save_model, tokenizer_for
from fmlm_cli.model.lora import load_trained, merged, save_trained
from fmlm_cli.model.pretrained import load_pretrained
from fmlm_cli.recipes.pretraining.describe import cautions, describe, passes_line
from fmlm_cli.recipes.pretraining.gains import (
    Evaluations,
    before_and_after,
    held_out_lines,
    improved_tokens,
    keep_first_scores,
)
from fmlm_cli.recipes.pretraining.model_card import model_card
from fmlm_cli.recipes.pretraining.plan import RunPlan, plan_run
from fmlm_cli.recipes.pretraining.resume import check_same_run, settings_to_resume
from fmlm_cli.recipes.pretraining.samples import sample_predictions
from fmlm_cli.recipes.pretraining.start import beside_head
from fmlm_cli.recipes.shared.held_out import HeldOut, Scores, make_objective
from fmlm_cli.recipes.shared.words import where_line


@dataclass(frozen=True)
class PretrainResult:
    """Where a finished run lies, and the records of its metrics.jsonl."""

    run: storage.RunDirectory
    records: Sequence[dict[str, Any]]


def pretrain(
    settings: PretrainSettings, *, overwrite: bool = False, resume: bool = False, emit: Emit = ignore
) -> PretrainResult:
    """Train a masked LM into the run directory `settings.out`, from scratch or from `settings.model.checkpoint`.

    Raises `UserError` for anything wrong with the settings or the data, before anything is written;
    `Interrupted`, with a checkpoint saved, on Ctrl-C or SIGTERM.
    """
    if settings.out is None:
        raise UserError("no output folder: give --out RUN")
    run = storage.RunDirectory(Path(settings.out))
    storage.claim_output(run.root, marker=storage.RUN_CONFIG, overwrite=overwrite, resume=resume)
    if overwrite and run.config.is_file():
        # A config.yaml of something else is no run, and is not ours to remove.
        saved_settings(PretrainSettings, run.config)
    device = resolve_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    resuming = resume and run.config.is_file()
    if resuming:
        settings = settings_to_resume(settings, run)
    plan = plan_run(settings, emit)
    if resuming:
        check_same_run(plan.settings, run)
        if run.is_finished:
            emit(Note(f"{run.root} is finished: nothing to resume; its model is {run.final}"))
            return PretrainResult(run, read_metrics(run.metrics))
    describe(plan, device, precision, emit)
    if overwrite:
        storage.check_outside(run.root, _needed(plan))
    with storage.sole_owner(run.root), storage.clear_disk_errors(run.root):
        if not resuming:
            storage.clear_folder(run.root, last=run.config)
        storage.write_text(run.config, to_yaml(plan.settings))
        return _Job(plan, run, device, precision, emit).run_to_the_end()


def _needed(plan: RunPlan) -> dict[Path, str]:
    """What the run is made from, and what each is."""
    needed = {source.store.root: "store" for source in plan.stream.sources}
    needed |= {store.root: "store" for store in plan.evaluated.values()}
    if plan.origin is not None:
        needed[plan.origin.folder] = "checkpoint"
    return needed


def make_schedule(plan: RunPlan) -> Schedule:
    """The learning rate's course over the run."""
    chosen, total = plan.settings.optimizer, plan.total_steps
    assert chosen.learning_rate and chosen.head_learning_rate and chosen.warmup_share is not None
    main = total - chosen.head_warmup_steps
    return Schedule(
        chosen.learning_rate,
        total,
        round(chosen.warmup_share * main),
        chosen.schedule,
        chosen.final_share,
        round(chosen.decay_share * main),
        chosen.head_warmup_steps,
        chosen.head_learning_rate,
    )


class _Job:
    """A planned run on its device: everything between the plan and the finished model."""

    def __init__(
        self,
        plan: RunPlan,
        run: storage.RunDirectory,
        device: torch.device,
        precision: torch.dtype,
        emit: Emit,
    ) -> None:
        self.plan, self.run, self.device, self.precision, self.emit = plan, run, device, precision, emit
        self.settings = plan.settings
        self.model = plan.model.to(device)
        self.objective = make_objective(
            plan.store,
            plan.strategy,
            self.settings.seed,
            static_shapes=device.type == "cuda",
            layout=self.model.attention.layout,
        )
        self.adapters = self.settings.model.lora.rank is not None
        self.head_steps = self.settings.optimizer.head_warmup_steps
        self.resting = beside_head(self.model.pretrained) if self.head_steps else []
        self.cautions = cautions(plan)
        self.held_out = self._held_out()
        self.scores: dict[str, Scores] = {}  # the latest, by name
        for caution in self.cautions:
            emit(caution)

    def _held_out(self) -> dict[str, HeldOut]:
        """What to evaluate on, by name."""
        found = {}
        for name, store in self.plan.evaluated.items():
            each = HeldOut.of(store, self._validation(store), self.settings.batch.micro_size or 1)
            if each.has_targets:
                found[name] = each
            else:
                lacking = (
                    f"the validation split of {store.root} is too small to mask a token of it: "
                    "there is no evaluation on it"
                )
                self.cautions.append(Caution(lacking, "no-evaluation"))
        return found

    def _validation(self, store: TokenStore) -> RowReader:
        """Validation rows cut as the training rows are."""
        layout = self.plan.stream.sources[0].reader.plan
        return RowReader(
            store,
            "validation",
            packing=layout.packing,
            sequence_length=layout.sequence_length,
            max_rows=self.settings.evaluation.max_rows,
        )

    def prepare(self, step: int) -> list[Batch]:
        """The batches of a step (from 1): a pure function of the step."""
        number = self.plan.sequences_per_step
        progress = (step - 1) / max(1, self.plan.total_steps - 1)
        # Rows of all sources that are masked alike share batches.
        alike: dict[float, tuple[Strategy, list[tuple[Rows, Int64s, Int64s]]]] = {}
        for source, index, epoch in self.plan.stream.at((step - 1) * number + np.arange(number)):
            rows = self.plan.stream.sources[source].reader.read(index)
            for chosen, strategy, mask_epoch in self.plan.timetables[source].at(progress, epoch):
                part = rows if len(chosen) == len(index) else rows.take(chosen)
                alike.setdefault(strategy.rate, (strategy, []))[1].append((part, epoch[chosen], mask_epoch))
        batches: list[Batch] = []
        for strategy, parts in alike.values():
            objective, micro = replace(self.objective, strategy=strategy), self.settings.batch.micro_size or 1
            rows = Rows.joined([part for part, _, _ in parts])
            epoch, mask_epoch = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
            batches += objective.prepare(rows, epoch, micro, mask_epoch)
        return batches

    def evaluate(self, step: int) -> list[dict[str, Any]]:
        """The fields of the evaluation records."""
        self.scores = {
            name: held_out.run(self.model, self.device, self.precision)
            for name, held_out in self.held_out.items()
        }
        if step == 0 and self.plan.origin is not None:
            keep_first_scores(self.run, self.scores)
        return [{"evaluation": name, **scores.record} for name, scores in self.scores.items()]

    def before_step(self, step: int) -> None:
        """While the head is trained alone, all else rests."""
        for parameter in self.resting:
            parameter.requires_grad_(step > self.head_steps)

    def run_to_the_end(self) -> PretrainResult:
        """Train from the newest checkpoint, or from the start; then leave the model, its card and its picture."""
        settings = self.settings
        optimizer = make_adamw(
            self.model,
            weight_decay=settings.optimizer.weight_decay,
            betas=settings.optimizer.betas,
            epsilon=settings.optimizer.epsilon,
            scales=self.plan.scales,
        )
        facts = {
            "stream": self.plan.stream.identity,
            "first_row": self.plan.stream.first,
            "rows_per_step": self.plan.sequences_per_step,
        }
        checkpoints = Checkpoints(
            self.run.checkpoints,
            settings.checkpoint.keep,
            self.plan.identity,
            self._save_checkpoint,
            self._load_model,
            facts,
        )
        state, passed_over = checkpoints.restore(self.model, optimizer)
        for line in passed_over:
            self.emit(Caution(f"{line}; going on from an older checkpoint"))
        if not state.step and settings.optimizer.carry_over:
            assert self.plan.origin and self.plan.origin.training
            carry_over(self.plan.origin.training, self.model, optimizer)
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
        assert settings.logging.every_steps
        assert settings.evaluation.every_steps and settings.checkpoint.every_steps
        return TrainingRun(
            model=self.model,
            objective=self.objective,
            optimizer=optimizer,
            schedule=make_schedule(self.plan),
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
            before_step=self.before_step,
        )

    def _save_model(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer: every checkpoint is a Hugging Face folder."""
        model = merged(self.model.pretrained) if self.adapters else self.model.pretrained
        save_model(model, folder, self.plan.start.dropout, self.plan.start.kept)
        save_tokenizer(tokenizer_for(model, self.plan.store.tokenizer), folder)

    def _save_checkpoint(self, folder: Path) -> None:
        self._save_model(folder)
        if self.adapters:  # what is merged in the folder's model cannot be taken apart again
            self.before_step(self.head_steps + 1)  # what rests for now is saved too
            save_trained(self.model.pretrained, folder)

    def _load_model(self, folder: Path) -> None:
        if self.adapters:
            load_trained(self.model.pretrained, folder)
            return
        trusted = self.settings.model.trust_remote_code
        saved = load_pretrained(folder, name=str(folder), trust_remote_code=trusted, seed=0)
        self.model.pretrained.load_state_dict(saved.model.state_dict())

    def _finish(self, state: TrainState, metrics: MetricsLog) -> PretrainResult:
        evaluations = evaluations_of(metrics.records)
        curve = draw_loss_curve(metrics.records, self.run.plots)
        where = where_line(self.device, self.precision)
        if not self.scores and self.plan.origin is not None:  # resumed after the last evaluation
            self.evaluate(state.step)
        better = improved_tokens(self.run, self.scores, self.plan.store.tokenizer)
        with storage.complete_folder(self.run.final) as folder:
            self._save_model(folder)
            told = [caution.text for caution in self.cautions]
            card = model_card(self.plan, state, evaluations, better, told, where)
            storage.write_text(folder / "README.md", card)
        for held_out in list(self.held_out.values())[:1]:
            for prediction in sample_predictions(self.model, self.plan.store.tokenizer, held_out):
                self.emit(prediction)
        if self.plan.origin is not None and evaluations:
            self.emit(Facts("held-out loss before and after", before_and_after(evaluations)))
            if better:
                self.emit(Facts("tokens whose prediction improved most", better))
        self.emit(Facts("done", self._results(state, evaluations, curve)))
        return PretrainResult(self.run, metrics.records)

    def _results(self, state: TrainState, evaluations: Evaluations, curve: Path) -> dict[str, str]:
        rows = {"model": f"{self.run.final} (a Hugging Face folder)", "loss curve": str(curve)}
        if evaluations:
            rows |= held_out_lines(evaluations)
        rows["trained"] = (
            f"{state.step:,} steps, {state.tokens:,} tokens, {passes_line(self.plan)}, {state.seconds / 60:.1f} min"
        )
        if self.held_out:
            rows["evaluate"] = f"fmlm evaluate --from {self.run.root} --data {self.plan.store.root}"
        rows["in Python"] = f'AutoModelForMaskedLM.from_pretrained("{self.run.final}")'
        return rows
