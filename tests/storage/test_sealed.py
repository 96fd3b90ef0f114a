"""What carries its own hash: read as it was written, or refused."""

import contextlib
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fmlm_cli import storage
from fmlm_cli.errors import UserError
from fmlm_cli.storage.arrays import read_arrays, write_arrays
from tests.damage import single_bit_flips

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)
objects = st.dictionaries(st.text(st.characters(codec="utf-8")).filter(lambda key: key != "sha256"), plain)


@given(objects)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("sealed") / "a.json"
    storage.write_sealed(path, value)
    assert storage.read_sealed(path) == value


def test_values_that_json_writes_otherwise(tmp_path: Path) -> None:
    """Numbers as keys sort otherwise than the texts that they become."""
    storage.write_sealed(tmp_path / "a.json", {"by step": {9: (1, 2), 10: (3,)}, "none": float("inf")})
    assert storage.read_sealed(tmp_path / "a.json") == {
        "by step": {"9": [1, 2], "10": [3]},
        "none": float("inf"),
    }


def test_no_bit_changes_unseen(tmp_path: Path) -> None:
    path, value = (
        tmp_path / "a.json",
        {"step": 12, "rate": 1e-05, "name": "ä", "files": {"b": "00ff"}, "no": None},
    )
    storage.write_sealed(path, value)
    for changed in single_bit_flips(path.read_bytes()):
        path.write_bytes(changed)
        with contextlib.suppress(UserError):
            assert storage.read_sealed(path) == value, changed


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "3", '{"sha256": null}', '{"step": 1}'])
def test_files_of_other_hands(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.json.*the file is damaged"):
        storage.read_sealed(tmp_path / "a.json")


def test_damage_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "card").write_bytes(b"3")
    hashes = storage.hashes_of(tmp_path, but=("card",))
    assert list(hashes) == ["b", "in/a"]
    assert storage.hashes_while_flushed(tmp_path) == storage.hashes_of(tmp_path)
    (tmp_path / "card").write_bytes(b"4")
    assert storage.damage_of(tmp_path, hashes) is None
    (tmp_path / "in" / "a").write_bytes(b"2")
    assert storage.damage_of(tmp_path, hashes) == f"{tmp_path / 'in/a'} has changed since it was written"
    (tmp_path / "b").unlink()
    assert storage.damage_of(tmp_path, hashes) == f"{tmp_path / 'b'} is missing"


def test_hashes_of_what_was_written_and_not_of_what_the_disk_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is forgotten before it is hashed would be compared with itself."""
    (tmp_path / "a").write_bytes(b"1")
    happened: list[str] = []
    monkeypatch.setattr("os.fsync", lambda file: happened.append("flushed"))
    monkeypatch.setattr("os.posix_fadvise", lambda *_: happened.append("forgotten"), raising=False)
    hashes = storage.hashes_while_flushed(tmp_path)
    assert happened == ["flushed"]
    assert storage.damage_on_disk(tmp_path, hashes) is None
    assert happened == ["flushed", "flushed", "forgotten"]


@pytest.mark.parametrize("act", [storage.hashes_of, storage.hashes_while_flushed])
def test_what_cannot_be_read_or_flushed_is_told(
    act: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From whichever thread."""
    (tmp_path / "a").write_bytes(b"1")

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("hashlib.file_digest" if act is storage.hashes_of else "os.fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        act(tmp_path)


# ---------------------------------------------------------------- arrays

ARRAYS = {"tokens": np.arange(5, dtype=np.int32), "none": np.empty(0, np.float64), "one": np.float32([[0.5]])}


def test_arrays_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a", ARRAYS)
    found = read_arrays(tmp_path / "a")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_no_bit_of_arrays_changes_unseen(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_arrays(path, ARRAYS)
    for changed in single_bit_flips(path.read_bytes()):
        path.write_bytes(changed)
        try:
            found = read_arrays(path)
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


def test_arrays_of_other_hands(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "a")
    (tmp_path / "b").write_text(json.dumps({}))
    (tmp_path / "c").mkdir()
    for name in "abcd":
        with pytest.raises(UserError, match=str(tmp_path / name)):
            read_arrays(tmp_path / name)
