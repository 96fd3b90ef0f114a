"""`python -m tests.benchmarks.stock_tokenizing`: the stock way from text to rows, and a tokenizer for both ways.

`stock`: what run_mlm.py does: `datasets` reads a line a document, maps a fast tokenizer over batches of them,
and another map concatenates and cuts into rows of 512. `learn`: a WordPiece tokenizer of a text's beginning.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

ROW = 512


def chunked(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    """Rows of `ROW` tokens of all documents of a batch; what is left over is dropped, as usual."""
    joined = {name: list(itertools.chain.from_iterable(lists)) for name, lists in batch.items()}
    whole = len(joined["input_ids"]) // ROW * ROW
    return {name: [ids[i : i + ROW] for i in range(0, whole, ROW)] for name, ids in joined.items()}


def stock(text: Path, tokenizer: Path, processes: int, out: Path) -> None:
    """Rows on disk."""
    import datasets
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(tokenizer)
    fast.model_max_length = 10**9  # rows are cut later: no warning of long documents

    def tokenized(batch: dict[str, list[str]]) -> Any:
        texts = [line for line in batch["text"] if line and not line.isspace()]
        return fast(texts, return_special_tokens_mask=True)

    made: dict[str, Any] = {"batched": True, "num_proc": processes if processes > 1 else None}
    lines = datasets.load_dataset("text", data_files=str(text), split="train", cache_dir=str(out / "cache"))
    tokens = lines.map(tokenized, remove_columns=["text"], **made)
    tokens.map(chunked, **made).save_to_disk(out / "rows")


def learn(text: Path, out: Path) -> None:
    """BERT's kind, of 16,384 tokens at most, from the first four megabytes."""
    from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
    from fmlm_cli.corpus.tokenizer.loading import save_tokenizer

    with text.open(encoding="utf-8") as file:
        lines = file.readlines(4_000_000)
    save_tokenizer(train_tokenizer("wordpiece", lines, vocab_size=16_384, lowercase=True), out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("stock", "learn"))
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    asked = parser.parse_args()
    if asked.what == "learn":
        learn(asked.text, asked.out)
    else:
        stock(asked.text, asked.tokenizer, asked.processes, asked.out)
