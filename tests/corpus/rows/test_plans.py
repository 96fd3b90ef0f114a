"""Row plans that are kept: the same as those that are made, whatever happens to them on the disk."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmlm_cli import storage
from fmlm_cli.corpus.rows import packing, plans
from fmlm_cli.corpus.rows.packing import Frame, Packing, RowPlan, plan_rows
from fmlm_cli.corpus.rows.plans import map_plan, write_plan
from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore

PACKINGS: tuple[Packing, ...] = ("documents", "concat", "none")


def same(one: RowPlan, two: RowPlan) -> bool:
    return all(np.array_equal(value, getattr(two, name)) for name, value in vars(one).items())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 70), max_size=30),
    frame=st.builds(Frame, st.integers(0, 2), st.integers(0, 2), st.booleans()),
    kind=st.sampled_from(PACKINGS),
    length=st.sampled_from([5, 24, 70_000]),
)
def test_a_plan_that_was_written_is_the_same_when_mapped(
    tmp_path: Path, lengths: list[int], frame: Frame, kind: Packing, length: int
) -> None:
    plan = plan_rows(np.array(lengths, np.int32), kind, length, frame)
    path = tmp_path / "plan.arrow"
    path.unlink(missing_ok=True)  # what is mapped is never written over: here neither
    write_plan(plan, path)
    mapped = map_plan(path)
    assert same(plan, mapped)
    for name in (*packing.STRETCHES, "first"):
        array = getattr(mapped, name)
        assert not array.flags.writeable and array.base is not None, "a copy"


class Planning:
    """Counts the plans that are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        monkeypatch.setattr(plans, "plan_rows", self._plan)
        monkeypatch.setattr(plans, "_WORTH_KEEPING", 0)

    def _plan(self, *arguments: Any) -> RowPlan:
        self.made += 1
        return plan_rows(*arguments)


@pytest.fixture
def planning(monkeypatch: pytest.MonkeyPatch) -> Planning:
    """Every plan is large enough to be kept."""
    return Planning(monkeypatch)


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(tiny_store, tmp_path / "store"))


def plan_in(store: Path, kind: Packing = "documents", length: int = 32, split: str = "train") -> RowPlan:
    return RowReader(TokenStore.open(store), split, packing=kind, sequence_length=length).plan


def kept_plans(store: Path) -> list[Path]:
    return sorted((store / storage.CACHE).glob("*"))


def test_small_plans_are_not_kept(store: Path) -> None:
    before = sorted(store.rglob("*"))
    plan_in(store)
    assert sorted(store.rglob("*")) == before


def test_a_plan_is_made_once_for_what_decides_it(planning: Planning, store: Path) -> None:
    asked: list[tuple[Packing, int, str]] = [
        *((kind, 32, "train") for kind in PACKINGS),
        ("documents", 33, "train"),
        ("documents", 32, "validation"),
    ]
    first = [plan_in(store, *what) for what in asked]
    assert planning.made == len(asked) == len(kept_plans(store))
    for plan, what in zip(first, asked, strict=True):
        assert same(plan, plan_in(store, *what))
    assert planning.made == len(asked)
    lengths = TokenStore.open(store).split("train").lengths
    assert same(first[0], plan_rows(lengths, "documents", 32, Frame(1, 1, True)))


def test_a_plan_of_another_way_of_planning_does_not_serve(
    planning: Planning, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_in(store)
    monkeypatch.setattr(plans, "PLANNING", packing.PLANNING + 1)
    plan_in(store)
    assert planning.made == 2


def test_a_store_that_is_copied_or_changed_keeps_its_own_plans(
    planning: Planning, store: Path, documents: list[str], make_store: Any, tmp_path: Path
) -> None:
    plan = plan_in(store)
    copied = Path(shutil.copytree(store, tmp_path / "copy"))
    assert same(plan, plan_in(copied)) and planning.made == 1
    other = make_store(tmp_path / "other", documents[:90])
    shutil.copytree(store / storage.CACHE, other / storage.CACHE)
    assert not same(plan, plan_in(other)) and planning.made == 2


def flipped(content: bytes, place: float) -> bytes:
    at = int(place * (len(content) - 1))
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "longer": lambda content: content + b"\0",
    **{
        f"byte at {place:.0%}": lambda content, place=place: flipped(content, place)
        for place in (0, 0.4, 0.8, 1)
    },
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_plan_is_made_anew(
    planning: Planning, store: Path, damage: Callable[[bytes], bytes]
) -> None:
    plan = copy.deepcopy(plan_in(store))  # not mapped: it would be damaged too
    (path,) = kept_plans(store)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert same(plan, plan_in(store))
    assert planning.made == 2
    assert kept_plans(store) == [path] and path.read_bytes() == whole
    assert same(plan, plan_in(store)) and planning.made == 2


def test_nothing_is_kept_of_a_damaged_store(planning: Planning, store: Path) -> None:
    """Else its rows would come back when the store is whole again."""
    (path,) = (store / "train").glob("*.arrow")
    whole = path.read_bytes()
    path.write_bytes(flipped(whole, 0.99))
    RowReader(TokenStore.open(store, verify=()), "train", packing="documents", sequence_length=32)
    assert kept_plans(store) == []
    path.write_bytes(whole)
    plan_in(store)
    assert planning.made == 2 and len(kept_plans(store)) == 1


@pytest.mark.parametrize("place", ["the user's cache", "none"])
def test_a_store_of_others_is_not_written_to(
    planning: Planning, store: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = None if place == "none" else tmp_path / "elsewhere"
    monkeypatch.setattr(storage, "cache_of", lambda *_: elsewhere)
    first, second = plan_in(store), plan_in(store)
    assert same(first, second)
    assert planning.made == (2 if elsewhere is None else 1)
    assert not (store / storage.CACHE).exists()


def test_a_disk_without_room_costs_time_alone(
    planning: Planning, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(plan: RowPlan, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plans, "write_plan", full)
    assert same(plan_in(store), plan_in(store))
    assert planning.made == 2 and kept_plans(store) == []


def test_a_plan_that_is_removed_between_two_looks_is_made(
    planning: Planning, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_in(store)
    monkeypatch.setattr(storage.Cache, "find", lambda *_: store / "gone.arrow")
    assert same(plan, plan_in(store)) and planning.made == 2


def test_a_store_with_a_cache_can_be_replaced(planning: Planning, store: Path) -> None:
    from fmlm_cli.corpus.store.reading import STORE

    plan_in(store)
    (store / storage.MARKER).write_text('{"kind": "token store", "version": 1}')
    storage.check_claim(store, STORE, overwrite=True, resume=False)  # nothing in it is foreign
