"""`make bench`: how long a batch takes to make, and a step to take, against what transformers offers.

batch   gather rows from a token store, mask, corrupt | DataCollatorForLanguageModeling on the same rows
step    fmlm's train_step, head on masked positions   | the stock forward with labels, backward, AdamW
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import DataCollatorForLanguageModeling

from fmlm_cli.corpus.rows import RowReader
from fmlm_cli.corpus.store import TokenStore
from fmlm_cli.corpus.tokenizer_training import train_tokenizer
from fmlm_cli.corpus.writing import StoreWriter, TokenDocument
from fmlm_cli.engine.optimizer import make_adamw
from fmlm_cli.engine.step import train_step
from fmlm_cli.masking import get_strategy
from fmlm_cli.model.build import VocabularyFacts, build_model
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.evaluation import make_objective
from tests.benchmarks.interleaved import Comparison, compare

SHAPES = ((32, 128), (256, 512))
STRATEGIES = (("random", None), ("fully-explored", "epoch"), ("fully-explored", "batch"))
CPU = torch.device("cpu")


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


def bench_batch(store: TokenStore, rows: int, length: int, name: str, scope: str | None) -> Comparison:
    """Making one batch of `rows` masked rows."""
    reader = RowReader(store, "train", packing="concat", sequence_length=length)
    strategy = get_strategy(name, scope=scope)
    objective = make_objective(store, strategy, 0, static_shapes=False)
    index = np.random.default_rng(1).permutation(len(reader) - 1)[
        : max(1, rows // strategy.masks_per_sequence)
    ]
    collate = DataCollatorForLanguageModeling(store.tokenizer, mlm_probability=1 / 7)
    examples = [{"input_ids": row.tolist()} for row in reader.read(np.resize(index, rows)).input_ids]
    return compare(
        lambda: objective.prepare(reader.read(index), 3, rows), lambda: collate(examples), pairs=30
    )


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
    our_optimizer = make_adamw(ours, **settings)
    stock_optimizer = torch.optim.AdamW(stock.parameters(), lr=1e-4)
    labels = torch.full((rows, length), -100)
    labels.view(-1)[batches[0].inputs["masked_index"]] = batches[0].inputs["targets"]

    def our_step() -> None:
        settings = {"step": 1, "seed": 0, "learning_rate": 1e-4, "clip": 1.0, "device": CPU}
        train_step(ours, our_optimizer, objective, batches, precision=torch.float32, **settings)

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


def _cells(figures: Comparison) -> tuple[str, str, str]:
    ratio = f"{figures.ratio:.2f} ({figures.ratio_low:.2f} to {figures.ratio_high:.2f})"
    return f"{figures.ours * 1e3:.2f}", f"{figures.theirs * 1e3:.2f}", ratio


if __name__ == "__main__":
    main()
