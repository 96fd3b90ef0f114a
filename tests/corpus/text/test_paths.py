"""What lies among the text and is not read: it is told, and nothing is read twice."""

import gzip
import os
from pathlib import Path

import pytest

from fmlm_cli import storage
from fmlm_cli.corpus.text.documents import ReadOptions
from fmlm_cli.corpus.text.files.passed_over import PassedOver, Reason, listed
from fmlm_cli.corpus.text.files.paths import resolve_sources
from fmlm_cli.corpus.text.files.text_files import TextFiles
from fmlm_cli.errors import UserError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Text among much else."""
    for name, size in [
        *(("a.txt", 10), ("b.jsonl.gz", 30), ("b2.txt", 1)),
        *(("one.warc.zst", 1000), ("two.warc.ZST", 500), ("deep/three.h5", 2_000_000)),
        *(("deep/x.html", 5), ("deep/y.rst", 4), ("LICENSE", 3), ("empty.txt", 0), (".hidden.txt", 9)),
        *((".git/config.txt", 9), (".git/HEAD", 9)),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle.txt").symlink_to(tmp_path / "circle.txt")
    (tmp_path / "linked").symlink_to(tmp_path / "deep")
    os.mkfifo(tmp_path / "pipe.txt")
    return tmp_path


@pytest.mark.parametrize("glob", [False, True])
def test_what_is_passed_over_is_told(tree: Path, glob: bool) -> None:
    found = TextFiles.find([f"{tree}/*" if glob else str(tree)], ReadOptions())
    assert [path.name for path in found.paths] == ["a.txt", "b.jsonl.gz", "b2.txt"]
    (clause,) = found.passed_over
    assert clause == (
        "1 .h5 file (2.0 MB), 2 .warc.zst files (1.5 kB), 1 .html file (5 bytes), 1 .rst file (4 bytes), "
        "1 unnamed file (3 bytes), 1 empty file (empty.txt), 2 broken links (broken.txt, circle.txt), "
        + ("" if glob else "1 link to a folder that is read anyway (linked), ")
        + "1 pipe or device (pipe.txt)"
        + ("" if glob else ", 2 hidden (.git, .hidden.txt)")
    )
    assert found.describe()[0] == f"reading 3 files (41 bytes); passed over: {clause}"


def test_it_is_a_caution_where_most_of_the_bytes_are_passed_over(tree: Path) -> None:
    (caution,) = TextFiles.find([str(tree)], ReadOptions()).cautions()
    assert "2.0 MB in files that are not read, 41 bytes in files that are" in caution
    (tree / "deep" / "much.txt").write_bytes(b"x" * 3_000_000)
    assert TextFiles.find([str(tree)], ReadOptions()).cautions() == []


def test_where_nothing_is_left_the_rest_is_named(tree: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \.txt.* files, but 1 \.h5 file \(2\.0 MB\), 1 \.html"):
        resolve_sources([f"{tree}/deep"])
    with pytest.raises(UserError, match=r"matches no \.txt.* files, but 2 \.warc\.zst files \(1\.5 kB\);"):
        resolve_sources([f"{tree}/*.[zZ][sS][tT]"])
    with pytest.raises(UserError, match=r"matches no .* files, but 1 empty file \(empty\.txt\);"):
        resolve_sources([f"{tree}/e*.txt"])


@pytest.mark.parametrize("how", ["folder", "named", "glob", "other way round", "through a link"])
def test_of_twins_the_uncompressed_is_read(tmp_path: Path, how: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "x.txt").write_text("one\n")
    (data / "x.txt.gz").write_bytes(gzip.compress(b"one\n"))
    (data / "y.txt.gz").write_bytes(gzip.compress(b"two\n"))
    (tmp_path / "link").symlink_to(data)
    sources = {
        "folder": [str(data)],
        "named": [str(path) for path in sorted(data.iterdir())],
        "glob": [f"{data}/*"],
        "other way round": [f"{data}/x.txt.gz", f"{data}/y.txt.gz", f"{data}/x.txt"],
        "through a link": [f"{tmp_path}/link/x.txt", str(data)],
    }[how]
    found = resolve_sources(sources)
    assert sorted(file.path.name for file in found.files) == ["x.txt", "y.txt.gz"]
    assert listed(found.passed_over) == "1 compressed twin of a file (x.txt.gz)"


@pytest.mark.parametrize("ending", [".zst", ".xz", ".bz2", ".lz4"])
def test_twins_are_of_any_codec(tmp_path: Path, ending: str) -> None:
    for name in ("x.csv", f"x.csv{ending}", f"y.csv{ending}", "y.csv.gz", f"z.csv{ending.upper()}"):
        (tmp_path / name).write_text("text\none\n")
    found = resolve_sources([str(tmp_path)])
    first, second = sorted(("y.csv.gz", f"y.csv{ending}"))
    assert [file.path.name for file in found.files] == ["x.csv", first, f"z.csv{ending.upper()}"]
    assert listed(found.passed_over) == f"2 compressed twins of files (x.csv{ending}, {second})"
    held = resolve_sources([str(tmp_path)], held_out=[tmp_path / "y.csv.gz"])
    assert "2 files that --valid names" in listed(held.passed_over)


def test_a_json_that_is_no_array_is_passed_over_unless_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('\ufeff \n[{"text": "one"}]', "utf-8")
    (tmp_path / "b.json").write_text('{"settings": []}')
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(b'{"text": "one"}'))
    for source in (str(tmp_path), f"{tmp_path}/*.json*"):
        found = resolve_sources([source])
        assert [file.path.name for file in found.files] == ["a.json"]
        assert listed(found.passed_over) == "2 .json files that are no arrays (b.json, c.json.gz)"
    assert resolve_sources([str(tmp_path / "b.json")]).files


def test_a_format_is_for_files_that_are_named_and_do_not_say_it(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text('{"text": "one"}\n')
    (tmp_path / "rows.zst").write_bytes(b"x")
    (tmp_path / "a.txt").write_text("one\n")
    assert [file.kind for file in resolve_sources([str(tmp_path / "rows")], form="jsonl").files] == ["jsonl"]
    assert [file.kind for file in resolve_sources([str(tmp_path / "rows.zst")], form="csv").files] == ["csv"]
    assert [file.kind for file in resolve_sources([str(tmp_path)], form="jsonl").files] == ["txt"]
    with pytest.raises(UserError, match=r"rows: unknown extension; .* or say with --format what it is"):
        resolve_sources([str(tmp_path / "rows")])


def test_a_folder_that_a_glob_cannot_list_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "deep" / "a.txt").write_text("x")
    monkeypatch.setattr(
        os, "access", lambda path, mode: mode != os.R_OK | os.X_OK or Path(path).name != "deep"
    )
    for glob in ("*/*.txt", "**/*.txt", "d*/a.txt"):
        with pytest.raises(UserError, match=r"deep: no permission to list it; change that \(chmod u\+rx\)"):
            resolve_sources([f"{tree}/{glob}"])
    assert len(resolve_sources([f"{tree}/*.txt"]).files) == 2


def test_hard_links_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.txt").hardlink_to(tmp_path / "a.txt")
    (tmp_path / "c.txt").symlink_to("b.txt")
    (tmp_path / "folder").symlink_to(tmp_path)
    for sources in (
        [str(tmp_path)],
        [f"{tmp_path}/*.txt", f"{tmp_path}/./b.txt", f"{tmp_path}/folder/a.txt"],
    ):
        found = resolve_sources(sources)
        assert [file.path.name for file in found.files] == ["a.txt"]
        assert "2 other names of files (b.txt, c.txt)" in listed(found.passed_over)


def test_hidden_text_counts_as_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 10)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "objects.pack").write_bytes(b"x" * 999)
    (tmp_path / ".elsewhere").symlink_to(tmp_path)
    assert TextFiles.find([str(tmp_path)], ReadOptions()).cautions() == []
    (tmp_path / ".cache" / "deep").mkdir(parents=True)
    (tmp_path / ".cache" / "deep" / "b.txt").write_text("x" * 12)
    (tmp_path / ".c.jsonl").write_text("x" * 4)
    (caution,) = TextFiles.find([str(tmp_path)], ReadOptions()).cautions()
    assert "16 bytes in files that are not read, 10 bytes in files that are" in caution


def test_the_list_stays_short_and_on_one_line() -> None:
    many = [PassedOver(Path(f"x.{n}"), Reason.UNKNOWN, n) for n in range(100)]
    odd = [PassedOver(Path(os.fsdecode(b"a\n\xe9.txt")), Reason.EMPTY)] * 5
    said = listed([*many, *odd])
    assert "94 other files (4.4 kB)" in said
    assert said.endswith(r"5 empty files (a\n\udce9.txt, a\n\udce9.txt, a\n\udce9.txt, ...)")
    assert len(said) < 400
    said.encode()


@pytest.mark.parametrize("glob", [False, True])
def test_what_fmlm_made_beside_the_text_is_not_read(tmp_path: Path, glob: bool) -> None:
    """So that `fmlm tokenize texts --out texts/store` can be repeated."""
    (tmp_path / "a.txt").write_text("a")
    with storage.owned_folder(tmp_path / "store", storage.Kind("cake", "bake", ("*",))):
        (tmp_path / "store" / "metrics.jsonl").write_text("{}\n")
    found = TextFiles.find([f"{tmp_path}/*" if glob else str(tmp_path)], ReadOptions())
    assert [path.name for path in found.paths] == ["a.txt"]
    assert "1 folder that fmlm made (store)" in found.passed_over[0]
    with pytest.raises(UserError, match="store is a cake that fmlm made, not text: name the text itself"):
        resolve_sources([f"{tmp_path}/store"])
