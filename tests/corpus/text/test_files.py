"""Reading sources: which files are found, which documents come out, what each error says."""

import dataclasses
import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli.corpus.text.documents import BadText, DocumentMode, ReadOptions
from fmlm_cli.corpus.text.fields import TextFields
from fmlm_cli.corpus.text.files.paths import SourceFile, resolve_sources
from fmlm_cli.corpus.text.files.plain import detect_mode
from fmlm_cli.corpus.text.files.text_files import TextFiles
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.errors import UserError
from fmlm_cli.readers import bytes as reading

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "corpora"

# text with no line ends and no other white space at which str and bytes disagree (U+0085, U+00A0, \x1c ...)
_LINE = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], include_characters=" \t"), max_size=30
).map(lambda text: text.strip(" \t\ufeff"))
# how a file lies on the disk: the end of its lines, the size of a block, the extension
_LAID_OUT = st.tuples(
    st.sampled_from(["\n", "\r\n", "\r"]), st.integers(3, 40), st.sampled_from([".txt", ".txt.gz"])
)
_Layout = tuple[str, int, str]


@pytest.fixture(autouse=True)
def block_size() -> Iterator[None]:
    """Put the size of a block back, which some tests make tiny."""
    before = reading.BLOCK
    yield
    reading.BLOCK = before


def write(path: Path, content: bytes | str) -> Path:
    """Write a file, compressed where its name says so."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.name.lower().endswith(".gz") else data)
    return path


def read(
    *paths: Path, documents: DocumentMode = "auto", field: str = "text", bad: BadText = "stop"
) -> tuple[list[str], ReadStats]:
    """All documents of some sources, and the counters."""
    stats = ReadStats()
    files = resolve_sources([str(path) for path in paths]).files
    return list(
        TextFiles(files, ReadOptions(documents, TextFields.parse(field), bad)).documents(stats)
    ), stats


def message(*paths: Path, **how: Any) -> str:
    """What the user is told when a source cannot be read."""
    with pytest.raises(UserError) as caught:
        read(*paths, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(sources_given: list[str], root: Path) -> list[str]:
    """The files found, relative to a folder."""
    return [str(file.path.relative_to(root)) for file in resolve_sources(sources_given).files]


# --- which files are found ---


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with files of every sort."""
    for name in ["b.txt", "a.jsonl", "sub/c.txt.gz", "sub/deep/d.jsonl.gz", "sub/E.TXT"]:
        write(tmp_path / name, '{"text": "x"}\n')
    for name in [".hidden.txt", ".git/e.txt", "sub/.cache/f.txt", "notes.rst", "g.txt.zip", "txt"]:
        write(tmp_path / name, "not read\n")
    return tmp_path


def test_kind_and_size_come_from_the_file(tree: Path) -> None:
    found = {file.path.name: file for file in resolve_sources([str(tree)]).files}
    assert (found["b.txt"].kind, found["b.txt"].size) == ("txt", 14)
    assert found["a.jsonl"].kind == "jsonl"
    assert found["c.txt.gz"].kind == "txt"
    assert found["c.txt.gz"].size == (tree / "sub/c.txt.gz").stat().st_size
    assert found["d.jsonl.gz"].kind == "jsonl"
    assert found["E.TXT"].kind == "txt"


def test_a_folder_gives_its_visible_files_sorted(tree: Path) -> None:
    everything = ["a.jsonl", "b.txt", "sub/E.TXT", "sub/c.txt.gz", "sub/deep/d.jsonl.gz"]
    assert names([str(tree)], tree) == everything


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.txt", ["b.txt"]),
        ("?.jsonl", ["a.jsonl"]),
        ("[ab].*", ["a.jsonl", "b.txt"]),
        ("**/*.gz", ["sub/c.txt.gz", "sub/deep/d.jsonl.gz"]),
        ("**/?.*", ["a.jsonl", "b.txt", "sub/E.TXT", "sub/c.txt.gz", "sub/deep/d.jsonl.gz"]),
        ("s*", ["sub/E.TXT", "sub/c.txt.gz", "sub/deep/d.jsonl.gz"]),
        ("**", ["a.jsonl", "b.txt", "sub/E.TXT", "sub/c.txt.gz", "sub/deep/d.jsonl.gz"]),
        (".git/*", [".git/e.txt"]),
        (".h*.txt", [".hidden.txt"]),
        ("sub/../*.txt", ["sub/../b.txt"]),
    ],
)
def test_globs_match_as_in_a_shell(tree: Path, pattern: str, expected: list[str]) -> None:
    assert names([f"{tree}/{pattern}"], tree) == expected


