"""What to do about what a comparison found: one thing, and the command that does it."""

from collections.abc import Iterator, Sequence

from fmlm_cli.analysis.report.findings import commands, learning
from fmlm_cli.analysis.report.findings.race import chosen
from fmlm_cli.analysis.report.values import Arms, rounded_up
from fmlm_cli.analysis.results.comparison import Measurements, NextStep, PairedResult, RaceResult
from fmlm_cli.analysis.statistics import ALPHA, detectable_effect, pairs_to_detect

FEW_SEEDS, MANY_SEEDS = 5, 30
_GENTLER = 3  # times lower a learning rate that runs diverge with, or times off one that learns nothing
_LONGER = 3  # times as many steps as something is learnt after, to tell maskings apart
_CHEAPER = 0.95  # times the baseline's time, from which on it is worth a word


def next_step(results: Measurements, arms: Arms) -> NextStep:
    """The one thing to do next. Every case of `race.headline` has one."""
    race = results.race
    if race is None:
        return _race_it(results)
    lowest = learning.lowest(race, arms)
    if lowest is None or not any(race.paired[name].n for name in arms.candidates):
        return _gentler(results, arms)
    if not learning.anything_learnt(race, arms):
        return _longer(results, race, arms, lowest)
    return _choice(results, race, arms)


# ---------------------------------------------------------------- where nothing can be said yet


def _race_it(results: Measurements) -> NextStep:
    words = ["--only", "race"]
    if not results.steps:
        words += ["--budget", f"{results.segments}-epochs"]
    if len(results.seeds) < 2:
        words += ["--seeds", str(FEW_SEEDS)]
    return NextStep("race the maskings: held-out losses decide", commands.go_on(results, *words))


def _gentler(results: Measurements, arms: Arms) -> NextStep:
    rate = results.learning_rate / _GENTLER
    return NextStep(
        f"lower the learning rate: runs diverged with {results.learning_rate:g}, and nothing is compared "
        f"with {arms.base}",
        commands.anew(results, "lower-rate", "--set", f"run.optimizer.learning_rate={rate:.1g}"),
    )


def _longer(results: Measurements, race: RaceResult, arms: Arms, lowest: str) -> NextStep:
    needed, rate = learning.steps_to_learn(race, lowest), results.learning_rate
    if needed is None and results.sweep is None:
        rates = [float(f"{rate * factor:.1g}") for factor in (1 / _GENTLER, _GENTLER)]
        names = [arms.baseline, *arms.candidates]  # without random a sweep's points are compared with nothing
        axes = {"strategy": names, "run.optimizer.learning_rate": rates}
        words = [f"sweep.{axis}={commands.in_yaml(values)}" for axis, values in axes.items()]
        return NextStep(
            f"try other learning rates: with {rate:g} the loss hardly falls",
            commands.go_on(results, "--only", "race", "--set", words[0], "--set", words[1]),
        )
    steps = learning.two_digits_up(_LONGER * (needed or results.steps))
    words, what = ["--budget", f"{steps}-steps"], f"about {steps:,} steps instead of {results.steps:,}"
    if arms.candidates and _all_begin_alike(arms, arms.candidates, steps / results.steps):
        rows = steps * results.batch_size // max(arms.by_name[name].cycle for name in arms.candidates)
        words += ["--set", f"run.data.max_rows={rows}"]
        what += f", and on {rows:,} rows, so that they come again"
    return NextStep(f"train for longer: {what}", commands.anew(results, "longer", *words))


# ---------------------------------------------------------------- which masking


def _choice(results: Measurements, race: RaceResult, arms: Arms) -> NextStep:
    best, by_task = chosen(race, arms), _best_by_task(results, race, arms)
    if best is not None:
        tasks = list(_tasks_told(results, best, arms.baseline))
        if not tasks:
            return NextStep(f"use {arms.label(best)}", commands.train(results, arms.by_name[best]))
        where = f"where {', '.join(tasks)} is what the model is for"
        return _keep(results, arms, f" {where}: {arms.label(best)} is worse there")
    if by_task is not None:
        better = ", ".join(_tasks_told(results, by_task, by_task))
        return NextStep(
            f"use {arms.label(by_task)}: not told by its loss, but better at {better}",
            commands.train(results, arms.by_name[by_task]),
        )
    open_ones = [name for name in arms.candidates if race.paired[name].n and not race.paired[name].better]
    if not open_ones:
        worse = [name for name in arms.candidates if race.paired[name].better == arms.baseline]
        verb = "is" if len(worse) == 1 else "are"
        return _keep(results, arms, f": {arms.listed(worse)} {verb} worse" if worse else "")
    if _all_begin_alike(arms, open_ones):
        return _more_passes(results, arms, open_ones)
    return _more_seeds(results, race, arms, open_ones)


