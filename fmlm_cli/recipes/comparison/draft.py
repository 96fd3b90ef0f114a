"""A comparison before its budget: its arms at equal terms, data and weights, and the settings of each run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmlm_cli.config import LEAST_SEQUENCES, Budget, CompareSettings, Part, PretrainSettings, build, nested
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.trackers.sink import check_trackers
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit
from fmlm_cli.masking.schedule import Timetable
from fmlm_cli.recipes.comparison.arms import (
    BASELINE,
    SUBSETS,
    Arm,
    Sweep,
    base_segments,
    baseline_of,
    check_base,
    common_batch,
    compared_with,
    find_arms,
    find_sweep,
    needs_store,
)
from fmlm_cli.recipes.comparison.gradients import VarianceRequest, choose_rows
from fmlm_cli.recipes.comparison.tasks import Labelled, find_tasks
from fmlm_cli.recipes.pretraining.planning.data import RowSource, with_number
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan, plan_run
from fmlm_cli.recipes.shared.held_out import HeldOut
from fmlm_cli.recipes.shared.predictions import AT_ONCE
from fmlm_cli.recipes.shared.strategy import rate_schedule, try_strategy

PARTS: tuple[Part, ...] = ("coverage", "variance", "race", "downstream")
LEAST_STEPS = 10
EVALUATIONS = 20  # of a run


@dataclass(frozen=True)
class Draft:
    """A comparison without a budget yet. `base`: a random run with the first seed, for its data and model."""

    settings: CompareSettings
    root: Path
    arms: tuple[Arm, ...]
    baseline: Arm
    sweep: Sweep | None
    tasks: tuple[Labelled, ...]
    base: RunPlan
    parts: tuple[str, ...]

    @property
    def every_arm(self) -> list[Arm]:
        """Those of the sweep too."""
        return [*self.arms, *(arm for _, arm in self.sweep.points)] if self.sweep else list(self.arms)

    @property
    def points_against(self) -> dict[str, Arm]:
        """With what each point of the sweep is compared, as in `compared_with`."""
        rate = {"learning_rate": self.base.settings.optimizer.learning_rate}
        run = build(PretrainSettings, self.settings.run.model_dump(), {"optimizer": rate})
        return compared_with(self.sweep, self.baseline, run) if self.sweep else {}

    @property
    def needs_runs(self) -> bool:
        """Whether any run has to be made."""
        return bool({"race", "downstream"} & set(self.parts)) or self.needs_baseline_run

    @property
    def needs_baseline_run(self) -> bool:
        """Whether variance is measured on models that the baseline's first run gives."""
        return "variance" in self.parts and bool({"early", "late"} & set(self.settings.variance.checkpoints))

    @property
    def size(self) -> int:
        """Rows of a step."""
        assert self.settings.run.batch.size is not None
        return self.settings.run.batch.size

    @property
    def measured_store(self) -> TokenStore:
        """The store on whose training rows gradient variance and coverage are measured: the data's first."""
        return self.base.stream.sources[0].store

    @property
    def comparable(self) -> list[TokenStore]:
        """The stores with validation rows that masking is compared on: no replayed ones, no named ones."""
        return [s.store for s in self.base.stream.sources if not s.replay and s.store.has("validation")]

    @property
    def evaluated_store(self) -> TokenStore:
        """The store on whose validation rows losses are compared: the first of the data that has some."""
        return self.comparable[0]

    def steps(self, budget: Budget) -> int:
        """Steps of a budget that is no time. The same for all arms: all forward as many rows in a step."""
        if budget.unit == "steps":
            return math.ceil(budget.amount)
        if budget.unit == "epochs":
            return self.base.stream.steps_of_passes(budget.amount, self.size)
        return self.base.stream.steps_of_tokens(budget.amount, self.size)

    def rows(self, arm: Arm) -> int:
        """Different rows that an arm draws from."""
        return sum(self.rows_of(source, arm) for source in self.base.stream.sources if not source.replay)

    def rows_of(self, source: RowSource, arm: Arm) -> int:
        """Different rows that an arm draws from a source."""
        every = len(source.reader.plan)
        limit = arm.overrides.get("data.max_rows", self.settings.run.data.max_rows)
        return every if arm.fresh or source.replay or limit is None else min(limit, every)

    def draws(self, arm: Arm, steps: int) -> int:
        """Rows that an arm draws in so many steps, replayed ones too."""
        size: int = arm.overrides.get("batch.size", self.size)
        return steps * (size // arm.strategy.masks_per_sequence)

    def run_settings(self, arm: Arm, seed: int, out: Path, steps: int) -> PretrainSettings:
        """An arm's run. Arms of a seed share weights, rows and order, which are a function of the seed."""
        base = self.settings.run
        choices: dict[str, Any] = {
            "out": str(out),
            "seed": seed,
            "budget.steps": steps,
            "data.verify": False,  # done once, for all
            "evaluation.every_steps": base.evaluation.every_steps or math.ceil(steps / EVALUATIONS),
            **_rows_of_seed(self.settings, seed),
            **arm.overrides,
        }
        tree = base.model_dump() | {"masking": arm.masking.model_dump()}
        if arm.fresh:
            tree["data"] = {**tree["data"], "max_rows": None, "stores": self._weighted_stores}
        return build(PretrainSettings, tree, nested(choices))

    @property
    def _weighted_stores(self) -> tuple[str, ...]:
        """The stores, weighted as under max_rows: without it their own sizes would mix them."""
        named = self.settings.run.data.stores
        if len(named) == 1 or with_number(named[0])[1] is not None:
            return named
        sources = self.base.stream.sources  # in the order of the names, replayed ones last
        return tuple(f"{name}:{len(source.reader)}" for name, source in zip(named, sources, strict=False))


def draft_comparison(settings: CompareSettings, root: Path, emit: Emit) -> Draft:
    """Make and check every choice but the budget. Raises `UserError` for what cannot be."""
    check_base(settings)
    check_trackers(settings.run.logging.to)
    parts = _parts(settings)
    _check_seeds(settings, parts)
    if "variance" in parts:
        request_of(settings)
        _check_trained(settings)
    tasks = find_tasks(settings.downstream, emit)
    if not needs_store(settings):
        find_arms(settings, None)  # known at once, before a model is loaded
    base = _resolve(settings, emit)
    arms = find_arms(settings, base.store)
    sweep = find_sweep(settings, base.store, arms)
    every = [*arms, *(arm for _, arm in sweep.points)] if sweep else arms
    settings = _fixed(settings, base, arms, every)
    reader = base.stream.sources[0].reader
    for arm in every:
        try_strategy(Timetable(arm.strategy, rate_schedule(arm.masking, arm.strategy)), reader)
    draft = Draft(settings, root, tuple(arms), baseline_of(arms), sweep, tasks, base, parts)
    if draft.needs_runs:
        _check_evaluation(draft)
    if "variance" in parts:
        _check_rows(draft)
    return draft


def _resolve(settings: CompareSettings, emit: Emit) -> RunPlan:
    """A run of random masking, for all that the arms' runs have in common: data, weights, sizes."""
    choices = {
        "masking": {"strategy": BASELINE, "segments": base_segments(settings)},
        "seed": settings.first_seed,
        "budget.steps": LEAST_STEPS,
        "out": settings.out,
        **_rows_of_seed(settings, settings.first_seed),
    }
    tree: dict[str, Any] = settings.run.model_dump() | {"masking": {}}
    tree["batch"] = {**tree["batch"], "size": None}  # whether it suits all is looked at for all together
    tree["optimizer"] = {**tree["optimizer"], "head_warmup_steps": 0}
    return plan_run(build(PretrainSettings, tree, nested(choices)), emit)


def _rows_of_seed(settings: CompareSettings, seed: int) -> dict[str, int]:
    """Which rows of training and held-out text the runs of a seed see, where not all of them are seen."""
    return dict.fromkeys(SUBSETS, seed) if settings.race.vary_rows else {}


def _fixed(
    settings: CompareSettings, base: RunPlan, arms: Sequence[Arm], every: Sequence[Arm]
) -> CompareSettings:
    """The settings with what all runs share written in."""
    size = base.settings.batch.size
    assert size is not None
    choices = {
        "run.batch.size": common_batch(settings.run.batch.size, size, every),
        "run.sequence_length": base.settings.sequence_length,
        "run.data.packing": base.settings.data.packing,
        "run.data.first_row": base.settings.data.first_row,
        "run.evaluation.names": base.settings.evaluation.names,
        "run.model.revision": base.settings.model.revision,
        "run.masking.segments": base_segments(settings),
        "strategies": tuple(arm.name for arm in arms),
    }
    tree = settings.model_dump()
    tree["run"]["masking"]["rate"] = None
    return build(CompareSettings, tree, nested(choices))


def _parts(settings: CompareSettings) -> tuple[str, ...]:
    tasks = settings.downstream.tasks
    if "downstream" in settings.only and not tasks:
        raise UserError("--only downstream needs something to fine-tune on: give --tasks")
    if settings.only:
        return tuple(part for part in PARTS if part in settings.only)
    return PARTS if tasks else PARTS[:-1]


def _check_seeds(settings: CompareSettings, parts: Sequence[str]) -> None:
    if {"race", "downstream"} & set(parts) and settings.seeds < 2:
        raise UserError(
            f"--seeds {settings.seeds}: the race's intervals are over seeds, and one has no spread; give 2 "
            "or more (or --only coverage,variance)"
        )


def _check_trained(settings: CompareSettings) -> None:
    """Refuse gradients over other weights at one checkpoint than the next: saved models come back whole."""
    model, later = settings.run.model, {"early", "late"} & set(settings.variance.checkpoints)
    part = "lora" if model.lora.rank else "freeze" if model.freeze else None
    if part and later:
        raise UserError(
            f"run.model.{part}: gradient variance is over what is trained at start, and over all weights at "
            "early and late: give --set variance.checkpoints=[start], or leave variance out with --only"
        )


def _check_evaluation(draft: Draft) -> None:
    """Refuse data without anything to compare losses on."""
    if not draft.comparable:
        named = [str(s.store.root) for s in draft.base.stream.sources if not s.replay]
        raise UserError(
            f"{', '.join(named)} {'has' if len(named) == 1 else 'have'} no validation split, on which losses "
            "are compared: make one with `fmlm tokenize --valid` or `--valid-fraction`"
        )
    if not held_out(draft, AT_ONCE).has_targets:
        raise UserError(
            f"the validation split of {draft.evaluated_store.root} is too small to mask a token of it"
        )


def _check_rows(draft: Draft) -> None:
    """Refuse to measure gradients of so few rows that there is no interval."""
    segments, reader = base_segments(draft.settings), draft.base.stream.sources[0].reader
    measured_rows = choose_rows(reader, segments, request_of(draft.settings), seed=draft.settings.first_seed)
    if len(measured_rows) < LEAST_SEQUENCES:
        raise UserError(
            f"gradient variance takes at least {LEAST_SEQUENCES} rows of at least {2 * segments} maskable "
            f"tokens, and there are {len(measured_rows)}: ask for longer rows or fewer segments, or leave it "
            "out with --only"
        )


def held_out(draft: Draft, batch_size: int) -> HeldOut:
    """The evaluation of the race's runs with the first seed."""
    training = draft.base.stream.sources[0].reader
    return HeldOut.like(training, draft.evaluated_store, draft.base.settings.evaluation, batch_size)


def request_of(settings: CompareSettings) -> VarianceRequest:
    """What is to be measured of gradients. `UserError` for what cannot be."""
    fields = settings.variance.model_dump(exclude={"checkpoints", "corruptions", "unit"})
    try:
        return VarianceRequest(**fields)
    except ValueError as error:
        raise UserError(f"variance: {error}") from None
