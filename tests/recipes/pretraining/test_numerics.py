"""Runs in float16, and runs that skip: whole ones, and those that were killed and resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Remarked
from fmlm_cli.objectives.masked_lm import MaskedLanguageModelling
from fmlm_cli.recipes import pretraining
from tests.recipes.runs import KINDS, Settings, assert_same, at_step, raise_error

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 on a CPU, which is far too slow for more than tests."""
    monkeypatch.setattr("fmlm_cli.engine.runtime._resolve_precision", lambda *_: torch.float16)


@pytest.mark.usefixtures("half")
def test_a_killed_run_in_float16_ends_as_the_uninterrupted_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmlm_cli.engine.device.loss_scale.GROWTH_STEPS", 4)
    kind = {**KINDS["dropout"], "precision": "float16"}
    whole, parts = pretraining.pretrain(settings("whole", **kind)), settings("parts", **kind)
    for step, resume in ((4, False), (8, True)):
        with pytest.raises(RuntimeError):
            pretraining.pretrain(parts, resume=resume, emit=at_step(step, raise_error))
    assert_same(pretraining.pretrain(parts, resume=True), whole)
    scales = [record["loss_scale"] for record in whole.records if "loss" in record]
    assert scales[:2] == [2.0**16, 2.0**17] and len(scales) == 4


def test_float16_is_refused_where_there_is_no_cuda(settings: Settings) -> None:
    with pytest.raises(UserError, match="precision float16 needs a CUDA device, and this is cpu: use --set"):
        pretraining.pretrain(settings(**KINDS["steps"], precision="float16", device="cpu"))
    assert Runtime.resolve("cpu", "auto").precision == torch.float32


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Losses of these trained batches, counted from 1, are no numbers; two are a step's."""
    bad, loss, trained = set[int](), MaskedLanguageModelling.loss, list[int]()

    def poisoned_loss(self: Any, model: nn.Module, batch: Batch) -> Tensor:
        value: Tensor = loss(self, model, batch)
        if torch.is_grad_enabled():
            trained.append(1)
            if len(trained) in bad:
                return value * float("nan")
        return value

    monkeypatch.setattr(MaskedLanguageModelling, "loss", poisoned_loss)
    return bad


def test_a_run_skips_and_says_so(settings: Settings, poisoned: set[int]) -> None:
    poisoned |= {4, 9, 10}  # of steps 2 and 5
    told: list[Event] = []
    kind = {**KINDS["steps"], "optimizer.on_nonfinite": "skip"}
    result = pretraining.pretrain(settings(**kind), emit=told.append)
    (remark,) = [event for event in told if isinstance(event, Remarked)]
    assert remark.text.startswith("not finite at step 2: loss nan, gradient norm ")
    assert remark.text.endswith(": skipped, the first (optimizer.on_nonfinite)")
    logged = [(r["step"], r.get("skipped", 0)) for r in result.records if "loss" in r]
    assert logged == [(2, 1), (4, 1), (6, 2), (8, 2)]


def test_without_it_the_run_ends_and_names_the_last_good_checkpoint(
    settings: Settings, poisoned: set[int], tmp_path: Path
) -> None:
    poisoned |= {9}
    with pytest.raises(
        DivergedError, match=r"not finite at step 5: loss nan.*last good checkpoint is .*step-3"
    ):
        pretraining.pretrain(settings(**KINDS["steps"]))
