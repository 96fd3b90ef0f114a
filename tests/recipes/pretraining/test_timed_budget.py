"""A budget of minutes: timed once, and then one of tokens."""

from pathlib import Path

import pytest

from fmlm_cli.config import PretrainSettings, saved_settings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Event, Note
from fmlm_cli.recipes import pretraining
from fmlm_cli.recipes.pretraining import timing
from tests.recipes.runs import Settings, at_step, raise_error

pytestmark = pytest.mark.usefixtures("quick")

HALF = {"budget.steps": None, "budget.minutes": 0.5}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each timing, which finds 100 tokens a second."""
    timings: list[str] = []

    def time_steps(settings: PretrainSettings, emit: Emit) -> timing.Timed:
        timings.append(str(settings.out))
        return timing.Timed(tokens_per_second=100.0, seconds_per_step=1.0, memory=1)

    monkeypatch.setattr(timing, "time_steps", time_steps)
    return timings


def test_minutes_become_tokens(settings: Settings, timed: list[str]) -> None:
    told: list[Event] = []
    result = pretraining.pretrain(settings(**HALF), emit=told.append)
    assert timed == [str(result.run.root)]
    assert any("0.5 minutes are about 3,000 tokens" in e.text for e in told if isinstance(e, Note))
    saved = saved_settings(PretrainSettings, result.run.config)
    assert (saved.budget.minutes, saved.budget.tokens) == (0.5, 3000.0)
    assert max(record.get("tokens", 0) for record in result.records) == pytest.approx(3000, rel=0.1)


def test_a_run_goes_on_with_what_they_came_to(settings: Settings, timed: list[str]) -> None:
    whole = pretraining.pretrain(settings("whole", **HALF))
    parts = settings("parts", **HALF)
    with pytest.raises(RuntimeError):
        pretraining.pretrain(parts, emit=at_step(4, raise_error))
    resumed = pretraining.pretrain(parts, resume=True)
    assert len(timed) == 2  # once for each run
    assert (resumed.run.final / "model.safetensors").read_bytes() == (
        whole.run.final / "model.safetensors"
    ).read_bytes()
    with pytest.raises(UserError, match=r"budget.tokens 3000.0, not 6000.0"):
        pretraining.pretrain(settings("parts", **{**HALF, "budget.minutes": 1.0}), resume=True)


def test_the_same_run_can_be_made_from_its_config(
    settings: Settings, timed: list[str], tmp_path: Path
) -> None:
    result = pretraining.pretrain(settings(**HALF))
    again = saved_settings(PretrainSettings, result.run.config).model_copy(
        update={"out": str(tmp_path / "b")}
    )
    other = pretraining.pretrain(again)
    assert len(timed) == 1
    assert other.records[-1]["step"] == result.records[-1]["step"]


def test_a_real_timing_leaves_no_trace(settings: Settings) -> None:
    asked = settings(**{"budget.steps": None, "budget.minutes": 1e-4})
    found = timing.with_timed_budget(asked, 1, lambda event: None)
    assert found.budget.tokens
    assert asked.out is not None
    assert not Path(asked.out).exists()


def test_several_processes_are_not_timed_by_one(settings: Settings) -> None:
    with pytest.raises(UserError, match="timed by one process, and there are 2"):
        timing.with_timed_budget(settings(**HALF), 2, lambda event: None)
