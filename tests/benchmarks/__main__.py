"""`make bench`: how long a batch takes to make, and a step to take, against what transformers offers.

batch   gather rows from a token store, mask, corrupt | DataCollatorForLanguageModeling on the same rows
wait    how long the training loop waits for a batch, which is made while the step before it computes
step    fmlm's train_step, head on masked positions   | the stock forward with labels, backward, AdamW
tune    fine-tuning on GLUE, where there is some       | transformers' Trainer, as its GLUE script uses it
"""

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import DataCollatorForLanguageModeling

from fmlm_cli import keys
from fmlm_cli.config.schema import OptimizerSettings
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.store.writing import StoreWriter, TokenDocument
from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
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
from tests.benchmarks import finetune
from tests.benchmarks.interleaved import Comparison, compare

SHAPES = ((32, 128), (256, 512))
STRATEGIES = (
    *((name, "epoch" if name.startswith("fully") else None) for name in BUILT_IN),
    ("fully-explored", "batch"),
)
CPU = Runtime.resolve("cpu")


def make_store(folder: Path, tokens: int) -> TokenStore:
    """A store of random documents over a learnt vocabulary of about 8,000 tokens."""
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefghijklmnop"), 5)) for _ in range(9000)]
    texts = (" ".join(random.choice(words, 200)) for _ in range(1000))
    tokenizer = train_tokenizer("wordpiece", texts, vocab_size=8192, lowercase=True)
    writer = StoreWriter(folder, tokenizer)
    for number in range(tokens // 400):
        ids = random.integers(5, len(tokenizer), 400, dtype=np.uint32)
        split = "validation" if number == 0 else "train"
        writer.add(split, TokenDocument(ids, random.random(400) < 0.8, number, 0))
    writer.finish({}, {})
    return TokenStore.open(folder)


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


def bench_step(store: TokenStore, model_name: str, rows: int, length: int) -> Comparison:
    """One optimizer step on the same masked rows, from the same weights."""
    reader = RowReader(store, "train", packing="concat", sequence_length=length)
    objective = make_objective(store, get_strategy("fully-explored"), 0, static_shapes=False)
    rows_read = reader.read(np.arange(rows))
    batches = objective.prepare(rows_read, 0, rows)
    vocabulary = VocabularyFacts(store.vocabulary, 0, 2, 3)
    ours = MaskedLM(build_model(model_name, vocabulary, dropout=0.0, seed=0))
    stock = build_model(model_name, vocabulary, dropout=0.0, seed=0)
    settings = {"weight_decay": 0.01, "betas": (0.9, 0.98), "epsilon": 1e-6}
    our_optimizer = make_optimizer(OptimizerSettings(**settings), ours)
    stock_optimizer = torch.optim.AdamW(stock.parameters(), lr=1e-4)
    labels = torch.full((rows, length), -100)
    labels.view(-1)[batches[0].inputs["masked_index"]] = batches[0].inputs["targets"]

    def our_step() -> None:
        settings = {"step": 1, "seed": 0, "learning_rate": 1e-4, "clip": 1.0, "runtime": CPU}
        train_step(ours, our_optimizer, objective, batches, **settings)

    def stock_step() -> None:
        stock(input_ids=batches[0].inputs["input_ids"], labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(stock.parameters(), 1.0)
        stock_optimizer.step()
        stock_optimizer.zero_grad()

    return compare(our_step, stock_step, pairs=8)


def main() -> None:
    """Measure and print the two tables."""
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store", 500_000)
        table = Table(
            "batch", "strategy", "fmlm, ms", "collator, ms", "ratio (quartiles)", title="making a batch"
        )
        for rows, length in SHAPES:
            for name, scope in STRATEGIES:
                figures = bench_batch(store, rows, length, name, scope)
                table.add_row(f"{rows} x {length}", f"{name} {scope or ''}", *_cells(figures))
        console.print(table)
        table = Table(
            "strategy", "wait, ms", "step, ms", "share", title="waiting for a batch: bert-mini, 32 x 128"
        )
        for name in BUILT_IN:
            wait, step = bench_wait(store, name)
            table.add_row(name, f"{wait * 1e3:.3f}", f"{step * 1e3:.0f}", f"{wait / step:.4%}")
        console.print(table)
        table = Table(
            "model",
            "batch",
            "fmlm, ms",
            "stock, ms",
            "ratio (quartiles)",
            title="one optimizer step (CPU, float32)",
        )
        for model_name, rows, length in (("bert-tiny", 32, 128), ("bert-mini", 32, 128)):
            table.add_row(
                model_name, f"{rows} x {length}", *_cells(bench_step(store, model_name, rows, length))
            )
        console.print(table)
    finetune.run_if_there()


def _cells(figures: Comparison) -> tuple[str, str, str]:
    ratio = f"{figures.ratio:.2f} ({figures.ratio_low:.2f} to {figures.ratio_high:.2f})"
    return f"{figures.ours * 1e3:.2f}", f"{figures.theirs * 1e3:.2f}", ratio


if __name__ == "__main__":
    main()
