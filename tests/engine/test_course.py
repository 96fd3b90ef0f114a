"""Steps that are skipped, and spikes that are told of."""

import json
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.engine.batch import Batch
from fmlm_cli.engine.checkpoint import TrainState
from fmlm_cli.engine.loop import train
from fmlm_cli.engine.numerics.course import MOST_SKIPPED
from fmlm_cli.engine.numerics.spikes import spike
from fmlm_cli.engine.optimizer import named_state
from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.engine.signals import NEVER
from fmlm_cli.engine.step import DivergedError
from tests.engine.small_run import TIMING_FIELDS, Run, batches_of
from tests.engine.test_arrivals import LateMail


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    monkeypatch.setattr("fmlm_cli.engine.loop.count_flops", lambda forward: 1)


def begin(
    folder: Path, total: int, bad: Sequence[int] = (), factors: dict[int, float] | None = None, **changed: Any
) -> Run:
    """A run of which some steps hold a value that is no number, and of others the targets are larger."""

    def prepare(step: int) -> list[Batch]:
        batches = batches_of(step, [2, 3, 1])
        if step in bad:
            batches[1].inputs["x"][0, 0] = float("nan")
        for batch in batches:
            batch.inputs["y"].mul_((factors or {}).get(step, 1.0))
        return batches

    folder.mkdir(exist_ok=True)
    run = Run(folder, OneProcess(), checkpoint=changed.pop("checkpoint", 5))
    schedule = replace(run.run.schedule, total_steps=total)
    rhythm = replace(run.run.rhythm, evaluate=1000)
    run.run = replace(run.run, schedule=schedule, prepare=prepare, rhythm=rhythm, **changed)
    run.log.rewind(0, 0)
    return run


def resumed(folder: Path, last: int, **changed: Any) -> tuple[Run, TrainState]:
    """The same run from the checkpoint before its last one."""
    shutil.copytree(folder, folder.parent / "again")
    shutil.rmtree(folder.parent / "again" / "checkpoints" / f"step-{last}")
    kept = (folder / "metrics.jsonl").read_bytes()
    run = begin(folder.parent / "again", last, **changed)
    run.log._path.write_bytes(kept)
    state, _ = run.checkpoints.restore(run.model, run.run.optimizer)
    run.log.rewind(state.step, state.evaluated)
    return run, state


def values(run: Run) -> list[torch.Tensor]:
    state = named_state(run.model, run.run.optimizer)
    moments = [state[name].clone() for name in sorted(state)]
    return [*(p.detach().clone() for p in run.model.parameters()), *moments]


def timeless(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in TIMING_FIELDS} for r in run.log.records]


@pytest.mark.parametrize("delay", [0, 2, 100])
@pytest.mark.parametrize("fused", [True, False])
def test_a_skipped_step_changes_nothing_and_the_next_ones_do(tmp_path: Path, delay: int, fused: bool) -> None:
    run, seen = begin(tmp_path, 8, [3, 4, 7], on_nonfinite="skip", post=LateMail(delay).post), {}
    for group in run.run.optimizer.param_groups:
        group["fused"] = fused
    run.run = replace(run.run, before_step=lambda step: seen.__setitem__(step, values(run)))
    state = train(run.run, TrainState(0), NEVER)
    same = [all(map(torch.equal, seen[step], seen[step + 1])) for step in range(2, 8)]
    assert same == [False, True, True, False, False, True]
    assert (state.skipped, state.skipped_in_a_row, state.step) == (3, 0, 8)
    assert [(r["step"], r["remark"], r["skipped"]) for r in run.log.records if "remark" in r] == [
        (3, "skipped", 1)
    ]
    logged = [r for r in run.log.records if "loss" in r]
    assert [(r["step"], r.get("skipped")) for r in logged] == [(2, None), (6, 2), (8, 3)]
    assert all(map(torch.isfinite, map(torch.tensor, (r["loss"] for r in logged))))
    assert json.loads(run.log._path.read_text().splitlines()[2])["rows"] == [300, 301, 302, 303, 304, 305]