def test_relative_sources_work(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree / "sub")
    found = [str(file.path) for file in resolve_sources(["*.gz", ".", "../*.txt"]).files]
    assert found == ["c.txt.gz", "E.TXT", "deep/d.jsonl.gz", "../b.txt"]


def test_a_file_with_glob_characters_in_its_name_wins(tmp_path: Path) -> None:
    literal = write(tmp_path / "part[1].txt", "x\n")
    write(tmp_path / "part1.txt", "y\n")
    assert [file.path for file in resolve_sources([str(literal)]).files] == [literal]


def test_a_file_named_twice_is_read_once(tree: Path) -> None:
    (tree / "link.txt").symlink_to(tree / "b.txt")
    again = [str(tree / "b.txt"), str(tree), f"{tree}/*.txt", f"{tree}/sub/../b.txt"]
    found = names(again, tree)
    assert found[0] == "b.txt"
    assert len(found) == len(set(found)) == 5


def test_links_to_folders_and_pipes_do_not_hang(tree: Path) -> None:
    os.mkfifo(tree / "pipe.txt")
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "broken.txt").symlink_to(tree / "nothing")
    (tree / "whole").symlink_to(tree / "sub")
    assert len(resolve_sources([str(tree)]).files) == len(resolve_sources([f"{tree}/**/*"]).files) == 5
    assert len(resolve_sources([str(tree / "whole")]).files) == 3
    assert "pipe.txt: not a regular file" in message(tree / "pipe.txt")


def test_missing_and_useless_sources_are_named(tree: Path, tmp_path: Path) -> None:
    (tree / "bare").mkdir()
    write(tree / "zero.txt", "")
    write(tree / "void.txt.gz", "").write_bytes(b"")
    assert f"{tree}/c.txt: no such file or folder" in message(tree / "c.txt")
    assert f"{tree}/bare: the folder holds no .txt, .md, .jsonl" in message(tree / "bare")
    assert f"{tree}/z*.rst: the glob matches no .txt" in message(tree / "z*.rst")
    assert f"{tree}/*.rst: the glob matches no .txt" in message(tree / "*.rst")
    assert f"{tree}/a**/x: not a valid glob" in message(tree / "a**/x")
    assert f"{tree}/notes.rst: unknown extension" in message(tree / "notes.rst")
    assert f"{tree}/zero.txt: the file is empty" in message(tree / "zero.txt")
    assert f"{tree}/void.txt.gz: the file is empty" in message(tree / "void.txt.gz")
    with pytest.raises(UserError, match="empty name"):
        resolve_sources([""])


def test_an_empty_file_in_a_folder_is_passed_over(tree: Path) -> None:
    write(tree / "sub/zero.txt", "")
    (tree / "sub/zero.txt.gz").write_bytes(b"")
    documents, stats = read(tree / "sub", documents="line")
    assert stats.documents == len(documents) == 3
    assert stats.empty == 0


def test_a_file_without_permission_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "c.txt.gz")
    for source in [tree, tree / "**/*", tree / "sub/c.txt.gz"]:
        assert "c.txt.gz: no permission to read it; change that (chmod u+r)" in message(source)


def test_a_folder_that_cannot_be_listed_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert f"{tree}/sub/deep: cannot read it (Permission denied)" in message(tree)


def test_a_file_that_vanishes_is_named(tree: Path) -> None:
    files = resolve_sources([str(tree / "b.txt")]).files
    (tree / "b.txt").unlink()
    with pytest.raises(UserError, match=r"b\.txt: no such file; check the name"):
        list(TextFiles(files, ReadOptions()).documents(ReadStats()))


def test_an_error_of_the_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = resolve_sources([str(write(tmp_path / "a.txt.gz", "x\n"))]).files

    def fail(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(gzip.GzipFile, "read", fail)
    with pytest.raises(UserError, match=r"a\.txt\.gz: cannot read it \(Input/output error\)"):
        list(TextFiles(files, ReadOptions()).documents(ReadStats()))


# --- plain text ---


def round_trip(content: str, documents: DocumentMode, layout: _Layout) -> tuple[list[str], ReadStats]:
    """Write a text as laid out and read it; check what always holds of the counters."""
    _, reading.BLOCK, suffix = layout
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"x{suffix}", content)
        if not path.stat().st_size:
            return [], ReadStats()
        found, stats = read(path, documents=documents)
        assert stats.disk_bytes == path.stat().st_size
    assert stats.documents == len(found)
    assert stats.text_bytes == sum(len(text.encode()) for text in found)
    assert stats.bad_text == 0
    return found, stats


