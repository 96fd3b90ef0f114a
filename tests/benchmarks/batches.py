"""How long a batch takes to make: rows gathered from a token store, masked, corrupted; against transformers'
`DataCollatorForLanguageModeling` on the same rows.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from transformers import DataCollatorForLanguageModeling

from fmlm_cli import keys
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.masking import Collocations, get_strategy
from fmlm_cli.masking.registry import BUILT_IN
from fmlm_cli.objectives.masked_lm import MaskedLanguageModelling
from fmlm_cli.recipes.shared.held_out import make_objective
from tests.benchmarks.material import log_normal_lengths, make_store, make_tokenizer

SHAPES = ((32, 128), (256, 512))
STRATEGIES = (
    *((name, "epoch" if name.startswith("fully") else None) for name in BUILT_IN),
    ("fully-explored", "batch"),
)


@dataclass(frozen=True)
class Comparison:
    """Median seconds of each, and the median and quartiles of the ratio `theirs / ours`, pair by pair."""

    ours: float
    theirs: float
    ratio: float
    ratio_low: float
    ratio_high: float


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], pairs: int, warm_up: int = 2
) -> Comparison:
    """Time A B A B ... after a warm-up."""
    for _ in range(warm_up):
        ours()
        theirs()
    times = [(_seconds(ours), _seconds(theirs)) for _ in range(pairs)]
    ratios = [other / own for own, other in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    own, other = (statistics.median(column) for column in zip(*times, strict=True))
    return Comparison(own, other, middle, low, high)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def collocations_of(reader: RowReader) -> Collocations:
    """Every fifth pair of words of some rows, and as many that occur nowhere: about as PMI-masking finds
    them.
    """
    rows = reader.read(np.arange(min(64, len(reader))))
    assert rows.word_starts is not None
    begin = np.flatnonzero(rows.word_starts)
    pairs = keys.StretchHash(rows.input_ids.ravel())(begin[:-2:5], begin[2::5])
    others = np.random.default_rng(2).integers(0, 2**64, 200_000, np.uint64)
    return Collocations(np.unique(np.concatenate([pairs, others])))


def make_reader_and_objective(
    store: TokenStore, length: int, name: str, scope: str | None
) -> tuple[RowReader, MaskedLanguageModelling]:
    """Rows of a length, and the objective that masks them by a strategy."""
    reader = RowReader(store, "train", packing="concat", sequence_length=length)
    strategy = get_strategy(name, scope=scope, collocations=collocations_of(reader))  # type: ignore[arg-type]
    return reader, make_objective(store, strategy, 0, static_shapes=False)


def bench_batch(store: TokenStore, rows: int, length: int, name: str, scope: str | None) -> Comparison:
    """Making one batch of `rows` masked rows."""
    reader, objective = make_reader_and_objective(store, length, name, scope)
    strategy = objective.strategy
    index = np.random.default_rng(1).permutation(len(reader) - 1)[
        : max(1, rows // strategy.masks_per_sequence)
    ]
    collate = DataCollatorForLanguageModeling(store.tokenizer, mlm_probability=1 / 7)
    examples = [{"input_ids": row.tolist()} for row in reader.read(np.resize(index, rows)).input_ids]
    return compare(
        lambda: objective.prepare(reader.read(index), 3, rows), lambda: collate(examples), pairs=30
    )


def print_batches(store: TokenStore, console: Console) -> None:
    """The table of every strategy and shape."""
    table = Table(
        "batch", "strategy", "fmlm, ms", "collator, ms", "ratio (quartiles)", title="making a batch"
    )
    for rows, length in SHAPES:
        for name, scope in STRATEGIES:
            figures = bench_batch(store, rows, length, name, scope)
            ratio = f"{figures.ratio:.2f} ({figures.ratio_low:.2f} to {figures.ratio_high:.2f})"
            times = (f"{figures.ours * 1e3:.2f}", f"{figures.theirs * 1e3:.2f}")
            table.add_row(f"{rows} x {length}", f"{name} {scope or ''}", *times, ratio)
    console.print(table)


def main(console: Console) -> None:
    """Make a store, measure, print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = log_normal_lengths(150, 1.0, 4000, 500_000)
        make_store(folder / "store", make_tokenizer(folder / "tokenizer"), lengths)
        print_batches(TokenStore.open(folder / "store"), console)
