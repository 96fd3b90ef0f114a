"""How long a batch takes to make, against transformers' collator; and how long training waits for one.

batch   gather rows from a token store, mask, corrupt | DataCollatorForLanguageModeling on the same rows
wait    how long the training loop waits for a batch, which is made while the step before it computes
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from transformers import DataCollatorForLanguageModeling

from fmlm_cli import keys
from fmlm_cli.config.schema import OptimizerSettings
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.optimizer import make_optimizer
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.step import train_step
from fmlm_cli.masking import Collocations, get_strategy
from fmlm_cli.masking.registry import BUILT_IN
from fmlm_cli.model.build import VocabularyFacts, build_model
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.objectives.masked_lm import MaskedLanguageModelling
from fmlm_cli.recipes.shared.held_out import make_objective
from tests.benchmarks.material import log_normal_lengths, make_store, make_tokenizer

SHAPES = ((32, 128), (256, 512))
STRATEGIES = (
    *((name, "epoch" if name.startswith("fully") else None) for name in BUILT_IN),
    ("fully-explored", "batch"),
)
CPU = Runtime.resolve("cpu")


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


def bench_wait(store: TokenStore, name: str) -> tuple[float, float]:
    """Median seconds that steps of bert-mini, 32 x 128, wait for their batch, and that they take."""
    reader, objective = make_reader_and_objective(
        store, 128, name, "epoch" if name.startswith("fully") else None
    )
    model = MaskedLM(
        build_model("bert-mini", VocabularyFacts(store.vocabulary, 0, 2, 3), dropout=0.0, seed=0)
    )
    optimizer = make_optimizer(OptimizerSettings(weight_decay=0.01, betas=(0.9, 0.98), epsilon=1e-6), model)

    def prepare(step: int) -> list[Batch]:
        return objective.prepare(reader.read((step * 32 + np.arange(32)) % len(reader)), step, 32)

    waits, steps = [], []
    with ThreadPoolExecutor(1) as pool:  # as the training loop does it
        ahead = pool.submit(prepare, 0)
        for step in range(1, 12):
            begin = time.perf_counter()
            batches = ahead.result()
            waits.append(time.perf_counter() - begin)
            ahead = pool.submit(prepare, step)
            settings = {"step": step, "seed": 0, "learning_rate": 1e-4, "clip": 1.0, "runtime": CPU}
            train_step(model, optimizer, objective, batches, **settings)  # type: ignore[arg-type]
            steps.append(time.perf_counter() - begin)
    return statistics.median(waits[1:]), statistics.median(steps[1:])


def print_batches(store: TokenStore, console: Console) -> None:
    """The table `batch`."""
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


def print_waits(store: TokenStore, console: Console) -> None:
    """The table `wait`."""
    table = Table(
        "strategy", "wait, ms", "step, ms", "share", title="waiting for a batch: bert-mini, 32 x 128"
    )
    for name in BUILT_IN:
        wait, step = bench_wait(store, name)
        table.add_row(name, f"{wait * 1e3:.3f}", f"{step * 1e3:.0f}", f"{wait / step:.4%}")
    console.print(table)


PARTS = {"batch": print_batches, "wait": print_waits}


def main(parts: Sequence[str], console: Console) -> None:
    """Measure and print the tables of these names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_store(
            folder / "store",
            make_tokenizer(folder / "tokenizer"),
            log_normal_lengths(150, 1.0, 4000, 500_000),
        )
        store = TokenStore.open(folder / "store")
        for part in parts:
            PARTS[part](store, console)
