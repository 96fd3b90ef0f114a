"""However jobs are shared, stopped and gone on with: each is done once, with the settings asked for."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli import storage
from fmlm_cli.errors import UserError
from fmlm_cli.events import Event, Note, ignore
from fmlm_cli.recipes.jobs.board import Board, Outcome
from fmlm_cli.recipes.jobs.ledger import Job, Ledger, parse_share
from fmlm_cli.recipes.jobs.records import FileRecord, FolderRecord, Kept, Record
from fmlm_cli.recipes.jobs.work import Sharing, report_once_done, work_through
from tests.damage import single_bit_flips
from tests.recipes.jobs.in_memory import Disk, job, ledger_of

sizes = st.lists(st.integers(1, 3), min_size=1, max_size=6)


def groups_of(numbers: list[int]) -> list[list[Job]]:
    return [[job(f"{group}/{place}") for place in range(size)] for group, size in enumerate(numbers)]


def names(jobs: list[Job]) -> list[str]:
    return [each.name for each in jobs]


class Killed(Exception):
    """The process was."""


def work(
    ledger: Ledger[Job, Any], share: str | None = None, kill: Callable[[], bool] = lambda: False
) -> None:
    """One call's work."""

    def do(each: Job) -> str:
        if kill():
            raise Killed
        return f"found {each.name}"

    board = Board("", ledger, lambda _, found: Outcome(found, found, 1.0), ignore)
    work_through(ledger, do, board, Sharing(share), [], Path("nowhere"))


# ---------------------------------------------------------------- shares


@given(sizes, st.integers(1, 8))
def test_shares_cover_every_job_once_and_leave_groups_whole(numbers: list[int], processes: int) -> None:
    ledger = ledger_of(Disk(), groups_of(numbers))
    shares = [ledger.share(f"{i + 1}/{processes}") for i in range(processes)]
    assert sorted(name for share in shares for name in names(share)) == sorted(names(ledger.jobs))
    for group in ledger.groups:
        (holder,) = [share for share in shares if group[0] in share]
        at = holder.index(group[0])
        assert holder[at : at + len(group)] == group
    assert ledger.share(None) == ledger.jobs


@given(sizes, st.integers(1, 4), st.data())
def test_any_interleaving_of_processes_does_every_job_once(
    numbers: list[int], processes: int, data: st.DataObject
) -> None:
    """Some are killed on the way, and go on."""
    disk, groups = Disk(), groups_of(numbers)

    def steps(share: str) -> Iterator[None]:
        """A process that stands still before each job; one that is killed at it begins it anew."""
        for each in ledger_of(disk, groups).share(share):
            yield
            one = ledger_of(disk, [[each]])
            while one.unfinished:
                try:
                    work(one, kill=lambda: data.draw(st.booleans()))
                except Killed:
                    yield

    running = [steps(f"{i + 1}/{processes}") for i in range(processes)]
    while running:
        process = data.draw(st.sampled_from(running))
        if next(process, "ended") == "ended":
            running.remove(process)
    assert sorted(disk.done) == sorted(names(ledger_of(disk, groups).jobs))
    assert not ledger_of(disk, groups).unfinished and not disk.owned


@given(sizes, st.data())
def test_killed_jobs_are_done_again_and_finished_ones_never(numbers: list[int], data: st.DataObject) -> None:
    disk, groups = Disk(), groups_of(numbers)
    total = sum(numbers)
    for _ in range(data.draw(st.integers(0, 4))):
        before, left = list(disk.done), data.draw(st.integers(0, total))
        countdown = iter([False] * left)
        try:
            work(ledger_of(disk, groups), kill=lambda countdown=countdown: next(countdown, True))
        except Killed:
            assert disk.done[: len(before)] == before and len(disk.done) == len(before) + left
    work(ledger_of(disk, groups))
    assert disk.done == names(ledger_of(disk, groups).jobs)


@pytest.mark.parametrize("text", ["1/0", "0/3", "4/3", "a/b", "2", "1/2/3", "", "-1/2", "1.0/2"])
def test_shares_that_are_none(text: str) -> None:
    for read in (parse_share, Sharing):
        with pytest.raises(UserError, match=f"--cell {text}: write it as i/n"):
            read(text)


