"""A comparison's items of work: what each is made with, where it lies, and in what order they are done."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fmlm_cli import keys, storage
from fmlm_cli.config import CHECKPOINTS, CORRUPTIONS, PretrainSettings, deciding
from fmlm_cli.errors import UserError
from fmlm_cli.events import counted
from fmlm_cli.recipes.comparison.arms import Arm, base_segments, folder_of, fresh_control
from fmlm_cli.recipes.comparison.draft import LEAST_STEPS, PARTS, Draft, request_of
from fmlm_cli.recipes.jobs.ledger import Job, Ledger
from fmlm_cli.recipes.jobs.records import FileRecord

COVERED_ROWS = 256  # that coverage is looked at in
COVERED_CYCLES = 4  # passes that it is looked at over, at most, in K
EARLY = 10  # the checkpoint `early` comes after one of so many parts of the run
# Settings of a run that have a part in its gradients before the first step.
_AT_START = (
    *("seed", "sequence_length", "data", "model", "masking"),
    *("evaluation.max_rows", "evaluation.subset_seed"),
)

Kind = Literal["coverage", "variance", "race", "sweep", "downstream", "rerun"]
Unit = tuple["Item", ...]


@dataclass(frozen=True, kw_only=True)
class Item(Job):
    """A piece of a comparison's work. `subject`: a checkpoint or a task; `steps`: of a rerun."""

    kind: Kind
    arm: Arm
    subject: str = ""
    corruption: str = ""
    steps: int = 0


@dataclass(frozen=True)
class Rerun:
    """An arm that is trained again, for so many steps: those that it took to the baseline's loss."""

    arm: Arm
    steps: int


