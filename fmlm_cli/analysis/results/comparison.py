"""What `fmlm compare-masks` measures: its results.json, whose names and order are those of the fields.

Losses are in nats a masked token, mean over the same held-out tokens for every run. Scores are shares, as a
rule from 0 to 1. `seconds` are of the wall clock. None: not measured, diverged, or not defined. An arm is
known by its `name`, a run by arm and seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fmlm_cli.analysis.results.coverage import CoverageResult
from fmlm_cli.analysis.results.variance import VarianceResult

BySeed = Mapping[int, float | None]  # None for a run that diverged, or never got there

# ---------------------------------------------------------------- what was compared


@dataclass(frozen=True)
class ComparedModel:
    """What was trained: a preset, a folder or a checkpoint. `parameters`: weights, tied ones once."""

    name: str
    parameters: int


@dataclass(frozen=True)
class ComparedData:
    """What arms train on: `rows` of `sequence_length`, of which `tokens` are no padding. `store`: folders.

    `of_rows`: that there are; `by_seed`: whether each seed draws its own of them.
    """

    store: str
    rows: int
    of_rows: int
    by_seed: bool
    sequence_length: int
    tokens: int


@dataclass(frozen=True)
class HeldOutData:
    """What held-out losses are measured on: `rows` of a store; `masks`: how these are masked, in words.

    `of_rows`: that there are; `by_seed`: whether each seed is measured on its own of them.
    """

    store: str
    rows: int
    of_rows: int
    by_seed: bool
    masks: str


@dataclass(frozen=True)
class Speed:
    """Tokens trained on in a second, evaluations aside: over an arm's runs."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmResult:
    """An arm, and what its runs took.

    `label`: how the report calls it. `masking`: its settings. `rate`: masked share of the maskable tokens.
    `cycle`: passes after which its masks have been everywhere, 1 if none depends on another.
    `masks_per_sequence`: of a row in a step; `sequences_per_step`: different rows. `rows`: that it draws
    from; `passes`: how often it sees each, None without runs. `tokens`, `seconds`: of a run, mean. `control`:
    there for scale, not to be chosen. `first_pass_as`: the arm whose masks its own are in the first pass, one
    by one; None if there is none.
    """

    name: str
    label: str
    masking: Mapping[str, Any]
    description: str
    rate: float
    cycle: int
    masks_per_sequence: int
    sequences_per_step: int
    rows: int
    passes: float | None
    tokens: float | None
    seconds: float | None
    tokens_per_second: Speed | None
    control: bool
    first_pass_as: str | None


# ---------------------------------------------------------------- the race


