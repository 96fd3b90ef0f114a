"""How many rows are forwarded at once, where the settings leave it open."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.config import PretrainSettings, read_yaml
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Note, ignore
from fmlm_cli.recipes import pretraining
from fmlm_cli.recipes.pretraining import micro_size
from fmlm_cli.recipes.pretraining.micro_size import largest_that_fits, with_micro_size
from fmlm_cli.recipes.pretraining.planning.plan import RunPlan, plan_run
from tests.recipes.runs import KINDS, Settings, at_step, raise_error

GPU = Runtime(torch.device("cuda"), torch.bfloat16)  # which nothing here touches
AUTO = {**KINDS["steps"], "batch.micro_size": "auto"}


@given(size=st.integers(1, 5000), most=st.integers(1, 6000), limit=st.integers(0, 6000))
def test_the_parts_of_a_step_fit_are_equal_and_few(size: int, most: int, limit: int) -> None:
    tried: list[int] = []

    def fits(rows: int) -> bool:
        tried.append(rows)
        return rows <= limit

    micro = largest_that_fits(size, most, fits)
    assert tried[0] == math.ceil(size / math.ceil(size / most)) <= most  # the fewest parts that are allowed
    assert tried == sorted(set(tried), reverse=True) and len(tried) <= 14
    if limit == 0:
        assert micro is None and tried[-1] == 1
        return
    assert micro == tried[-1] <= limit
    parts = math.ceil(size / micro)
    assert parts * micro - size < parts  # no part lacks more than a row of what it could have
    if len(tried) > 1:
        assert limit < tried[-2] <= 2 * micro


def plan(settings: Settings, **changed: Any) -> RunPlan:
    return plan_run(settings(**{**AUTO, **changed}), ignore)


@pytest.mark.parametrize(
    ("length", "size", "wanted"), [(32, 8, 8), (32, 500, 128), (16, 300, 256), (31, 200, 132)]
)
def test_on_a_cpu_it_is_a_function_of_the_settings(
    settings: Settings, length: int, size: int, wanted: int
) -> None:
    made = plan(settings, sequence_length=length, **{"batch.size": size})
    assert made.settings.batch.micro_size == "auto"
    assert with_micro_size(made, Runtime.resolve("cpu"), ignore).micro_size == wanted


@pytest.mark.parametrize("device", [Runtime.resolve("cpu"), GPU])
def test_a_number_that_is_given_is_taken(settings: Settings, device: Runtime) -> None:
    assert with_micro_size(plan(settings, **{"batch.micro_size": 3}), device, ignore).micro_size == 3
    assert with_micro_size(plan(settings, **{"batch.micro_size": 99}), device, ignore).micro_size == 8


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows that a GPU, which is played here, has room for, by its own account and in truth."""
    rows = [10**6, 10**6]
    monkeypatch.setattr(micro_size, "_positions_by_estimate", lambda model, runtime: 32 * rows[0])
    monkeypatch.setattr(micro_size, "_fits", lambda plan, runtime, micro: micro <= rows[1])
    return rows


@pytest.mark.parametrize(
    ("estimated", "real", "wanted", "said"),
    [
        (10**6, 10**6, 256, None),
        (200, 10**6, 128, None),
        (10**6, 100, 64, "micro_size 64: 256 rows at once did not fit cuda"),
        (200, 1, 1, "micro_size 1: 128 rows at once did not fit cuda"),
    ],
)
def test_on_a_gpu_it_is_tried_and_said_once(
    settings: Settings, memory: list[int], estimated: int, real: int, wanted: int, said: str | None
) -> None:
    memory[:] = estimated, real
    told: list[Event] = []
    made = with_micro_size(plan(settings, **{"batch.size": 256}), GPU, told.append)
    assert made.micro_size == wanted
    assert told == ([Note(said)] if said else [])


def test_more_than_fills_a_gpu_is_not_asked_of_it(settings: Settings, memory: list[int]) -> None:
    made = with_micro_size(plan(settings, **{"batch.size": 10_000}), GPU, ignore)
    assert 1000 < made.micro_size <= micro_size.POSITIONS_ON_GPU / 32