@settings(deadline=None)
@given(st.lists(_LINE), _LAID_OUT, st.booleans())
def test_lines_come_back(lines: list[str], layout: _Layout, last_end: bool) -> None:
    found, stats = round_trip(layout[0].join(lines) + layout[0] * last_end, "line", layout)
    assert found == [line for line in lines if line]
    assert stats.empty == 0


@settings(deadline=None)
@given(
    st.lists(st.lists(_LINE.filter(bool), min_size=1, max_size=4), min_size=2, max_size=6),
    st.lists(st.sampled_from(["", " ", "\t ", "\x0b\x0c"]), min_size=1, max_size=3),
    _LAID_OUT,
    st.sampled_from(["", "\ufeff"]),
    st.booleans(),
)
def test_paragraphs_come_back(
    paragraphs: list[list[str]], blanks: list[str], layout: _Layout, mark: str, around: bool
) -> None:
    end = layout[0]
    separator = end + "".join(blank + end for blank in blanks)
    text = separator.join(end.join(lines) for lines in paragraphs)
    content = mark + (separator + text + separator if around else text)
    expected = ["\n".join(lines) for lines in paragraphs]
    found, stats = round_trip(content, "blank-line", layout)
    assert found == expected
    assert stats.empty == 0
    assert round_trip(content, "auto", ("", 1 << 20, layout[2]))[0] == expected


@settings(deadline=None)
@given(st.lists(_LINE, min_size=2), _LAID_OUT)
def test_a_whole_file_comes_back(lines: list[str], layout: _Layout) -> None:
    content = layout[0].join(lines)
    found, stats = round_trip(content, "file", layout)
    whole = "\n".join(lines).strip()
    assert found == ([whole] if whole else [])
    assert stats.empty == (0 if whole else 1)


def test_mixed_line_ends_and_the_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n two \rthree\n\r\n\r\nfour\r")
    assert read(path, documents="line")[0] == ["one", "two", "three", "four"]
    assert read(path)[0] == ["one\n two \nthree", "four"]
    assert read(path, documents="file")[0] == ["one\n two \nthree\n\n\nfour"]
    only_mark = write(tmp_path / "b.txt", b"\xef\xbb\xbf")
    assert read(only_mark)[0] == []


def test_a_whole_file_without_text_is_one_empty_document(tmp_path: Path) -> None:
    for name, content in [("a.txt", " \r"), ("b.txt", b"\xef\xbb\xbf"), ("c.txt.gz", "")]:
        assert read(write(tmp_path / name, content), documents="file")[1].empty == 1


def test_text_of_other_white_space_counts_as_empty(tmp_path: Path) -> None:
    documents, stats = read(write(tmp_path / "a.txt", "one\n\u00a0\u3000\n  \ntwo\n"), documents="line")
    assert documents == ["one", "two"]
    assert (stats.documents, stats.empty, stats.text_bytes) == (2, 1, 6)


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        ("one\ntwo\n", "line"),
        ("one\n\ntwo\n", "blank-line"),
        ("one\r\n \t\r\ntwo", "blank-line"),
        ("one\r\rtwo", "blank-line"),
        ("\n\none\ntwo\n\n\n", "line"),
        ("\ufeff\n\none\ntwo", "line"),
        ("x" * (1 << 20) + "\n\ntwo", "line"),
        ("x" * ((1 << 20) - 3) + "\n\ntwo", "blank-line"),
        ("\n", "line"),
    ],
)
def test_auto_mode_looks_at_the_first_mebibyte(tmp_path: Path, content: str, mode: str) -> None:
    for name in ["a.txt", "a.txt.gz"]:
        assert detect_mode(resolve_sources([str(write(tmp_path / name, content))]).files[0]) == mode


def test_auto_mode_is_chosen_for_each_file(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "one\ntwo\n")
    write(tmp_path / "b.txt", "three\nfour\n\nfive\n")
    documents, stats = read(tmp_path)
    assert documents == ["one", "two", "three\nfour", "five"]
    assert stats == ReadStats(documents=4, text_bytes=20, disk_bytes=25)


