"""A planned run on its device: the batches of each step, its evaluation, and what its checkpoints hold."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fmlm_cli import storage
from fmlm_cli.corpus.rows.reading import Int64s, Rows
from fmlm_cli.corpus.tokenizer.loading import save_tokenizer
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import Checkpoints, begin_again
from fmlm_cli.engine.device.working_copy import WorkingCopy
from fmlm_cli.engine.loop import Rhythm, TrainingRun
from fmlm_cli.engine.optimizer import Schedule
from fmlm_cli.engine.records import Sink
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.signals import NEVER, StopRequest
from fmlm_cli.events import Caution, Emit
from fmlm_cli.masking import Strategy
from fmlm_cli.model.adapting.dropout import draw_dropout_by_bits
from fmlm_cli.model.adapting.lora import load_trained, merged, save_trained
from fmlm_cli.model.build import save_model, tokenizer_for
from fmlm_cli.model.checkpoints.pretrained import load_pretrained
from fmlm_cli.model.isolation import isolates_documents
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan
from fmlm_cli.recipes.pretraining.planning.start import beside_head
from fmlm_cli.recipes.pretraining.report.describe import cautions
from fmlm_cli.recipes.pretraining.report.gains import keep_first_scores
from fmlm_cli.recipes.shared.held_out import HeldOut, Scores, make_objective
from fmlm_cli.recipes.shared.speed import compile_as_asked, settle_attention
from fmlm_cli.recipes.shared.training import assemble


def make_schedule(plan: RunPlan) -> Schedule:
    """The learning rate's course over the run."""
    optimizer = plan.settings.optimizer
    assert optimizer.learning_rate and optimizer.head_learning_rate and optimizer.warmup_share is not None
    return Schedule.of_shares(
        plan.total_steps,
        peak=optimizer.learning_rate,
        warmup_share=optimizer.warmup_share,
        shape=optimizer.schedule,
        final_share=optimizer.final_share,
        decay_share=optimizer.decay_share,
        head_steps=optimizer.head_warmup_steps,
        head_peak=optimizer.head_learning_rate,
    )


def settle_attention_of(plan: RunPlan, runtime: Runtime) -> str:
    """Have a planned run's model attend as its settings ask; which way that is, in words."""
    length = plan.settings.sequence_length
    assert length is not None
    return settle_attention(plan.model, runtime, length, plan.settings.speed.attention, isolates_documents)


