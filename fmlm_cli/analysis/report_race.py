"""The report's part about the race: loss curves, final losses, tokens to reach a loss."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from fmlm_cli.analysis.report_figures import Curve, draw_curves, draw_pairs
from fmlm_cli.analysis.report_pairs import (
    DETECTABLE,
    paired_data,
    paired_table,
    seed_count,
    told_apart,
    values_by_seed,
)
from fmlm_cli.analysis.report_parts import Exhibit, Part, Table, absent
from fmlm_cli.analysis.report_values import (
    DASH,
    Arms,
    Estimate,
    Json,
    compact,
    listed,
    number,
    part,
    probability,
    ratio_text,
)
from fmlm_cli.analysis.statistics import Floats, moving_average

_WINDOW = 3  # evaluations that are averaged, as for tokens to reach a loss
_POINTS = 300  # of a curve, in the figure; the data has all
Pairs = list[tuple[Floats, Floats]]

# ---------------------------------------------------------------- race


def race_part(results: Json, arms: Arms) -> Part:
    """Curves, final losses, tokens to reach the baseline's loss."""
    race = part(results, "race")
    title = "Race"
    if not race:
        return Part("race", title, missing=absent("No models were trained.", "race"))
    seeds = [str(seed) for seed in results.get("seeds") or []]
    exhibits = [
        made
        for made in (_curves(race, arms), _final(race, arms, seeds), _tokens(race, arms, seeds))
        if made is not None
    ]
    controls = [arms.label(name) for name in arms.own if arms.is_control(name)]
    notes = [f"For scale only, not to be chosen: {listed(controls)}."] if controls else []
    if not exhibits:
        return Part("race", title, missing=absent("The race has no results yet.", "race"))
    return Part("race", title, exhibits, notes=notes)


def _points(curve: Any) -> tuple[Floats, Floats]:
    """Tokens and smoothed losses of one seed, what is not a number left out."""
    own = part(curve)
    pairs = [
        (at, loss)
        for at, loss in zip(
            map(number, own.get("tokens") or []), map(number, own.get("losses") or []), strict=False
        )
        if at is not None and loss is not None
    ]
    tokens, losses = np.array(pairs, np.float64).reshape(-1, 2).T
    return tokens, moving_average(losses, _WINDOW)


def _averaged(pairs: Pairs) -> Curve:
    """Mean and t interval over seeds where all have values, at the first one's counts of tokens."""
    begin, end = max(own[0][0] for own in pairs), min(own[0][-1] for own in pairs)
    grid = pairs[0][0][(pairs[0][0] >= begin) & (pairs[0][0] <= end)]
    grid = grid[np.unique(np.linspace(0, len(grid) - 1, min(len(grid), _POINTS)).astype(int))]
    table = np.stack([np.interp(grid, tokens, losses) for tokens, losses in pairs])
    mean, n = table.mean(axis=0), len(table)
    half = (
        stats.t.isf(0.025, n - 1) * table.std(axis=0, ddof=1) / np.sqrt(n)
        if n > 1
        else np.full_like(mean, np.nan)
    )
    return grid, mean, mean - half, mean + half


def _gap(own: Mapping[str, tuple[Floats, Floats]], base: Mapping[str, tuple[Floats, Floats]]) -> Curve | None:
    """An arm's loss above the baseline's, seed by seed."""
    pairs: Pairs = []
    for seed, (tokens, losses) in own.items():
        if seed in base:
            inside = (base[seed][0] >= tokens[0]) & (base[seed][0] <= tokens[-1])
            at = base[seed][0][inside]
            pairs.append((at, np.interp(at, tokens, losses) - base[seed][1][inside]))
    pairs = [pair for pair in pairs if len(pair[0])]
    return _averaged(pairs) if pairs else None


def _curves(race: Json, arms: Arms) -> Exhibit | None:
    raw = part(race, "curves")
    seeds = {
        name: {seed: points for seed, own in raw[name].items() if len((points := _points(own))[0])}
        for name in arms.of_part(raw)
    }
    seeds = {name: own for name, own in seeds.items() if own}
    if not seeds:
        return None
    curves = {name: _averaged(list(own.values())) for name, own in seeds.items()}
    curves = {name: own for name, own in curves.items() if len(own[0])}
    base = seeds.get(arms.baseline, {})
    gaps = {name: gap for name in curves if name != arms.baseline and (gap := _gap(seeds[name], base))}
    rivals = [name for name in curves if not arms.is_control(name)] or list(curves)
    lowest = min(rivals, key=lambda name: curves[name][1][-1])
    first, end = curves[lowest][1][0], curves[lowest][1][-1]
    n = sorted({len(own) for own in seeds.values()})
    return Exhibit(
        "loss-curves",
        "How does the held-out loss fall?",
        f"The lowest curve, {arms.label(lowest)}, falls from {first:.3g} to {end:.3g} nats in {compact(curves[lowest][0][-1])} tokens.",
        f"Masked-LM loss on held-out rows under masks that are the same for all arms; smoothed over {_WINDOW} evaluations. Lines: mean of "
        f"n = {' or '.join(map(str, n))} seeds; bands: 95 % Student-t interval over seeds, pointwise (none with one seed). "
        "Seeds share initial weights and data order between arms, so the differences, taken seed by seed, are told more "
        "finely than the curves.",
        functools.partial(draw_curves, curves, gaps, arms),
        [
            {"arm": name, "seed": seed, "tokens": at, "loss": loss}
            for name in seeds
            for seed, own in raw[name].items()
            for at, loss in zip(part(own).get("tokens") or [], part(own).get("losses") or [], strict=False)
        ],
    )


