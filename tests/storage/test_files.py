import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fmlm_cli import storage
from fmlm_cli.errors import Interrupted, OutOfSpaceError, UserError, is_out_of_space
from fmlm_cli.storage import RunDirectory, clear_disk_errors, complete_folder

quick = settings(derandomize=True, deadline=None, max_examples=50)
WAYS_TO_END = (ValueError("bad"), KeyboardInterrupt(), SystemExit(3), Interrupted("SIGTERM", 143))


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def contents(folder: Path) -> dict[str, str | None]:
    """Everything below a folder, hidden things too."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_text()
        for path in folder.rglob("*")
    }


class TestCompleteFolder:
    def test_appears_whole_at_the_end_and_not_before(self, tmp_path: Path) -> None:
        target = tmp_path / "deep" / "er" / "store"
        with complete_folder(target) as folder:
            (folder / "a").write_text("1")
            (folder / "sub").mkdir()
            (folder / "sub" / "b").write_text("2")
            assert not target.exists()
            assert folder.parent == target.parent  # one file system, so that renaming is atomic
        assert contents(tmp_path / "deep") == {
            "er": None, "er/store": None, "er/store/a": "1", "er/store/sub": None, "er/store/sub/b": "2",
        }  # fmt: skip

    @pytest.mark.parametrize("end", WAYS_TO_END, ids=lambda e: type(e).__name__)
    @pytest.mark.parametrize("before", [None, {"old": "content"}], ids=["new", "existing"])
    def test_whatever_ends_it_early_leaves_the_target_as_it_was(
        self, tmp_path: Path, end: BaseException, before: dict[str, str] | None
    ) -> None:
        target = tmp_path / "run"
        if before:
            target.mkdir()
            (target / "old").write_text("content")
        was = contents(tmp_path)
        with pytest.raises(type(end)) as caught, complete_folder(target) as folder:
            (folder / "half").write_text("x")
            raise end
        assert caught.value is end
        assert contents(tmp_path) == was

    def test_an_existing_folder_is_replaced_whole_and_only_at_the_end(self, tmp_path: Path) -> None:
        target = tmp_path / "run"
        target.mkdir()
        (target / "old").write_text("1")
        with complete_folder(target) as folder:
            (folder / "new").write_text("2")
            assert contents(target) == {"old": "1"}
        assert contents(tmp_path) == {"run": None, "run/new": "2"}

    def test_what_a_killed_run_left_is_not_mixed_in(self, tmp_path: Path) -> None:
        target = tmp_path / "run"
        with complete_folder(target) as folder:
            (folder / "first").write_text("1")
            shutil.copytree(folder, tmp_path / "kept")
        (tmp_path / "kept").rename(folder)  # as if it had been killed in the middle
        with complete_folder(target) as folder:
            assert list(folder.iterdir()) == []
            (folder / "second").write_text("2")
        assert contents(tmp_path) == {"run": None, "run/second": "2"}

    def test_relative_targets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with complete_folder(Path("x")) as folder:
            (folder / "a").write_text("1")
        assert contents(tmp_path) == {"x": None, "x/a": "1"}

    def test_the_current_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        with complete_folder(Path()) as folder:
            (folder / "a").write_text("1")
        assert contents(tmp_path) == {"here": None, "here/a": "1"}

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_link_stays_a_link(self, tmp_path: Path, exists: bool) -> None:
        real, link = tmp_path / "elsewhere" / "real", tmp_path / "link"
        real.parent.mkdir()
        if exists:
            real.mkdir()
            (real / "old").write_text("1")
        link.symlink_to(real)
        with complete_folder(link) as folder:
            (folder / "new").write_text("2")
        assert link.readlink() == real
        assert contents(real.parent) == {"real": None, "real/new": "2"}

    @pytest.mark.parametrize("call", [1, 2], ids=["old folder away", "new folder in"])
    @pytest.mark.parametrize(
        "end", [OSError(errno.EIO, "broken"), KeyboardInterrupt()], ids=["error", "Ctrl-C"]
    )
    def test_a_swap_that_fails_leaves_the_old_folder(
        self, tmp_path: Path, call: int, end: BaseException, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target, rename, calls = tmp_path / "run", Path.rename, []
        target.mkdir()
        (target / "old").write_text("1")

        def failing(self: Path, to: Path) -> Path:
            calls.append(to)
            if len(calls) == call:
                raise end
            return rename(self, to)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(type(end)), complete_folder(target) as folder:
            (folder / "new").write_text("2")
        assert contents(tmp_path) == {"run": None, "run/old": "1"}

    def test_folders_made_on_the_way_go_if_it_fails(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt), complete_folder(tmp_path / "a" / "b" / "run"):
            raise KeyboardInterrupt
        assert contents(tmp_path) == {}

    @pytest.mark.parametrize("where", ["block", "fsync", "rename"])
    def test_full_disk(self, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
        target = tmp_path / "run"
        if where == "fsync":
            monkeypatch.setattr(os, "fsync", full_disk)
        if where == "rename":
            monkeypatch.setattr(Path, "rename", full_disk)
        with (
            pytest.raises(OutOfSpaceError, match="no space left") as caught,
            complete_folder(target) as folder,
        ):
            (folder / "a").write_text("1")
            if where == "block":
                full_disk()
        assert str(target) in str(caught.value)
        assert contents(tmp_path) == {}


class TestClearDiskErrors:
    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            RuntimeError("[enforce fail] unexpected pos: No space left on device"),
            ValueError("I/O error: StorageFull, os error 28"),
        ],
    )
    def test_full_disk(self, error: Exception) -> None:
        assert is_out_of_space(error)
        with pytest.raises(OutOfSpaceError) as caught, clear_disk_errors(Path("runs/x")):
            raise error
        assert str(caught.value) == (
            "no space left on the disk while writing runs/x, or within a quota or `ulimit -f`: free some, or choose another --out"
        )
        assert caught.value.__cause__ is error
        assert isinstance(caught.value, UserError)

    def test_permission(self) -> None:
        for file, named in (("runs/x/y", "runs/x/y"), (None, "runs/x")):
            error = PermissionError(errno.EACCES, "Permission denied", file)
            message = f"cannot write {named}: permission denied"
            with pytest.raises(UserError, match=message), clear_disk_errors(Path("runs/x")):
                raise error

    @pytest.mark.parametrize(
        "error",
        [
            UserError("No space left on device"),
            OutOfSpaceError("already said"),
            ValueError("anything"),
            FileNotFoundError(errno.ENOENT, "none"),
            KeyboardInterrupt(),
        ],
    )
    def test_everything_else_passes(self, error: BaseException) -> None:
        with pytest.raises(type(error)) as caught, clear_disk_errors(Path("x")):
            raise error
        assert caught.value is error

    def test_nothing(self) -> None:
        with clear_disk_errors(Path("x")):
            pass


class TestWriting:
    @quick
    @given(st.text(st.characters(exclude_categories=["Cs"])))
    @example("a\nb\r\nc\rä")
    def test_text_comes_back_byte_for_byte(self, text: str) -> None:
        path = Path(self.folder) / "t"
        storage.write_text(path, text)
        assert path.read_bytes() == text.encode()
        assert os.listdir(self.folder) == ["t"]  # noqa: PTH208

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("abä\n"), inner),
        max_leaves=8,
    )  # fmt: skip

    @quick
    @given(json_values)
    def test_json_comes_back(self, value: Any) -> None:
        path = Path(self.folder) / "t.json"
        storage.write_json(path, value)
        assert storage.read_json(path) == value
        assert path.read_bytes().endswith(b"\n")

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        type(self).folder = tmp_path_factory.mktemp("writing")

    folder: Path

    @pytest.mark.parametrize("before", [None, "old"])
    @pytest.mark.parametrize(
        ("broken", "error", "raised"),
        [
            ("fsync", OSError(errno.ENOSPC, "No space left on device"), OutOfSpaceError),
            ("fsync", KeyboardInterrupt(), KeyboardInterrupt),
            ("encode", None, UnicodeEncodeError),
            ("replace", PermissionError(errno.EACCES, "no"), UserError),
        ],
    )
    def test_whole_or_not_at_all(
        self,
        tmp_path: Path,
        before: str | None,
        broken: str,
        error: BaseException,
        raised: type[BaseException],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path = tmp_path / "t"
        if before:
            path.write_text(before)

        def fail(*_: Any) -> None:
            raise error

        if broken == "fsync":
            monkeypatch.setattr(os, "fsync", fail)
        if broken == "replace":
            monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(raised):
            storage.write_text(path, "new \ud800" if broken == "encode" else "new")
        assert contents(tmp_path) == ({"t": before} if before else {})

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b'{"a": 1,\n "b": }\n', ":2: not valid JSON (Expecting value); the file is damaged"),
            (b"", ":1: not valid JSON (Expecting value); the file is damaged"),
            (b'{"a": "\xff"}', ": not a UTF-8 text file; the file is damaged"),
        ],
    )
    def test_damaged_json(self, tmp_path: Path, data: bytes, message: str) -> None:
        path = tmp_path / "manifest.json"
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            storage.read_json(path)
        assert str(caught.value) == f"{path}{message}"


class TestHashes:
    def test_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"abc")
        # FIPS 180-2, appendix B.1
        assert storage.sha256_of_file(tmp_path / "a") == (
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        )

    @quick
    @given(TestWriting.json_values, st.randoms(use_true_random=False))
    def test_of_json_does_not_depend_on_the_order_of_names(self, value: Any, random: Any) -> None:
        def shuffled(node: Any) -> Any:
            if isinstance(node, dict):
                items = [(name, shuffled(inner)) for name, inner in node.items()]
                random.shuffle(items)
                return dict(items)
            return [shuffled(inner) for inner in node] if isinstance(node, list) else node

        assert storage.sha256_of_json(value) == storage.sha256_of_json(shuffled(value))

    def test_of_json(self) -> None:
        expected = hashlib.sha256('{"a":[1,2.5,null],"ä":"x y"}'.encode()).hexdigest()
        assert storage.sha256_of_json({"ä": "x y", "a": (1, 2.5, None)}) == expected
        different = [[1, 2], [2, 1], [[1], 2], {"1": 2}, "12", 12, None, "", "\ud800"]
        assert len({storage.sha256_of_json(value) for value in different}) == len(different)


def test_run_directory(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    places = {run.config, run.metrics, run.checkpoints, run.final, run.plots}
    assert len(places) == 5
    assert all(place.parent == tmp_path for place in places)
    assert not run.is_finished
    run.final.mkdir()
    assert run.is_finished
