"""A comparison's items of work: what each is made with, where it lies, and in what order they are done."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fmlm_cli import storage
from fmlm_cli.config import CompareSettings, PretrainSettings, build, read_yaml
from fmlm_cli.errors import UserError
from fmlm_cli.model.build import weights_hash
from fmlm_cli.recipes.comparison.arms import Arm, folder_of, fresh_control
from fmlm_cli.recipes.comparison.draft import LEAST_STEPS, PARTS, Draft
from fmlm_cli.recipes.comparison.tasks import Labelled
from fmlm_cli.recipes.pretraining.resume import deciding

COVERED_ROWS = 256  # that coverage is looked at in
COVERED_CYCLES = 4  # passes that it is looked at over, at most, in K
EARLY = 10  # the checkpoint `early` comes after one of so many parts of the run

Kind = Literal["coverage", "variance", "race", "sweep", "downstream"]
Unit = tuple["Item", ...]


@dataclass(frozen=True)
class Item:
    """A piece of work with a result of its own. `name`: its place below DIR. `what`: a checkpoint or a task."""

    kind: Kind
    name: str
    arm: Arm
    seed: int = 0
    what: str = ""
    corruption: str = ""


@dataclass(frozen=True)
class Plan(Draft):
    """A comparison with every choice made. `total_steps`: of each run, 0 where none is made."""

    total_steps: int = 0
    _decided: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False, compare=False)

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
        """How far an arm comes in the source whose rows come most often, replayed or not; 1 or less: no row comes twice."""
        stream = self.base.stream
        drawn = stream.first + self.draws(arm, self.total_steps)
        return max(drawn * source.share / self.rows_of(source, arm) for source in stream.sources)

    def covered_passes(self, arm: Arm) -> int:
        """Passes that an arm's coverage is looked at over: those that it makes, at most 4 K masks of a row."""
        masks, segments = arm.strategy.masks_per_sequence, arm.strategy.segments
        passes = self.passes(arm) if self.total_steps else segments / masks
        return max(1, min(round(passes), COVERED_CYCLES * segments // masks))

    def settings_of(self, item: Item) -> PretrainSettings:
        """The run that a race or sweep item is, or that a downstream item goes on from."""
        return self.run_settings(item.arm, item.seed, self.run_folder(item), self.total_steps)

    def run_folder(self, item: Item) -> Path:
        """Where the run of a race, sweep or downstream item lies."""
        kind = "sweep" if item.kind == "sweep" else "race"
        return self.root / kind / item.arm.folder / f"seed-{item.seed}"

    def record(self, item: Item) -> Path:
        """The file that says what an item was made with and, once it is finished, what it found."""
        return self.root / "cells" / f"{item.name}.json"

    def measured(self, item: Item) -> Path:
        """The file of a gradient variance item's `Records`."""
        return self.root / f"{item.name}.npz"

    def result(self, item: Item) -> dict[str, Any] | None:
        """What a finished item found; None for one that is not finished, or was made with other settings."""
        path = self.record(item)
        if not path.is_file() or (item.kind == "variance" and not self.measured(item).is_file()):
            return None
        there = _read(path)
        found: dict[str, Any] | None = there.get("result")
        return found if there["made_with"] == self.decided(item) else None

    def check(self, item: Item) -> None:
        """Refuse what another comparison has left in an item's place.

        Coverage over other passes is no other comparison's: they follow from the budget, which may be given later.
        """
        path = self.record(item)
        if not path.is_file():
            return
        before, now = _read(path)["made_with"], self.decided(item)
        for name in {**before, **now}:
            if before.get(name) != now.get(name) and (item.kind, name) != ("coverage", "passes"):
                raise UserError(
                    f"{self.root / item.name} was made with {name} {before.get(name)}, not {now.get(name)}: "
                    "go back to that, or choose another --out"
                )

    def decided(self, item: Item) -> dict[str, Any]:
        """All that decides what an item finds, flat, in plain values."""
        if item.name not in self._decided:
            self._decided[item.name] = json.loads(json.dumps(self._decide(item)))
        return self._decided[item.name]

    def _decide(self, item: Item) -> dict[str, Any]:
        made: Mapping[str, Any] = {"coverage": self._covered, "variance": self._measured}
        if item.kind in made:
            return dict(made[item.kind](item))
        found = deciding(self.settings_of(item)) | self._content
        if item.kind == "downstream":
            task = next(task for task in self.tasks if task.name == item.what)
            found |= {f"downstream.{k}": v for k, v in self._tuned(task).items()}
        return found

    def _covered(self, item: Item) -> dict[str, Any]:
        run = deciding(self.run_settings(item.arm, self.settings.first_seed, self.root, 1))
        kept = {k: v for k, v in run.items() if k.startswith(("masking", "data", "sequence_length"))}
        return kept | {"passes": self.covered_passes(item.arm), "rows": COVERED_ROWS, **self._data}

    def _measured(self, item: Item) -> dict[str, Any]:
        own = self.settings.variance.model_dump(mode="json")
        own = {f"variance.{k}": v for k, v in own.items() if k not in ("checkpoints", "corruptions")}
        steps = self.total_steps if item.what != "start" else 1
        run = deciding(self.run_settings(item.arm, item.seed, self.root, steps))
        if item.what == "start":
            parts = ("seed", "sequence_length", "data", "model", "masking", "evaluation.max_rows")
            run = {k: v for k, v in run.items() if k.startswith(parts)}
        return own | run | {"at": item.what, "corruption": item.corruption} | self._content

    def _tuned(self, task: Labelled) -> dict[str, Any]:
        chosen = self.settings.downstream
        training = {f"training.{k}": v for k, v in chosen.training.model_dump(mode="json").items()}
        return {
            "task": task.name,
            **task.content,
            "metric": task.metric,
            "seeds": chosen.seeds,
            "select": chosen.select,
            "max_length": chosen.max_length,
            **training,
        }

    @property
    def _data(self) -> dict[str, Any]:
        return {"store": [[s.store.fingerprint, s.share] for s in self.base.stream.sources]}

    @cached_property
    def _content(self) -> dict[str, Any]:
        """Hashes of the data and of the model's shape and, from a checkpoint, its weights."""
        config = dict(self.base.start.model.config.to_diff_dict())
        for name in ("transformers_version", "_name_or_path"):
            config.pop(name, None)
        found = {
            **self._data,
            "evaluated": {name: store.fingerprint for name, store in self.base.evaluated.items()},
            "architecture": storage.sha256_of_json(config),
        }
        if self.base.origin is not None:
            found["weights"] = weights_hash(self.base.start.model)
        return found

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

    def _units(self) -> Iterator[Unit]:
        if "coverage" in self.parts:
            yield tuple(Item("coverage", f"coverage/{arm.folder}", arm) for arm in self._repeating)
        yield tuple(self._variance(("start",)))
        if not self.total_steps:
            return
        runs_wanted = {"race", "downstream"} & set(self.parts)
        for seed in self.seeds:
            for arm in self.arms:
                first = arm.name == self.baseline.name and seed == self.settings.first_seed
                if runs_wanted or (first and self.needs_baseline_run):
                    more = self._variance(("early", "late")) if first else ()
                    yield (self._race(arm, seed), *more, *self._downstream(arm, seed))
        if self.sweep and "race" in self.parts:
            for seed in self.seeds:
                for _, arm in self.sweep.points:
                    yield (Item("sweep", f"sweep/{arm.folder}/seed-{seed}", arm, seed),)

    @property
    def _repeating(self) -> list[Arm]:
        """The arms whose coverage says something. Of rows that come once, one pass does.

        Coverage is that of a strategy as the run begins, so an arm whose rate changes later (masking.schedule) is left out.
        """
        return [a for a in self.arms if not a.control and a.masking.schedule.final_rate is None]

    def _race(self, arm: Arm, seed: int) -> Item:
        return Item("race", f"race/{arm.folder}/seed-{seed}", arm, seed)

    def _variance(self, checkpoints: Sequence[str]) -> Iterator[Item]:
        if "variance" not in self.parts:
            return
        chosen, arm, seed = self.settings.variance, self.baseline, self.settings.first_seed
        for at in checkpoints:
            for corruption in chosen.corruptions if at in chosen.checkpoints else ():
                yield Item("variance", f"variance/{at}.{corruption}", arm, seed, at, corruption)

    def _downstream(self, arm: Arm, seed: int) -> Iterator[Item]:
        if "downstream" in self.parts:
            for task in self.tasks:
                name = f"downstream/{arm.folder}/seed-{seed}/{folder_of(task.name)}"
                yield Item("downstream", name, arm, seed, task.name)


def _read(path: Path) -> dict[str, Any]:
    """An item's record; `UserError` with what to do for one that is damaged."""
    try:
        there = storage.read_json(path)
    except UserError as error:
        raise UserError(f"{error}: remove it, and --resume does this piece of work again") from None
    if isinstance(there, dict) and isinstance(there.get("made_with"), dict):
        return there
    raise UserError(f"{path} is damaged: remove it, and --resume does this piece of work again")


def saved_settings(root: Path) -> CompareSettings:
    """The settings of what `compare-masks` left in a folder; `UserError` if its config.yaml is not one of these."""
    return build(CompareSettings, read_yaml(root / storage.RUN_CONFIG, CompareSettings))


def with_budget(made: Draft, steps: int) -> Plan:
    """The plan for runs of so many steps, with the control of fresh rows where there are enough of them.

    `UserError` for too few steps, and for fresh rows that were asked for and that the stores do not have.
    """
    if made.needs_runs and steps < LEAST_STEPS:
        raise UserError(
            f"--budget {made.settings.budget} makes {steps} {'step' if steps == 1 else 'steps'} of {made.size} rows: "
            f"a race takes at least {LEAST_STEPS}"
        )
    head = made.settings.run.optimizer.head_warmup_steps
    if made.needs_runs and head >= steps:
        raise UserError(f"optimizer.head_warmup_steps {head} leaves nothing of the runs' {steps} steps")
    for arm in made.every_arm:
        lacking = _lacking(made, arm, steps) if arm.fresh else None
        if lacking:
            raise UserError(
                f"strategy {arm.name}: {lacking}, so some would come twice: give a smaller --budget, or leave it out"
            )
    settings, arms = made.settings, made.arms
    if steps:
        settings = settings.model_copy(update={"budget": f"{steps}-steps"})
        arms += tuple(_control(made, steps))
    own = vars(made) | {"settings": settings, "arms": arms}
    return Plan(**{name: own[name] for name in Draft.__dataclass_fields__}, total_steps=steps)


def _control(made: Draft, steps: int) -> Iterator[Arm]:
    """The control of fresh rows, if it is wanted, there are enough of them, and the baseline's come twice."""
    if not made.settings.fresh_control or made.settings.run.data.max_rows is None:
        return
    control = fresh_control(made.settings, made.baseline, made.base.store)
    repeats = made.draws(made.baseline, steps) * made.base.stream.data_share > made.rows(made.baseline)
    named = control.essence in {arm.essence for arm in made.arms}
    if repeats and not named and not _lacking(made, control, steps):
        yield control


def _lacking(made: Draft, arm: Arm, steps: int) -> str | None:
    """Which store, if any, has fewer rows than the arm draws from it."""
    for source in made.base.stream.sources:
        drawn, there = math.ceil(made.draws(arm, steps) * source.share - 1e-9), made.rows_of(source, arm)
        if not source.replay and drawn > there:
            return f"{source.store.root} has {there:,} rows, and {steps:,} steps draw {drawn:,}"
    return None
