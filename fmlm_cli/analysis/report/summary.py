"""The first screen and the last page: verdict, arms at a glance, what was compared, how to repeat it."""

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from fmlm_cli.analysis.report.findings import noise
from fmlm_cli.analysis.report.findings.learning import frequencies_alone, learnt, mean_loss
from fmlm_cli.analysis.report.parts import ReportTable
from fmlm_cli.analysis.report.race import marked
from fmlm_cli.analysis.report.values import (
    DASH,
    Arms,
    Estimate,
    Ratio,
    compact,
    probability,
    spell,
)
from fmlm_cli.analysis.results.comparison import (
    ComparedData,
    ComparisonResults,
    HeldOutData,
    Measurements,
    NextStep,
    RaceResult,
    ScoresResult,
    SpreadResult,
)

_KEY = (
    "In brackets 95 % intervals, each of its comparison alone, paired by seed; the lowest of several is the "
    "lowest by luck too, and its interval does not allow for that. p after Holm’s correction over the "
    "masking strategies. (epoch): one segment a pass; (batch): all segments in one step; xK: K "
    "random masks in one step. A control is no masking to choose."
)


@dataclass(frozen=True)
class Tile:
    """A number that answers something: large, with what it is and its interval."""

    number: str
    label: str
    ends: str


@dataclass(frozen=True)
class Summary:
    """What the first screen says."""

    subject: str
    headline: str
    next_step: NextStep
    glance: ReportTable | None
    key: str
    tiles: Sequence[Tile]
    sure: Sequence[str]
    cost: str


def summary_of(results: ComparisonResults, arms: Arms) -> Summary:
    """The first screen: from the verdict, or, where there is none, what is missing for one."""
    verdict, raced = results.verdict, results.race is not None
    return Summary(
        subject=f"Masking strategies compared: {results.model.name} on {results.data.store}",
        headline=verdict.headline if raced else "No verdict: it needs a race",
        next_step=verdict.next_step,
        glance=glance(results, arms),
        key=_KEY if raced else "",
        tiles=_tiles(results),
        sure=verdict.sentences if raced else [verdict.headline, *verdict.sentences],
        cost=verdict.cost,
    )


def glance(results: Measurements, arms: Arms) -> ReportTable | None:
    """The arms from the lowest loss on, then those with runs that diverged, controls, word frequencies.

    How much better, how sure, at what cost.
    """
    race, tasks = results.race, results.downstream or {}
    if race is None:
        return None

    def rank(name: str) -> tuple[bool, bool, float]:
        return arms.is_control(name), bool(race.final[name].lacking), mean_loss(race, name)

    header = (
        "masking",
        f"minus {arms.base}",
        "p (Holm)",
        "held-out loss",
        "tokens to same loss",
        *tasks,
        "passes",
        "tokens/s",
    )
    rows = []
    for name in sorted(arms.by_name, key=rank):
        scores = (_score(task.arms[name]) for task in tasks.values())
        speed = arms.by_name[name].tokens_per_second
        mean_speed = None if speed is None else speed.mean
        rows.append((_role(name, arms), *_loss(race, name), *scores, arms.passes(name), compact(mean_speed)))
    by_frequency = frequencies_alone(race)
    if by_frequency is not None:
        row = dict.fromkeys(header, DASH) | {"masking": "word frequencies alone"}
        rows.append(tuple((row | {"held-out loss": f"{by_frequency:.3f}"}).values()))
    return ReportTable(header, rows)


def _role(name: str, arms: Arms) -> str:
    role = "baseline" if name == arms.baseline else "control" if arms.is_control(name) else ""
    return f"{arms.label(name)}, {role}" if role else arms.label(name)


