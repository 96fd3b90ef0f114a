"""fmlm's training is what transformers' Trainer does: the same losses from the same weights, batches and masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertForMaskedLM, Trainer, TrainingArguments

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.events import ignore
from fmlm_cli.recipes.pretraining import pretrain
from fmlm_cli.recipes.pretraining.live_run import LiveRun
from fmlm_cli.recipes.pretraining.planning.plan import plan_run

STEPS, ROWS, LENGTH, PEAK, WARM_UP = 200, 8, 32, 1e-3, 12


@pytest.fixture
def settings(tiny_store: Path, tmp_path: Path) -> PretrainSettings:
    """bert-tiny without dropout on continuous text, whose rows the stock model can take as they are."""
    given = {
        "data.stores": [str(tiny_store)],
        "data.packing": "concat",
        "model.name": "bert-tiny",
        "model.dropout": 0.0,
        "model.unigram_bias": False,  # which leaves little to be learnt in 200 steps
        "out": str(tmp_path / "run"),
        "device": "cpu",
        "precision": "float32",
        "sequence_length": LENGTH,
        "batch.size": ROWS,
        "batch.micro_size": ROWS,
        "budget.steps": STEPS,
        "optimizer.learning_rate": PEAK,
        "optimizer.warmup_share": WARM_UP / STEPS,
        "evaluation.every_steps": STEPS,
        "evaluation.max_rows": 4,
        "checkpoint.every_steps": STEPS,
        "logging.every_steps": 1,
    }
    return build(PretrainSettings, nested(given))


class LossesTrainer(Trainer):
    """The Trainer, with its steps' losses unrounded."""

    losses: list[Tensor]

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append(loss.detach())
        return loss


def examples_of(live: LiveRun) -> list[dict[str, Tensor]]:
    """What fmlm trains on, row by row, as a collator would have made it."""
    examples = []
    for step in range(1, STEPS + 1):
        [batch] = live.prepare(step)
        ids = batch.inputs["input_ids"]
        labels = torch.full_like(ids, -100)
        labels.view(-1)[batch.inputs["masked_index"]] = batch.inputs["targets"]
        seen = (ids != live.plan.store.special.pad).long()  # the data's last row is not full
        columns = {"input_ids": ids, "attention_mask": seen, "labels": labels}
        examples += [{name: column[row] for name, column in columns.items()} for row in range(ROWS)]
    return examples


def learning_rate(step: int) -> float:
    """At a step from 1 on, as a share of the peak: up to it by steps of a twelfth, then down to 0."""
    return min(step / WARM_UP, (STEPS - step + 1) / (STEPS - WARM_UP + 1))


def stock_losses(
    model: BertForMaskedLM, examples: Sequence[dict[str, Tensor]], options: Any, folder: Path
) -> list[float]:
    """The Trainer's, one batch a step, in order."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=ROWS,
        max_steps=STEPS,
        train_sampling_strategy="sequential",
        learning_rate=PEAK,
        weight_decay=options.weight_decay,
        adam_beta1=options.betas[0],
        adam_beta2=options.betas[1],
        adam_epsilon=options.epsilon,
        max_grad_norm=options.clip,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = LossesTrainer(model=model, args=arguments, train_dataset=examples)
    trainer.losses = []
    optimizer = trainer.create_optimizer()
    # Its own schedule begins with a step of rate 0.
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: learning_rate(done + 1))
    trainer.train()
    return torch.stack(trainer.losses).tolist()


def test_losses_of_200_steps_are_those_of_transformers_trainer(
    settings: PretrainSettings, tmp_path: Path, quick: None
) -> None:
    plan = plan_run(settings, ignore)
    live = LiveRun(plan, storage.RunDirectory(tmp_path / "unused"), Runtime.resolve("cpu", "float32"), ignore)
    model = BertForMaskedLM(plan.model.pretrained.config)
    model.load_state_dict(plan.model.pretrained.state_dict())
    theirs = stock_losses(model, examples_of(live), plan.settings.optimizer, tmp_path / "trainer")

    records = pretrain(settings).records
    ours = [record["loss"] for record in records if "loss" in record]
    assert len(ours) == len(theirs) == STEPS
    assert theirs[-1] < theirs[0] - 1, "something is learnt, so that there is something to differ in"
    # Moving the first weights by a rounding error moves these losses by 1e-6.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
