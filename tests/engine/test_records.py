"""metrics.jsonl: what is written is there, and a resumed run forgets what lies after its checkpoint."""

import contextlib
import json
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli.engine.records import MetricsLog, Teller, read_metrics
from fmlm_cli.errors import OutOfSpaceError, UserError
from fmlm_cli.events import Evaluated, Event, Trained

values = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.booleans(), st.none())
fields = st.dictionaries(st.text(min_size=1), values, max_size=4)
records = st.lists(st.tuples(st.integers(0, 50), fields).map(lambda r: {**r[1], "step": r[0]}), max_size=8)


def write(path: Path, contents: list[dict[str, Any]]) -> MetricsLog:
    log = begin(path)
    for record in contents:
        log.write(Evaluated(record))
    return log


def begin(path: Path, step: int = 0) -> MetricsLog:
    log = MetricsLog(path)
    log.rewind(step, step)
    return log


@settings(max_examples=25)
@given(contents=records)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, contents: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    log = write(path, contents)
    assert log.records == contents
    assert read_metrics(path) == contents


def test_each_record_is_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = begin(path)
    assert path.read_bytes() == b""
    for step in range(3):
        log.write(Trained({"step": step, "loss": 0.5}, 3, 0.0))
        lines = path.read_text().splitlines()
        assert len(lines) == step + 1
        assert json.loads(lines[-1]) == {"step": step, "loss": 0.5}
        assert path.read_bytes().endswith(b"\n")


@settings(max_examples=25)
@given(contents=records.filter(bool), data=st.data())
def test_a_last_line_cut_anywhere_is_left_out(
    tmp_path_factory: pytest.TempPathFactory, contents: list[dict[str, Any]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    write(path, contents)
    whole = path.read_bytes()
    last = len(whole[:-1].rpartition(b"\n")[2]) + 1  # bytes of the last line, its end included
    missing = data.draw(st.integers(1, last))
    path.write_bytes(whole[:-missing])
    kept = contents if missing == 1 else contents[:-1]
    assert read_metrics(path) == kept
    log = begin(path, 50)
    log.write(Evaluated({"step": 51}))
    assert read_metrics(path) == [*kept, {"step": 51}]


def test_damage_elsewhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step":\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not valid JSON"):
        read_metrics(path)


@pytest.mark.parametrize("line", ["3", "[1]", "null", '"step"', "{}", '{"step": "1"}', '{"loss": 0.5}'])
def test_what_is_json_and_no_record_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: no record of a step; the file is damaged$"):
        read_metrics(path)


@settings(max_examples=25)
@given(contents=records, keep=st.integers(1, 60))
def test_a_resumed_run_is_cut_back(
    tmp_path_factory: pytest.TempPathFactory, contents: list[dict[str, Any]], keep: int
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    write(path, contents)
    wanted = [record for record in contents if record["step"] <= keep]
    log = begin(path, keep)
    assert log.records == wanted
    assert read_metrics(path) == wanted
    log.write(Evaluated({"step": keep + 1, "again": True}))
    assert read_metrics(path) == [*wanted, {"step": keep + 1, "again": True}]


def test_a_new_run_forgets_everything(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [{"step": 0, "eval_loss": 3.0}, {"step": 1, "loss": 2.0}])
    assert begin(path).records == []
    assert path.read_bytes() == b""


def test_a_damaged_file_is_no_obstacle_to_a_new_run(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step":\n{"step": 3}\n')
    assert begin(path).records == []
    with pytest.raises(UserError, match="damaged"):
        path.write_text('{"step":\n{"step": 3}\n')
        begin(path, 3)


def test_what_is_told_is_the_record_itself() -> None:
    told: list[Event] = []
    sink = Teller(told.append)
    sink.rewind(7, 7)
    records = [Trained({"step": 8, "loss": 0.5}, 9, 1.0), Evaluated({"step": 8, "eval_loss": 0.25})]
    for record in records:
        sink.write(record)
    assert told == records


@pytest.mark.parametrize("patient", [False, True])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: bool) -> None:
    """A line is in the file as a whole or not at all; one who is patient keeps it for the next time."""
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, patient=patient)
    log.rewind(0, -1)
    log.write(Trained({"step": 1}, 9, None))
    whole = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 5, before[1]))  # the next line does not fit
    try:
        refused = pytest.raises(OutOfSpaceError, match=r"no space left .*metrics\.jsonl")
        with contextlib.nullcontext() if patient else refused:
            log.write(Trained({"step": 2}, 9, None))
        assert path.stat().st_size == whole
        with refused:
            log.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.write(Trained({"step": 3}, 9, None))
    log.sync()
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]
    assert log.change_since(3, -1, log.sha256(3, -1)) is None
