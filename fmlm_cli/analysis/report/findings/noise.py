"""What was found of gradient variance, in sentences."""

from collections.abc import Iterator, Sequence

from fmlm_cli.analysis.report.values import Estimate
from fmlm_cli.analysis.results.comparison import Measurements
from fmlm_cli.analysis.results.variance import MASK_ONLY, VarianceResult
from fmlm_cli.analysis.statistics import ROWS_TO_TRUST
from fmlm_cli.events import counted


def latest(entries: Sequence[VarianceResult]) -> VarianceResult:
    """The measurement to speak of: of the last checkpoint, under the race's corruption if it is there."""
    newest = [entry for entry in entries if entry.step == entries[-1].step]
    return next((entry for entry in newest if entry.corruption != MASK_ONLY), newest[-1])


def noise_of_masks(entry: VarianceResult) -> str:
    """The ratio for the masks of one sequence."""
    ratio = Estimate.of(entry.ratio)
    side = {"below": "less", "above": "more", "undecided": "not told from as much"}[
        _against_one(ratio, entry)
    ]
    return (
        f"Over whole passes, with the weights held fixed, the {entry.segments} segments of each row make "
        f"{ratio.text()} times the gradient noise of as many random masks: {side} ({measured(entry)})."
    )


def equal_compute(entry: VarianceResult) -> str:
    """What becomes of it in a step that forwards as many rows."""
    ratio, k = Estimate.of(entry.equal_compute.segments), entry.segments
    side = {
        "above": "more, so within a step it does not pay",
        "below": "less, so within a step it pays too",
        "undecided": "not told from as much",
    }[_against_one(ratio, entry)]
    return (
        f"Within one step, for the same rows forwarded, all {k} segments of fewer rows (scope batch) vary "
        f"{ratio.text()} times as much as one random mask each of {k} times as many different rows: {side}."
    )


def _against_one(ratio: Estimate, entry: VarianceResult) -> str:
    """On which side of 1, where there are rows enough to say so."""
    return ratio.against(1) if entry.sequences >= ROWS_TO_TRUST else "undecided"


def measured(entry: VarianceResult) -> str:
    """On what gradients were measured, in short."""
    few = entry.sequences < ROWS_TO_TRUST
    less = f", fewer than the {ROWS_TO_TRUST} that intervals need to be trusted" if few else ""
    return f"{entry.name}, {entry.corruption}, {counted(entry.sequences, 'row')}{less}"


def in_short(results: Measurements) -> Iterator[str]:
    """The ratio for one sequence never without that at equal compute."""
    if results.variance:
        entry = latest(results.variance)
        yield f"{noise_of_masks(entry)} {equal_compute(entry)}"
