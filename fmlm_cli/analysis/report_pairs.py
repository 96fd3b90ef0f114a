"""Values by seed, and arms compared with the baseline in pairs of seeds: tables and sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from fmlm_cli.analysis.report_parts import Row, Table
from fmlm_cli.analysis.report_values import (
    DASH,
    Arms,
    Estimate,
    Json,
    count,
    decimals,
    listed,
    number,
    part,
    probability,
    spell,
)

DETECTABLE = "“Detectable” is the true difference that so many seeds find with a probability of 80 %, were their spread the true one."


def values_by_seed(tree: Any, seeds: Sequence[str]) -> dict[str, float | None]:
    """Values by seed, in order; those of a list are named after the seeds, or numbered."""
    if isinstance(tree, list):
        names = seeds if len(seeds) == len(tree) else [str(place) for place in range(len(tree))]
        tree = dict(zip(names, tree, strict=True))
    own = part(tree)
    order = [seed for seed in seeds if seed in own] + [seed for seed in own if seed not in seeds]
    return {seed: number(own[seed]) for seed in order}


def seed_count(values: Mapping[str, Json]) -> str:
    """`n = 3 seeds`, from the values by seed of several arms."""
    found = sorted({len(own) for own in values.values()})
    return f"n = {count(found[-1], 'seed') if len(found) == 1 else f'{found[0]} to {found[-1]} seeds'}"


def paired_data(tree: Any) -> Row:
    """A paired comparison as columns of the data."""
    keys = ("n", "mean", "low", "high", "p_value", "p_adjusted", "half_width", "detectable")
    own = part(tree)
    return {f"paired.{key}": own.get(key) for key in keys} if own else {}


def told_apart(paired: Json, arms: Arms, what: str, unit: str, *, lower: bool = True) -> str:
    """Which arms are told from the baseline, which way, and how small a difference could be seen; controls aside."""
    known = {
        name: own
        for name in arms.of_part(paired)
        if not arms.is_control(name) and number((own := part(paired[name])).get("mean")) is not None
    }
    if not known:
        return f"Nothing is compared by {what}: that needs two arms and two seeds."
    sides: dict[str, list[str]] = {"lower": [], "higher": [], "": []}
    for name, own in known.items():
        gains = own.get("better") == name
        side = ("lower" if gains == lower else "higher") if own.get("better") else ""
        sides[side].append(arms.label(name))
    said = [f"{side} with {listed(names)}" for side, names in sides.items() if names and side]
    if not said:
        text = f"No arm can be told from {arms.base} by {what}."
    else:
        text = f"Against {arms.base}, {what} is {', and '.join(said)}."
        text += f" Not told from it: {listed(sides[''])}." if sides[""] else ""
    seen = [own for own in (number(tree.get("detectable")) for tree in known.values()) if own is not None]
    if not seen:
        return text
    return f"{text} Differences below about {max(seen):.1g} {unit} could easily have gone unseen with so many seeds."


def paired_table(
    values: Mapping[str, Mapping[str, float | None]],
    stats_of: Mapping[str, Json],
    paired: Json,
    arms: Arms,
    scale: float = 1,
) -> Table:
    """A row for each arm: every seed's own value, mean, spread, and the difference with its test."""
    seeds = list(dict.fromkeys(seed for own in values.values() for seed in own))
    spreads = [own for own in (number(tree.get("sd")) for tree in stats_of.values()) if own]
    places = min(4, decimals(scale * min(spreads))) if spreads else 3
    rows = []
    for name, own in values.items():
        difference, tree = Estimate.of(paired.get(name), "mean"), part(paired.get(name))
        mean, sd = (number(stats_of[name].get(key)) for key in ("mean", "sd"))
        seen = number(tree.get("detectable"))
        rows.append(
            (
                arms.label(name),
                arms.passes(name),
                *(spell(None if own.get(seed) is None else scale * (own[seed] or 0.0), places) for seed in seeds),
                spell(None if mean is None else scale * mean, places),
                spell(None if sd is None else scale * sd, places),
                DASH if difference is None else difference.times(scale).text(sign=True),
                probability(number(tree.get("p_adjusted", tree.get("p_value")))),
                DASH if seen is None else f"{scale * seen:.1g}",
            )
        )  # fmt: skip
    header = ["arm", "passes", *(f"seed {seed}" for seed in seeds), "mean", "sd"]
    return Table([*header, "minus the baseline", "p (Holm)", "detectable"], rows)