def _keep(results: Measurements, arms: Arms, why: str) -> NextStep:
    return NextStep(f"keep {arms.base}{why}", commands.train(results, arms.by_name[arms.baseline]))


def _tasks_told(results: Measurements, name: str, winner: str) -> Iterator[str]:
    """The tasks that tell an arm from the baseline, and say that `winner` of the two is better."""
    for task, scores in (results.downstream or {}).items():
        pair = scores.arms[name].paired if name in scores.arms else None
        if pair is not None and pair.better == winner:
            yield task


def _best_by_task(results: Measurements, race: RaceResult, arms: Arms) -> str | None:
    """The lowest of those that some task tells to be better than the baseline, and neither loss nor a task
    to be worse."""
    better = [
        name
        for name in arms.candidates
        if any(_tasks_told(results, name, name))
        and not any(_tasks_told(results, name, arms.baseline))
        and race.paired[name].better != arms.baseline
        and not race.final[name].lacking
    ]
    return min(better, key=lambda name: learning.mean_loss(race, name), default=None)


# ---------------------------------------------------------------- where nothing is told apart


def _all_begin_alike(arms: Arms, names: Sequence[str], times: float = 1) -> bool:
    """Whether each masks as random does until rows come again, which hardly any does in so many `times` the
    passes."""
    own = [arms.by_name[name] for name in names]
    return all(arm.cycle > 1 and arm.passes is not None and times * arm.passes < 2 for arm in own)


def _more_passes(results: Measurements, arms: Arms, names: Sequence[str]) -> NextStep:
    """At the same cost, if that leaves several steps of different rows."""
    cycle = max(arms.by_name[name].cycle for name in names)
    rows = results.steps * results.batch_size // cycle
    once = f"rows that come once are masked as by {arms.base}, whatever the strategy"
    if rows >= 2 * results.batch_size:
        return NextStep(
            f"let rows come {cycle} times, with fewer of them for the same time: {once}",
            commands.anew(results, "fewer-rows", "--set", f"run.data.max_rows={rows}"),
        )
    return NextStep(
        f"train for {cycle} passes: {once}", commands.anew(results, "longer", "--budget", f"{cycle}-epochs")
    )


def _more_seeds(results: Measurements, race: RaceResult, arms: Arms, names: Sequence[str]) -> NextStep:
    """As many as halve what can be seen, where that is worth it; else the cheaper of the arms."""
    pairs = [race.paired[name] for name in names if race.paired[name].tested]
    if not pairs:
        if all(race.paired[name].mean == 0 for name in names):
            return _keep(results, arms, ": all of them are the same runs")
        number = FEW_SEEDS if len(results.seeds) < FEW_SEEDS else 2 * len(results.seeds)
        return NextStep(f"{number} seeds make a test", commands.go_on(results, "--seeds", str(number)))
    pair = max(pairs, key=lambda pair: pair.detectable or 0.0)
    seen, more = visible_with(pair, None), seeds_to_halve(pair)
    promising = max(abs(pair.mean or 0.0) / (pair.detectable or 1.0) for pair in pairs) > 0.5
    if more is not None and (len(results.seeds) < FEW_SEEDS or promising):
        return NextStep(
            f"no difference told: the smallest visible is {seen} nats; {more} seeds would see "
            f"{visible_with(pair, more)}",
            commands.go_on(results, "--seeds", str(more)),
        )
    return _cheaper(results, arms, names, seen)


def seeds_to_halve(pair: PairedResult) -> int | None:
    """How many seeds would see half of what can be seen now; None for more than `MANY_SEEDS`."""
    assert pair.n and pair.tests
    alpha = ALPHA / pair.tests
    return pairs_to_detect(detectable_effect(pair.n, alpha) / 2, alpha, most=MANY_SEEDS)


def visible_with(pair: PairedResult, seeds: int | None, scale: float = 1) -> str:
    """The smallest difference that so many seeds (None: those there are) can be expected to show."""
    assert pair.n and pair.tests and pair.detectable is not None
    alpha = ALPHA / pair.tests
    share = detectable_effect(seeds or pair.n, alpha) / detectable_effect(pair.n, alpha)
    return rounded_up(scale * pair.detectable * share)


def _cheaper(results: Measurements, arms: Arms, names: Sequence[str], seen: str) -> NextStep:
    seconds = {name: arms.by_name[name].seconds for name in (arms.baseline, *names)}
    known = {name: took for name, took in seconds.items() if took}
    fastest = min(known, key=known.__getitem__, default=arms.baseline)
    base = known.get(arms.baseline)
    alike = f"no difference told, where {seen} nats can be expected to show: take"
    if base is None or known[fastest] > _CHEAPER * base:
        return NextStep(f"{alike} {arms.base}", commands.train(results, arms.by_name[arms.baseline]))
    cost = f"{alike} the cheaper, {arms.label(fastest)}"
    return NextStep(cost, commands.train(results, arms.by_name[fastest]))
