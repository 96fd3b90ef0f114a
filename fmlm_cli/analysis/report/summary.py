"""The report's first screen and last page: the verdict, the arms at a glance, what was compared, how to repeat it."""

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from fmlm_cli.analysis.report import findings
from fmlm_cli.analysis.report.parts import ReportTable, absent
from fmlm_cli.analysis.report.values import (
    DASH,
    Arms,
    Estimate,
    Json,
    Ratio,
    compact,
    probability,
    spell,
)

_KEY = (
    "In brackets 95 % intervals, each of its comparison alone, paired by seed; p after Holm’s correction over the masking strategies. (epoch): one segment a "
    "pass; (batch): all segments in one step; xK: K random masks in one step. A control is no masking to choose."
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
    glance: ReportTable | None
    key: str
    tiles: Sequence[Tile]
    sure: Sequence[str]
    cost: str


def summary_of(results: Json, arms: Arms) -> Summary:
    """The first screen: from the verdict, or, where there is none, what is missing for one."""
    verdict = results["verdict"]
    return Summary(
        f"Masking strategies compared: {results['model']['name']} on {results['data']['store']}",
        verdict["headline"] if results["race"] else absent("No verdict: it needs a race.", "race").replace("`", ""),
        glance(results, arms),
        _KEY if results["race"] else "",
        _tiles(results),
        verdict["sentences"] if results["race"] else [verdict["headline"], *verdict["sentences"]],
        verdict["cost"],
    )  # fmt: skip


def glance(results: Json, arms: Arms) -> ReportTable | None:
    """The arms from the lowest loss to the highest, controls last: how much better, how sure, at what cost."""
    race = results["race"]
    if race is None:
        return None
    tasks, final = results["downstream"] or {}, race["final"]

    def rank(name: str) -> tuple[bool, float]:
        mean = final[name]["mean"]
        return arms.is_control(name), float("inf") if mean is None else float(mean)

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
    for name in sorted(arms.own, key=rank):
        scores = (_score(own["arms"][name]) for own in tasks.values())
        speed = arms.own[name]["tokens_per_second"]
        rows.append(
            (
                _role(name, arms),
                *_loss(race, name),
                *scores,
                arms.passes(name),
                compact(speed and speed["mean"]),
            )
        )
    return ReportTable(header, rows)  # fmt: skip


def _role(name: str, arms: Arms) -> str:
    role = "baseline" if name == arms.baseline else "control" if arms.is_control(name) else ""
    return f"{arms.label(name)}, {role}" if role else arms.label(name)


def _loss(race: Json, name: str) -> tuple[str, str, str, str]:
    """Difference, p, loss, and tokens to the same loss."""
    own, pair, reached = race["final"][name], race["paired"].get(name), race["tokens_to_reach"].get(name)
    mean = "diverged" if own["mean"] is None else f"{own['mean']:.3f}"
    if pair is None:
        return (DASH, DASH, mean, DASH)
    if pair["p_value"] is None:
        return (pair["note"], DASH, mean, DASH)
    there = reached is not None and reached["ratio"]["p_value"] is not None
    tokens = f"× {Ratio.of(reached['ratio']).text()}" if reached is not None and there else DASH
    return (Estimate.of(pair, "mean").text(sign=True), probability(pair["p_adjusted"]), mean, tokens)


def _score(own: Json) -> str:
    """A task's mean score, and the difference from the baseline."""
    mean = "diverged" if own["mean"] is None else f"{100 * own['mean']:.1f}"
    pair = own["paired"]
    if pair is None or pair["p_value"] is None:
        return mean
    return f"{mean}, {Estimate.of(pair, 'mean').times(100).text(sign=True)}"


def _tiles(results: Json) -> list[Tile]:
    """The ratio for one row, and never without it that of a step at equal compute."""
    if not results["variance"]:
        return []
    entry = findings.latest(results["variance"])
    figures = (
        (entry["ratio"], "gradient noise of a row’s masks, full exploration / random"),
        (
            entry["equal_compute"]["segments"],
            "variance of a step at equal compute, all segments of fewer rows / different rows",
        ),
    )
    return [
        Tile(f"× {own.point()}", label, f"95 % interval {own.ends()}; {findings.measured(entry)}")
        for own, label in ((Estimate.of(tree), label) for tree, label in figures)
    ]


def setup_table(results: Json) -> ReportTable:
    """What was compared: model, data, runs."""
    model, data, evaluation = results["model"], results["data"], results["evaluation"]
    rows = [
        ("model", f"{model['name']}, {model['parameters']:,} parameters"),
        ("data", f"{data['store']}: {data['rows']:,} rows of {data['sequence_length']:,}, {spell(data['tokens'], 0)} tokens"),
    ]  # fmt: skip
    if results["steps"]:
        batch = f"{results['steps']:,} steps of {results['batch_size']:,} rows"
        rows += [
            ("each run", f"{batch}, peak learning rate {results['learning_rate']:g}, on {results['device']}"),
            ("seeds", ", ".join(map(str, results["seeds"]))),
        ]
    if evaluation:
        where = f"{evaluation['rows']:,} rows of {evaluation['store']}"
        rows.append(("held-out loss", f"{where}: {evaluation['masks']}"))
    return ReportTable(("", ""), [*rows, ("fmlm", results["fmlm"])])


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
    return ReportTable(
        header,
        [
            (
                _role(name, arms),
                own["description"],
                f"{own['masks_per_sequence']:,}",
                f"{own['sequences_per_step']:,}",
                arms.passes(name),
                compact(own["tokens"]),
            )
            for name, own in arms.own.items()
        ],
    )  # fmt: skip


def settings_text(results: Json) -> str:
    """The settings as YAML."""
    return str(yaml.safe_dump(results["settings"], sort_keys=False, allow_unicode=True, width=100))
