"""All that a comparison found, in the order of what its reader wants to know first."""

from fmlm_cli.analysis.report.findings import coverage, learning, noise, race, sweep
from fmlm_cli.analysis.report.findings.next_steps import next_step
from fmlm_cli.analysis.report.findings.reruns import trained_again
from fmlm_cli.analysis.report.values import Arms, compact, spell
from fmlm_cli.analysis.results.comparison import Measurements, Verdict


def verdict(results: Measurements) -> Verdict:
    """What the numbers say."""
    arms = Arms.of(results)
    headline, *sentences = [
        *race.headline(results, arms),
        *race.diverged(results, arms),
        *learning.outlook(results, arms),
        *race.seen(results, arms),
        *learning.more_seeds(results, arms),
        *learning.with_few_seeds(results),
        *race.runner_up(results, arms),
        *trained_again(results, arms),
        *race.control(results, arms),
        *race.downstream(results, arms),
        *sweep.at_best(results),
        *noise.in_short(results),
        *coverage.reached(results, arms),
        *coverage.few_passes(results, arms),
        *coverage.first_passes(results, arms),
    ] or ["Nothing was measured yet"]
    cost = _cost(results, arms)
    return Verdict(headline.rstrip("."), tuple(sentences), cost, next_step(results, arms))


def _cost(results: Measurements, arms: Arms) -> str:
    """What every run takes."""
    trained = [arm for arm in arms.by_name.values() if arm.tokens_per_second]
    seconds = [arm.seconds for arm in trained if arm.seconds is not None]
    speeds = [arm.tokens_per_second for arm in trained if arm.tokens_per_second is not None]
    if results.race is None or not trained:
        return ""
    minutes = _range(spell(min(seconds) / 60, 1), spell(max(seconds) / 60, 1))
    speed = _range(compact(min(speed.low for speed in speeds)), compact(max(speed.high for speed in speeds)))
    text = (
        f"Every run forwards {results.steps:,} steps of {results.batch_size:,} rows, "
        f"{compact(trained[0].tokens)} tokens: {minutes} minutes with its evaluations on {results.device}, "
        f"training at {speed} tokens a second."
    )
    packed = next((arm for arm in arms.by_name.values() if arm.masks_per_sequence > 1), None)
    if packed is not None:
        text += (
            f" A step of {packed.label} has {packed.sequences_per_step:,} different rows instead of "
            f"{results.batch_size:,}."
        )
    return text


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
