"""What can be mistyped or lacking, command by command: one line with the remedy, code 2, and nothing is left.

In an expected line … stands for anything. Whoever mends a message mends its line here.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.mistakes import world
from tests.cli.mistakes.table import MISTAKES, WITHOUT
from tests.cli.mistakes.world import fmlm
from tests.cli.test_system import largest_file
from tests.conftest import MakeStore

LONGEST = 4 * 80  # characters: four lines of a terminal
Listing = dict[str, tuple[int, int, int] | None]


@pytest.fixture(scope="module")
def furnished(
    documents: list[str],
    make_store: MakeStore,
    small_encoder: Path,
    bpe_tokenizer: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with much in it, of which nothing may ever change."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("fmlm_cli.engine.loop.measure_peak", lambda *_: 1e9)
        world.furnish(documents, make_store, small_encoder, bpe_tokenizer)
    return folder


@pytest.fixture
def here(furnished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That folder as the working folder, without a network; it is as it was in the end."""
    monkeypatch.chdir(furnished)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("fmlm_cli.hub.is_offline_mode", lambda: True)
    before = listing(furnished)
    yield furnished
    assert listing(furnished) == before


def listing(folder: Path) -> Listing:
    """All that lies in a folder, hidden or not, with size, times of change and inode."""
    found: Listing = {}
    for root, folders, files in os.walk(folder):
        found |= dict.fromkeys(f"{root}/{name}" for name in folders)
        for path in (Path(root, name) for name in files):
            status = path.lstat()
            found[str(path)] = status.st_size, status.st_mtime_ns, status.st_ino
    return found


def assert_told(result: Any, expected: str) -> None:
    [line] = result.stderr.splitlines() or [""]
    pattern = ".*".join(map(re.escape, f"error: {expected}".split("…")))
    assert re.fullmatch(pattern, line), f"{line}\n{result.stdout}"
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert len(line) <= LONGEST


@pytest.mark.parametrize(("words", "expected"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing(here: Path, words: str, expected: str) -> None:
    assert_told(fmlm(words), expected)


@pytest.mark.parametrize(
    ("package", "words", "expected"), WITHOUT, ids=[package for package, _, _ in WITHOUT]
)
def test_what_needs_an_extra_says_which(
    here: Path, monkeypatch: pytest.MonkeyPatch, package: str, words: str, expected: str
) -> None:
    # Its modules, and what was made of it: another test may have loaded fmlm_cli.engine.trackers.tensorboard.
    for name in [name for name in sys.modules if package in name.split(".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert_told(fmlm(words), expected)


@pytest.mark.parametrize("size", [1, 2000])
def test_a_full_disk_leaves_no_half_picture(here: Path, size: int) -> None:
    with largest_file(size):
        result = fmlm("plot run --out new.svg")
    assert_told(
        result, "no space left on the disk while writing new.svg, …: free some, or choose another --out"
    )


def test_what_a_stranger_left_is_not_run(here: Path) -> None:
    """Neither a pickle nor a checkpoint's code: the table above would have run them."""
    assert not (here / "it-was-run").exists()


def test_there_is_a_mistake_of_every_command() -> None:
    from fmlm_cli.cli.app import COMMANDS

    commands = {words.split()[0] for words, _ in MISTAKES}
    assert commands >= COMMANDS.keys()
    assert len(MISTAKES) == len({words for words, _ in MISTAKES}) >= 80
