"""Evaluations add up on the device, in float64, and nothing of them comes to the host before all is done."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.evaluation import evaluate, outputs_of
from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.engine.runtime import Runtime
from tests.engine.small_run import Squares, batches_of, net, runtime

CPU = runtime(OneProcess())


class Share:
    """Scores that float32 cannot add up."""

    def score(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return {"tenth": torch.tensor(0.1), "right": (batch.inputs["x"] > -99).sum()}


def test_many_small_sums_are_added_exactly() -> None:
    sums, count = evaluate(net(), Share(), batches_of(1, [1] * 3000), CPU)
    assert count == 3000
    assert sums["right"] == 4 * 3000 and sums["right"].dtype == torch.float64
    assert float(sums["tenth"]) == pytest.approx(3000 * float(np.float32(0.1)), rel=1e-14)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_left_in_its_mode(training: bool) -> None:
    model = net().train(training)
    evaluate(model, Squares(), batches_of(1, [2]), CPU)
    outputs_of(model, Squares(), batches_of(1, [2]), CPU)
    assert model.training == training


class _Counted(Tensor):
    """A tensor that notes each time that its values are asked for."""

    asked = 0

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.cpu, Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__float__, Tensor.__bool__):
            _Counted.asked += 1
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("batches", [1, 7])
@pytest.mark.parametrize("function", [evaluate, outputs_of])
def test_values_are_asked_for_once_however_many_batches_there_are(
    function: Callable[..., Any], batches: int
) -> None:
    class Noting(Squares):
        def score(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
            return {"loss": self.loss(model, batch).as_subclass(_Counted)}

        def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
            return super().outputs(model, batch).as_subclass(_Counted)

    _Counted.asked = 0
    function(net(), Noting(), batches_of(1, [2] * batches), CPU)
    assert 0 < _Counted.asked <= 2  # to the host, and from there into numpy


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_for_a_batch() -> None:
    gpu = Runtime.resolve("cuda", "float32")
    model = net().to(gpu.device)

    def under_watch() -> Any:
        torch.cuda.set_sync_debug_mode("error")
        yield from [batch.to(gpu.device) for batch in batches_of(1, [2, 3])]
        torch.cuda.set_sync_debug_mode("default")

    try:
        sums, _ = evaluate(model, Squares(), under_watch(), gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    wanted, _ = evaluate(net(), Squares(), batches_of(1, [2, 3]), CPU)
    assert float(sums["loss"]) == pytest.approx(float(wanted["loss"]), rel=1e-9)
