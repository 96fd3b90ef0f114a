"""Batches are made a step ahead, and only what the device lacked them for counts as waiting."""

import threading
import time

import pytest
import torch

from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.device.clock import Clock
from fmlm_cli.engine.device.feeding import Feeder
from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.engine.runtime import Runtime
from tests.engine.small_run import batches_of, runtime

CPU = runtime(OneProcess())


def test_batches_are_made_ahead_in_another_thread() -> None:
    made: list[tuple[int, str]] = []

    def prepare(step: int) -> list[Batch]:
        made.append((step, threading.current_thread().name))
        return batches_of(step, [2, 1])

    with Feeder(prepare, CPU) as feeder:
        feeder.order(1)
        for step in (1, 2):
            batches, _ = feeder.take(lambda: True)
            feeder.order(step + 1)
            assert [batch.rows for batch in batches] == [b.rows for b in batches_of(step, [2, 1])]
    assert [step for step, _ in made] == [1, 2, 3]
    assert all(name.startswith("prepare") for _, name in made)


def test_what_goes_wrong_while_batches_are_made_is_raised_where_they_are_taken() -> None:
    def prepare(step: int) -> list[Batch]:
        raise OSError("the disk is gone")

    with Feeder(prepare, CPU) as feeder:
        feeder.order(1)
        with pytest.raises(OSError, match="the disk is gone"):
            feeder.take(lambda: True)


@pytest.mark.parametrize(("busy", "least", "most"), [(0.0, 0.1, 1.0), (9.0, 0.0, 0.05)])
def test_waiting_is_what_the_device_had_nothing_to_do_for(busy: float, least: float, most: float) -> None:
    def prepare(step: int) -> list[Batch]:
        time.sleep(0.15)
        return []

    begin = time.perf_counter()
    with Feeder(prepare, CPU) as feeder:
        feeder.order(1)
        _, waited = feeder.take(lambda: time.perf_counter() - begin > busy)
    assert least < waited < most


def test_a_clock_counts_tokens_time_and_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Clock(CPU, peak=1000.0)
    clock.flops_per_token = 2.0
    now[0] = 100.0
    clock.skip()
    total = 0.0
    for _ in range(4):
        now[0] += 0.5
        total += clock.arrived(tokens=50, waited=0.1)
    figures = clock.figures()
    assert total == 2.0
    assert figures["tokens_per_second"] == 100.0
    assert figures["peak_share"] == 0.2
    assert figures["data_wait_share"] == 0.2
    assert figures["memory_gib"] > 0.05
    assert clock.seconds_left(10) == 5.0


@pytest.mark.gpu
def test_batches_are_on_the_gpu_when_they_are_taken() -> None:
    gpu = Runtime.resolve("cuda", "float32")
    with Feeder(lambda step: batches_of(step, [200, 100]), gpu) as feeder:
        feeder.order(1)
        batches, _ = feeder.take(lambda: True)
        for batch, wanted in zip(batches, batches_of(1, [200, 100]), strict=True):
            assert batch.inputs["x"].is_cuda
            assert batch.to(gpu.device).inputs["x"] is batch.inputs["x"]
            assert torch.equal((batch.inputs["x"] + 1).cpu(), wanted.inputs["x"] + 1)
