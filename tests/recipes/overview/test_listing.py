"""What is told of runs that are found: whole, half-written, damaged, at work."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli import storage
from fmlm_cli.analysis.results.comparison import NextStep
from fmlm_cli.analysis.results.finetuning import (
    CheckpointComparison,
    FinetuneResults,
)
from fmlm_cli.config import RunsSettings
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, Grid, Note
from fmlm_cli.recipes.overview.differences import labels_of
from fmlm_cli.recipes.overview.listing import Overview, list_runs
from fmlm_cli.recipes.overview.outcomes import TUNING, read_comparison
from fmlm_cli.recipes.overview.reading import read_run
from tests.analysis.report.comparison import ARMS, made_results
from tests.recipes.overview.made_results import made_tuning, write_results
from tests.recipes.overview.made_runs import make_run, records


def listed(*folders: Path, **more: Any) -> tuple[Overview, list[Event]]:
    told: list[Event] = []
    return list_runs(RunsSettings(folders=tuple(map(str, folders)), **more), told.append), told


def test_states_and_figures(tmp_path: Path) -> None:
    make_run(tmp_path / "a", records(40))
    make_run(tmp_path / "b", records(25), finished=False, **{"budget.steps": 40})
    make_run(tmp_path / "c", None, finished=False)
    failed = [*records(7), {"step": 8, "remark": "failed", "error": "out of GPU memory"}]
    make_run(tmp_path / "deep" / "d", failed, finished=False)
    overview, told = listed(tmp_path)
    a, b, c, d = overview.runs
    assert [run.state_in_words for run in overview.runs] == [
        "finished",
        "stopped at step 25 of 40",
        "not begun",
        "failed at step 7",
    ]
    assert (a.tokens, a.seconds, a.evaluation) == (40_000, 40 * 36.0, "domain")
    losses = [record["eval_loss"] for record in records(40) if "eval_loss" in record]
    assert a.last_loss == losses[-1] == a.best_loss
    assert b.last_loss == losses[2] and (c.last_loss, c.step) == (None, None)
    assert d.problem == "out of GPU memory"
    assert any(isinstance(event, Caution) and "out of GPU memory" in event.text for event in told)


def test_the_lowest_loss_is_of_the_text_that_decides(tmp_path: Path) -> None:
    written = records(40)
    for step, loss in ((10, 2.0), (40, 1.0)):
        written.append({"step": step, "evaluation": "general", "eval_loss": loss})
    written.append({"step": 41, "evaluation": "domain", "eval_loss": 9.0})
    run = read_run(make_run(tmp_path / "a", written))
    assert run.last_loss == 9.0
    assert run.best_loss == min(r["eval_loss"] for r in records(40) if "eval_loss" in r)


def test_a_loss_that_is_not_finite_is_not_the_lowest(tmp_path: Path) -> None:
    written = [*records(10), {"step": 20, "evaluation": "domain", "eval_loss": float("nan")}]
    run = read_run(make_run(tmp_path / "a", written))
    assert run.best_loss == records(10)[-1]["eval_loss"] and run.last_loss != run.last_loss


def test_settings_of_no_kind_that_there_is_end_nothing(tmp_path: Path) -> None:
    make_run(tmp_path / "a", records(10))
    (make_run(tmp_path / "b", records(10)) / "config.yaml").write_text(
        "masking: {strategy: [x, {y: 1}], rate: {z: 2}}\nbudget: 5\noptimizer: null\n1: 2\n"
    )
    assert [run.state for run in listed(tmp_path)[0].runs] == ["finished", "finished"]


def test_a_model_goes_by_its_preset_or_by_its_checkpoint(tmp_path: Path) -> None:
    """A run that goes on from a checkpoint is of no preset, though that setting has a default."""
    runs = (
        make_run(tmp_path / "a", records(10)),
        make_run(tmp_path / "b", records(10), **{"model.checkpoint": "roberta-base"}),
    )
    assert labels_of(list(map(str, runs)), [read_run(run).settings for run in runs]) == [
        "bert-mini",
        "roberta-base",
    ]


def test_only_what_differs_is_shown(tmp_path: Path) -> None:
    make_run(
        tmp_path / "a",
        records(10),
        **{"optimizer.learning_rate": 1e-3, "device": "cpu", "data.stores": ["x/s"]},
    )
    make_run(tmp_path / "b", records(10), **{"optimizer.learning_rate": 2e-3, "masking.options": {"p": 0.5}})
    overview, told = listed(tmp_path)
    assert overview.differing == ["data.stores", "optimizer.learning_rate", "masking.options.p"]
    [grid] = [event for event in told if isinstance(event, Grid)]
    assert grid.header == (
        "",
        "state",
        "stores",
        "learning_rate",
        "p",
        "loss",
        "best",
        "tokens",
        "time",
        "changed",
    )
    assert [row[2:5] for row in grid.rows] == [("s", "0.001", "-"), ("", "0.002", "0.5")]


@pytest.mark.parametrize("sort", ["name", "state", "loss", "best", "tokens", "time", "changed"])
def test_sorting(tmp_path: Path, sort: str) -> None:
    for number, (name, level) in enumerate((("b", 2.0), ("a", 4.0), ("c", 3.0))):
        run = make_run(tmp_path / name, records(10 + 10 * number, level=level))
        os.utime(run / "metrics.jsonl", (number, number))
    make_run(tmp_path / "0", None, finished=False)
    runs = listed(tmp_path, sort=sort)[0].runs
    names = [Path(run.path).name for run in runs]
    wanted = {
        "name": "0abc",
        "state": "abc0",
        "tokens": "bac0",
        "time": "bac0",
        "loss": "cba0",
        "best": "cba0",
    }
    if sort == "changed":  # the latest first; a run without records by its settings
        assert names == ["0", "c", "a", "b"]
    else:
        assert "".join(names) == wanted[sort]


DAMAGE = {
    "an empty config": ("config.yaml", b""),
    "a config of garbage": ("config.yaml", b"\x00\xff{[:"),
    "a config that is a list": ("config.yaml", b"- a\n- b\n"),
    "a python object": ("config.yaml", b"!!python/object/apply:os.system ['true']\n"),
    "nested without end": ("config.yaml", b"[" * 5000),
    "aliases without end": ("config.yaml", b"a: &a {b: *a}\n"),
    "aliases of aliases": ("config.yaml", b"a: &a [1]\nb: [*a, *a]\n"),
    "records of garbage": ("metrics.jsonl", b"\x00\xff\xfe\n"),
    "a record without a step": ("metrics.jsonl", b'{"loss": 1}\n'),
    "tokens that are a text": ("metrics.jsonl", b'{"step": 1, "loss": 1.0, "tokens": "many"}\n'),
    "an evaluation without a number": ("metrics.jsonl", b'{"step": 1, "eval_loss": "low"}\n'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_shown_as_such(tmp_path: Path, damage: str) -> None:
    make_run(tmp_path / "whole", records(10))
    name, content = DAMAGE[damage]
    (make_run(tmp_path / "damaged", records(10)) / name).write_bytes(content)
    overview, told = listed(tmp_path)
    damaged, whole = overview.runs
    assert (damaged.state, whole.state) == ("damaged", "finished")
    assert name in damaged.problem and not overview.differing
    assert any(isinstance(event, Caution) and damaged.problem in event.text for event in told)


@given(content=st.binary(max_size=200), where=st.integers(0, 2000))
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, content: bytes, where: int) -> None:
    run = make_run(tmp_path_factory.mktemp("runs") / "a", records(10))
    for name in ("metrics.jsonl", "config.yaml"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[:where] + content + whole[where:])
    assert read_run(run).state in ("finished", "damaged")


@pytest.mark.parametrize("cut", range(0, 700, 23))
def test_a_last_line_that_is_cut_is_left_out(tmp_path: Path, cut: int) -> None:
    run = make_run(tmp_path / "a", records(10), finished=False)
    content = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(content[: len(content) - cut])
    whole = [json.loads(line) for line in content[: len(content) - cut].split(b"\n")[:-1]]
    report = read_run(run)
    assert report.state == "stopped" and report.step == whole[-1]["step"]


def test_the_steps_of_other_budgets_are_those_of_the_newest_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", records(25), finished=False, **{"budget.epochs": 7.0})
    assert read_run(run).state_in_words == "stopped at step 25"
    for step, total in ((9, 99), (10, 400)):
        (run / "checkpoints" / f"step-{step}").mkdir(parents=True)
        state = {"facts": {"total_steps": total}}
        (run / "checkpoints" / f"step-{step}" / "state.json").write_text(json.dumps(state))
    assert read_run(run).state_in_words == "stopped at step 25 of 400"
    (run / "checkpoints" / "step-10" / "state.json").write_text("{")
    assert read_run(run).state_in_words == "stopped at step 25"


def test_a_run_at_work_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    make_run(tmp_path / "a", records(5), finished=False)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom fmlm_cli import storage\n"
        "with storage.owned_folder(Path(sys.argv[1]), storage.RUN, resume=True): print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = sorted(path.name for path in (tmp_path / "a").iterdir())
        assert read_run(tmp_path / "a").state == "running"
        assert sorted(path.name for path in (tmp_path / "a").iterdir()) == before  # nothing is touched
        process.kill()
    assert read_run(tmp_path / "a").state == "stopped"


def test_another_hosts_run_is_at_work_while_its_lease_is_touched(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", records(5), finished=False)
    lease = run / f".fmlm.json.7-0-{'0' * 8}.lease"
    lease.write_text(json.dumps({"host": "elsewhere", "pid": 7, "started": "1", "shared": False}))
    before = run.stat().st_mtime_ns
    assert read_run(run).state == "running"
    assert run.stat().st_mtime_ns == before  # nothing was written to find out, not even for a moment
    os.utime(lease, (time.time() - 120,) * 2)
    assert read_run(run).state == "stopped"


def test_other_kinds_have_tables_of_their_own(tmp_path: Path) -> None:
    compared = make_run(tmp_path / "compared", None, finished=False, kind="comparison")
    make_run(compared / "race" / "random" / "seed-0", records(5))
    tuned = make_run(tmp_path / "tuned", None, finished=False, kind="fine-tuning")
    (tuned / "results.json").write_text("{}")
    store = tmp_path / "store"
    store.mkdir()
    (store / ".fmlm.json").write_text('{"kind": "token store", "version": 1}')
    overview, told = listed(tmp_path)
    assert [(o.path, o.state) for o in overview.comparisons] == [(str(compared), "unfinished")]
    assert [(o.path, o.state) for o in overview.tunings] == [(str(tuned), "damaged")]
    assert any(
        isinstance(e, Caution) and "tuned damaged: " in e.text and "--report-only" in e.text for e in told
    )
    assert not overview.runs  # of the comparison's none, unless it is what was asked for
    assert len(listed(compared)[0].runs) == 1 and not overview.others


def test_the_arms_of_a_comparison(tmp_path: Path) -> None:
    made = made_results()
    write_results(tmp_path / "races", "comparison", made)
    overview, told = listed(tmp_path)
    [report] = overview.comparisons
    race = made.race
    assert race is not None and report.state == "finished"
    order = [arm.masking for arm in report.arms]
    assert order[0] == ARMS["full-span"] and order[-1] == ARMS["fresh"]  # the lowest loss; the control last
    for name, label in ARMS.items():
        arm = report.arms[order.index(label)]
        assert (arm.mean, arm.seeds) == (race.final[name].mean, 3)
        assert arm.difference == (race.paired[name].mean if name in race.paired else None)
    grid, note = (next(event for event in told if isinstance(event, kind)) for kind in (Grid, Note))
    assert grid.narrow is not None and len(grid.rows) == len(ARMS) == len(grid.narrow.rows)
    assert [row[0] for row in grid.rows] == ["races", *[""] * 5]
    assert {len(row) for row in grid.rows} == {len(grid.header)}
    assert note.text == f"races: {made.verdict.headline}."
    assert report.next_step == made.verdict.next_step


def test_the_scores_of_fine_tunings(tmp_path: Path) -> None:
    alone, several = made_tuning("a", [0.5, 0.75]), [made_tuning(name, [0.5, None]) for name in "bc"]
    step = NextStep("use it", "fmlm predict --from x y")
    own = {k: v for k, v in vars(alone).items() if k != "name"}
    write_results(tmp_path / "one", TUNING, FinetuneResults(fmlm="0", settings={}, next_step=step, **own))
    write_results(
        tmp_path / "two",
        TUNING,
        CheckpointComparison("0", {}, "b", {}, ("c minus b: worse",), step, tuple(several)),
    )
    overview, told = listed(tmp_path)
    one, two = overview.tunings
    [score] = one.scores
    assert (score.task, score.checkpoint, score.mean, score.seeds) == ("rivers", "path/a", 0.625, 2)
    assert score.learning_rate == 2e-5
    assert [(s.checkpoint, s.seeds, s.diverged) for s in two.scores] == [("b", 1, 1), ("c", 1, 1)]
    grid = next(event for event in told if isinstance(event, Grid))
    assert grid.rows[0][2:7] == ("rivers", "path/a", "62.5 ± 17.7", "2", "2e-05")
    assert grid.rows[1][2:6] == ("rivers", "b", "50.0", "1 of 2")
    assert any(isinstance(event, Note) and event.text == "two: c minus b: worse" for event in told)


@settings(max_examples=15)
@given(content=st.binary(max_size=100), where=st.integers(0, 3000))
def test_no_bytes_of_results_raise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, where: int
) -> None:
    root = write_results(tmp_path_factory.mktemp("runs") / "races", "comparison", made_results())
    whole = (root / "results.json").read_bytes()
    (root / "results.json").write_bytes(whole[:where] + content + whole[where + 1 :])
    assert read_comparison(root).state in ("finished", "damaged")


def test_each_run_once_and_no_links(tmp_path: Path) -> None:
    make_run(tmp_path / "some" / "a", records(5))
    (tmp_path / "some" / "loop").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "some")
    overview, _ = listed(tmp_path, tmp_path / "some", tmp_path / "linked", tmp_path / "some" / "a")
    assert len(overview.runs) == 1


def test_nothing_to_find(tmp_path: Path) -> None:
    _, [note] = listed(tmp_path)
    assert "no run" in note.text
    with pytest.raises(UserError, match="no such folder"):
        listed(tmp_path / "nowhere")


def test_a_marker_of_a_newer_fmlm_or_a_damaged_one_ends_nothing(tmp_path: Path) -> None:
    (make_run(tmp_path / "a", records(5)) / storage.MARKER).write_text('{"kind": "run", "version": 99}')
    (make_run(tmp_path / "b", records(5)) / storage.MARKER).write_text("{")
    (make_run(tmp_path / "c", records(5)) / storage.MARKER).write_text('{"kind": "run", "version": Infinity}')
    assert [other.kind.split(":")[0] for other in listed(tmp_path)[0].others] == [
        "of a newer fmlm",
        "not known",
        "not known",
    ]