class LiveRun:
    """A planned run at work. `scores`: of its latest evaluation, by name."""

    def __init__(self, plan: RunPlan, run: storage.RunDirectory, runtime: Runtime, emit: Emit) -> None:
        self.plan, self.run, self.runtime, self.emit = plan, run, runtime, emit
        self.settings, self.seed = plan.settings, plan.settings.seed
        self.model = plan.model.to(runtime.device)
        draw_dropout_by_bits(self.model)
        self.working = WorkingCopy(self.model) if runtime.low_weights else None
        self.objective = make_objective(
            plan.store,
            plan.strategy,
            self.settings.seed,
            static_shapes=runtime.device.type == "cuda",
            layout=self.model.attention.layout,
        )
        self.adapters = self.settings.model.lora.rank is not None
        self.head_steps = self.settings.optimizer.head_warmup_steps
        self.resting = beside_head(self.model.pretrained) if self.head_steps else []
        self.cautions = cautions(plan)
        self.held_out = self._held_out()
        self.scores: dict[str, Scores] = {}
        for caution in self.cautions:
            emit(caution)
        self._compile()

    def _compile(self) -> None:
        """Compile the model's layers, if they are to be, by the first batch that they will see."""

        computing = self.working.model if self.working else self.model

        def once() -> None:
            computing.train()
            with self.runtime.autocast():
                loss = self.objective.loss(computing, self.prepare(1)[0].to(self.runtime.device))
            loss.backward()
            computing.zero_grad(set_to_none=True)

        ragged = self.settings.data.packing == "none"
        asked = self.settings.speed.compile
        compile_as_asked(asked, computing, self.runtime, once, self.emit, ragged=ragged)

    @property
    def main_evaluation(self) -> str | None:
        """The name of the evaluation that decides; where nothing of its text is masked, of the next one."""
        return next((name for name in self.plan.by_weight if name in self.held_out), None)

    def _held_out(self) -> dict[str, HeldOut]:
        """What to evaluate on, by name."""
        training = self.plan.stream.sources[0].reader
        by_name = {}
        for name, store in self.plan.evaluated.items():
            held_out = HeldOut.like(training, store, self.settings.evaluation, self.plan.micro_size)
            if held_out.has_targets:
                by_name[name] = held_out
            else:
                lacking = (
                    f"the validation split of {store.root} is too small to mask a token of it: "
                    "there is no evaluation on it"
                )
                self.cautions.append(Caution(lacking, "no-evaluation"))
        return by_name

    def prepare(self, step: int) -> list[Batch]:
        """The batches of a step (from 1): a pure function of the step."""
        number = self.plan.sequences_per_step
        progress = (step - 1) / max(1, self.plan.total_steps - 1)
        # Rows of all sources that are masked alike share batches.
        alike: dict[float, tuple[Strategy, list[tuple[Rows, Int64s, Int64s]]]] = {}
        for source, index, epoch in self.plan.stream.at((step - 1) * number + np.arange(number)):
            rows = self.plan.stream.sources[source].reader.read(index)
            for members, strategy, mask_epoch in self.plan.timetables[source].at(progress, epoch):
                part = rows if len(members) == len(index) else rows.take(members)
                alike.setdefault(strategy.rate, (strategy, []))[1].append((part, epoch[members], mask_epoch))
        batches: list[Batch] = []
        for strategy, parts in alike.values():
            objective = replace(self.objective, strategy=strategy)
            rows = Rows.joined([part for part, _, _ in parts])
            epoch, mask_epoch = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
            batches += objective.prepare(rows, epoch, self.plan.micro_size, mask_epoch)
        return batches

    def evaluate(self, step: int, stop: StopRequest = NEVER) -> list[dict[str, Any]]:
        """The fields of the evaluation records."""
        model = self.working.catch_up() if self.working else self.model
        self.scores = {
            name: held_out.run(model, self.runtime, stop) for name, held_out in self.held_out.items()
        }
        main = self.main_evaluation
        if step == 0 and self.plan.origin and main is not None and self.runtime.ranks.is_writer:
            keep_first_scores(self.run, self.scores[main])
        return [{"evaluation": name, **scores.record} for name, scores in self.scores.items()]

    def before_step(self, step: int) -> None:
        """While the head is trained alone, all else rests."""
        for parameter in self.resting:
            parameter.requires_grad_(step > self.head_steps)

    def enough(self) -> bool:
        """It is never: a run makes all its steps."""
        return False

    def training_run(self, *sinks: Sink, keep_steps: Collection[int] = ()) -> TrainingRun:
        """What the loop is given. `sinks`: where records go. Checkpoints of `keep_steps` stay to the end."""
        settings = self.settings
        assert settings.logging.every_steps
        assert settings.evaluation.every_steps and settings.checkpoint.every_steps
        return assemble(
            self,
            settings.optimizer,
            scales=self.plan.scales,
            schedule=make_schedule(self.plan),
            rhythm=Rhythm(
                log=settings.logging.every_steps,
                evaluate=settings.evaluation.every_steps,
                checkpoint=settings.checkpoint.every_steps,
            ),
            checkpoints=self._checkpoints(keep_steps),
            sinks=sinks,
            working=self.working,
        )

    def _checkpoints(self, keep_steps: Collection[int]) -> Checkpoints:
        facts = {
            "stream": self.plan.stream.identity,
            "first_row": self.plan.stream.first,
            "rows_per_step": self.plan.sequences_per_step,
        }
        return Checkpoints(
            self.run.checkpoints,
            self.settings.checkpoint.keep,
            self.plan.identity,
            self._save_checkpoint,
            self._load_model,
            facts,
            keep_steps,
        )

    @property
    def carried_over(self) -> Path | None:
        """The checkpoint of another run, whose state of the optimizer this one begins with."""
        if not self.settings.optimizer.carry_over:
            return None
        assert self.plan.origin and self.plan.origin.training
        return self.plan.origin.training

    def save_model(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer: every checkpoint is a Hugging Face folder."""
        model = merged(self.model.pretrained) if self.adapters else self.model.pretrained
        save_model(model, folder, self.plan.start.dropout, self.plan.start.kept)
        trained = self.plan.trained_length
        save_tokenizer(tokenizer_for(model, self.plan.store.tokenizer, trained=trained), folder)

    def _save_checkpoint(self, folder: Path) -> None:
        self.save_model(folder)
        if self.adapters:  # what is merged in the folder's model cannot be taken apart again
            self.before_step(self.head_steps + 1)  # what rests for now is saved too
            save_trained(self.model.pretrained, folder)

    def _load_model(self, folder: Path) -> None:
        if self.adapters:
            load_trained(self.model.pretrained, folder, begin_again(self.run.checkpoints))
            return
        trusted = self.settings.model.trust_remote_code
        saved = load_pretrained(folder, name=str(folder), trust_remote_code=trusted, seed=0)
        self.model.pretrained.load_state_dict(saved.model.state_dict())
