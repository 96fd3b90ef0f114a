"""Planning a run: all that can be checked is checked before text is tokenized, and a plan leaves no trace."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli.config import PretrainSettings, build, nested
from fmlm_cli.corpus.store import reading
from fmlm_cli.corpus.store.reading import read_manifest
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Facts, ignore
from fmlm_cli.recipes.pretraining.planning import plan as planning
from fmlm_cli.recipes.pretraining.planning.changes import make_schedule
from fmlm_cli.recipes.pretraining.planning.check import check_run
from fmlm_cli.recipes.pretraining.planning.plan import plan_run
from fmlm_cli.recipes.pretraining.report.describe import describe_run
from tests.recipes.runs import RHYTHM, Settings

FromText = Callable[..., PretrainSettings]


def traces(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below a folder, with its size and the time of its last change."""
    found = [(path, path.stat()) for path in folder.rglob("*")]
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found}


@pytest.fixture
def from_text(small_encoder: Path, documents: list[str], tmp_path: Path) -> FromText:
    """`from_text(**dotted names)`: going on from a checkpoint on text that is still to be tokenized."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(documents[:40]))

    def make(**changed: Any) -> PretrainSettings:
        fixed = {
            "text.sources": [str(text)],
            "model.checkpoint": str(small_encoder),
            "out": str(tmp_path / "run"),
            "budget.steps": 8,
        }
        return build(PretrainSettings, nested({**fixed, **RHYTHM, **changed}))

    return make


def test_a_plan_over_stores_leaves_no_trace_and_can_be_printed(settings: Settings, tmp_path: Path) -> None:
    before, events = traces(tmp_path), list[Event]()
    plan = plan_run(settings(**{"budget.steps": 8}), ignore)
    describe_run(plan, Runtime.resolve("cpu"), "mask", events.append)
    [facts] = [event for event in events if isinstance(event, Facts)]
    assert facts.rows["budget"].startswith("8 steps of 8 rows")
    assert traces(tmp_path) == before


@pytest.mark.parametrize(
    ("steps", "changed", "warming"),
    [
        (4, {}, 2),
        (30, {}, 10),
        (100, {}, 10),
        (166, {}, 10),
        (167, {}, 10),
        (500, {}, 30),
        (30, {"optimizer.warmup_share": 0.1}, 3),
        (30, {"optimizer.warmup_share": 0.0}, 0),
        (40, {"optimizer.head_warmup_steps": 20}, 10),
        (40, {"optimizer.head_warmup_steps": 34}, 3),
    ],
)
def test_a_short_run_warms_up_too(
    settings: Settings, steps: int, changed: dict[str, Any], warming: int
) -> None:
    plan = plan_run(settings(**{"budget.steps": steps, **changed}), ignore)
    assert make_schedule(plan).warmup_steps == warming


def test_a_plan_opens_each_store_once(
    settings: Settings, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[Path]()

    def counting(root: Path) -> Any:
        opened.append(root)
        return read_manifest(root)

    monkeypatch.setattr(reading, "read_manifest", counting)
    plan_run(settings(**{"budget.steps": 8}), ignore)
    assert opened == [tiny_store]


def test_a_checked_run_leaves_no_trace_though_there_is_text(from_text: FromText, tmp_path: Path) -> None:
    before = traces(tmp_path)
    checked = check_run(from_text(), ignore)
    assert checked.start is not None
    assert traces(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"budget.tokens": 100.0}, "2 budgets"),
        ({"masking.strategy": "fully-explord"}, "unknown masking strategy"),
        ({"masking.scope": "batch", "batch.size": 9}, "batch.size 9 must be a multiple of 7"),
        ({"masking.segments": 1}, "segments"),
        ({"sequence_length": 65}, "beyond the 64 positions"),
        ({"optimizer.head_warmup_steps": 8}, "leaves nothing of the run's 8 steps"),
        ({"optimizer.carry_over": True}, "no state of an optimizer"),
        ({"model.freeze": ["layer-1"]}, "unknown part of a model"),
        ({"model.freeze": ["7"]}, "layers 0 to 1"),
        ({"model.freeze": ["embeddings", "0-1", "head"]}, "nothing would be left"),
        ({"model.freeze": ["0"], "model.lora.rank": 2}, "exclude each other"),
        ({"model.max_positions": 32}, "below the model's 64"),
        ({"evaluation.stores": {"more": "nowhere"}}, "nowhere"),
        ({"data.replay": ["nowhere"]}, "STORE:SHARE"),
        ({"data.replay": ["nowhere:0.1"]}, "nowhere"),
        ({"data.stores": ["store"]}, "exclude each other"),
        ({"model.checkpoint": "./nowhere"}, "no such checkpoint"),
    ],
)
def test_what_cannot_be_is_known_before_text_is_tokenized(
    from_text: FromText, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr(planning, "make_store_of_text", lambda *_: pytest.fail("text was tokenized"))
    before = traces(tmp_path)
    with pytest.raises(UserError, match=reason):
        plan_run(from_text(**changed), ignore)
    assert traces(tmp_path) == before


def test_a_replay_of_another_tokenizer_is_refused_before_text_is_tokenized(
    from_text: FromText, tiny_bpe_store: Path, tiny_store: Path, tmp_path: Path
) -> None:
    before = traces(tmp_path)
    with pytest.raises(UserError, match="another tokenizer"):
        plan_run(from_text(**{"data.replay": [f"{tiny_bpe_store}:0.5"]}), ignore)
    assert check_run(from_text(**{"data.replay": [f"{tiny_store}:0.5"]}), ignore).stores[0].replay
    assert traces(tmp_path) == before
