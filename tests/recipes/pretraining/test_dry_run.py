"""What a dry run says, against the run itself; and that it leaves nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.config import PretrainSettings, build
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, ignore
from fmlm_cli.recipes import pretraining
from fmlm_cli.recipes.pretraining import dry_run, timing
from fmlm_cli.recipes.pretraining.dry_run import estimate_run
from fmlm_cli.recipes.pretraining.timing import Timed
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
    run = pretraining.pretrain(chosen).run
    tokens = max(record.get("tokens", 0) for record in pretraining.pretrain(chosen, resume=True).records)
    assert estimate.tokens == pytest.approx(tokens, rel=0.1)
    written = sum(path.stat().st_size for path in run.root.rglob("*.safetensors"))
    assert written <= estimate.disk <= 3 * written


def test_long_steps_are_timed_by_shorter_ones(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def time_steps(chosen: PretrainSettings, emit: Any) -> Timed:
        """Half a second of its own, and a hundredth for each row of 10 tokens."""
        rows = chosen.batch.size or 0
        sizes.append(rows)
        seconds = 0.5 + rows / 100
        return Timed(10 * rows / seconds, seconds, rows)

    monkeypatch.setattr(dry_run, "time_steps", time_steps)
    estimate = estimate_run(settings(**{"batch.size": 96, "batch.micro_size": 4, "budget.steps": 50}))
    assert sizes == [8, 16]
    assert estimate.seconds == pytest.approx(50 * (0.5 + 0.96))
    assert estimate.tokens_per_second == pytest.approx(960 / 1.46)
    assert estimate.tokens == pytest.approx(50 * 960)
    sizes.clear()
    whole = estimate_run(settings(**{"batch.size": 16, "batch.micro_size": 4, "budget.steps": 50}))
    assert sizes == [16]
    assert whole.seconds == pytest.approx(50 * 0.66)


def test_minutes_are_so_many_steps(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "time_steps", lambda chosen, emit: Timed(1_000.0, 0.5, 1))
    estimate = estimate_run(settings(**{"budget.steps": None, "budget.minutes": 2.0}))
    assert estimate.steps == 240


def test_timing_ends_in_time_and_leaves_warming_up_out(settings: Settings) -> None:
    ticks = iter(range(10_000))
    told: list[Event] = []
    found = timing.time_steps(settings(**SHORT), told.append, clock=lambda: 8.0 * next(ticks))
    assert found.tokens_per_second > 0 and found.memory > 0
    speedometer = timing._Speedometer(9, ignore)
    speedometer._arrived = [(100, 50.0, 1.0), (200, 90.0, 2.0), (300, 91.0, 2.0), (400, 92.0, 2.0)]
    assert speedometer.timed == Timed(100.0, 1.0, 2 << 30)
    speedometer._arrived = speedometer._arrived[:1]
    assert speedometer.timed == Timed(2.0, 50.0, 1 << 30)


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
    for part in ("tokens/s", "nothing was written", "cost", "at most"):
        assert part in result.stdout, part
    assert not (tmp_path / "dry").exists()