def test_ways_of_sharing_that_are_none() -> None:
    with pytest.raises(UserError, match="--jobs 0: give 1 or more"):
        Sharing(processes=0)
    for how in ({"cell": "1/2"}, {"report_only": True}):
        with pytest.raises(UserError, match="--jobs makes processes of its own: leave out --cell and"):
            Sharing(processes=2, **how)  # type: ignore[arg-type]


def test_only_as_many_processes_as_there_is_work_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[int] = []
    monkeypatch.setattr("fmlm_cli.recipes.jobs.work.spread", lambda words, number, *_: told.append(number))
    disk, groups = Disk(), groups_of([1, 2, 1])

    def spread(folder: storage.OwnedFolder) -> None:
        ledger = ledger_of(disk, groups)
        board = Board("", ledger, lambda _, found: Outcome(found, found, 1.0), ignore)
        work_through(ledger, lambda each: pytest.fail(each.name), board, Sharing(processes=8), [], folder)

    with storage.owned_folder(tmp_path, storage.Kind("jobs", "work", ())) as folder:
        spread(folder)
        work(ledger_of(disk, groups), "1/3")
        spread(folder)
        work(ledger_of(disk, groups))
        spread(folder)
    assert told == [3, 2]


# ---------------------------------------------------------------- what decides

settings = st.fixed_dictionaries({name: st.integers(0, 2) for name in ("rate", "size", "passes")})


@given(settings, settings, st.booleans())
def test_a_setting_that_changed_is_refused_by_its_name(
    before: dict[str, int], now: dict[str, int], finished: bool
) -> None:
    """But for one that may differ, with which the job is done again."""
    disk, groups = Disk(), [[job("only", may_differ=("passes",))]]
    try:
        work(ledger_of(disk, groups, before), kill=lambda: not finished)
    except Killed:
        assert not finished
    ledger = ledger_of(disk, groups, now)
    changed = [name for name in before if before[name] != now[name]]
    refused = [name for name in changed if name != "passes"]
    for check in (ledger.check_all, lambda: work(ledger)):
        if refused:
            name = refused[0]
            words = (
                f"^out/only was made with {name} {before[name]}, not {now[name]}: go back to that, or choose"
            )
            with pytest.raises(UserError, match=words):
                check()
        else:
            check()
    times = finished + (not refused and (bool(changed) or not finished))
    assert len(disk.done) == times
    assert (ledger.result(groups[0][0]) is None) == bool(refused or not times)


def test_what_is_known_by_its_hash_is_said_in_words() -> None:
    disk, groups = Disk(), [[job("only")]]
    work(ledger_of(disk, groups, {"dev.matched": "a"}))
    other = ledger_of(disk, groups, {"dev.matched": "b"}, by_hash={"dev": "with other development data"})
    with pytest.raises(UserError, match=r"^out/only was made with other development data: go back"):
        other.check_all()


# ---------------------------------------------------------------- reports


def report(
    ledger: Ledger[Job, Any], tmp_path: Path, how: Sharing, **insist: bool
) -> tuple[str | None, list[Event]]:
    told: list[Event] = []
    return report_once_done(ledger, lambda: "all of it", how, tmp_path / "lock", told.append, **insist), told


def test_a_report_comes_once_all_are_done(tmp_path: Path) -> None:
    disk, groups = Disk(), groups_of([2, 1, 1, 1])
    work(ledger_of(disk, groups), "1/4")
    said = "2 of 5 jobs are done"
    assert report(ledger_of(disk, groups), tmp_path, Sharing()) == (
        None,
        [Note(f"{said}: there is a report once all are")],
    )
    assert report(ledger_of(disk, groups), tmp_path, Sharing(report=False)) == (None, [])
    with pytest.raises(
        UserError, match=f"{said}, and 1/0, 2/0, 3/0 not: do them with --resume, or the other"
    ):
        report(ledger_of(disk, groups), tmp_path, Sharing(report_only=True), insist=True)
    work(ledger_of(disk, groups))
    assert report(ledger_of(disk, groups), tmp_path, Sharing(report_only=True)) == ("all of it", [])
    with pytest.raises(UserError, match="out/0/0 was made with rate None, not 1"):
        report(ledger_of(disk, groups, {"rate": 1}), tmp_path, Sharing())


