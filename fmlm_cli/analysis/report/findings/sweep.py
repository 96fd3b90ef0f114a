"""What was found of the points of a sweep, in sentences."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fmlm_cli.analysis.report.values import Estimate, p_is
from fmlm_cli.analysis.results.comparison import (
    BestResult,
    Measurements,
    PairedResult,
    PointResult,
    SweepResult,
)
from fmlm_cli.events import counted


def short_names(axes: Iterable[str]) -> dict[str, str]:
    """Each axis by the last part of its name, learning_rate, where no other axis ends so."""
    ends = Counter(name.rpartition(".")[2] for name in axes)
    return {name: end if ends[end := name.rpartition(".")[2]] == 1 else name for name in axes}


def setting_words(settings: Mapping[str, Any]) -> str:
    """Settings and their values, one after another."""
    names = short_names(settings)
    return ", ".join(f"{names[key]} {value}" for key, value in settings.items())


def lowest(points: Sequence[PointResult]) -> str:
    """Which point has the lowest loss."""
    losses = [(point.mean, place) for place, point in enumerate(points) if point.mean is not None]
    if not losses:
        return "No point is finished without diverging."
    loss, place = min(losses)
    return (
        f"Held-out loss is lowest, {loss:.3f} nats, at {setting_words(points[place].settings)}; the lowest "
        "of many is lower than it would be again."
    )


def points_told(points: Sequence[PointResult]) -> str:
    """How many points are told from random masking under their settings."""
    pairs = {point.name: point.paired for point in points if point.paired is not None and point.paired.tested}
    if not pairs:
        return "None could be compared with random masking under its settings."
    better = sum(pair.better == name for name, pair in pairs.items())
    worse = sum(pair.better is not None for pair in pairs.values()) - better
    return (
        f"Of {counted(len(pairs), 'point')} compared with random masking under the same settings, {better} "
        f"can be told to be better and {worse} to be worse."
    )


def at_best(results: Measurements) -> Iterator[str]:
    """How each strategy does at the best of its other settings, where that was looked for."""
    if results.sweep is None or not results.sweep.best:
        return
    axes, best = other_axes(results.sweep), results.sweep.best
    compared = {each.strategy: each.paired for each in best if each.paired is not None and each.paired.tested}
    intro = f"Each strategy at its best {axes}"
    if not compared:
        why = next((each.paired.note for each in best if each.paired is not None), "there is one strategy")
        yield f"{intro}: nothing could be tested, {why}."
        return
    base = next(each for each in best if each.paired is None).strategy
    texts = [f"{name} {_verb(name, pair)} {base}, {difference(pair)}" for name, pair in compared.items()]
    yield f"{intro}, chosen for each seed by the others: {'; '.join(texts)}."


def other_axes(sweep: SweepResult) -> str:
    """What is varied beside the strategy."""
    return ", ".join(short for name, short in short_names(sweep.axes).items() if name != "strategy")


def _verb(name: str, pair: PairedResult) -> str:
    if pair.better is None:
        return "cannot be told from"
    return "is better than" if pair.better == name else "is worse than"


def difference(pair: PairedResult) -> str:
    """A tested difference of losses with its p after correction."""
    return f"{Estimate.of(pair).text(sign=True)} nats, {p_is(pair.p_adjusted)}"


def otherwise(best: BestResult) -> str:
    """For how many seeds the others chose other settings than all together."""
    return "–" if best.settings is None else f"{best.otherwise} of {len(best.values)}"