def test_reading_is_lazy(tmp_path: Path) -> None:
    big = write(tmp_path / "a.txt", ("word " * 200 + "\n") * 5000)
    stats = ReadStats()
    missing = SourceFile(tmp_path / "b.txt", "txt", size=1)
    documents = TextFiles((*resolve_sources([str(big)]).files, missing), ReadOptions()).documents(stats)
    assert stats == ReadStats()
    next(documents)
    assert stats.documents == 1
    assert stats.disk_bytes <= 1 << 20


# --- bad text ---


def test_invalid_utf8_stops_with_file_line_and_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"eins\r\nzwei\rdrei\nf\xfcnf\nsechs\n")
    said = message(path)
    assert said.startswith(f"{path}:4: not UTF-8 (byte 0xfc at byte position 17)")
    assert "--on-bad-text skip|replace" in said
    assert "iconv" in said


@settings(deadline=None, max_examples=50)
@given(st.lists(_LINE), _LAID_OUT, st.lists(_LINE))
def test_the_bad_byte_is_found(before: list[str], layout: _Layout, after: list[str]) -> None:
    end, reading.BLOCK, suffix = layout
    start = "".join(line + end for line in before).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"x{suffix}", start + b"\xff" + end.join(after).encode())
        for mode in ("line", "blank-line", "file"):
            wanted = f"{path}:{len(before) + 1}: not UTF-8 (byte 0xff at byte position {len(start)})"
            assert message(path, documents=mode).startswith(wanted)


def test_a_character_cut_off_by_the_end_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "eins\nzwei€".encode()[:-1])
    assert f"{path}:2: not UTF-8 (byte 0xe2 at byte position 9)" in message(path)


@pytest.mark.parametrize("mode", ["line", "blank-line", "file"])
def test_bad_text_is_skipped_or_repaired(tmp_path: Path, mode: DocumentMode) -> None:
    end = {"line": b"\n", "blank-line": b"\n\n", "file": b"\n"}[mode]
    path = write(tmp_path / "a.txt", end.join([b"one", b"f\xfcnf", b"two"]))
    skipped, stats = read(path, documents=mode, bad="skip")
    assert skipped == ([] if mode == "file" else ["one", "two"])
    assert (stats.bad_text, stats.documents) == (1, len(skipped))
    repaired, stats = read(path, documents=mode, bad="replace")
    assert repaired == (["one\nf\ufffdnf\ntwo"] if mode == "file" else ["one", "f\ufffdnf", "two"])
    assert (stats.bad_text, stats.documents) == (1, len(repaired))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_utf16_is_recognised(tmp_path: Path, encoding: str) -> None:
    text = "one\ntwo\n" if encoding in ("utf-16", "utf-32") else "\ufeffone\ntwo\n"
    path = write(tmp_path / "a.txt", text.encode(encoding))
    name = encoding.upper().replace("UTF-16-", "UTF-16").replace("UTF-32-", "UTF-32")
    for bad in ("stop", "skip", "replace"):
        said = message(path, bad=bad)
        assert f"{path}: it seems to be {name[:6]} text (" in said
        assert f"iconv -f {name}" in said


# --- JSON lines ---


@settings(deadline=None)
@given(st.lists(st.text(max_size=30)), _LAID_OUT, st.booleans())
def test_json_texts_come_back(texts: list[str], layout: _Layout, escape: bool) -> None:
    end, block, suffix = layout
    lines = [json.dumps({"n": 1, "text": text}, ensure_ascii=escape) for text in texts]
    found, stats = round_trip((end * 2).join(lines), "auto", (end, block, suffix.replace("txt", "jsonl")))
    expected = [text.strip() for text in texts]
    assert found == [text for text in expected if text]
    assert stats.empty == expected.count("")


def test_json_null_is_empty_and_blank_lines_are_nothing(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", '\ufeff{"text": null}\n\n  \n{"text": " "}\n{"text": "\\ud83d\\ude00"}\n'
    )
    documents, stats = read(path)
    assert documents == ["😀"]
    assert stats == ReadStats(documents=1, empty=2, text_bytes=4, disk_bytes=path.stat().st_size)


