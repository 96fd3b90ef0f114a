"""What an arm's masks reach of real rows: how often each token is masked, and how far masks lie apart."""

import numpy as np
import numpy.typing as npt
from scipy import stats

from fmlm_cli import keys
from fmlm_cli.analysis.coverage import measure_coverage
from fmlm_cli.analysis.results.coverage import CoverageResult, HammingResult, MaskSizes
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.masking import Strategy
from fmlm_cli.objectives.masked_lm import view_of

Bools = npt.NDArray[np.bool_]

_BINS = 20


def covered(strategy: Strategy, reader: RowReader, passes: int, rows: int, seed: int) -> CoverageResult:
    """Coverage of some rows by the masks of so many passes, and Hamming distances of K masks in a row."""
    number = min(rows, len(reader))
    key = keys.derive(seed, keys.Stream.COVERED_ROWS)
    view = view_of(reader.read(keys.permute(np.arange(number), len(reader), key)))
    masks = [strategy.masks(view, epoch, seed) for epoch in range(passes)]
    coverage = measure_coverage(view.maskable, masks)
    expected = expected_times(strategy, passes)
    return CoverageResult(
        rows=number,
        epochs=passes,
        rate=coverage.rate,
        never_masked=coverage.times[0],
        times_masked=coverage.times,
        expected=None if expected is None else tuple(expected),
        covered=coverage.covered,
        tokens_in_a_mask=MaskSizes(coverage.smallest, coverage.mean, coverage.largest),
        hamming=hamming(np.concatenate(masks, axis=1)[:, : strategy.segments]),
    )


def expected_times(strategy: Strategy, passes: int) -> list[float] | None:
    """Probabilities that a token is masked 0, 1, 2, ... times, as the strategy promises; None if unknown.

    Random: a binomial, for masks are independent. Full: once in every cycle of K masks, and in the r masks of
    one that was begun with probability r / K.
    """
    number = passes * strategy.masks_per_sequence
    if strategy.exploration == "random":
        probabilities: list[float] = stats.binom.pmf(np.arange(number + 1), number, strategy.rate).tolist()
        return probabilities
    if strategy.exploration != "full":
        return None
    whole, rest = divmod(number, strategy.segments)
    share = rest / strategy.segments
    return [0.0] * whole + [1 - share] + ([share] if rest else [])


def hamming(masks: Bools) -> HammingResult | None:
    """Hamming distances between the masks bool[rows, masks, length] of each row, as shares of the largest.

    The largest is |a| + |b|, of two masks without a token in common. None where there is but one mask.
    """
    number = masks.shape[1]
    if number < 2:
        return None
    as_float = masks.astype(np.float32)
    common = as_float @ as_float.transpose(0, 2, 1)
    sizes = as_float.sum(axis=2)
    first, second = np.triu_indices(number, 1)
    largest = (sizes[:, first] + sizes[:, second]).ravel()
    both = common[:, first, second].ravel()
    shares = 1 - 2 * both[largest > 0] / largest[largest > 0]
    if not len(shares):
        return None
    counts, edges = np.histogram(shares, bins=_BINS, range=(0.0, 1.0))
    return HammingResult(
        masks=number,
        pairs=len(shares),
        mean=float(shares.mean()),
        sd=float(shares.std()),
        least=float(shares.min()),
        disjoint=float((shares == 1).mean()),
        edges=tuple(edges.tolist()),
        shares=tuple((counts / len(shares)).tolist()),
    )
