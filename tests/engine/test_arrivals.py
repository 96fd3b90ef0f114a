"""Steps whose values come late: the same run, and a step that is not finite changes nothing."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.device.arrivals import Arrivals, Letter, post
from fmlm_cli.engine.loop import train
from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.engine.signals import StopRequest
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import Interrupted
from tests.engine.small_run import TIMING_FIELDS, Run, batches_of


class LateMail:
    """Values that have arrived, unless they are waited for, once `delay` more were sent."""

    def __init__(self, delay: int) -> None:
        self.delay, self.sent, self.waited_for = delay, 0, 0

    def post(self, values: Tensor) -> Letter:
        self.sent += 1
        return _Late(self, values.clone(), self.sent + self.delay)


class _Late:
    def __init__(self, mail: LateMail, values: Tensor, due: int) -> None:
        self.mail, self.values, self.due = mail, values, due

    @property
    def has_arrived(self) -> bool:
        return self.mail.sent >= self.due

    def read(self) -> list[float]:
        self.mail.waited_for += not self.has_arrived
        return self.values.tolist()


def test_on_a_cpu_values_are_there_at_once() -> None:
    arrivals: Arrivals[str] = Arrivals()
    arrivals.send("a", torch.tensor([1.0, 2.0]))
    assert arrivals.all_there()
    assert list(arrivals.receive(wait=False)) == [("a", [1.0, 2.0])]
    assert len(arrivals) == 0


@given(delay=st.integers(0, 12), most=st.integers(0, 9), waits=st.lists(st.booleans(), max_size=30))
def test_all_arrive_once_in_order_and_few_are_on_their_way(delay: int, most: int, waits: list[bool]) -> None:
    mail = LateMail(delay)
    arrivals: Arrivals[int] = Arrivals(mail.post, most)
    received: list[int] = []
    for number, wait in enumerate(waits):
        arrivals.send(number, torch.tensor([float(number)]))
        for thing, values in arrivals.receive(wait=wait):
            assert values == [float(thing)]
            received.append(thing)
        assert len(arrivals) <= min(most, delay) and not (wait and len(arrivals))
        assert len(received) + len(arrivals) == number + 1
    assert received == list(range(len(received)))
    if delay <= most and not any(waits):
        assert mail.waited_for == 0


def test_processes_that_receive_together_do_not_go_by_what_has_arrived() -> None:
    """Their devices are not equally fast: by the number underway alone all receive the same at the same time."""
    arrivals: Arrivals[int] = Arrivals(most=2, promptly=False)
    received = []
    for number in range(4):
        arrivals.send(number, torch.tensor([0.0]))
        received.append([thing for thing, _ in arrivals.receive(wait=False)])
    assert received == [[], [], [0], [1]]
    assert [thing for thing, _ in arrivals.receive(wait=True)] == [2, 3]


# ---------------------------------------------------------------- whole runs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    monkeypatch.setattr("fmlm_cli.engine.loop.count_flops", lambda forward: 1)


Prepare = Callable[[int], Sequence[Batch]]


def begin(folder: Path, delay: int, prepare: Prepare | None = None, **changed: Any) -> Run:
    folder.mkdir()
    run = Run(folder, OneProcess(), **changed)
    run.run = replace(run.run, post=LateMail(delay).post, prepare=prepare or run.run.prepare)
    return run


def to_the_end(run: Run, stop: StopRequest | None = None) -> TrainState:
    run.log.rewind(0, 0)
    return train(run.run, TrainState(0), stop or StopRequest())


def records(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in TIMING_FIELDS} for r in run.log.records]


def weights(run: Run) -> list[Tensor]:
    return [p.detach().clone() for p in run.model.parameters()]


def moments(run: Run) -> list[Tensor]:
    return [value for entries in run.run.optimizer.state.values() for value in entries.values()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("delay", [1, 3, 100])
@pytest.mark.parametrize("checkpoint", [1, 5, 100])
def test_a_run_is_the_same_whenever_its_values_arrive(tmp_path: Path, delay: int, checkpoint: int) -> None:
    at_once = begin(tmp_path / "at_once", 0, checkpoint=checkpoint)
    late = begin(tmp_path / "late", delay, checkpoint=checkpoint)
    wanted, state = to_the_end(at_once), to_the_end(late)
    assert replace(state, seconds=0.0) == replace(wanted, seconds=0.0)
    assert records(late) == records(at_once)
    ours, theirs = (files(tmp_path / name / "checkpoints") for name in ("late", "at_once"))
    assert ours.keys() == theirs.keys()
    tensors = [name for name in ours if name.endswith(".safetensors")]
    assert tensors and all(ours[name] == theirs[name] for name in tensors)


def test_each_step_is_prepared_once(tmp_path: Path) -> None:
    """Also the first, whose operations are counted."""
    prepared: list[int] = []

    def prepare(step: int) -> list[Batch]:
        prepared.append(step)
        return batches_of(step, [2, 3, 1])

    to_the_end(begin(tmp_path / "run", 0, prepare))
    assert prepared == [1, 2, 3, 4, 5, 6]


def test_a_stop_waits_for_the_steps_that_were_taken(tmp_path: Path) -> None:
    run, stop = begin(tmp_path / "run", 100, checkpoint=100), StopRequest()

    def ask(step: int) -> None:
        if step == 6:  # which so is not taken; the latest pause was after step 3
            stop.signal = 15

    run.run = replace(run.run, before_step=ask)
    with pytest.raises(Interrupted, match=r"at step 5 of 6; saved in .*step-5"):
        to_the_end(run, stop)
    assert [r["step"] for r in records(run)] == [0, 2, 3, 4]


def poisoned(bad: int) -> Prepare:
    """The batches of every step; of one of them a value is no number."""

    def prepare(step: int) -> list[Batch]:
        batches = batches_of(step, [2, 3, 1])
        if step == bad:
            batches[1].inputs["x"][0, 0] = float("nan")
        return batches

    return prepare


@pytest.mark.parametrize(("bad", "delay"), list(itertools.product([1, 3, 4], [0, 1, 2, 100])))
def test_a_step_that_is_not_finite_changes_nothing_however_late_that_is_known(
    tmp_path: Path, bad: int, delay: int
) -> None:
    """Also where steps after it were taken, whose own losses are finite."""
    run = begin(tmp_path / "run", delay, poisoned(bad), checkpoint=100)
    seen: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
    run.run = replace(
        run.run,
        before_step=lambda step: seen.setdefault(
            step, (weights(run), [value.clone() for value in moments(run)])
        ),
    )
    with pytest.raises(DivergedError) as caught:
        to_the_end(run)
    text = str(caught.value)
    assert f"not finite at step {bad}: loss nan" in text and f"rows {100 * bad}, {100 * bad + 1}" in text
    if delay and bad != 3:  # step 3 is evaluated
        assert max(seen) > bad
    before, state = seen[bad]
    assert all(map(torch.equal, weights(run), before))
    if bad == 1:
        assert not any(value.any() for value in moments(run))
    else:
        assert all(map(torch.equal, moments(run), state))
    assert [r["step"] for r in records(run) if "loss" in r] == [step for step in (2, 4) if step < bad]


def test_what_cannot_be_held_back_is_looked_at_at_once(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", 100, poisoned(2), checkpoint=100)
    taken: list[int] = []
    plain = torch.optim.AdamW(run.model.parameters(), lr=0.0, foreach=True)
    run.run = replace(run.run, optimizer=plain, before_step=taken.append)
    with pytest.raises(DivergedError, match="not finite at step 2"):
        to_the_end(run)
    assert taken == [1, 2]
    assert all(torch.isfinite(value).all() for value in weights(run))


@pytest.mark.gpu
def test_from_a_gpu_values_arrive_by_themselves() -> None:
    on_device = torch.arange(3.0, device="cuda").neg()
    letter = post(on_device)
    assert letter.read() == [0.0, -1.0, -2.0]
    assert letter.has_arrived
