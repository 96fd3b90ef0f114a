"""The arms of a comparison: masking strategies as short texts, at equal terms; and the points of a sweep."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter, itemgetter
from typing import Any

from fmlm_cli.config import (
    CompareSettings,
    MaskingSettings,
    PretrainSettings,
    as_typed,
    build,
    nested,
    setting_names,
    yaml_value,
)
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.errors import UserError, unknown_name
from fmlm_cli.masking import DEFAULT_SEGMENTS, Strategy, nearest_segments, strategy_names
from fmlm_cli.recipes.shared.limits import resolve_multiple
from fmlm_cli.recipes.shared.strategy import needs_collocations, resolve_strategy

BASELINE = "random"
FRESH = "rows=fresh"  # random masking of rows of which none comes twice
_OPTIONS = ("p", "longest")  # of the strategies that mask spans
SUBSETS = ("data.subset_seed", "evaluation.subset_seed")  # settings of a run: which of the rows it sees
_IN_TEXTS = ("scope", "masks_per_sequence", "count", "options")  # of the base: no arms could share them


@dataclass(frozen=True)
class Arm:
    """One way of masking in the comparison.

    `name`: NAME[:setting=value...], as results call it. `overrides`: settings of the run in which it differs
    beside its masking, by dotted name. `fresh`: its rows are not limited to data.max_rows. `control`: no
    candidate, but something to compare with: more text, which is no way of masking.
    """

    name: str
    masking: MaskingSettings
    strategy: Strategy
    fresh: bool = False
    control: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """In words, short and without commas: random, random x7, fully-explored (batch)."""
        strategy, name = self.strategy, self.masking.strategy
        notes: list[str] = []
        if strategy.scope is not None:
            notes.append(strategy.scope)
        elif strategy.masks_per_sequence > 1:
            name += f" x{strategy.masks_per_sequence}"
        shown = ("scope", "masks_per_sequence", "rows")
        notes += [part for part in _parts(self.name)[1:] if part.partition("=")[0] not in shown]
        notes += ["fresh rows"] if self.fresh else []
        return f"{name} ({' '.join(notes)})" if notes else name

    @property
    def essence(self) -> str:
        """The same for two arms that are the same, however they were written."""
        strategy, settings = self.strategy, self.strategy.settings
        resolved = settings.name, strategy.rate, strategy.scope, strategy.masks_per_sequence
        return repr(
            (
                resolved,
                settings.count,
                settings.corruption,
                settings.options,
                self.masking.schedule,
                self.fresh,
            )
        )

    @property
    def folder(self) -> str:
        """The name, fit for a folder."""
        return folder_of(self.name)


def folder_of(name: str) -> str:
    """A name as that of a folder."""
    return re.sub(r"[^\w.=+,-]+", "_", name.replace(":", ","))


def _parts(text: str) -> list[str]:
    """Name and settings; a colon that no setting follows belongs to the name, as in package.module:object."""
    parts: list[str] = []
    for part in text.strip().split(":"):
        if parts and "=" not in part:
            if len(parts) > 1:
                raise UserError(f"--strategies {text}: write it as NAME:SETTING=VALUE; '{part}' is neither")
            parts[0] += f":{part}"
        else:
            parts.append(part.strip())
    return parts


def parse_arm(
    text: str, settings: CompareSettings, store: TokenStore | None, more: Mapping[str, Any] | None = None
) -> Arm:
    """The arm that a text stands for, with the base's corruption, schedule and K.

    `more`: masking settings over those that the text has. Raises `UserError` for unknown names (with the
    nearest one) and for settings that do not go together.
    """
    name, *assigned = _parts(text)
    if ":" not in name and name not in strategy_names():
        raise unknown_name("strategy", name, strategy_names())
    known, colon, setting = name.partition(":")
    if colon and known in strategy_names():
        raise UserError(f"--strategies {text}: '{setting}' lacks its value: write {known}:{setting}=VALUE")
    fresh = FRESH in assigned
    written = dict(_written_settings(text, [part for part in assigned if part != FRESH])) | dict(more or {})
    base, masking_settings = settings.run.masking, {"strategy": name, **written}
    if not {"segments", "rate"} & written.keys():
        masking_settings |= {"segments": base_segments(settings), "rate": None}
    try:
        masking = build(
            MaskingSettings, base.model_dump(), {"segments": None, "rate": None}, nested(masking_settings)
        )
        strategy = resolve_strategy(masking, store)
    except UserError as error:
        raise UserError(f"strategy {text}: {error}") from None
    if fresh and strategy.cycle > 1:
        raise UserError(
            f"strategy {text}: rows that never come twice leave scope epoch nothing to do; make it random"
        )
    return Arm(":".join([name, *assigned]), masking, strategy, fresh, control=fresh)


def _written_settings(text: str, assigned: Sequence[str]) -> Iterator[tuple[str, Any]]:
    allowed = [name for name in setting_names(MaskingSettings) if name not in ("strategy", "options")]
    for part in assigned:
        name, _, value = part.partition("=")
        if name == "rows":
            raise UserError(f"--strategies {text}: rows can only be fresh")
        if name in _OPTIONS:
            name = f"options.{name}"
        elif name not in allowed and not name.startswith("options."):
            raise unknown_name(f"setting in --strategies {text}:", name, [*allowed, *_OPTIONS, "rows"])
        yield name, yaml_value(value, f"--strategies {text}")


def base_segments(settings: CompareSettings) -> int:
    """The K that all arms share which have no own."""
    masking = settings.run.masking
    if masking.rate is not None and masking.segments is None:
        return nearest_segments(masking.rate)
    return masking.segments or DEFAULT_SEGMENTS


def needs_store(settings: CompareSettings) -> bool:
    """Whether any of the strategies can be made only with what is in a store."""
    return any(needs_collocations(_parts(text)[0]) for text in settings.strategies)


def find_arms(settings: CompareSettings, store: TokenStore | None) -> list[Arm]:
    """The arms that the settings name, in order. `UserError` for too few candidates, or equal arms."""
    check_base(settings)
    arms = [parse_arm(text, settings, store) for text in settings.strategies]
    candidates = [arm.name for arm in arms if not arm.control]
    if len(candidates) < 2:
        few = f"only {candidates[0]} is given" if candidates else "none is given"
        beside = " (rows=fresh is a control, not one of them)" if len(arms) > len(candidates) else ""
        raise UserError(
            f"a comparison needs at least two strategies, {few}{beside}: --strategies random,fully-explored"
        )
    seen: dict[str, str] = {}
    for arm in arms:
        if arm.essence in seen:
            raise UserError(f"strategies {seen[arm.essence]} and {arm.name} are the same: leave one out")
        seen[arm.essence] = arm.name
    return arms


def check_base(settings: CompareSettings) -> None:
    """Refuse what stands in the base of all runs and is another's to say."""
    base, default = settings.run.masking, MaskingSettings()
    if base.strategy != default.strategy:
        raise UserError(f"run.masking.strategy {base.strategy}: name the strategies with --strategies")
    for name in _IN_TEXTS:
        value = getattr(base, name)
        if value != getattr(default, name):
            raise UserError(
                f"run.masking.{name} is not common to all strategies: write it behind one, as "
                f"--strategies random,fully-explored:scope=batch"
            )
    default_run = PretrainSettings()
    for name, instead in (("out", "--out"), ("seed", "first_seed")):
        if getattr(settings.run, name) != getattr(default_run, name):
            raise UserError(f"run.{name} is different in each run: give {instead}")
    for name in SUBSETS if settings.race.vary_rows else ():
        if attrgetter(name)(settings.run) != attrgetter(name)(default_run):
            raise UserError(f"run.{name} is different with each seed: give race.vary_rows=false to hold it")
    if any(value is not None for value in settings.run.budget.model_dump().values()):
        raise UserError("run.budget is one for all runs: give --budget")
    if settings.run.hub.push_to is not None:
        raise UserError("run.hub.push_to: a comparison uploads no run: `fmlm push` does")
    if settings.run.text.sources:
        raise UserError("a comparison takes a store: make it with `fmlm tokenize`, and give it as --data")


