"""A planned run on its device: the batches of each step, its evaluation, and what its checkpoints hold."""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, differing
from fmlm_cli.corpus.rows.reading import Int64s, Rows
from fmlm_cli.corpus.tokenizer.loading import save_tokenizer
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import Checkpoints, TrainState, begin_again
from fmlm_cli.engine.device.working_copy import WorkingCopy
from fmlm_cli.engine.loop import Rhythm, TrainingRun
from fmlm_cli.engine.ranks.protocol import Ranks
from fmlm_cli.engine.ranks.sharding import fill, rest
from fmlm_cli.engine.records import Record, Sink
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.saving.whole_copy import WholeCopy
from fmlm_cli.engine.signals import NEVER, StopRequest
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit
from fmlm_cli.masking import Strategy
from fmlm_cli.model.adapting.dropout import draw_dropout_by_bits
from fmlm_cli.model.adapting.lora import load_trained, merged, save_trained, trained_names
from fmlm_cli.model.build import save_model, tokenizer_for
from fmlm_cli.model.checkpoints.pretrained import load_pretrained
from fmlm_cli.model.isolation import isolates_documents
from fmlm_cli.model.layers import layer_lists
from fmlm_cli.model.layerwise.recomputing import recompute_layers
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.pretraining.planning.changes import (
    Changes,
    changes_since,
    facts_of,
    make_schedule,
    remark_of,
)
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan
from fmlm_cli.recipes.pretraining.planning.start import beside_head
from fmlm_cli.recipes.pretraining.report.describe import cautions
from fmlm_cli.recipes.pretraining.report.gains import keep_first_scores
from fmlm_cli.recipes.shared.held_out import HeldOut, Scores, make_objective
from fmlm_cli.recipes.shared.speed import check_repeats, compile_as_asked, settle_attention
from fmlm_cli.recipes.shared.training import assemble


def settle_attention_of(plan: RunPlan, runtime: Runtime) -> str:
    """Have a planned run's model attend as its settings ask; which way that is, in words."""
    length = plan.settings.sequence_length
    assert length is not None
    return settle_attention(plan.model, runtime, length, plan.settings.speed.attention, isolates_documents)


