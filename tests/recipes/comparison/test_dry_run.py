"""What a dry run of a comparison says, against the comparison itself; and what is said before one begins."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from fmlm_cli.cli.app import app
from fmlm_cli.config import PretrainSettings
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.events import Event, Facts, Note, ignore
from fmlm_cli.recipes import comparison
from fmlm_cli.recipes.comparison.estimating import parts, whole
from fmlm_cli.recipes.comparison.run import _plan, _tell_time, estimate_comparison
from fmlm_cli.recipes.pretraining.dry_run import time_planned
from tests.recipes.comparison.settings import Compare, compare_in
from tests.recipes.finetuning.test_finetune import sentences, write_jsonl
from tests.recipes.runs import without_pictures

OWN = {
    "downstream.tasks": ["rivers"],
    "downstream.training.epochs": 1,
    "variance.checkpoints": ["start"],
    "race.fresh_control": False,
}


@pytest.fixture(scope="module", autouse=True)
def quick_runs() -> Iterator[None]:
    with without_pictures() as patch:
        patch.setattr(
            "fmlm_cli.recipes.finetuning.report.draw_scores", lambda scores, folder: folder / "x.png"
        )
        patch.setattr("fmlm_cli.recipes.comparison.run.write_report", lambda root, results: [])
        patch.setattr("fmlm_cli.recipes.comparison.run._tell_time", _tell_time)
        patch.setattr(whole.estimate_plan, "__defaults__", (parts.QUICK,))
        yield


@pytest.fixture(scope="module")
def compare(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Compare:
    root = tmp_path_factory.mktemp("compared")
    for name, number in (("train", 60), ("dev", 30)):
        write_jsonl(root / "rivers" / f"{name}.jsonl", sentences(number, 1))
    return compare_in(root, tiny_store, **{**OWN, "downstream.folder": str(root)})


def notes(told: list[Event]) -> list[str]:
    return [event.text for event in told if isinstance(event, Note)]


def test_what_is_estimated_is_what_is_compared(compare: Compare) -> None:
    settings, told = compare("whole"), list[Event]()
    root = Path(settings.out or "")
    before = sorted(root.parent.iterdir())
    estimate = estimate_comparison(settings, price_per_hour=3.6, emit=told.append)
    assert sorted(root.parent.iterdir()) == before
    assert list(estimate.parts) == ["coverage", "race", "gradient variance", "downstream"]
    assert all(took > 0 for took in estimate.parts.values())
    assert estimate.price == pytest.approx(estimate.seconds / 1000)
    said = [event.rows for event in told if isinstance(event, Facts)][-1]
    assert "fine-tuned models" in said["work"] and "nothing was written" in notes(told)[-1]

    told = []
    found = comparison.compare_masks(settings, emit=told.append)
    assert found is not None
    [line] = [text for text in notes(told) if " in all: " in text]
    assert "race" in line and "gradient variance" in line and "downstream" in line
    steps, tokens = 0, 0
    for path in root.glob("race/**/metrics.jsonl"):
        last = [json.loads(record) for record in path.read_text().splitlines()]
        steps += max(record["step"] for record in last)
        tokens += max(record.get("tokens", 0) for record in last)
    assert estimate.steps == steps
    assert estimate.tokens == pytest.approx(tokens, rel=0.1)

    told = []
    none = estimate_comparison(settings, resume=True, emit=told.append)
    assert none.seconds == 0 and none.steps == 0
    told = []
    comparison.compare_masks(settings, resume=True, emit=told.append)
    assert not any("in all" in text for text in notes(told))  # nothing is left to take time


@pytest.mark.parametrize(("flops", "micro"), [(math.inf, "auto"), (1.0, 1)])
def test_before_a_large_model_begins_few_rows_are_timed(
    compare: Compare, monkeypatch: pytest.MonkeyPatch, flops: float, micro: int | str
) -> None:
    asked = []

    def timed(settings: PretrainSettings, *rest: Any, **more: Any) -> Any:
        asked.append(settings.batch.micro_size)
        return time_planned(settings, *rest, **more)

    monkeypatch.setattr(parts, "time_planned", timed)
    settings = compare("few rows", only=["race"])
    plan = _plan(settings, Path(settings.out or ""), overwrite=False, resume=False, emit=ignore)[0]
    found = whole.estimate_plan(plan, plan.items, ignore, replace(parts.QUICK, flops=flops))
    assert asked == [micro]
    runs = len(plan.items)
    assert found.steps == runs * plan.total_steps
    assert found.tokens == pytest.approx(runs * plan.total_steps * plan.size * 32, rel=0.25)


def test_processes_that_another_has_started_say_nothing(compare: Compare) -> None:
    told: list[Event] = []
    only = {"only": ["coverage"]}
    comparison.compare_masks(compare("quiet", **only), report=False, emit=told.append)
    assert not any("in all" in text for text in notes(told))
    comparison.compare_masks(compare("one", **only), emit=told.append)
    assert any("in all" in text for text in notes(told))


def test_what_diverges_while_it_is_timed_is_found_by_the_runs(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*given: object) -> None:
        raise DivergedError("not finite at step 1")

    monkeypatch.setattr("fmlm_cli.recipes.comparison.run.estimate_plan", diverge)
    assert comparison.compare_masks(compare("diverges", only=["coverage"])) is not None


def test_gradients_are_timed_and_the_model_is_left_as_it_was(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _ = comparison.run._plan(compare("x"), Path("x"), overwrite=True, resume=False, emit=print)
    items = [item for item in plan.items if item.kind == "variance"]
    weights = {name: value.clone() for name, value in plan.base.model.state_dict().items()}
    few = parts.Effort(1, 1.0, 0.0)
    assert parts.time_variance(plan, items, few, lambda event: None) > 0
    assert all(torch.equal(value, weights[name]) for name, value in plan.base.model.state_dict().items())
    assert all(weight.grad is None for weight in plan.base.model.parameters())
    monkeypatch.setattr(parts, "time_gradients", lambda *given, **named: 0.5)
    gradients = 10 * (8 + 2 * 4 + 2 * 2 * 2) + 2 * 64  # of 10 rows, and of the mean one
    assert parts.time_variance(plan, items, few, lambda event: None) == len(items) * gradients / 2 == 368


def test_it_is_a_flag(compare: Compare, tiny_store: Path) -> None:
    settings = compare("flagged")
    words = [
        "compare-masks",
        "--data",
        str(tiny_store),
        "--model",
        settings.run.model.name,
        "--budget",
        "12-steps",
    ]
    words += ["--set", "variance.sequences=10", "--set", "run.sequence_length=32", "--out", str(settings.out)]
    result = CliRunner().invoke(app, [*words, "--dry-run", "--price-per-hour", "3"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for part in ("tokens/s", "in all", "gradient variance", "cost", "nothing was written"):
        assert part in result.stdout, part
    assert not Path(settings.out or "").exists()