def test_a_row_that_does_not_fit_is_said_so(settings: Settings, memory: list[int]) -> None:
    memory[1] = 0
    with pytest.raises(UserError, match="not even one row of 32 positions fits the memory of cuda: take"):
        with_micro_size(plan(settings), GPU, ignore)


@pytest.mark.usefixtures("quick")
def test_what_was_decided_stands_in_the_runs_settings_and_is_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another device, or another fmlm, would decide otherwise."""
    parts = settings("parts", **AUTO)
    with monkeypatch.context() as patch:
        patch.setattr(micro_size, "POSITIONS_ON_CPU", 96)
        with pytest.raises(RuntimeError):
            pretraining.pretrain(parts, emit=at_step(4, raise_error))
    run = pretraining.pretrain(settings("parts", **KINDS["steps"], **{"batch.micro_size": 3}), resume=True)
    asked = settings("parts", **KINDS["steps"])
    unsaid = asked.model_copy(update={"batch": type(asked.batch)(size=8)})
    again = pretraining.pretrain(unsaid, resume=True)
    assert run.records == again.records
    for result in (run, again):
        assert read_yaml(result.run.config, PretrainSettings)["batch"]["micro_size"] == 3


@pytest.fixture
def played_gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What `torch.cuda` says of memory; the CPU does the work."""
    memory = {"free": 80 * 2**30, "total": 80 * 2**30, "most": 2**30}
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (memory["free"], memory["total"]))
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: memory["most"])
    for name in ("reset_peak_memory_stats", "synchronize", "empty_cache"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_: None)
    return memory


@pytest.mark.parametrize("precision", ["float32", "bfloat16-weights"])
def test_a_trial_leaves_no_trace(settings: Settings, played_gpu: dict[str, int], precision: str) -> None:
    made, low = plan(settings), precision == "bfloat16-weights"
    dtype = torch.bfloat16 if low else torch.float32
    runtime = Runtime(torch.device("cpu"), dtype, low_weights=low)
    before = {name: p.clone() for name, p in made.model.named_parameters()}
    assert micro_size._fits(made, runtime, 8)
    assert all(torch.equal(p, before[name]) for name, p in made.model.named_parameters())
    assert all(p.grad is None for p in made.model.parameters())
    played_gpu["most"] = int(0.95 * played_gpu["total"])  # nothing is left for fragments
    assert not micro_size._fits(made, runtime, 8)


def test_what_runs_out_of_memory_does_not_fit(
    settings: Settings, played_gpu: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def loss(self: Any, model: Any, batch: Any) -> Any:
        rows.append(len(batch.inputs["input_ids"]))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("fmlm_cli.objectives.masked_lm.MaskedLanguageModelling.loss", loss)
    assert not micro_size._fits(plan(settings), Runtime.resolve("cpu"), 5)
    assert rows == [5]


def test_an_estimate_grows_with_memory_and_shrinks_with_the_model(
    settings: Settings, played_gpu: dict[str, int]
) -> None:
    model, runtime = plan(settings).model, Runtime.resolve("cpu")
    much = micro_size._positions_by_estimate(model, runtime)
    played_gpu["free"] //= 2
    some = micro_size._positions_by_estimate(model, runtime)
    assert 0.3 < some / much < 0.5  # a tenth of the whole is not to be used
    wide = torch.nn.Sequential(model, torch.nn.Linear(1000, 1000))
    assert micro_size._positions_by_estimate(wide, runtime) < some / 2
    played_gpu["free"] = 0
    assert micro_size._positions_by_estimate(model, runtime) == 1


@pytest.mark.gpu
def test_a_real_gpu_decides(settings: Settings) -> None:
    gpu = Runtime.resolve("cuda")
    made = plan(settings, **{"batch.size": 64})
    assert with_micro_size(replace(made), gpu, ignore).micro_size == 64
    held = torch.cuda.memory_allocated()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(micro_size, "_positions_by_estimate", lambda *_: 10**9)
        torch.cuda.set_per_process_memory_fraction(1e-3)
        try:
            few = with_micro_size(plan(settings, **{"batch.size": 100_000}), gpu, ignore).micro_size
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert few < 2048
    assert torch.cuda.memory_allocated() < held + 2**24
