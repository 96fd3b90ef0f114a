"""How a run begins, goes on and ends, whatever it trains."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fmlm_cli.engine.checkpoint import OPTIMIZER
from fmlm_cli.engine.optimizer import named_state
from fmlm_cli.engine.ranks.protocol import OneProcess
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, Note
from fmlm_cli.recipes.shared.training import train_to_the_end
from tests.engine.small_run import Run, batches_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
    monkeypatch.setattr("fmlm_cli.engine.loop.count_flops", lambda forward: 1)


def run(folder: Path, **changed: Any) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(folder, OneProcess(), **changed)


def bad(run: Run, at: int, value: float = float("nan")) -> Run:
    """The same, with inputs that are no numbers from a step on."""

    def prepare(step: int) -> Any:
        batches = batches_of(step, [2, 3, 1])
        if step >= at:
            batches[0].inputs["x"].fill_(value)
        return batches

    object.__setattr__(run.run, "prepare", prepare)
    return run


def said(run: Run, **how: Any) -> list[Event]:
    events: list[Event] = []
    train_to_the_end(run.run, events.append, **how)
    return events


def test_a_run_begins_in_silence_and_goes_on_with_a_note(tmp_path: Path) -> None:
    assert said(run(tmp_path)) == []
    assert said(run(tmp_path)) == [Note("resuming after step 6 of 6")]


def test_a_damaged_checkpoint_is_said(tmp_path: Path) -> None:
    said(run(tmp_path))
    newest = tmp_path / "checkpoints" / "step-6" / OPTIMIZER
    newest.write_bytes(newest.read_bytes()[:-1])
    again = run(tmp_path)
    caution, note = said(again)
    assert isinstance(caution, Caution) and str(newest) in caution.text
    assert caution.text.endswith("; going on from an older checkpoint")
    assert note == Note("resuming after step 5 of 6")
    assert [record["step"] for record in again.log.records] == [0, 2, 3, 4, 6, 6]


def test_divergence_names_the_last_good_checkpoint_if_there_will_be_one(tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"not finite at step 4: .*; the last good checkpoint is .*step-3$"
    ):
        said(bad(run(tmp_path / "a"), 4))
    with pytest.raises(DivergedError, match=r"at step 1: .*; there is no checkpoint yet$"):
        said(bad(run(tmp_path / "b"), 1))
    with pytest.raises(DivergedError, match=r"warmup_share$"):
        said(bad(run(tmp_path / "c", keeps_checkpoints=False), 4))


def test_metrics_that_changed_are_not_gone_on_from(tmp_path: Path) -> None:
    """They decide which epoch of a fine-tuning counts, and what a comparison finds."""
    said(run(tmp_path))
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    assert b'"eval_loss": 3.0' in whole
    for changed in (whole.replace(b'"eval_loss": 3.0', b'"eval_loss": 2.0'), whole.split(b"\n", 1)[1], b""):
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"metrics\.jsonl has changed since the checkpoint of step 6 was"):
            said(run(tmp_path))
        assert path.read_bytes() == changed
    path.write_bytes(whole)
    assert said(run(tmp_path)) == [Note("resuming after step 6 of 6")]


def test_a_log_that_lost_its_end_goes_with_an_older_checkpoint(tmp_path: Path) -> None:
    said(run(tmp_path))
    path = tmp_path / "metrics.jsonl"
    whole = run(tmp_path)
    said(whole)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    again = run(tmp_path)
    caution, note = said(again)
    assert isinstance(caution, Caution) and "metrics.jsonl has changed since the checkpoint of step 6" in (
        caution.text
    )
    assert note == Note("resuming after step 5 of 6")
    assert [(r["step"], r.get("loss")) for r in again.log.records] == [
        (r["step"], r.get("loss")) for r in whole.log.records
    ]


def test_the_log_is_on_the_disk_before_the_checkpoint_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink().name))
    said(run(tmp_path, checkpoint=6))
    at = synced.index("state.json")
    assert "metrics.jsonl" in synced[:at]


def test_what_a_damaged_run_is_told_to_do_begins_it_again(tmp_path: Path) -> None:
    """Within a comparison or a grid too, whose own --overwrite would clear far more."""
    said(run(tmp_path))
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match=r"the same command with --resume begins it again$") as caught:
        said(run(tmp_path))
    assert "--overwrite" not in str(caught.value)
    shutil.rmtree(str(caught.value).partition("or remove ")[2].partition(", and")[0])
    assert said(run(tmp_path)) == []


def test_a_run_begins_with_another_ones_optimizer_but_does_not_go_on_with_it(tmp_path: Path) -> None:
    said(run(tmp_path / "other"))
    carried = tmp_path / "other" / "checkpoints" / "step-6"
    counted = run(tmp_path / "own")
    said(counted, carried_over=carried)
    steps = {float(v) for k, v in named_state(counted.model, counted.run.optimizer).items() if "/step" in k}
    assert steps == {12.0}
    again = run(tmp_path / "own")
    said(again, carried_over=carried)
    kept = load_file(tmp_path / "own" / "checkpoints" / "step-6" / OPTIMIZER)
    state = named_state(again.model, again.run.optimizer)
    assert all(torch.equal(state[name], value) for name, value in kept.items())
    with pytest.raises(
        UserError, match=r"optimizer.safetensors is missing or damaged .*: set optimizer.carry_over=false"
    ):
        said(run(tmp_path / "third"), carried_over=tmp_path)
