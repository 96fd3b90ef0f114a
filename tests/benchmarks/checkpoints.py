"""`python -m tests.benchmarks --only checkpoint`: what saving holds up and resuming takes, against the stock Trainer.

Both sides have the same shape of model with AdamW's full state, and tiny batches: what a step takes is not
what is measured. Ours: `TrainingRun.save`, at once or in the background, and `Checkpoints.restore` with the first
batch after step 1,000. Theirs: `Trainer._save_checkpoint`, and `train(resume_from_checkpoint)` until its first
step would begin, at step 1,000 of an epoch of 100,000, which its edited trainer_state.json says.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.loop import TrainingRun
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.step import train_step
from fmlm_cli.events import ignore
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from fmlm_cli.recipes.pretraining.planning.plan import plan_run
from tests.benchmarks.material import log_normal_lengths, make_models, make_store, make_tokenizer

ROWS, LENGTH = 2, 16
STEP, EPOCH = 1_000, 100_000  # steps
SAVES = 3  # the first of them pays for memory and files that the others find

Seconds = dict[str, list[float]]


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    """Append the seconds that the block takes."""
    begun = time.perf_counter()
    yield
    into.append(time.perf_counter() - begun)


def measure_ours(folder: Path, model: str, background: bool, seconds: Seconds) -> None:
    """Save a few times, and go on from the last."""
    side = "fmlm, background" if background else "fmlm, at once"
    live, run = _run(folder, model, background)
    _step(run, live)
    held, whole = seconds.setdefault(f"{side}: held up", []), seconds.setdefault(f"{side}: written after", [])
    for number in range(SAVES):
        with timed(whole):
            with timed(held):
                run.save(TrainState(STEP - SAVES + 1 + number, evaluated=0))
            run.checkpoints.settle()
    if not background:
        live, run = _run(folder, model, background)
        with timed(seconds.setdefault("fmlm: resume", [])):
            state, _ = run.checkpoints.restore(run.model, run.optimizer)
            run.prepare(state.step + 1)
        assert state.step == STEP


def _run(folder: Path, model: str, background: bool) -> tuple[LiveRun, TrainingRun]:
    settings = {
        "data.stores": [str(folder / "store")],
        "model.name": str(folder / "models" / model),
        "out": str(folder / f"run-{background}"),
        "batch.size": ROWS,
        "batch.micro_size": ROWS,
        "sequence_length": LENGTH,
        "budget.steps": EPOCH,
        "checkpoint.background": background,
        "device": "cpu",
    }
    plan = plan_run(build(PretrainSettings, nested(settings)), ignore)
    run = storage.RunDirectory(Path(str(plan.settings.out)))
    live = LiveRun(plan, run, Runtime.resolve("cpu", "float32"), ignore)
    return live, live.training_run()


def _step(run: TrainingRun, live: LiveRun) -> None:
    """Give the optimizer its state."""
    train_step(
        run.model,
        run.optimizer,
        run.objective,
        live.prepare(1),
        step=1,
        seed=0,
        learning_rate=1e-4,
        clip=None,
        runtime=run.runtime,
    )


# ---------------------------------------------------------------- the stock Trainer


class _Rows(Dataset[Mapping[str, Any]]):
    """An epoch's rows, made when they are asked for."""

    def __len__(self) -> int:
        return EPOCH * ROWS

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        return {"input_ids": [5 + (number + place) % 1000 for place in range(LENGTH)]}


class _Reached(Exception):
    """The first step is about to begin."""


class _AtFirstStep(TrainerCallback):
    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Leave."""
        raise _Reached


def measure_stock(folder: Path, model: str, tokenizer: PreTrainedTokenizerFast, seconds: Seconds) -> None:
    """The same with transformers' Trainer."""
    trainer = _trainer(folder, model, tokenizer, steps=1)
    trainer.train()
    for number in range(SAVES):
        trainer.state.global_step = STEP - SAVES + 1 + number
        with timed(seconds.setdefault("stock: held up", [])):
            trainer._save_checkpoint(trainer.model, trial=None)
    checkpoint = folder / "stock" / f"checkpoint-{STEP}"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    state |= {"global_step": STEP, "max_steps": EPOCH, "num_train_epochs": 1, "epoch": STEP / EPOCH}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    trainer = _trainer(folder, model, tokenizer, steps=EPOCH, callbacks=[_AtFirstStep()])
    with timed(seconds.setdefault("stock: resume", [])), suppress(_Reached):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == STEP


def _trainer(
    folder: Path, model: str, tokenizer: PreTrainedTokenizerFast, steps: int, **more: Any
) -> Trainer:
    config = AutoConfig.from_pretrained(folder / "models" / model)
    config.vocab_size = len(tokenizer)
    return Trainer(
        model=AutoModelForMaskedLM.from_config(config),
        args=TrainingArguments(
            output_dir=str(folder / "stock"),
            per_device_train_batch_size=ROWS,
            max_steps=steps,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            save_total_limit=2,
            disable_tqdm=True,
        ),
        train_dataset=_Rows(),
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
        **more,
    )


# ---------------------------------------------------------------- the whole


def measure(folder: Path, model: str, rounds: int) -> Seconds:
    """Seconds by what took them, the sides in turn."""
    tokenizer = make_tokenizer(folder / "tokenizer")
    make_store(folder / "store", tokenizer, log_normal_lengths(150, 1.0, 4000, 100_000))
    make_models(folder / "models")
    seconds: Seconds = {}
    for number in range(rounds):
        place = folder / str(number)
        place.mkdir()
        for name in ("store", "models"):
            (place / name).symlink_to(folder / name)
        sides: Sequence[Callable[[], None]] = (
            lambda: measure_ours(place, model, False, seconds),  # noqa: B023 - called in this turn
            lambda: measure_ours(place, model, True, seconds),  # noqa: B023
            lambda: measure_stock(place, model, tokenizer, seconds),  # noqa: B023
        )
        for side in sides:
            side()
    return seconds


def main(console: Console, json_path: Path, *, quick: bool) -> None:
    """Measure, print, write."""
    model, rounds = ("bert-tiny", 1) if quick else ("bert-base", 1)
    with tempfile.TemporaryDirectory(prefix="fmlm-bench-") as name:
        seconds = measure(Path(name), model, rounds)
    title = f"checkpoints of {model} with AdamW's state, seconds, {torch.get_num_threads()} threads"
    table = Table("", "median", "least", "most", title=title)
    for what, values in seconds.items():
        table.add_row(what, *(f"{f(values):.3f}" for f in (statistics.median, min, max)))
    console.print(table)
    path = json_path.with_name("bench-checkpoint.json")
    path.write_text(json.dumps({"model": model, "seconds": seconds}, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {path}", style="dim")