@dataclass(frozen=True)
class CurveResult:
    """A run's held-out `losses`, at optimizer `steps` and after so many `tokens` forwarded."""

    steps: tuple[int, ...]
    tokens: tuple[int, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class SpreadResult:
    """Values by seed; mean and sample standard deviation of those that are there."""

    values: BySeed
    mean: float | None
    sd: float | None

    @property
    def lacking(self) -> list[int]:
        """The seeds without a value. Only what lacks none is compared."""
        return [seed for seed, value in self.values.items() if value is None]


@dataclass(frozen=True)
class PairedResult:
    """An arm minus the baseline in `n` pairs of seeds: their `mean`, and its 95 % Student-t interval.

    `p_value`: of the two-sided paired t-test, None where nothing could be tested, for the reason in `note`.
    `p_adjusted`: Holm's, among so many `tests`. `simultaneous_low`, `simultaneous_high`: Bonferroni's 95 %
    interval, which holds for all of these tests at once, and so for whichever is chosen among them. `better`:
    the name of the better one where the two are told apart by `p_adjusted`. `detectable`: the true difference
    that would be told with a probability of 80 %, by the spread that arms pool, and its 95 % interval.
    """

    n: int | None = None
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    simultaneous_low: float | None = None
    simultaneous_high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    tests: int | None = None
    better: str | None = None
    detectable: float | None = None
    detectable_low: float | None = None
    detectable_high: float | None = None
    note: str | None = None

    @property
    def value(self) -> float | None:
        """What the interval is of."""
        return self.mean

    @property
    def tested(self) -> bool:
        """Whether there was anything to test by."""
        return self.p_value is not None


@dataclass(frozen=True)
class RatioResult:
    """An arm's tokens over the baseline's: geometric mean and its interval; the rest as in `PairedResult`."""

    value: float | None
    low: float | None
    high: float | None
    simultaneous_low: float | None
    simultaneous_high: float | None
    n: int | None
    p_value: float | None
    p_adjusted: float | None
    tests: int | None
    better: str | None
    note: str | None

    @property
    def tested(self) -> bool:
        """Whether there was anything to test by."""
        return self.p_value is not None


@dataclass(frozen=True)
class ReachResult:
    """Tokens forwarded until the loss is down at a seed's target: the arm's `values`, and the `baseline`'s.

    `targets`: None where a run of the two diverged, unless the loss was asked for.
    """

    targets: BySeed
    values: BySeed
    baseline: BySeed
    ratio: RatioResult


@dataclass(frozen=True)
class RerunResult(SpreadResult):
    """Final losses of an arm that was trained again for `steps` alone, with a schedule that ends there.

    `share`: of the race's steps. `paired`: minus the baseline's after all of them.
    """

    steps: int
    share: float
    paired: PairedResult


@dataclass(frozen=True)
class RaceResult:
    """By arm: `curves` of runs that did not diverge, by seed; `paired`, without the baseline.

    `reruns`: of the arms that came to the baseline's loss sooner, where that was asked for.

    `unigram_loss`: by seed, what word frequencies alone come to on the same masked tokens, whatever the arm;
    None where no run of the seed ended.
    """

    unigram_loss: BySeed
    curves: Mapping[str, Mapping[int, CurveResult]]
    final: Mapping[str, SpreadResult]
    paired: Mapping[str, PairedResult]
    tokens_to_reach: Mapping[str, ReachResult]
    reruns: Mapping[str, RerunResult] = field(default_factory=dict)


# ---------------------------------------------------------------- downstream, sweep


@dataclass(frozen=True)
class ScoresResult(SpreadResult):
    """An arm's scores in a task by seed of the race, and against the baseline's; None for the baseline."""

    paired: PairedResult | None


@dataclass(frozen=True)
class TaskResult:
    """A task's scores by arm: `measure` on `split`; where every run diverged these are "" and None."""

    measure: str
    split: str | None
    arms: Mapping[str, ScoresResult]


@dataclass(frozen=True)
class PointResult:
    """What a point of the sweep sets, its passes over the data, and its losses.

    `against`: the name of what it is `paired` with: random masking under the same settings of a run and at
    the same mask rate, another point or the race's baseline; None where there is none, or it is that itself.
    """

    name: str
    settings: Mapping[str, Any]
    passes: float
    values: BySeed
    mean: float | None
    sd: float | None
    against: str | None
    paired: PairedResult | None


@dataclass(frozen=True)
class BestResult:
    """A strategy of the sweep at the best of its other settings, chosen for each seed by the other seeds.

    `settings`: those chosen over all seeds, None where none got every seed to its end; `otherwise`: for how
    many seeds others were chosen. `values`: each seed's loss with its own choice, with mean and sd. `paired`:
    against random masking chosen alike, None for that itself; as in `sweep.choices_compared`.
    """

    strategy: str
    settings: Mapping[str, Any] | None
    otherwise: int
    values: BySeed
    mean: float | None
    sd: float | None
    paired: PairedResult | None


@dataclass(frozen=True)
class SweepResult:
    """The values of each setting that is varied, and a point for every combination.

    `best`: the strategies, random masking among them, where they are varied beside something else.
    """

    axes: Mapping[str, tuple[Any, ...]]
    points: tuple[PointResult, ...]
    best: tuple[BestResult, ...]


# ---------------------------------------------------------------- all of it


@dataclass(frozen=True)
class NextStep:
    """What to do about a finding, in a sentence, and the `command` that does it, quoted for a shell."""

    text: str
    command: str


@dataclass(frozen=True)
class Verdict:
    """The numbers in words. `headline`: which masking. `sentences`: how sure. `cost`: of time and data."""

    headline: str
    sentences: tuple[str, ...]
    cost: str
    next_step: NextStep


@dataclass(frozen=True)
class Measurements:
    """All numbers of a comparison; a part that was not measured is None.

    `fmlm`: the version. `command`: what repeats it. `steps`: of each run, 0 where none is made; of
    `batch_size` forwarded rows. `segments`: K of the base settings. `learning_rate`: the peak. `baseline`: an
    arm's name.
    """

    fmlm: str
    command: str
    settings: Mapping[str, Any]
    model: ComparedModel
    data: ComparedData
    evaluation: HeldOutData | None
    steps: int
    segments: int
    batch_size: int
    learning_rate: float
    device: str
    baseline: str
    arms: tuple[ArmResult, ...]
    seeds: tuple[int, ...]
    coverage: Mapping[str, CoverageResult] | None
    variance: tuple[VarianceResult, ...] | None
    race: RaceResult | None
    downstream: Mapping[str, TaskResult] | None
    sweep: SweepResult | None


@dataclass(frozen=True)
class ComparisonResults(Measurements):
    """What results.json holds: the numbers, and what they say."""

    verdict: Verdict