def baseline_of(arms: Sequence[Arm]) -> Arm:
    """Plain random masking, one mask a step; without it the first arm that is no control."""
    candidates = [arm for arm in arms if not arm.control]
    return next((arm for arm in candidates if is_plain(arm)), candidates[0])


def is_plain(arm: Arm) -> bool:
    """Whether it is random masking as it is usual: one mask of a row in a step, of rows like the others'."""
    plain = arm.masking.strategy == BASELINE and arm.strategy.masks_per_sequence == 1
    return plain and not arm.control


def fresh_control(settings: CompareSettings, baseline: Arm, store: TokenStore) -> Arm:
    """The baseline's masking on rows that come only once: what more text would do."""
    name = BASELINE if baseline.strategy.cycle > 1 else baseline.name
    return parse_arm(f"{name}:{FRESH}", settings, store)


def common_batch(size: int | None, default: int, arms: Sequence[Arm]) -> int:
    """Rows of a step, the same for all arms: a multiple of every arm's masks of a sequence."""
    counts = sorted({arm.strategy.masks_per_sequence for arm in arms})

    def refuse(below: int, above: int) -> UserError:
        nearest = f"{below} or {above}" if below else f"{above}"
        return UserError(
            f"batch.size {size} does not suit all strategies, which have {', '.join(map(str, counts))} "
            f"masks of a sequence in a step: with --set run.batch.size={nearest} all of them forward the same"
        )

    return resolve_multiple(size, default, math.lcm(*counts), refuse)


