"""The report's first screen and last page: the verdict, its numbers, what was compared, how to repeat it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from fmlm_cli.analysis.report_parts import Table, absent, segments_step
from fmlm_cli.analysis.report_values import (
    Arms,
    Estimate,
    Json,
    compact,
    count,
    measurement,
    number,
    part,
    spell,
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
    sure: Sequence[str]
    cost: Sequence[str]
    tiles: Sequence[Tile]


def summary_of(results: Json, arms: Arms) -> Summary:
    """The first screen: from the verdict, or, where there is none, what is missing for one."""
    verdict = part(results, "verdict")
    model, data = part(results, "model"), part(results, "data")
    subject = " on ".join(
        text for text in (str(model.get("name") or ""), str(data.get("store") or "")) if text
    )
    headline = str(verdict.get("headline") or absent("No verdict: it needs a race.", "race").replace("`", ""))
    return Summary(
        f"Masking strategies compared{f': {subject}' if subject else ''}",
        headline,
        _words(verdict.get("sentences")),
        _words(verdict.get("cost")),
        [tile for tile in (*_race_tiles(results, arms), *_variance_tiles(results)) if tile is not None],
    )


def _words(value: Any) -> list[str]:
    """A text, a list of them, or names and values, as sentences."""
    if isinstance(value, Mapping):
        return [f"{key.replace('_', ' ')}: {own}" for key, own in value.items() if own is not None]
    if isinstance(value, list):
        return [str(own) for own in value if own]
    return [str(value)] if value else []


def _race_tiles(results: Json, arms: Arms) -> list[Tile | None]:
    """Of the arm with the lowest mean loss, controls aside: its loss and its tokens against the baseline's."""
    final, paired = part(results, "race", "final"), part(results, "race", "paired")
    means = {name: mean for name in arms.of_part(final) if (mean := number(part(final[name]).get("mean"))) is not None}  # fmt: skip
    rivals = {
        name: mean for name, mean in means.items() if name != arms.baseline and not arms.is_control(name)
    }
    if not rivals:
        return []
    best = min(rivals, key=lambda name: rivals[name])
    difference = Estimate.of(paired.get(best), "mean")
    tokens = Estimate.of(part(results, "race", "tokens_to_reach", best).get("ratio"))
    seeds = count(int(number(part(paired.get(best)).get("n")) or len(results.get("seeds") or [])), "seed")
    rivalry = f" (chosen as the lowest of {len(rivals)})" if len(rivals) > 1 else ""
    return [
        None
        if difference is None
        else Tile(
            f"{difference.point(sign=True)} nats",
            f"held-out loss, {arms.label(best)} minus {arms.base}{rivalry}",
            f"95 % interval {difference.ends(sign=True)}; {seeds}",
        ),
        None
        if tokens is None
        else Tile(
            f"× {tokens.point(most=3)}",
            f"tokens to the same loss, {arms.label(best)} / {arms.base}",
            f"95 % interval {tokens.ends(most=3)}; {seeds}",
        ),
    ]


def _variance_tiles(results: Json) -> list[Tile | None]:
    """The ratio for one sequence, and never without it that of a step at equal compute; of the last checkpoint."""
    entries = [
        own
        for own in results.get("variance") or []
        if own and Estimate.of(part(own).get("ratio")) is not None
    ]
    if not entries:
        return []
    entry = entries[-1]
    ratio, step = Estimate.of(entry["ratio"]), Estimate.of(segments_step(entry).get("relative"))
    n = number(entry.get("sequences"))
    behind = measurement(entry) + (f"; {count(int(n), 'sequence')}" if n is not None else "")
    return [
        None
        if own is None
        else Tile(
            f"× {own.point(most=3)}", label, f"95 % interval {own.ends(most=3)}; {behind}"
        )
        for own, label in (
            (ratio, "gradient variance from the masks of one sequence, full / random"),
            (step, "variance of a training step at equal compute, all segments of fewer sequences / distinct sequences"),
        )
    ]  # fmt: skip


def setup_table(results: Json) -> Table:
    """What was compared: model, data, seeds."""
    model, data = part(results, "model"), part(results, "data")
    seeds = results.get("seeds") or []
    parameters = number(model.get("parameters"))
    rows = [
        ("model", str(model.get("name") or "unknown")),
        ("parameters", f"{parameters:,.0f}" if parameters is not None else ""),
        ("data", str(data.get("store") or "unknown")),
        ("rows", _whole(data.get("rows"))),
        ("tokens in a row", _whole(data.get("sequence_length"))),
        ("tokens in all", _whole(data.get("tokens"))),
        ("seeds", ", ".join(map(str, seeds)) if seeds else ""),
        ("fmlm", str(results.get("fmlm") or "")),
    ]
    return Table(("", ""), [row for row in rows if row[1]])


def _whole(value: Any) -> str:
    own = number(value)
    return spell(own, 0) if own is not None else ""


def arms_table(arms: Arms) -> Table:
    """Every arm, with what it costs."""
    rows = []
    for name, own in arms.own.items():
        kind = ("baseline", name == arms.baseline), ("control, for scale", arms.is_control(name))
        rows.append(
            (
                arms.label(name),
                str(own.get("description") or masking_text(own.get("masking"))),
                _whole(own.get("masks_per_sequence")),
                _whole(own.get("sequences_per_step")),
                arms.passes(name),
                compact(number(own.get("tokens"))),
                ", ".join(text for text, holds in kind if holds),
            )
        )
    header = ("arm", "masking", "masks of a sequence", "sequences in a step", "passes", "tokens", "role")
    return Table(header, rows)


def masking_text(masking: Any) -> str:
    """Settings of a masking in one line; a text stays what it is."""
    if not isinstance(masking, Mapping):
        return str(masking or "")
    flat = [
        f"{key} {', '.join(f'{k} {v}' for k, v in own.items()) if isinstance(own, Mapping) else own}"
        for key, own in masking.items()
        if own is not None
    ]
    return "; ".join(flat)


def command_text(results: Json) -> str:
    """The command to repeat it all."""
    command = results.get("command") or "fmlm compare-masks settings.yaml"
    return shlex.join(map(str, command)) if isinstance(command, list) else str(command)


def settings_text(results: Json) -> str:
    """The settings as YAML; empty if there are none."""
    settings = results.get("settings")
    if not settings:
        return ""
    if isinstance(settings, str):
        return settings
    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100))