class LiveRun:
    """A planned run at work. `scores`: of its latest evaluation, by name.

    `allow_changes`: whether a checkpoint under other settings is gone on from. `changes`: all that were made,
    by the step after which, each with what differed.
    """

    def __init__(
        self,
        plan: RunPlan,
        run: storage.RunDirectory,
        runtime: Runtime,
        emit: Emit,
        *,
        allow_changes: bool = False,
    ) -> None:
        self.plan, self.run, self.runtime, self.emit = plan, run, runtime, emit
        self.allow_changes = allow_changes
        self.changes: list[tuple[int, Changes]] = []
        self.settings, self.seed = plan.settings, plan.settings.seed
        self.model = plan.model
        draw_dropout_by_bits(self.model)
        self.whole = self._shard() if runtime.shard else None
        self._take_device()
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
        self.trained = trained_names(self.model.pretrained)  # what rests for now among them
        self.cautions = cautions(plan)
        self.held_out = self._held_out()
        self.scores: dict[str, Scores] = {}
        for caution in self.cautions:
            emit(caution)
        self._settle_layers()

    def _take_device(self) -> None:
        """Have the model on its device; what of it is sharded is there, and needs no copy to compute."""
        self.working = None
        if self.whole is None:
            self.model.to(self.runtime.device)
            self.working = WorkingCopy(self.model) if self.runtime.low_weights else None

    def _shard(self) -> WholeCopy[MaskedLM]:
        """Leave this process its part of the model."""
        _ = self.plan.decided_by  # which is of the weights as they are in the beginning
        whole = WholeCopy(self.model)
        layers = [layer for alike in layer_lists(self.model.pretrained) for layer in alike]
        low = self.runtime.precision if self.runtime.low_weights else None
        self.runtime.ranks.shard(self.model, layers, self.runtime.device, low)
        return whole

    def _settle_layers(self) -> None:
        """Have the model's layers compiled and recomputed, if they are to be, by the first batch."""

        computing = self.working.model if self.working else self.model

        def once() -> None:
            computing.train().zero_grad(set_to_none=True)
            with self.runtime.autocast():
                first = self._first_batch(1)
                loss = self.objective.loss(computing, first.to(self.runtime.device))
            loss.backward()

        ragged = self.settings.data.packing == "none"
        asked = self.settings.speed.compile
        compile_as_asked(asked, computing, self.runtime, once, self.emit, ragged=ragged)
        if self.settings.speed.recompute:
            recompute_layers(computing)
        if self.runtime.deterministic:
            check_repeats(computing, once)
        computing.zero_grad(set_to_none=True)

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
        """This process's batches of a step (from 1): a pure function of the step.

        A step is cut into batches in the same way on any number of processes, and then dealt out. Where a
        forward takes all of them, whoever has no batch left has one without targets.
        """
        ranks = self.runtime.ranks
        batches, number = self._batches(step, ranks.mine)
        if self.runtime.shard and len(batches) < math.ceil(number / ranks.world):
            batches.append(self.objective.without_targets(self._first_batch(step)))
        return batches

    def _first_batch(self, step: int) -> Batch:
        (first,), _ = self._batches(step, lambda places: places[:1])
        return first

    def _batches(self, step: int, deal: Callable[[Sequence[int]], Iterable[int]]) -> tuple[list[Batch], int]:
        """Some batches of a step, `deal` says which, of the places of all; and how many all are."""
        number = self.plan.sequences_per_step
        progress = (step - 1) / max(1, self.plan.total_steps - 1)
        # Rows of all sources that are masked alike share batches.
        alike: dict[float, tuple[Strategy, list[tuple[Rows, Int64s, Int64s]]]] = {}
        for source, index, epoch in self.plan.stream.at((step - 1) * number + np.arange(number)):
            rows = self.plan.stream.sources[source].reader.read(index)
            for members, strategy, mask_epoch in self.plan.timetables[source].at(progress, epoch):
                part = rows if len(members) == len(index) else rows.take(members)
                alike.setdefault(strategy.rate, (strategy, []))[1].append((part, epoch[members], mask_epoch))
        micro_size = self.plan.micro_size
        groups = [
            (replace(self.objective, strategy=strategy), Rows.joined([rows for rows, _, _ in parts]), parts)
            for strategy, parts in alike.values()
        ]
        cut = [objective.cut(rows, micro_size) for objective, rows, _ in groups]
        number = sum(map(len, cut))
        wanted, place = set(deal(range(number))), itertools.count()
        batches: list[Batch] = []
        for (objective, rows, parts), pieces in zip(groups, cut, strict=True):
            epoch, mask_epoch = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
            own = [piece for piece in pieces if next(place) in wanted]
            batches += objective.masked(rows, own, epoch, micro_size, mask_epoch)
        return batches, number

    def evaluate(self, step: int, stop: StopRequest = NEVER) -> list[dict[str, Any]]:
        """The fields of the evaluation records."""
        model = self.working.catch_up() if self.working else self.model
        try:
            self.scores = {
                name: held_out.run(model, self.runtime, stop) for name, held_out in self.held_out.items()
            }
        finally:
            rest(model)
        main = self.main_evaluation
        if step == 0 and self.plan.origin and main is not None and self.runtime.ranks.is_writer:
            keep_first_scores(self.run, self.scores[main])
        return [{"evaluation": name, **scores.record} for name, scores in self.scores.items()]

    def before_step(self, step: int) -> None:
        """While the head is trained alone, all else rests."""
        for parameter in self.resting:
            parameter.requires_grad_(step > self.head_steps)

    def goes_on_alone(self) -> None:
        """From now on without the other processes, of which the writer is left the model."""
        is_writer, self.runtime = self.runtime.ranks.is_writer, self.runtime.alone
        if self.whole is not None:
            model = self.whole.take(self.model, keeps=is_writer)
            if model is not None:
                self.model, self.whole = model, None
                self._take_device()

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
            on_nonfinite=settings.optimizer.on_nonfinite,
            tells_spikes=True,
        )

    def _checkpoints(self, keep_steps: Collection[int]) -> Checkpoints:
        facts, asked = {**facts_of(self.plan), "changes": self.changes}, self.settings.checkpoint
        return Checkpoints(
            self.run.checkpoints,
            asked.keep,
            self.plan.identity,
            self._save_checkpoint,
            self._load_model,
            facts,
            stays=lambda step: step in keep_steps or bool(asked.keep_every and step % asked.keep_every == 0),
            takes_over=self._takes_over,
            background=asked.background,
            on_failure=self._tell_failure if asked.on_error == "continue" else None,
            ranks=self.runtime.ranks,
            whole=self.whole,
        )

    def _tell_failure(self, error: UserError) -> None:
        self.emit(
            Caution(f"{error}; training goes on, and the next checkpoint is tried (checkpoint.on_error)")
        )

    def _takes_over(self, state: TrainState, facts: Mapping[str, Any], same: bool) -> bool:
        """Whether this run is the one that left a checkpoint, or may go on from it.

        Raises `UserError` for what speaks against that, by its name, where the settings do.
        """
        self.changes[:] = facts.get("changes", [])
        if same or "decided_by" not in facts:
            return same
        now = self.plan.decided_by["settings"]
        if not self.allow_changes:
            names = differing(facts["decided_by"]["settings"], now)
            if names:
                raise UserError(
                    f"{self.run.root} has a checkpoint of step {state.step} under other settings "
                    f"({', '.join(names)}): pass --allow-changes to go on from it"
                )
            return False
        changes = changes_since(facts, self.plan, state.step)
        if changes:
            self.changes.append((state.step, changes))
        return True

    def opening(self, state: TrainState) -> list[Record]:
        """The records that a run begins or goes on with; what was changed is on the model's card too."""
        remarks = [(step, remark_of(step, changes)) for step, changes in self.changes]
        self.cautions += [Caution(remark.text, "changed") for _, remark in remarks]
        return [remark for step, remark in remarks if step == state.step]

    @property
    def carried_over(self) -> Path | None:
        """The checkpoint of another run, whose state of the optimizer this one begins with."""
        if not self.settings.optimizer.carry_over:
            return None
        assert self.plan.origin and self.plan.origin.training
        return self.plan.origin.training

    def save_model(self, of: MaskedLM, folder: Path) -> None:
        """Write weights, configuration and tokenizer: every checkpoint is a Hugging Face folder."""
        model = merged(of.pretrained) if self.adapters else of.pretrained
        save_model(model, folder, self.plan.start.dropout, self.plan.start.kept)
        trained = self.plan.trained_length
        save_tokenizer(tokenizer_for(model, self.plan.store.tokenizer, trained=trained), folder)

    def _save_checkpoint(self, of: MaskedLM, folder: Path) -> None:
        self.save_model(of, folder)
        if self.adapters:  # what is merged in the folder's model cannot be taken apart again
            save_trained(of.pretrained, self.trained, folder)

    def _load_model(self, folder: Path) -> None:
        if self.adapters:
            remedy = begin_again(self.run.checkpoints)
            load_trained(self.model.pretrained, self.trained, folder, remedy, fill)
            return
        trusted = self.settings.model.trust_remote_code
        saved = load_pretrained(folder, name=str(folder), trust_remote_code=trusted, seed=0)
        own = self.model.pretrained.state_dict()
        for key, values in saved.model.state_dict().items():
            fill(own[key], values)


def runtime_of(settings: PretrainSettings, ranks: Ranks | None = None) -> Runtime:
    """What a run of these settings is on; `ranks`: the processes that train it, this one alone if None."""
    return Runtime.resolve(
        settings.device,
        settings.precision,
        ranks,
        deterministic=settings.deterministic,
        shard=settings.speed.shard,
        threads=settings.speed.threads,
    )
