"""`--allow-changes`: a run that goes on under other settings says so, and what cannot change is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, saved_settings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Note, Remarked
from fmlm_cli.recipes import pretraining
from tests.conftest import MakeStore
from tests.recipes.runs import KINDS, TINY, Settings, assert_same, at_step, raise_error, timeless

pytestmark = pytest.mark.usefixtures("quick")
STEPS = KINDS["steps"]
WSD = {**STEPS, "optimizer.schedule": "wsd", "optimizer.decay_share": 0.25, "optimizer.warmup_share": 0.2}


def begun(settings: Settings, kind: dict[str, Any], step: int = 4) -> storage.RunDirectory:
    """A run that was killed after a step; its checkpoint is of step 3."""
    chosen = settings(**kind)
    with pytest.raises(RuntimeError):
        pretraining.pretrain(chosen, emit=at_step(step, raise_error))
    return storage.RunDirectory(Path(str(chosen.out)))


def go_on(settings: Settings, kind: dict[str, Any], **more: Any) -> pretraining.PretrainResult:
    return pretraining.pretrain(settings(**kind), resume=True, allow_changes=True, **more)


ALLOWED: dict[str, Any] = {
    "optimizer.learning_rate": 0.002,
    "optimizer.weight_decay": 0.2,
    "optimizer.on_nonfinite": "skip",
    "model.dropout": 0.1,
    "masking.segments": 4,
    "masking.corruption": {"mask": 1.0, "random": 0.0, "keep": 0.0},
    "evaluation.max_rows": 4,
}


def test_what_differs_is_listed_and_the_rest_is_the_run(settings: Settings) -> None:
    run, told = begun(settings, STEPS), list[Event]()
    before = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    result = go_on(settings, {**STEPS, **ALLOWED}, emit=told.append)
    assert Note("resuming after step 3 of 8") in told
    (remark,) = [event for event in told if isinstance(event, Remarked)]
    (record,) = [r for r in result.records if "remark" in r]
    assert record == remark.record
    assert (record["step"], record["remark"]) == (4, "settings changed")
    names = {*ALLOWED, "masking.corruption.mask"} - {"masking.corruption"}
    assert set(record["changes"]) == names | {f"masking.corruption.{n}" for n in ("random", "keep")}
    assert record["changes"]["masking.segments"] == [7, 4]
    assert "settings changed after step 3 (--allow-changes)" in remark.text
    assert "masking.segments 7 -> 4" in remark.text and "model.dropout 0.0 -> 0.1" in remark.text
    assert timeless(result)[0]["eval_loss"] == before[0]["eval_loss"]
    assert result.records[-1]["step"] == 8
    assert saved_settings(PretrainSettings, run.config).masking.segments == 4
    assert "settings changed after step 3" in (run.final / "README.md").read_text()
    again = pretraining.pretrain(
        PretrainSettings(out=str(run.root)), resume=True
    )  # as it was left; nothing is asked
    assert again.records == result.records


def test_without_the_flag_it_is_named_and_the_flag_too(settings: Settings) -> None:
    run = begun(settings, STEPS)
    with pytest.raises(UserError, match=r"started with masking.segments 7, not 4: .*pass --allow-changes"):
        pretraining.pretrain(settings(**STEPS, **{"masking.segments": 4}), resume=True)
    with pytest.raises(UserError, match=r"give --resume too"):
        pretraining.pretrain(settings(**STEPS), allow_changes=True)
    assert saved_settings(PretrainSettings, run.config).masking.segments == 7


def test_with_the_flag_and_no_change_it_is_the_same_run(settings: Settings) -> None:
    begun(settings, STEPS)
    assert_same(go_on(settings, STEPS), pretraining.pretrain(settings("whole", **STEPS)))


def test_killed_before_the_next_checkpoint_nothing_is_hidden(settings: Settings) -> None:
    """Nor lost: the settings are the new ones by then, and the checkpoint is of the old."""
    begun(settings, STEPS)
    changed = {**STEPS, "masking.segments": 4}
    with pytest.raises(RuntimeError):
        go_on(settings, changed, emit=at_step(4, raise_error))
    with pytest.raises(UserError, match=r"step 3 under other settings \(masking.segments\): pass --allow-"):
        pretraining.pretrain(settings(), resume=True)
    result = go_on(settings, changed)
    assert [r["step"] for r in result.records if "remark" in r] == [4]


def test_a_change_is_remembered_by_every_checkpoint_after_it(settings: Settings) -> None:
    run = begun(settings, STEPS)
    changed = {**STEPS, "masking.segments": 4}
    with pytest.raises(RuntimeError):
        go_on(settings, changed, emit=at_step(8, raise_error))
    result = pretraining.pretrain(settings(), resume=True)  # from step 6
    assert [r["step"] for r in result.records if "remark" in r] == [4]
    assert "settings changed after step 3" in (run.final / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", 1, "seed 0 -> 1 cannot change"),
        ("sequence_length", 24, "sequence_length 32 -> 24 cannot change"),
        ("data.max_rows", 20, "data.max_rows 24 -> 20 cannot change"),
        ("data.packing", "concat", "data.packing documents -> concat cannot change"),
        ("batch.size", 6, "batch.size 8 -> 6 cannot change"),
        ("model.freeze", ("embeddings",), "model.freeze .* cannot change"),
        ("budget.steps", 3, "a budget of 3 steps, and 3 are made"),
        (
            "budget.steps",
            12,
            "a budget of 12 steps, not 8, would make the learning rate jump from .* at step 4",
        ),
    ],
)
def test_what_cannot_change_is_refused_by_name(settings: Settings, name: str, value: Any, words: str) -> None:
    run = begun(settings, {**STEPS, "masking.segments": 4})
    before = {p: p.read_bytes() for p in run.checkpoints.rglob("*") if p.is_file()}
    config = run.config.read_bytes()
    with pytest.raises(UserError, match=words) as caught:
        go_on(settings, {**STEPS, "masking.segments": 4, name: value})
    assert "\n" not in str(caught.value)
    assert before == {p: p.read_bytes() for p in run.checkpoints.rglob("*") if p.is_file()}
    assert run.config.read_bytes() == config
    resumed = pretraining.pretrain(settings(), resume=True)
    assert_same(resumed, pretraining.pretrain(settings("whole", **STEPS, **{"masking.segments": 4})))


def test_a_step_keeps_its_rows(settings: Settings) -> None:
    kind = {**STEPS, "masking.strategy": "random"}
    begun(settings, kind)
    with pytest.raises(UserError, match=r"masks_per_sequence 1 -> 2 cannot .* step would have 4 rows, not 8"):
        go_on(settings, {**kind, "masking.masks_per_sequence": 2})


def test_another_model_or_text_cannot_be_changed_to(
    settings: Settings, tmp_path: Path, make_store: MakeStore, documents: list[str]
) -> None:
    begun(settings, STEPS)
    other = make_store(tmp_path / "other", documents[60:], documents[:30])
    with pytest.raises(UserError, match="its data cannot change"):
        go_on(settings, {**STEPS, "data.stores": [str(other)]})
    (tmp_path / "model" / "config.json").write_text(json.dumps({**TINY, "hidden_act": "relu"}))
    with pytest.raises(UserError, match="the model's hidden_act cannot change"):
        go_on(settings, STEPS)


def test_wsd_takes_another_budget_before_it_decays(settings: Settings) -> None:
    begun(settings, WSD)
    result = go_on(settings, {**WSD, "budget.steps": 14})
    assert result.records[-1]["step"] == 14
    rates = {r["step"]: r["learning_rate"] for r in result.records if "learning_rate" in r}
    assert rates[4] == rates[10] and rates[14] < rates[12] < rates[10]
    (record,) = [r for r in result.records if "remark" in r]
    assert record["changes"] == {"budget.steps": [8, 14]}


def test_a_finished_run_stays_as_it_is(settings: Settings) -> None:
    pretraining.pretrain(settings(**STEPS))
    with pytest.raises(UserError, match=r"started with budget\.steps 8, not 9"):
        go_on(settings, {**STEPS, "budget.steps": 9})