def test_json_fields_may_be_nested(tmp_path: Path) -> None:
    nested = write(tmp_path / "a.jsonl", '{"meta": {"text": "inner"}}\n{"meta.text": "outer", "meta": 1}\n')
    assert read(nested, field="meta.text")[0] == ["inner", "outer"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "x"', "not valid JSON (Expecting ',' delimiter, column 13"),
        ("[" * 100_000, "not valid JSON (maximum recursion depth"),
        ('{"text": ' + "1" * 5000 + "}", "not valid JSON (Exceeds the limit"),
        ('["x"]', 'a list, not an object; write each line as {"text": "..."}'),
        ("null", "nothing, not an object"),
        ('"x"', "a string, not an object"),
        ('{"text": 3}', "field 'text' is a number, not a string; choose another --text-field"),
        ('{"text": 3.5}', "field 'text' is a number"),
        ('{"text": false}', "field 'text' is true or false"),
        ('{"text": ["x"]}', "field 'text' is a list"),
        ('{"text": {"en": "x"}}', "field 'text' is an object"),
        (
            '{"id": 1, "texts": "x"}',
            "no field 'text': did you mean 'texts'? fields are 'id', 'texts'; choose one with",
        ),
        (
            '{"id": 1, "body": {"en": "x"}}',
            "no field 'text': fields are 'id', 'body.en'; choose one with --text-field",
        ),
        ("{}", "no field 'text': fields are none"),
    ],
)
def test_json_errors_say_where_and_what(tmp_path: Path, line: str, said: str) -> None:
    path = write(tmp_path / "a.jsonl.gz", f'{{"text": "x"}}\r\n\r\n{line}\r\n')
    assert message(path).startswith(f"{path}:3: {said}")


def test_json_field_lists_are_kept_short(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({f"key{n}": n for n in range(1000)}))
    assert len(message(path)) < 500 + len(str(path))


def test_json_missing_nested_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"meta": {"body": "x"}}\n')
    assert "did you mean 'meta.body'?" in message(path, field="meta.boddy")


@pytest.mark.parametrize(
    "bad_line", [b'{"text": "a\\ud800b"}', b'{"text": "a\xffb"}', b'{"text": "a\\ud800b", "n": "\xff"}']
)
def test_json_bad_text_has_the_same_three_policies(tmp_path: Path, bad_line: bytes) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "one"}\n' + bad_line + b'\n{"text": "two"}\n')
    said = message(path)
    assert said.startswith(f"{path}:2: ")
    assert "--on-bad-text skip|replace" in said
    documents, stats = read(path, bad="skip")
    assert (documents, stats.bad_text) == (["one", "two"], 1)
    documents, stats = read(path, bad="replace")
    assert (documents, stats.bad_text) == (["one", "a\ufffdb", "two"], 1)


def test_json_broken_by_bad_bytes_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "one"}\n{"text\xff\n')
    assert read(path, bad="skip")[0] == ["one"]
    assert f"{path}:2: not valid JSON" in message(path, bad="replace")


# --- gzip ---


def test_gzip_of_several_members(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(b"".join(gzip.compress(part) for part in [b"one\ntw", b"", b"o\nthree"]))
    documents, stats = read(path)
    assert documents == ["one", "two", "three"]
    assert stats.disk_bytes == path.stat().st_size


@pytest.mark.parametrize("mode", ["auto", "line"])
def test_damaged_gzip_is_named(tmp_path: Path, mode: DocumentMode) -> None:
    path = tmp_path / "a.txt.gz"
    text = os.urandom(3000).hex().encode()
    whole = gzip.compress(text)
    path.write_bytes(whole[:-1000])
    there = len(zlib.decompressobj(31).decompress(whole[:-1000]))
    said = f"{path}: the gzip file is cut short at byte {there:,} of its contents; fetch it again"
    assert message(path, documents=mode) == said
    damaged = {
        "plain": b"plain text\n",
        "stream": whole[:20] + bytes(100) + whole[120:],
        "check": whole[:-8] + bytes(8),
        "tail": whole + b"more",
    }
    for content in damaged.values():
        path.write_bytes(content)
        assert message(path, documents=mode).startswith(f"{path}: not a gzip file, or damaged at byte ")


# --- real data ---


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared data sets are not at {DATA}")
@pytest.mark.parametrize(
    ("name", "mode", "count"), [("wikipedia-en.valid", "blank-line", 90), ("arxiv-cs.CL.valid", "line", 500)]
)
def test_real_corpora(name: str, mode: str, count: int) -> None:
    path = DATA / f"{name}.txt.gz"
    (file,) = resolve_sources([str(path)]).files
    assert detect_mode(file) == mode
    documents, stats = read(path)
    assert dataclasses.replace(stats, text_bytes=0) == ReadStats(documents=count, disk_bytes=file.size)
    assert stats.text_bytes == sum(len(text.encode()) for text in documents) > 400_000
