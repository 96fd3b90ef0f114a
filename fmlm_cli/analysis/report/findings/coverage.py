"""What masks reach, and in how many passes, in sentences."""

from collections.abc import Iterator, Mapping

from fmlm_cli.analysis.report.values import Arms, compact, percent
from fmlm_cli.analysis.results.comparison import Measurements
from fmlm_cli.analysis.results.coverage import CoverageResult
from fmlm_cli.events import counted


def coverage_in_words(coverage: Mapping[str, CoverageResult], arms: Arms) -> str:
    """How much each arm leaves unpredicted, after its own passes."""
    by_passes: dict[int, list[str]] = {}
    for name, reached in coverage.items():
        by_passes.setdefault(reached.epochs, []).append(f"{arms.label(name)} {percent(reached.never_masked)}")
    texts = [
        f"after {counted(passes, 'pass', 'passes')}: {', '.join(shares)}"
        for passes, shares in by_passes.items()
    ]
    return f"Tokens never predicted {'; '.join(texts)}."


def reached(results: Measurements, arms: Arms) -> Iterator[str]:
    """What each arm leaves unpredicted, where that was looked at."""
    if results.coverage:
        yield coverage_in_words(results.coverage, arms)


def few_passes(results: Measurements, arms: Arms) -> Iterator[str]:
    """Where scope epoch has no chance to do anything."""
    if results.race is None:
        return
    passes = {
        name: arm.passes for name, arm in arms.by_name.items() if arm.cycle > 1 and arm.passes is not None
    }
    single = [name for name, number in passes.items() if number <= 1]
    few = [f"{arms.label(name)} made {number:.2f}" for name, number in passes.items() if 1 < number < 2]
    if single:
        yield (
            f"{arms.listed(single)} made at most one pass over the data, and scope epoch differs from random "
            "masking from the second one on: fewer rows (--set run.data.max_rows=N) or a larger budget would "
            "show what it does."
        )
    if few:
        yield f"Scope epoch masks differently only rows that come twice, and {', '.join(few)} passes."


def first_passes(results: Measurements, arms: Arms) -> Iterator[str]:
    """How much of the budget arms cannot differ in, where they begin as random masking does."""
    alike: dict[float, list[str]] = {}
    for arm in arms.by_name.values() if results.race is not None else ():
        if arm.first_pass_as is not None and arm.passes is not None and arm.passes >= 2:
            masks = f"{arm.label} masks exactly as {arms.label(arm.first_pass_as)} does"
            alike.setdefault(arm.passes, []).append(masks)
    for passes, pairs in alike.items():
        yield (
            f"In the first of {compact(passes)} passes, {round(results.steps / passes):,} of "
            f"{results.steps:,} steps, {' and '.join(pairs)}: until then they are one run."
        )
