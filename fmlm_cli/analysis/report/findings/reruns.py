"""What was found of arms that were trained again for fewer steps, in sentences."""

from collections.abc import Iterator

from fmlm_cli.analysis.report.values import Arms, Estimate, p_is, percent, spell
from fmlm_cli.analysis.results.comparison import Measurements, RerunResult


def trained_again(results: Measurements, arms: Arms) -> Iterator[str]:
    """Whether an arm gets to the baseline's loss with a schedule that ends sooner."""
    race = results.race
    for name, again in (race.reruns if race is not None else {}).items():
        yield in_words(name, again, arms)


def in_words(name: str, again: RerunResult, arms: Arms) -> str:
    """What an arm ends at, against the baseline after all of the steps."""
    begun = (
        f"Trained again for {percent(again.share)} of the tokens, with a schedule that ends there, "
        f"{arms.label(name)}"
    )
    pair = again.paired
    if not pair.tested:
        return f"{begun} could not be compared: {pair.note}."
    side = {
        name: "lower still, so more than the rest is saved",
        arms.baseline: "higher, so less than the rest is saved",
        None: "not told apart",
    }[pair.better]
    difference = Estimate.of(pair)
    return (
        f"{begun} ends at {spell(again.mean, 3)}, {difference.text(sign=True)} nats from where {arms.base} "
        f"ends after all of them: {side} ({p_is(pair.p_adjusted)})."
    )