@dataclass(frozen=True)
class ComparisonPlan(Draft):
    """A comparison with every choice made.

    `total_steps`: of each run, 0 where none is made. `reruns`: known once the race is done.
    """

    total_steps: int = 0
    reruns: tuple[Rerun, ...] = ()

    @property
    def seeds(self) -> list[int]:
        """The seeds of the race."""
        return list(range(self.settings.first_seed, self.settings.first_seed + self.settings.seeds))

    @property
    def early_step(self) -> int:
        """The step of the checkpoint `early`."""
        return max(1, self.total_steps // EARLY)

    def passes(self, arm: Arm) -> float:
        """How often an arm sees each row."""
        return self.draws(arm, self.total_steps) * self.base.stream.data_share / self.rows(arm)

    def most_passes(self, arm: Arm) -> float:
        """How often an arm sees the rows of the source that comes most often, replayed or not.

        At 1 or less no row comes twice.
        """
        stream = self.base.stream
        drawn = stream.first + self.draws(arm, self.total_steps)
        return max(drawn * source.share / self.rows_of(source, arm) for source in stream.sources)

    def covered_passes(self, arm: Arm) -> int:
        """Passes that an arm's coverage is looked at over: those it makes, at most 4 K masks of a row."""
        masks, segments = arm.strategy.masks_per_sequence, arm.strategy.segments
        passes = self.passes(arm) if self.total_steps else segments / masks
        return max(1, min(round(passes), COVERED_CYCLES * segments // masks))

    def settings_of(self, item: Item) -> PretrainSettings:
        """The run that an item is, or that a downstream item goes on from."""
        steps = item.steps or self.total_steps
        return self.run_settings(item.arm, item.seed, self.run_folder(item), steps)

    def run_folder(self, item: Item) -> Path:
        """Where the run of an item lies, or the one that a downstream item goes on from."""
        if item.kind == "downstream":
            return self.root / "race" / item.arm.folder / f"seed-{item.seed}"
        return self.root / item.name

    @cached_property
    def ledger(self) -> Ledger[Item, dict[str, Any]]:
        """What of the items is done."""
        return Ledger(self.units, self._decide, self.record, noun="pieces of work")

    def record(self, item: Item) -> FileRecord:
        """The file that says what an item was made with and, once it is finished, what it found."""
        beside = self.measured(item) if item.kind == "variance" else None
        return FileRecord(self.root / "cells" / f"{item.name}.json", self.root / item.name, beside)

    def measured(self, item: Item) -> Path:
        """The file of a gradient variance item's `Records`."""
        return self.root / f"{item.name}.npz"

    def seed_of_measurement(self, item: Item) -> int:
        """The seed of a gradient variance item's rows and masks, its own, so that none depends on another."""
        of_item = CHECKPOINTS.index(item.subject), CORRUPTIONS.index(item.corruption)
        return int(keys.derive(self.settings.first_seed, keys.Stream.MEASUREMENT, *of_item))

    def result(self, item: Item) -> dict[str, Any] | None:
        """What a finished item found, of whatever parts it is; None for one that is not finished."""
        return self.ledger.result(item)

    def _decide(self, item: Item) -> dict[str, Any]:
        """All that decides what an item finds, flat, in plain values."""
        if item.kind == "coverage":
            return self._covered(item)
        if item.kind == "variance":
            return self._measured(item)
        tuned = self._tuned(item) if item.kind == "downstream" else {}
        return deciding(self.settings_of(item)) | self._content | tuned

    def _covered(self, item: Item) -> dict[str, Any]:
        run = self.run_settings(item.arm, self.settings.first_seed, self.root, 1)
        masks = deciding(run, only=("masking", "data", "sequence_length"))
        return masks | {"passes": self.covered_passes(item.arm), "rows": COVERED_ROWS, **self._data}

    def _measured(self, item: Item) -> dict[str, Any]:
        started = item.subject == "start"
        run = self.run_settings(item.arm, item.seed, self.root, 1 if started else self.total_steps)
        return {
            **deciding(self.settings.variance, "variance."),
            **deciding(run, only=_AT_START if started else None),
            "at": item.subject,
            "corruption": item.corruption,
            **self._content,
        }

    def _tuned(self, item: Item) -> dict[str, Any]:
        task = next(task for task in self.tasks if task.name == item.subject)
        of_task = {"task": task.name, **task.content, "metric": task.metric}
        named = {f"downstream.{name}": value for name, value in of_task.items()}
        return named | deciding(self.settings.downstream, "downstream.")

    @property
    def _data(self) -> dict[str, Any]:
        return {"store": self.base.stream.contents}

    @cached_property
    def _content(self) -> dict[str, Any]:
        """Hashes of the data and of the model's shape and, from a checkpoint, its weights."""
        content = {
            **self._data,
            "evaluated": self.base.evaluated_contents,
            "architecture": storage.sha256_of_json(self.base.architecture),
        }
        return content if self.base.origin is None else {**content, "weights": self.base.weights}

    @cached_property
    def units(self) -> list[Unit]:
        """The items in groups, each of which one process has to work at in turn."""
        return [unit for unit in self._units() if unit]

    @property
    def items(self) -> list[Item]:
        """All items."""
        return [item for unit in self.units for item in unit]

    def possible(self, kind: Kind) -> list[Item]:
        """All items of a kind that these settings could have, whatever parts are asked for now."""
        whole = replace(self, parts=PARTS)
        return [item for item in whole.items if item.kind == kind]

    @property
    def gradients_measured(self) -> int:
        """Gradients of single rows in a measurement of their variance."""
        return request_of(self.settings).gradients(base_segments(self.settings))

    def _units(self) -> Iterator[Unit]:
        if "coverage" in self.parts:
            yield tuple(_coverage_item(arm) for arm in self._repeating)
        yield tuple(self._variance(("start",)))
        if not self.total_steps:
            return
        runs_wanted = {"race", "downstream"} & set(self.parts)
        for seed in self.seeds:
            for arm in self.arms:
                first = arm.name == self.baseline.name and seed == self.settings.first_seed
                if runs_wanted or (first and self.needs_baseline_run):
                    more = self._variance(("early", "late")) if first else ()
                    yield (_run_item("race", arm, seed), *more, *self._downstream(arm, seed))
        if self.sweep and "race" in self.parts:
            for seed in self.seeds:
                for _, arm in self.sweep.points:
                    yield (_run_item("sweep", arm, seed),)
        if "race" in self.parts:
            for rerun in self.reruns:
                for seed in self.seeds:
                    yield (_rerun_item(rerun, seed),)

    @property
    def _repeating(self) -> list[Arm]:
        """The arms whose coverage says something. Of rows that come once, one pass does.

        Coverage is that of a strategy as the run begins, so an arm whose rate changes later
        (masking.schedule) is left out.
        """
        return [a for a in self.arms if not a.control and a.masking.schedule.final_rate is None]

    def _variance(self, checkpoints: Sequence[str]) -> Iterator[Item]:
        if "variance" not in self.parts:
            return
        measured = self.settings.variance
        for at in checkpoints:
            for corruption in measured.corruptions if at in measured.checkpoints else ():
                yield _variance_item(self.baseline, self.settings.first_seed, at, corruption)

    def _downstream(self, arm: Arm, seed: int) -> Iterator[Item]:
        if "downstream" in self.parts:
            for task in self.tasks:
                yield _downstream_item(arm, seed, task.name)


def _coverage_item(arm: Arm) -> Item:
    """Coverage over other passes is no other comparison's: a budget, which gives them, may come later."""
    return Item(
        kind="coverage",
        name=f"coverage/{arm.folder}",
        label=arm.label,
        title=f"coverage of {arm.label}",
        tabled=False,
        pace="coverage",
        may_differ=("passes",),
        arm=arm,
    )


def _variance_item(arm: Arm, seed: int, at: str, corruption: str) -> Item:
    return Item(
        kind="variance",
        name=f"variance/{at}.{corruption}",
        label=arm.label,
        title=f"gradient variance, {at}, {corruption}",
        seed=seed,
        tabled=False,
        pace="variance",
        arm=arm,
        subject=at,
        corruption=corruption,
    )


def _run_item(kind: Literal["race", "sweep"], arm: Arm, seed: int) -> Item:
    label = arm.label if kind == "race" else f"sweep {arm.name}"
    return Item(
        kind=kind,
        name=f"{kind}/{arm.folder}/seed-{seed}",
        label=label,
        title=f"{label} seed {seed}",
        seed=seed,
        pace="run",
        arm=arm,
    )


def _rerun_item(rerun: Rerun, seed: int) -> Item:
    """With its steps in its name: more seeds, and so another number of steps, make another run of it."""
    label = f"{rerun.arm.label}, {rerun.steps:,} steps"
    return Item(
        kind="rerun",
        name=f"rerun/{rerun.arm.folder}/{rerun.steps}-steps/seed-{seed}",
        label=label,
        title=f"{label} seed {seed}",
        seed=seed,
        pace=f"rerun {rerun.steps}",
        arm=rerun.arm,
        steps=rerun.steps,
    )


def _downstream_item(arm: Arm, seed: int, task: str) -> Item:
    return Item(
        kind="downstream",
        name=f"downstream/{arm.folder}/seed-{seed}/{folder_of(task)}",
        label=arm.label,
        title=f"{task} from {arm.label} seed {seed}",
        seed=seed,
        tabled=False,
        pace=f"downstream {task}",
        arm=arm,
        subject=task,
    )


def with_budget(draft: Draft, steps: int) -> ComparisonPlan:
    """The plan for runs of so many steps, with the control of fresh rows where there are enough of them.

    `UserError` for too few steps, and for fresh rows that were asked for and that the stores do not have.
    """
    if draft.needs_runs and steps < LEAST_STEPS:
        raise UserError(
            f"--budget {draft.settings.budget} makes {counted(steps, 'step')} of {draft.size} rows: "
            f"a race takes at least {LEAST_STEPS}"
        )
    head = draft.settings.run.optimizer.head_warmup_steps
    if draft.needs_runs and head >= steps:
        raise UserError(f"optimizer.head_warmup_steps {head} leaves nothing of the runs' {steps} steps")
    for arm in draft.every_arm:
        lacking = _lacking(draft, arm, steps) if arm.fresh else None
        if lacking:
            raise UserError(
                f"strategy {arm.name}: {lacking}, so some would come twice: give a smaller --budget, or "
                "leave it out"
            )
    settings, arms = draft.settings, draft.arms
    if steps:
        settings = settings.model_copy(update={"budget": f"{steps}-steps"})
        arms += tuple(_control(draft, steps))
    fields = vars(draft) | {"settings": settings, "arms": arms}
    return ComparisonPlan(**{name: fields[name] for name in Draft.__dataclass_fields__}, total_steps=steps)


def _control(draft: Draft, steps: int) -> Iterator[Arm]:
    """The control of fresh rows, if it is wanted, there are enough of them, and the baseline's come twice."""
    if not draft.settings.race.fresh_control or draft.settings.run.data.max_rows is None:
        return
    control = fresh_control(draft.settings, draft.baseline, draft.base.store)
    repeats = draft.draws(draft.baseline, steps) * draft.base.stream.data_share > draft.rows(draft.baseline)
    named = control.essence in {arm.essence for arm in draft.arms}
    if repeats and not named and not _lacking(draft, control, steps):
        yield control


def _lacking(draft: Draft, arm: Arm, steps: int) -> str | None:
    """Which store, if any, has fewer rows than the arm draws from it."""
    for source in draft.base.stream.sources:
        drawn, available = (
            math.ceil(draft.draws(arm, steps) * source.share - 1e-9),
            draft.rows_of(source, arm),
        )
        if not source.replay and drawn > available:
            return f"{source.store.root} has {available:,} rows, and {steps:,} steps draw {drawn:,}"
    return None
