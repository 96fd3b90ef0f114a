"""What a dry run says, against the run itself; and that it leaves nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.config import PretrainSettings, build
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event
from fmlm_cli.recipes import pretraining
from fmlm_cli.recipes.pretraining import dry_run, timing
from fmlm_cli.recipes.pretraining.dry_run import estimate_run
from fmlm_cli.recipes.pretraining.timing import RunTimes
from fmlm_cli.recipes.shared.estimates.timing import Timed
from tests.recipes.runs import Settings

pytestmark = pytest.mark.usefixtures("quick")

SHORT = {"budget.steps": 3}


def test_what_is_estimated_is_what_is_trained(settings: Settings) -> None:
    chosen = settings(**{"budget.steps": 30})
    estimate = estimate_run(chosen, price_per_hour=36.0)
    assert chosen.out is not None and not Path(chosen.out).exists()
    assert not list(Path(chosen.out).parent.glob(".*"))
    assert estimate.steps == 30
    assert estimate.seconds > 0 and estimate.memory > 1 << 20
    assert estimate.price == pytest.approx(estimate.seconds / 100)
    assert list(estimate.parts) == ["start", "training", "evaluation", "saving"]
    assert all(took > 0 for took in estimate.parts.values())
    result = pretraining.pretrain(chosen)
    run = result.run
    evaluated = sum("eval_loss" in record for record in result.records)
    plan = dry_run.time_planned(chosen, lambda event: None, steps=3).plan
    assert dry_run._evaluations(plan) == evaluated == 1 + 8  # after steps 4, 8, ... and the last
    assert dry_run._checkpoints(plan) == 10
    tokens = max(record.get("tokens", 0) for record in pretraining.pretrain(chosen, resume=True).records)
    assert estimate.tokens == pytest.approx(tokens, rel=0.1)
    written = sum(path.stat().st_size for path in run.root.rglob("*.safetensors"))
    assert written <= estimate.disk <= 3 * written


def test_long_steps_are_timed_by_shorter_ones(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def time_run(chosen: PretrainSettings, emit: Any, **limits: Any) -> RunTimes:
        """Half a second of its own, and a hundredth for each row of 10 tokens."""
        rows = chosen.batch.size or 0
        sizes.append(rows)
        seconds = 0.5 + rows / 100
        return RunTimes(Timed(10 * rows / seconds, seconds, rows), 1.0, 0.25, rows)

    monkeypatch.setattr(dry_run, "time_run", time_run)
    estimate = estimate_run(settings(**{"batch.size": 96, "batch.micro_size": 4, "budget.steps": 50}))
    assert sizes == [8, 16]
    assert estimate.parts["training"] == pytest.approx(50 * (0.5 + 0.96))
    assert estimate.tokens_per_second == pytest.approx(960 / 1.46)
    assert estimate.tokens == pytest.approx(50 * 960)
    sizes.clear()
    by_one = {"batch.size": 96, "batch.micro_size": 4, "budget.steps": 50}
    quick = dry_run.time_planned(settings(**by_one), lambda event: None, shorter=dry_run.BY_ONE).estimate
    assert sizes == [4]
    assert quick.parts["training"] == pytest.approx(50 * 96 / 4 * 0.54)
    assert quick.tokens == pytest.approx(50 * 960)
    sizes.clear()
    whole = estimate_run(settings(**{"batch.size": 16, "batch.micro_size": 4, "budget.steps": 50}))
    assert sizes == [16]
    assert whole.parts["training"] == pytest.approx(50 * 0.66)


def test_minutes_are_so_many_steps(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    times = RunTimes(Timed(1_000.0, 0.5, 1), 1.0, 0.25, 1)
    monkeypatch.setattr(dry_run, "time_run", lambda chosen, emit, **limits: times)
    estimate = estimate_run(settings(**{"budget.steps": None, "budget.minutes": 2.0}))
    assert estimate.steps == 240


def test_timing_ends_in_time(settings: Settings) -> None:
    ticks = iter(range(10_000))
    told: list[Event] = []
    found = timing.time_run(settings(**SHORT), told.append, seconds=20.0, clock=lambda: 8.0 * next(ticks))
    assert found.steps.tokens_per_second > 0 and found.memory > 0
    assert next(ticks) < 12  # of 20 steps


def test_a_head_that_is_trained_alone_for_long_is_no_obstacle(settings: Settings) -> None:
    chosen = settings(**{"budget.steps": 60, "optimizer.head_warmup_steps": 40})
    assert timing.time_run(chosen, lambda event: None, steps=3, evaluates=False).steps.seconds_per_step > 0


def test_a_disk_that_is_too_small_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmlm_cli.storage.free_space", lambda folder: 1000)
    told: list[Event] = []
    estimate_run(settings(**SHORT), emit=told.append)
    assert any("only 1.0 kB are free" in event.text for event in told if isinstance(event, Caution))


def test_text_is_not_tokenized_in_a_dry_run(settings: Settings, small_encoder: Path, tmp_path: Path) -> None:
    changed = {"text": {"sources": [str(tmp_path)]}, "model": {"checkpoint": str(small_encoder)}}
    with pytest.raises(UserError, match="tokenizes no text"):
        estimate_run(build(PretrainSettings, settings(**SHORT).model_dump(), changed))


def test_it_is_a_flag(tiny_store: Path, settings: Callable[..., PretrainSettings], tmp_path: Path) -> None:
    words = ["pretrain", "--data", tiny_store, "--model", settings().model.name, "--budget", "3-steps"]
    words += ["--out", tmp_path / "dry", "--dry-run", "--price-per-hour", "2"]
    result = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for part in ("tokens/s", "nothing was written", "cost", "at most", "in all"):
        assert part in result.stdout, part
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--price-per-hour", "2"], "--price-per-hour 2 is for an estimate: give --dry-run too"),
        (["--price-per-hour", "-1", "--dry-run"], "--price-per-hour -1: give 0 or more"),
    ],
)
def test_a_price_is_for_an_estimate(tiny_store: Path, tmp_path: Path, words: list[str], line: str) -> None:
    begin = ["pretrain", "--data", str(tiny_store), "--budget", "3-steps", "--out", str(tmp_path / "dry")]
    result = CliRunner().invoke(app, [*begin, *words])
    assert result.exit_code == 2 and line in result.stderr
    assert not (tmp_path / "dry").exists()