def test_a_call_for_the_report_does_nothing_else() -> None:
    disk = Disk()
    ledger = ledger_of(disk, groups_of([1]))
    board = Board("", ledger, lambda _, found: Outcome(found, found, 1.0), ignore)
    work_through(ledger, lambda each: "found", board, Sharing(report_only=True), [], Path("x"))
    assert not disk.kept


# ---------------------------------------------------------------- records on the disk


@dataclass(frozen=True)
class Found:
    """A result with fields."""

    score: float
    steps: list[int]


def folder_record(tmp_path: Path) -> tuple[FolderRecord[Found], Any]:
    return FolderRecord(tmp_path / "cells/a", Found, "checkpoints"), Found(0.1 + 0.2, [1, 2])


def file_record(tmp_path: Path) -> tuple[FileRecord, Any]:
    return FileRecord(tmp_path / "cells/a/b.json", tmp_path / "a/b"), {"score": 0.1 + 0.2, "steps": [1, 2]}


@pytest.mark.parametrize("made", [folder_record, file_record])
def test_what_is_written_is_read(made: Callable[[Path], tuple[Record[Any], Any]], tmp_path: Path) -> None:
    record, result = made(tmp_path)
    made_with = {"rate": 1e-4, "betas": [0.9, 0.98], "name": "ä", "limit": None}
    assert record.read() is None
    with record.owned():
        record.begin(made_with)
        assert record.read() == Kept(made_with, None)
        record.finish(made_with, result)
    assert record.read() == Kept(made_with, result)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_a_folder_has_one_owner_and_loses_its_scratch_at_the_end(tmp_path: Path) -> None:
    record, result = folder_record(tmp_path)
    with record.owned():
        record.begin({})
        (record.place / "checkpoints/step-3").mkdir(parents=True)
        with pytest.raises(UserError, match="is in use by another fmlm process"), record.owned():
            pass
        assert (record.place / "checkpoints/step-3").is_dir()
        record.finish({}, result)
    assert sorted(path.name for path in record.place.iterdir()) == ["cell.json", "result.json"]


@pytest.mark.parametrize("damage", ["", "{", "[]", "3", '{"score": 1, "steps": []}', "\x00"])
@pytest.mark.parametrize("name", ["cell.json", "result.json"])
def test_a_damaged_folder_says_what_to_do(tmp_path: Path, name: str, damage: str) -> None:
    record, result = folder_record(tmp_path)
    with record.owned():
        record.begin({"rate": 1})
        record.finish({"rate": 1}, result)
    storage.write_text(record.place / name, damage)
    with pytest.raises(
        UserError, match=rf"{name} is damaged: remove .*cells/a, and the cell is done again with"
    ):
        record.read()


DAMAGED = ["", "{", "[]", "3", '{"result": 1}', '{"made_with": []}', '{"made_with": {}, "result": [1]}']


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_says_what_to_do(tmp_path: Path, damage: str) -> None:
    record, _ = file_record(tmp_path)
    record.begin({})
    storage.write_text(record.path, damage)
    with pytest.raises(UserError, match="damaged: remove it, and --resume does this piece of work again"):
        record.read()


def test_without_the_file_beside_it_there_is_no_result(tmp_path: Path) -> None:
    record = FileRecord(tmp_path / "a.json", tmp_path / "a", beside=tmp_path / "a.npz")
    record.begin({})
    (tmp_path / "a.npz").write_bytes(b"measured")
    record.finish({}, {"rows": 3})
    assert record.read() == Kept({}, {"rows": 3})
    (tmp_path / "a.npz").write_bytes(b"Measured")
    with pytest.raises(UserError, match=r"a\.npz has changed since it was written: remove it, and --resume"):
        record.read()
    (tmp_path / "a.npz").unlink()
    assert record.read() == Kept({}, None)


@pytest.mark.parametrize("made", [folder_record, file_record])
def test_no_bit_of_what_is_done_changes_unseen(
    made: Callable[[Path], tuple[Record[Any], Any]], tmp_path: Path
) -> None:
    record, result = made(tmp_path)
    with record.owned():
        record.begin({"rate": 1e-4})
        record.finish({"rate": 1e-4}, result)
    before = record.read()
    for path in tmp_path.rglob("*.json"):
        whole = path.read_bytes()
        for changed in single_bit_flips(whole):
            path.write_bytes(changed)
            with contextlib.suppress(UserError):
                assert record.read() == before, changed
        path.write_bytes(whole)