# ---------------------------------------------------------------- sweeps


@dataclass(frozen=True)
class Sweep:
    """Axes, by setting, and an arm for every combination of their values with these settings."""

    axes: Mapping[str, Sequence[Any]]
    points: Sequence[tuple[Mapping[str, Any], Arm]]

    @property
    def plain(self) -> str | None:
        """The value of the `strategy` axis that is plain random masking, if one is."""
        return next((str(s["strategy"]) for s, arm in self.points if "strategy" in s and is_plain(arm)), None)


def find_sweep(settings: CompareSettings, store: TokenStore | None, arms: Sequence[Arm]) -> Sweep | None:
    """The sweep that the settings ask for; without a `strategy` axis, of the first fully exploring arm."""
    written = {_axis(name): values for name, values in _lists(settings.sweep)}
    axes = {axis: _values(axis, values) for axis, values in written.items()}
    if not axes:
        return None
    full = (arm for arm in arms if arm.strategy.exploration == "full")
    default = next(full, [arm for arm in arms if not arm.control][-1]).name
    points = []
    for values in itertools.product(*axes.values()):
        axis_values = dict(zip(axes, values, strict=True))
        points.append((axis_values, _point(axis_values, default, settings, store)))
    return Sweep(axes, points)


def _lists(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _lists(value, f"{prefix}{name}.")
        elif value == []:
            raise UserError(f"sweep.{prefix}{name} has no values: give some, or leave it out")
        elif not isinstance(value, list):
            raise UserError(f"sweep.{prefix}{name} has to be a list of values, such as [{value}]")
        else:
            yield prefix + name, value


def _values(axis: str, written: Sequence[Any]) -> list[Any]:
    """An axis's values as its setting has them."""
    section = PretrainSettings if axis.startswith("run.") else MaskingSettings
    values = [as_typed(section, axis.removeprefix("run."), value) for value in written]
    if len({repr(value) for value in values}) < len(values):
        raise UserError(f"sweep.{axis} has a value twice")
    return values


def _axis(name: str) -> str:
    """The name of an axis, in short: strategy, segments, scope, run.optimizer.learning_rate."""
    name = name.removeprefix("run.masking.").removeprefix("masking.")
    if name.startswith("run."):
        allowed = [f"run.{setting}" for setting in setting_names(PretrainSettings)]
    else:
        allowed = [*setting_names(MaskingSettings), "corruption"]
    if name not in allowed and not name.startswith("options."):
        raise unknown_name("axis in sweep:", name, allowed)
    return name


def _point(
    axis_values: Mapping[str, Any], default: str, settings: CompareSettings, store: TokenStore | None
) -> Arm:
    text = str(axis_values.get("strategy", default))
    masking = {k: v for k, v in axis_values.items() if k != "strategy" and not k.startswith("run.")}
    if any(part.partition("=")[0] in masking for part in _parts(text)[1:]):
        raise UserError(f"sweep: strategy {text} already says what another axis is to vary")
    arm = parse_arm(text, settings, store, masking)
    name = ",".join(f"{key}={_short(value)}" for key, value in axis_values.items())
    runs = {k.removeprefix("run."): v for k, v in axis_values.items() if k.startswith("run.")}
    return replace(arm, name=name, overrides=runs)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "+".join(f"{name}{_short(part)}" for name, part in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def compared_with(sweep: Sweep, baseline: Arm, run: PretrainSettings) -> dict[str, Arm]:
    """With what each point is compared, by its name: itself for a baseline of others; not there if nothing.

    Random masking at the same mask rate, in runs with the same settings: of the sweep, if it has the same
    corruption and schedule too, else the race's `baseline`. `run`: settings of the race's runs.
    """
    plain: dict[str, Arm] = {}
    for arm in (baseline, *(arm for _, arm in sweep.points)):
        if arm is baseline or is_plain(arm):
            plain.setdefault(_terms(arm, run) + _masked_alike(arm), arm)
    found = {}
    for _, arm in sweep.points:
        closest = plain.get(_terms(arm, run) + _masked_alike(arm))
        of_race = baseline if _terms(arm, run) == _terms(baseline, run) else closest
        reference = of_race if closest in (None, arm) else closest
        if reference is not None:
            found[arm.name] = reference
    return found


def _terms(arm: Arm, run: PretrainSettings) -> str:
    """The mask rate, and what its runs have otherwise than the race's."""
    of_seed = ("seed", *SUBSETS)  # each seed has its own
    changed = {
        name: value
        for name, value in arm.overrides.items()
        if name in of_seed or attrgetter(name)(run) != value
    }
    return repr((round(arm.strategy.rate, 6), sorted(changed.items(), key=itemgetter(0))))


def _masked_alike(arm: Arm) -> str:
    return repr((arm.masking.corruption, arm.masking.schedule))
