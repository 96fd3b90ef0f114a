"""`python -m tests.benchmarks --only padding --data STORE`: what padding costs, by packing.

Of packing documents and concat, the rows' own. Of none, what is computed in steps of `batch.size` rows with as
many positions at once as a CPU takes: rows in any order, cut by room alone, against rows of like length
together, cut where padding costs more than a micro-batch. `evenness`: the standard deviation of a step's
tokens over their mean, for a step of short rows alone would weigh their tokens more.
"""

import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fmlm_cli.corpus.rows.order import RowOrder, order_of
from fmlm_cli.corpus.rows.packing import Packing
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.objectives.micro_batches import COST_ON_CPU, cut_by_widest
from tests.benchmarks.material import log_normal_lengths, make_store, make_tokenizer

LENGTHS, SIZES = (128, 512), (8, 32, 256)
AT_ONCE = 4096  # positions: `batch.micro_size` of a CPU
STEPS = 300


def computed(reader: RowReader, order: RowOrder, size: int, cost: int) -> str:
    """Padding, micro-batches a step and evenness, over some steps."""
    length = reader.sequence_length
    steps = min(STEPS, len(reader) // size)
    index, _ = order.locate(np.arange(steps * size))
    used = reader.lengths(index).reshape(steps, size)
    needed = np.sort(np.minimum(-(-used // 8) * 8, length))[:, ::-1]
    cuts = [
        (cut.width * len(row[cut.part]))
        for row in needed
        for cut in cut_by_widest(row, length, max(1, AT_ONCE // length), cost)
    ]
    tokens = used.sum(axis=1)
    return f"{1 - tokens.sum() / sum(cuts):.1%}, {len(cuts) / steps:.1f}, {tokens.std() / tokens.mean():.2f}"


def main(console: Console, data: Path | None = None) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="fmlm-bench-") as name:
        if data is None:
            data = Path(name) / "store"
            lengths = log_normal_lengths(150, 0.9, 4000, 2_000_000)
            make_store(data, make_tokenizer(Path(name) / "vocabulary"), lengths)
        store = TokenStore.open(data)
        whole = Table(
            "positions", "documents", "concat", "none", title=f"padding of all rows of {store.name}"
        )
        table = Table(
            "packing none", "any order", "like lengths", title="padding computed, micro-batches, evenness"
        )
        for length in LENGTHS:
            packings: tuple[Packing, ...] = ("documents", "concat", "none")
            readers = [
                RowReader(store, "train", packing=packing, sequence_length=length) for packing in packings
            ]
            whole.add_row(str(length), *(f"{reader.plan.padding:.2%}" for reader in readers))
            reader, every = readers[-1], AT_ONCE**2  # no cost is as much: cut by room alone
            for size in SIZES:
                if size <= len(reader):
                    before = computed(reader, RowOrder(len(reader), 0), size, every)
                    now = computed(reader, order_of(reader, 0), size, COST_ON_CPU)
                    table.add_row(f"{size} x {length}", before, now)
        console.print(whole, table)