def _loss(race: RaceResult, name: str) -> tuple[str, str, str, str]:
    """Difference, p, loss, and tokens to the same loss."""
    pair, reach = race.paired.get(name), race.tokens_to_reach.get(name)
    mean = _or_diverged(race.final[name], 1, 3)
    if pair is None:
        return (DASH, DASH, mean, DASH)
    if not pair.tested:
        return (pair.note or "", DASH, mean, DASH)
    counts = reach is not None and reach.ratio.tested and learnt(race, name)
    tokens = f"× {Ratio.of(reach.ratio).text()}" if reach is not None and counts else DASH
    return (Estimate.of(pair).text(sign=True), probability(pair.p_adjusted), mean, tokens)


def _or_diverged(spread: SpreadResult, scale: float, places: int) -> str:
    """The mean over seeds, where there is one."""
    return "diverged" if spread.mean is None else marked(f"{scale * spread.mean:.{places}f}", spread)


def _score(scores: ScoresResult) -> str:
    """A task's mean score, and the difference from the baseline."""
    mean, pair = _or_diverged(scores, 100, 1), scores.paired
    if pair is None or not pair.tested:
        return mean
    return f"{mean}, {Estimate.of(pair).times(100).text(sign=True)}"


def _tiles(results: Measurements) -> list[Tile]:
    """The ratio for one row, and never without it that of a step at equal compute."""
    if not results.variance:
        return []
    entry = noise.latest(results.variance)
    figures = (
        (entry.ratio, "gradient noise of a row’s masks, full exploration / random"),
        (
            entry.equal_compute.segments,
            "variance of a step at equal compute, all segments of fewer rows / different rows",
        ),
    )
    tiles = []
    for interval, label in figures:
        ratio = Estimate.of(interval)
        ends = f"95 % interval {ratio.ends()}; {noise.measured(entry)}"
        tiles.append(Tile(f"× {ratio.point()}", label, ends))
    return tiles


def setup_table(results: Measurements) -> ReportTable:
    """What was compared: model, data, runs."""
    model, data, evaluation = results.model, results.data, results.evaluation
    size = f"{_drawn(data)} of {data.sequence_length:,} tokens, {spell(data.tokens, 0)} in all"
    rows = [
        ("model", f"{model.name}, {model.parameters:,} parameters"),
        ("data", f"{data.store}: {size}"),
    ]
    if results.steps:
        batch = f"{results.steps:,} steps of {results.batch_size:,} rows"
        rows += [
            ("each run", f"{batch}, peak learning rate {results.learning_rate:g}, on {results.device}"),
            ("seeds", ", ".join(map(str, results.seeds))),
        ]
    if evaluation is not None:
        rows.append(("held-out loss", f"{evaluation.store}: {_drawn(evaluation)}, {evaluation.masks}"))
    by_frequency = None if results.race is None else frequencies_alone(results.race)
    if by_frequency is not None:
        rows.append(("word frequencies alone", f"{by_frequency:.3f} nats on the same tokens"))
    return ReportTable(("", ""), [*rows, ("fmlm", results.fmlm)])


def _drawn(data: ComparedData | HeldOutData) -> str:
    """How many rows of how many, and whether each seed has its own."""
    if data.rows == data.of_rows:
        return f"all {data.rows:,} rows"
    return f"{data.rows:,} of {data.of_rows:,} rows{' (others with each seed)' if data.by_seed else ''}"


def arms_table(arms: Arms) -> ReportTable:
    """Every arm, with what it forwards."""
    header = (
        "arm",
        "masking",
        "masks of a row in a step",
        "different rows in a step",
        "passes",
        "tokens of a run",
    )
    rows = [
        (
            _role(name, arms),
            arm.description,
            f"{arm.masks_per_sequence:,}",
            f"{arm.sequences_per_step:,}",
            arms.passes(name),
            compact(arm.tokens),
        )
        for name, arm in arms.by_name.items()
    ]
    return ReportTable(header, rows)


def settings_text(results: Measurements) -> str:
    """The settings as YAML."""
    return str(yaml.safe_dump(results.settings, sort_keys=False, allow_unicode=True, width=100))