def test_a_run_that_skips_is_the_same_when_resumed(tmp_path: Path) -> None:
    bad = [2, 5, 6]
    whole = begin(tmp_path / "whole", 9, bad, on_nonfinite="skip")
    wanted = train(whole.run, TrainState(0), NEVER)
    again, state = resumed(tmp_path / "whole", 9, bad=bad, on_nonfinite="skip")
    assert (state.step, state.skipped, state.skipped_in_a_row) == (5, 2, 1)
    got = train(again.run, state, NEVER)
    assert replace(got, seconds=0, records="") == replace(wanted, seconds=0, records="")
    assert timeless(again) == timeless(whole)
    assert all(map(torch.equal, values(again), values(whole)))


def test_too_many_in_a_row_end_the_run_in_words(tmp_path: Path) -> None:
    begun = 3
    run = begin(tmp_path, 60, range(begun, 60), on_nonfinite="skip")
    with pytest.raises(DivergedError) as caught:
        train(run.run, TrainState(0), NEVER)
    last = begun + MOST_SKIPPED - 1
    assert f"25 steps in a row were skipped, the last as not finite at step {last}: loss nan" in str(
        caught.value
    )
    told = [r["skipped"] for r in run.log.records if "remark" in r]
    assert told == [1, 10]
    almost = begin(tmp_path / "almost", 60, range(begun, last), on_nonfinite="skip")
    assert train(almost.run, TrainState(0), NEVER).skipped == MOST_SKIPPED - 1


# ---------------------------------------------------------------- spikes


def course(number: int, seed: int = 0) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    noise: list[float] = torch.randn(number, generator=generator, dtype=torch.float64).tolist()
    return [5 + 0.3 * value for value in noise]


@given(st.integers(0, 10_000), st.integers(50, 100))
def test_what_is_twelve_deviations_up_is_a_spike_and_ordinary_noise_is_none(seed: int, number: int) -> None:
    recent = course(number, seed)
    usual = statistics.median(recent)
    deviation = statistics.median(abs(value - usual) for value in recent) * 1.4826
    limit = max(usual + 12 * deviation, 1.2 * usual)
    assert spike(recent, limit + 1e-6, 1.2) == usual
    assert spike(recent, limit - 1e-6, 1.2) is None
    assert spike(recent, 5 + 0.3 * 4.5, 1.2) is None
    assert spike([0.1 * v for v in recent], 0.1 * (limit + 1e-6), 1.2) == pytest.approx(0.1 * usual)


def test_the_first_steps_and_what_goes_on_being_high_are_no_spike() -> None:
    recent = course(100)
    assert spike(recent[:49], 100.0, 1.2) is None
    assert spike([*recent[:99], 30.0], 40.0, 1.2) is None  # the same one
    assert spike([*recent[:79], 30.0, *recent[:20]], 40.0, 1.2) is not None
    assert spike([1.0] * 100, 1.1, 1.2) is None  # values without any noise


@pytest.mark.parametrize("tells", [True, False])
def test_a_run_tells_of_a_spike_once_also_when_resumed(tmp_path: Path, tells: bool) -> None:
    factors = {70: 40.0, 71: 40.0, 110: 40.0, 1: 40.0, 30: 40.0}
    run = begin(tmp_path / "whole", 120, checkpoint=35, factors=factors, tells_spikes=tells)
    ended = train(run.run, TrainState(0), NEVER)
    wanted = [r for r in run.log.records if "remark" in r]
    told = [(r["step"], r["remark"]) for r in wanted]
    assert told == ([(s, f"{what} spike") for s in (70, 110) for what in ("loss", "grad_norm")] * tells)
    if not tells:
        return
    assert wanted[0]["rows"] == list(range(7000, 7006))
    assert wanted[0]["value"] > 100 * wanted[0]["usual"] > 0
    again, state = resumed(tmp_path / "whole", 120, checkpoint=35, factors=factors, tells_spikes=True)
    assert state.step == 105 and len(state.recent_losses) == 100  # of the steps since the warm-up's 2
    got = train(again.run, state, NEVER)
    assert replace(got, seconds=0, records="") == replace(ended, seconds=0, records="")
    assert [r for r in again.log.records if "remark" in r] == wanted
