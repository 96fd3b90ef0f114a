"""`python -m tests.benchmarks.stock_trainer ...`: what transformers' run_mlm.py does, timed.

Its Trainer with `DataCollatorForLanguageModeling` on rows of a token store, tokenized beforehand as that script
does it: documents joined and cut into full rows, or (--text real) one to a row and padded to the full length,
as by its --line_by_line --pad_to_max_length. All is left as it comes, but that nothing is saved or reported. Writes
a JSON file: windows, memory, warm-up.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import torch
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from tests.benchmarks.contest import Pace

MASK_PROBABILITY = 0.15  # run_mlm.py's

Ids = npt.NDArray[np.int32]


def read_rows(store: Path, tokenizer: PreTrainedTokenizerFast, length: int, text: str, rows: int) -> Ids:
    """int32[rows or fewer, length]: the store's documents as rows."""
    framed = _framed_documents(store, tokenizer, length if text == "real" else None)
    if text == "real":
        taken = [ids for ids, _ in zip(framed, range(rows), strict=False)]
        made = np.full((len(taken), length), tokenizer.pad_token_id, np.int32)
        for row, ids in zip(made, taken, strict=True):
            row[: len(ids)] = ids
        return made
    parts, total = [], 0
    for ids in framed:
        parts.append(ids)
        total += len(ids)
        if total >= rows * length:
            break
    joined = np.concatenate(parts)
    return joined[: min(rows, len(joined) // length) * length].reshape(-1, length)


def _framed_documents(store: Path, tokenizer: PreTrainedTokenizerFast, longest: int | None) -> Iterator[Ids]:
    """Each training document between [CLS] and [SEP], cut to `longest` tokens."""
    for document in datasets.load_from_disk(str(store))["train"].with_format("numpy")["input_ids"]:
        kept = document if longest is None else document[: longest - 2]
        yield np.concatenate([[tokenizer.cls_token_id], kept, [tokenizer.sep_token_id]]).astype(np.int32)


def make_dataset(rows: Ids, tokenizer: PreTrainedTokenizerFast) -> datasets.Dataset:
    """The columns that run_mlm.py's tokenizing makes."""
    columns = {
        "input_ids": rows,
        "attention_mask": (rows != tokenizer.pad_token_id).astype(np.int8),
        "special_tokens_mask": np.isin(rows, tokenizer.all_special_ids).astype(np.int8),
    }
    if "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = np.zeros_like(rows, np.int8)
    return datasets.Dataset.from_dict(columns)


def fitted_config(path: Path, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """A configuration with the vocabulary of the tokenizer."""
    config = AutoConfig.from_pretrained(path)
    config.vocab_size = len(tokenizer)
    for own, role in (("pad", "pad"), ("cls", "cls"), ("bos", "cls"), ("sep", "sep"), ("eos", "sep")):
        setattr(config, f"{own}_token_id", getattr(tokenizer, f"{role}_token_id"))
    return config


class CountingTrainer(Trainer):
    """The Trainer, with a count of tokens, padding left out, that nobody waits for."""

    tokens: Any = 0

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The step as it is."""
        self.tokens = self.tokens + inputs["attention_mask"].sum()
        return super().training_step(model, inputs, *args, **kwargs)


class Stopwatch(TrainerCallback):
    """Takes time and tokens at the beginning and at the ends of windows, once the device has done all."""

    def __init__(self, pace: Pace, device: str) -> None:
        self.trainer: CountingTrainer | None = None
        self._pace, self._device = pace, device
        self._begin = 0.0
        self._taken: list[tuple[float, int]] = []

    def _take(self) -> None:
        assert self.trainer is not None
        if self._device == "cuda":
            torch.cuda.synchronize()
        self._taken.append((time.perf_counter(), int(self.trainer.tokens)))

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The first step is about to begin."""
        self._begin = time.perf_counter()
        if not self._pace.warm_up:
            self._take()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step has been given to the device."""
        if state.global_step in self._pace.marks:
            self._take()

    def report(self) -> dict[str, Any]:
        """What was found."""
        pairs = zip(self._taken, self._taken[1:], strict=False)
        return {
            "windows": [(b[1] - a[1], b[0] - a[0]) for a, b in pairs],
            "warm_up": self._taken[0][0] - self._begin,
            "memory": torch.cuda.max_memory_allocated() / 2**30 if self._device == "cuda" else None,
        }


def train(
    dataset: datasets.Dataset,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    *,
    rows: int,
    pace: Pace,
    device: str,
    compiled: bool = False,
    workers: int = 0,
) -> Mapping[str, Any]:
    """Train; what the stopwatch reports."""
    stopwatch = Stopwatch(pace, device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = CountingTrainer(
            model=AutoModelForMaskedLM.from_config(config),
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=rows,
                max_steps=pace.total,
                bf16=device == "cuda",
                use_cpu=device == "cpu",
                torch_compile=compiled,
                dataloader_num_workers=workers,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=dataset,
            processing_class=tokenizer,
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASK_PROBABILITY),
            callbacks=[stopwatch],
        )
        stopwatch.trainer = trainer
        trainer.train()
    return stopwatch.report()


def main(arguments: list[str] | None = None) -> None:
    """Read, train, write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.stock_trainer", description=__doc__)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True, help="folder with a config.json")
    parser.add_argument("--report", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--text", choices=["full", "real"], default="full")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compiled", action="store_true", help="with the Trainer's torch_compile")
    for name in ("rows", "length", "warm-up", "windows", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches")
    chosen = parser.parse_args(arguments)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(chosen.store / "tokenizer")
    pace = Pace(chosen.warm_up, chosen.windows, chosen.steps)
    # One pass over the data, for at the end of each the Trainer starts its workers anew.
    needed = pace.total * chosen.rows
    distinct = read_rows(chosen.store, tokenizer, chosen.length, chosen.text, needed)
    ids = np.resize(distinct, (needed, chosen.length))
    report = train(
        make_dataset(ids, tokenizer),
        fitted_config(chosen.config, tokenizer),
        tokenizer,
        rows=chosen.rows,
        pace=pace,
        device=chosen.device,
        compiled=chosen.compiled,
        workers=chosen.workers,
    )
    chosen.report.write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