def _final(race: Json, arms: Arms, seeds: Sequence[str]) -> Exhibit | None:
    final, paired = part(race, "final"), part(race, "paired")
    values = {name: values_by_seed(part(final[name]).get("values"), seeds) for name in arms.of_part(final)}
    values = {name: own for name, own in values.items() if own}
    if not values:
        return None
    compared = {name: Estimate.of(paired.get(name), "mean") for name in values}
    test = str(race.get("test") or "paired t-test, two-sided")
    return Exhibit(
        "final-loss",
        "Which arm ends lowest?",
        told_apart(paired, arms, "held-out loss", "nats"),
        f"Left: held-out loss (nats) at the end, a dot for each seed, seeds joined by lines; the bar is the mean. Right: arm minus "
        f"{arms.base}, paired by seed, with 95 % Student-t interval. Test: {test}; p after Holm’s correction over the "
        f"arms. {DETECTABLE} {seed_count(values)}. A cross marks a seed without a value.",
        functools.partial(
            draw_pairs,
            values,
            compared,
            arms,
            measured="Held-out loss (nats) by seed",
            against=f"Minus {arms.base}, 95 % interval",
            reference=0.0,
        ),
        [
            {
                "arm": name,
                "passes": part(arms.own.get(name)).get("passes"),
                "seed": seed,
                "loss": loss,
                **paired_data(paired.get(name)),
            }
            for name, own in values.items()
            for seed, loss in own.items()
        ],
        paired_table(values, {name: part(final[name]) for name in values}, paired, arms),
        words=[text for name in values if (text := str(part(paired.get(name)).get("text") or ""))],
    )


def _tokens(race: Json, arms: Arms, seeds: Sequence[str]) -> Exhibit | None:
    reached = part(race, "tokens_to_reach")
    values = {
        name: values_by_seed(part(reached[name]).get("values"), seeds) for name in arms.of_part(reached)
    }
    values = {name: own for name, own in values.items() if own}
    if not values:
        return None
    ratios = {name: part(reached[name]).get("ratio") for name in values}
    compared = {name: Estimate.of(own) for name, own in ratios.items()}
    target = number(race.get("target_loss"))
    loss = f"a loss of {target:.4g} nats" if target is not None else "the target loss"
    return Exhibit(
        "tokens-to-reach",
        "How many tokens does it save?",
        _tokens_in_words(values, compared, arms, loss),
        f"Tokens forwarded until the held-out loss, smoothed over {_WINDOW} evaluations, is first at {loss}, between two evaluations by "
        f"linear interpolation. Ratio to {arms.base}: geometric mean of the ratios by seed, with the 95 % Student-t interval of their "
        f"logarithms; p of the paired t-test on them, after Holm’s correction. {seed_count(values)}. A cross marks a "
        "seed that did not get there: its arm has no ratio.",
        functools.partial(
            draw_pairs,
            {name: {seed: None if v is None else v / 1e6 for seed, v in own.items()} for name, own in values.items()},
            compared,
            arms,
            measured="Million tokens by seed",
            against=f"Ratio to {arms.base}, 95 % interval",
            reference=1.0,
        ),
        [
            {"arm": name, "passes": part(arms.own.get(name)).get("passes"), "seed": seed, "tokens": at,
             **{f"ratio.{key}": part(ratios[name]).get(key) for key in ("value", "low", "high", "p_value", "p_adjusted")}}
            for name, own in values.items()
            for seed, at in own.items()
        ],
        _tokens_table(values, ratios, arms),
    )  # fmt: skip


def _tokens_table(values: Mapping[str, Mapping[str, float | None]], ratios: Json, arms: Arms) -> Table:
    seeds = list(dict.fromkeys(seed for own in values.values() for seed in own))
    rows = []
    for name, own in values.items():
        tree = part(ratios[name])
        cells = [
            DASH if seed not in own else "not reached" if own[seed] is None else compact(own[seed])
            for seed in seeds
        ]
        p = probability(number(tree.get("p_adjusted", tree.get("p_value"))))
        rows.append((arms.label(name), arms.passes(name), *cells, ratio_text(Estimate.of(tree)), p))
    return Table(["arm", "passes", *(f"seed {seed}" for seed in seeds), "ratio", "p (Holm)"], rows)


def _tokens_in_words(
    values: Mapping[str, Json], compared: Mapping[str, Estimate | None], arms: Arms, loss: str
) -> str:
    found = {
        name: own
        for name, own in compared.items()
        if own is not None and name != arms.baseline and not arms.is_control(name)
    }
    short = [arms.label(name) for name, own in values.items() if any(at is None for at in own.values())]
    text = f"No arm can be compared by the tokens it takes to {loss}"
    if found:
        best = min(found, key=lambda name: found[name].value)
        text = (
            f"To {loss} {arms.label(best)} takes {found[best].text(most=3)} times the tokens of {arms.base}"
        )
        text += ", not told from as many" if found[best].against(1) == "undecided" else ""
    return text + (f"; not every seed gets there with {listed(short)}." if short else ".")
