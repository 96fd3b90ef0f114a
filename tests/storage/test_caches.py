"""Caches: hashes of files that have not changed, and files that can be made again."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli import storage
from fmlm_cli.storage import caches
from fmlm_cli.storage.caches import RememberedHashes

CONTENT = bytes(range(256)) * 8


class Reading:
    """Which files were read to be hashed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[Path] = []
        monkeypatch.setattr(caches, "sha256_of_files", self._hashed)

    def _hashed(self, paths: Sequence[Path]) -> list[str]:
        self.paths += paths
        return [storage.sha256_of_file(path) for path in paths]

    def of(self, action: Callable[[], object]) -> list[str]:
        """Names of the files that this reads."""
        self.paths.clear()
        action()
        return [path.name for path in self.paths]


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Every file is large enough and old enough to be remembered."""
    monkeypatch.setattr(caches, "_WORTH_REMEMBERING", 0)
    monkeypatch.setattr(caches, "_SETTLED", 0)
    return Reading(monkeypatch)


def two_files(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in ("a", "b"):
        (folder / name).write_bytes(CONTENT + name.encode())
    return [folder / "a", folder / "b"]


def test_what_has_not_changed_is_read_once(reading: Reading, tmp_path: Path) -> None:
    paths = two_files(tmp_path / "files")
    wanted = [storage.sha256_of_file(path) for path in paths]
    hashes = RememberedHashes(tmp_path / "kept" / "hashes.json")
    assert hashes.known(paths) == [None, None]
    assert reading.of(lambda: hashes.of(paths)) == ["a", "b"]
    for again in (hashes, RememberedHashes(tmp_path / "kept" / "hashes.json")):
        assert again.of(paths) == again.known(paths) == wanted
        assert reading.of(lambda again=again: again.of(paths)) == []
    assert reading.of(lambda: hashes.of(paths, afresh=True)) == ["a", "b"]


@settings(max_examples=30)
@given(place=st.integers(0, len(CONTENT) - 1), flip=st.integers(1, 255), back=st.booleans())
def test_a_byte_that_changes_in_place_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int, back: bool
) -> None:
    """Whether or not whoever changed it sets the time of change back."""
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caches, "_WORTH_REMEMBERING", 0)
        patch.setattr(caches, "_SETTLED", 0)
        paths, hashes = two_files(folder), RememberedHashes(folder / "hashes.json")
        for _ in range(50):  # until the system's clock has gone on since they were written
            hashes.of(paths)
            if None not in hashes.known(paths):
                break
        before = paths[0].stat()
        with paths[0].open("r+b") as file:
            file.seek(place)
            file.write(bytes([CONTENT[place] ^ flip]))
        if back:
            os.utime(paths[0], ns=(before.st_atime_ns, before.st_mtime_ns))
        if paths[0].stat().st_ctime_ns == before.st_ctime_ns:
            return  # in one tick of that clock: what files that are too young are not remembered for
        assert hashes.of(paths) == [storage.sha256_of_file(path) for path in paths]


def test_a_file_that_was_written_just_now_is_not_remembered(
    reading: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "_SETTLED", 3600 * 10**9)
    paths, hashes = two_files(tmp_path / "files"), RememberedHashes(tmp_path / "hashes.json")
    for _ in range(2):
        assert reading.of(lambda: hashes.of(paths)) == ["a", "b"]
    assert not (tmp_path / "hashes.json").exists()


def test_small_files_are_hashed_without_ado(
    reading: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "_WORTH_REMEMBERING", 1 << 20)
    paths, hashes = two_files(tmp_path / "files"), RememberedHashes(tmp_path / "hashes.json")
    assert hashes.known(paths) == hashes.of(paths) == [storage.sha256_of_file(path) for path in paths]
    assert list(tmp_path.iterdir()) == [tmp_path / "files"]


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"a', b"\xff\xfe", None])
def test_a_damaged_memory_is_none(reading: Reading, tmp_path: Path, damage: bytes | None) -> None:
    paths, kept = two_files(tmp_path / "files"), tmp_path / "hashes.json"
    RememberedHashes(kept).of(paths)
    whole = kept.read_bytes()
    kept.write_bytes(whole.replace(b'"', b" ", 1) if damage is None else damage)
    assert RememberedHashes(kept).of(paths) == [storage.sha256_of_file(path) for path in paths]
    assert RememberedHashes(kept).known(paths) == RememberedHashes(kept).of(paths)  # it was made anew


def test_hashes_need_no_place_to_be_kept(reading: Reading, tmp_path: Path) -> None:
    paths = two_files(tmp_path / "files")
    (tmp_path / "a file").write_text("")
    for nowhere in (None, tmp_path / "a file" / "hashes.json"):
        hashes = RememberedHashes(nowhere)
        assert hashes.of(paths) == [storage.sha256_of_file(path) for path in paths]
        assert hashes.known(paths) == [None, None]


# ---------------------------------------------------------------- files that can be made again


def fill(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def test_what_is_kept_is_found_by_its_key(tmp_path: Path) -> None:
    cache = storage.Cache(tmp_path / "cache")
    assert cache.find("plan", "k1") is None
    made = cache.keep("plan", "k1", ".bin", fill(b"one"), most=3)
    assert made is not None and made.read_bytes() == b"one"
    assert cache.find("plan", "k1") == made == storage.Cache(tmp_path / "cache").find("plan", "k1")
    assert cache.find("plan", "k2") is cache.find("other", "k1") is None
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [made.name]


@pytest.mark.parametrize("damaged", [b"", b"onf", b"one "])
def test_what_is_damaged_is_not_found_and_is_replaced(tmp_path: Path, damaged: bytes) -> None:
    cache = storage.Cache(tmp_path / "cache")
    made = cache.keep("plan", "k", ".bin", fill(b"one"), most=3)
    assert made is not None
    made.write_bytes(damaged)
    assert cache.find("plan", "k") is None
    assert cache.keep("plan", "k", ".bin", fill(b"one"), most=3) == cache.find("plan", "k") == made
    assert made.read_bytes() == b"one"


def test_only_the_latest_stay(tmp_path: Path) -> None:
    cache = storage.Cache(tmp_path / "cache")
    cache.keep("other", "k", ".bin", fill(b"x"), most=9)
    (tmp_path / "cache" / ".plan.1.partial").write_bytes(b"left by who was killed")
    os.utime(tmp_path / "cache" / ".plan.1.partial", (0, 0))
    for number in range(6):
        path = cache.keep("plan", f"k{number}", ".bin", fill(bytes([number])), most=3)
        assert path is not None
        os.utime(path, (number, number))
    found = [cache.find("plan", f"k{number}") is not None for number in range(6)]
    assert found == [False] * 3 + [True] * 3
    assert cache.find("other", "k") is not None
    assert len(list((tmp_path / "cache").iterdir())) == 4


def full(path: Path) -> None:
    path.write_bytes(b"half")
    raise OSError(28, "No space left on device")


def test_what_cannot_be_kept_is_not(tmp_path: Path) -> None:
    assert storage.Cache(tmp_path / "cache").keep("plan", "k", ".bin", full, most=3) is None
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").write_text("")
    for nowhere in (None, tmp_path / "file" / "cache"):
        cache = storage.Cache(nowhere)
        assert cache.keep("plan", "k", ".bin", fill(b"one"), most=3) is None
        assert cache.find("plan", "k") is None


def test_several_may_make_the_same_at_once(tmp_path: Path) -> None:
    threads, made = 8, list[Path | None]()
    start = threading.Barrier(threads)

    def make() -> None:
        cache = storage.Cache(tmp_path / "cache")
        start.wait()
        made.append(cache.keep("plan", "k", ".bin", fill(b"same" * 99_999), most=3))

    running = [threading.Thread(target=make) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(made) == threads
    assert {*made} == {storage.Cache(tmp_path / "cache").find("plan", "k")} != {None}
    assert len(list((tmp_path / "cache").iterdir())) == 1


# ---------------------------------------------------------------- where they lie


def test_a_cache_lies_in_the_users_own_folder_or_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage.cache_of(tmp_path, "abc") == tmp_path / storage.CACHE
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    elsewhere = tmp_path / "xdg" / "fmlm" / "stores" / "abc"
    assert storage.cache_of(tmp_path, "abc") == elsewhere
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert storage.cache_of(tmp_path, "abc") == elsewhere
    assert storage.cache_of(tmp_path / "missing", "abc") == elsewhere
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for unset in (None, "", "relative"):
        monkeypatch.delenv("XDG_CACHE_HOME")
        if unset is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert storage.cache_of(tmp_path, "abc") == tmp_path / "home" / ".cache" / "fmlm" / "stores" / "abc"
        monkeypatch.setenv("XDG_CACHE_HOME", "")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert storage.cache_of(tmp_path, "abc") is None


def test_the_users_cache_holds_a_few_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_KEPT_FOLDERS", 3)
    for number in range(5):
        folder = tmp_path / "stores" / f"store{number}"
        assert storage.Cache(folder).keep("plan", "k", ".bin", fill(b"x"), most=3)
        os.utime(folder, (number, number))
    assert {path.name for path in (tmp_path / "stores").iterdir()} == {"store2", "store3", "store4"}
