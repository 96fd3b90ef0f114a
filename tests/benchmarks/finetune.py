"""`python -m tests.benchmarks.finetune [GLUE folder]`: examples a second in fine-tuning, against
transformers' Trainer.

The same model (BERT, 6 layers, 384 wide, random weights), data, batch of 32, dropout 0.1 and threads; the
Trainer as its GLUE script uses it: padded to the longest of a batch, and, as that script comes, to 128.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from fmlm_cli.config import FinetuneSettings, build, nested
from fmlm_cli.config.schema import OptimizerSettings
from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
from fmlm_cli.corpus.tokenizer.loading import save_tokenizer
from fmlm_cli.engine.optimizer import make_optimizer
from fmlm_cli.engine.step import train_step
from fmlm_cli.events import ignore
from fmlm_cli.hub import quiet
from fmlm_cli.recipes.finetuning.cells import CellRun
from fmlm_cli.recipes.finetuning.plan import FinetunePlan, plan_finetuning
from tests.environment import ROOT

TASKS = {"sst2": "SST-2", "mnli": "MNLI", "mrpc": "MRPC"}  # and their folders
STEPS = 8  # in one turn
PAIRS = 4
BATCH = 32


def make_checkpoint(folder: Path, texts: list[str]) -> Path:
    """A random encoder with a WordPiece vocabulary of BERT's size, learnt from the texts as far as they go."""
    tokenizer = train_tokenizer("wordpiece", texts, vocab_size=30522, lowercase=True)
    config = BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    with quiet():
        BertForMaskedLM(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


def our_turns(plan: FinetunePlan, task: str) -> Iterator[int]:
    """Each time `STEPS` steps of a cell; the examples in them."""
    cell, folder = plan.cells[0], plan.root / "cell"
    backend = plan.candidates[cell.checkpoint].backends[cell.point.training.dropout]
    run = CellRun(cell, plan.prepared(cell), plan.settings, plan.runtime, backend, folder)
    optimizer = make_optimizer(
        OptimizerSettings(weight_decay=0.01, betas=(0.9, 0.999), epsilon=1e-8), run.model
    )
    run.model.train()
    step = 0
    while True:
        examples = 0
        for _ in range(STEPS):
            step += 1
            batches = run.prepare(step)
            train_step(
                run.model,
                optimizer,
                run.objective,
                batches,
                step=step,
                seed=0,
                learning_rate=1e-5,
                clip=1.0,
                runtime=plan.runtime,
            )
            examples += sum(batch.count for batch in batches)
        yield examples


def their_turns(plan: FinetunePlan, task: str, folder: Path, *, to_128: bool) -> Iterator[int]:
    """The same by transformers' Trainer."""
    train = plan.data[task].train
    (candidate,) = plan.candidates.values()
    tokenizer = candidate.tokenizer
    encoded = tokenizer(
        list(train.first),
        None if train.second is None else list(train.second),
        truncation=True,
        max_length=128,
        padding="max_length" if to_128 else False,
    )
    assert train.labels is not None
    rows = [
        {k: v[i] for k, v in encoded.items()} | {"labels": int(train.labels[i])} for i in range(len(train))
    ]
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            candidate.origin.folder, num_labels=len(plan.data[task].task.labels)
        )
    turn = 0
    while True:
        turn += 1
        arguments = TrainingArguments(
            output_dir=str(folder / "trainer"),
            per_device_train_batch_size=BATCH,
            max_steps=STEPS,
            learning_rate=1e-5,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=turn,
        )
        collate = default_data_collator if to_128 else DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)
        trainer.train()
        yield STEPS * BATCH


def speeds(turns: dict[str, Iterator[int]]) -> dict[str, list[float]]:
    """Examples a second of each, turn about."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(PAIRS + 1):
        for name, own in turns.items():
            begin = time.perf_counter()
            examples = next(own)
            if number:  # the first is a warm-up
                found[name].append(examples / (time.perf_counter() - begin))
    return found


def main(glue: Path) -> None:
    """Measure and print."""
    console = Console(width=110)
    table = Table(
        "task",
        "fmlm, examples/s",
        "Trainer, dynamic padding",
        "ratio (quartiles)",
        "Trainer, padded to 128",
        "ratio (quartiles)",
        title=f"fine-tuning, 6 layers, 384 wide, batch {BATCH} ({torch.get_num_threads()} threads, float32)",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for task, subfolder in TASKS.items():
            given = {"out": str(folder / task), "tasks.names": [task], "tasks.folder": str(glue), "seeds": 1}
            texts = (glue / subfolder / "train.tsv").read_text().split("\n")
            checkpoint = make_checkpoint(folder / f"{task}-encoder", texts)
            plan = plan_finetuning(
                build(FinetuneSettings, nested({"checkpoint": str(checkpoint), **given})), ignore
            )
            found = speeds(
                {
                    "ours": our_turns(plan, task),
                    "dynamic": their_turns(plan, task, folder, to_128=False),
                    "to 128": their_turns(plan, task, folder, to_128=True),
                }
            )
            ours = np.array(found["ours"])
            cells = [task, f"{np.median(ours):.1f}"]
            for other in ("dynamic", "to 128"):
                low, middle, high = np.quantile(ours / np.array(found[other]), [0.25, 0.5, 0.75])
                cells += [f"{np.median(found[other]):.1f}", f"{middle:.2f} ({low:.2f} to {high:.2f})"]
            table.add_row(*cells)
    console.print(table)


def run_if_there(glue: Path = ROOT.parent / "shared" / "data" / "glue") -> None:
    """The benchmark on a GLUE folder, that beside the checkout by itself, or a line that says why not."""
    if glue.is_dir():
        main(glue)
    else:
        print(f"fine-tuning is not measured: there is no GLUE folder {glue}")


if __name__ == "__main__":
    run_if_there(*map(Path, sys.argv[1:2]))
