import ast
import multiprocessing
import re
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli.corpus.text import python_docs
from fmlm_cli.corpus.text.prose import clean_docstring
from fmlm_cli.corpus.text.python_docs import PythonDocs, read_python_docs

SENTENCE = "This is a plain sentence of English prose about the parts of a program."
OTHER = "The second paragraph says that all of the words in it are easy to read."
TOPICS = {"short": f"Short\n*****\n\n{OTHER}\n", "long": f"Long\n****\n\n{SENTENCE}\n\n{OTHER}\n\n   a = b\n"}


def long_text(word: str, sentences: int = 5) -> str:
    """Different sentences for each word, one a paragraph, 15 words each."""
    return "\n\n".join(
        f"The {word} has a {word} number {'x' * (i + 1)} that is one of the things which it can hold."
        for i in range(sentences)
    )


@pytest.fixture(autouse=True)
def stdlib(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small standard library in place of the interpreter's, which takes seconds to read."""
    root = tmp_path_factory.mktemp("stdlib")
    (root / "zebra.py").write_text(f'"""{long_text("zebra")}"""\n')
    (root / "test").mkdir()
    (root / "test" / "hidden.py").write_text(f'"""{long_text("hidden")}"""\n')
    (root / "pydoc_data").mkdir()
    (root / "pydoc_data" / "topics.py").write_text(f"topics = {TOPICS!r}\n")
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(root))
    return root


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package `madeup_docs` that can be found but must never be imported."""
    folder = tmp_path / "madeup_docs"
    folder.mkdir()
    (folder / "__init__.py").write_text(f'"""{long_text("root")}"""\nraise RuntimeError("imported")\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_wrapped_lines_become_one_and_headings_go() -> None:
    text = (
        "A Title\n=======\n\nThis is the first line\nof a sentence.\n\nNotes\n-----\nAnd this is the "
        "body of it.\n"
    )
    assert clean_docstring(text) == ("This is the first line of a sentence.", "And this is the body of it.")


@pytest.mark.parametrize(
    "block",
    [
        ">>> the_answer(to='it all')\nThis is what it prints to the console of the user.",
        "```python\nThis is not prose but it is in the code of a program.\n```",
        ".. code-block:: python\n\n    This is not prose but it is in the code of a program.",
        ".. _target: https://example.org/this/is/the/address",
        ".. a comment that is not to be seen by any of the readers",
        "====  ====\n a     the\n====  ====\n1     2\n====  ====",
        "| this | is the | head of a table |\n|---|---|---|\n| in | which | it is |",
        "+----+\n| a  |\n+----+",
        "    x = compute(y)\n    for z in x: print(z)",
        "# A heading of the markdown kind that is long.",
        "/usr/lib/this/is/a/path/to/the/file.txt and /etc/that/is/one/too.",
        "Dies ist ein deutscher Satz ohne englische Worte, glaube ich.",
        r"With $\alpha$ and \beta_{i} the \frac{a}{b} of it is \sum_k x^k.",
        "+ - * / = < > the of a is",
        "See https://example.org/the/page for all of it.",
    ],
)
def test_what_is_not_prose_is_dropped(block: str) -> None:
    assert clean_docstring(f"{SENTENCE}\n\n{block}\n\n{OTHER}") == (SENTENCE, OTHER)


def test_a_literal_block_goes_with_the_words_that_lead_to_it() -> None:
    text = f"{SENTENCE} It is used in this way::\n\n    It is what the code says.\n\n{OTHER}"
    assert clean_docstring(text) == (SENTENCE, OTHER)


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("Return the :class:`~a.b.Thing` of it all.", "Return the a.b.Thing of it all."),
        ("Return the :py:meth:`the name <a.b>` of it.", "Return the the name of it."),
        ("Return ``None`` if the `value` is not there.", "Return None if the value is not there."),
        ("Return the [`~Foo.bar`] of the [`Model`] given.", "Return the Foo.bar of the Model given."),
        ("This is **very** important and *quite* new.", "This is very important and quite new."),
        ("See [the guide](https://a.b/c) for more of it.", "See the guide for more of it."),
        ("See `the guide <https://a.b/c>`_ for more of it.", "See the guide for more of it."),
        ("It is based on the method of [1]_ and [Abc98]_.", "It is based on the method of and."),
        ("This is “quoted” and that’s all of it…", 'This is "quoted" and that\'s all of it...'),
        ("<Tip>\n\nThis is a tip for all of you.\n\n</Tip>", "This is a tip for all of you."),
        (
            "whether or not the value is to be kept in memory",
            "Whether or not the value is to be kept in memory.",
        ),
        ("This is a built-\nin name of the language.", "This is a built-in name of the language."),
    ],
)
def test_inline_markup_becomes_words(marked: str, plain: str) -> None:
    assert clean_docstring(marked) == (plain,)


@pytest.mark.parametrize(
    "style",
    [
        "Args:\n    first (`list[int]`, *optional*, defaults to (1, 2)): {0}\n    second: {1}",
        "Args:\n    first (int):\n        {0}\n    second (int):\n        {1}",
        "Parameters\n----------\nfirst : {{int, float}}, optional\n    {0}\nsecond : int\n    {1}",
        ":param first: {0}\n:param int second: {1}",
        "* {0}\n* {1}",
        "1. {0}\n2. {1}",
        "- **first** (`int`) -- {0}\n- **second** -- {1}",
        "Returns:\n    Dict[str, int]: {0}\n\nRaises:\n    ValueError: {1}",
        ".. note:: {0}\n\n.. versionadded:: 1.0\n   {1}",
        ".. warning::\n    {0}\n\n    {1}",
    ],
)
def test_descriptions_are_kept_without_their_markers(style: str) -> None:
    hanging = "{0}" in style.replace("\n    {0}", "").replace("\n        {0}", "")
    wrapped = SENTENCE.replace(" of English", "\n            of English") if hanging else SENTENCE
    assert clean_docstring(style.format(wrapped, OTHER)) == (SENTENCE, OTHER)


def test_sentences_that_are_not_prose_leave_the_others() -> None:
    assert clean_docstring(f"{SENTENCE} See https://example.org for it. {OTHER}") == (f"{SENTENCE} {OTHER}",)


BLOCKS = st.sampled_from(
    [
        SENTENCE,
        OTHER,
        "```",
        ">>> x",
        "Args:",
        "-----",
        "    deeper",
        "* ",
        ":param x:",
        "x : int",
        ".. note::",
        "a::",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(BLOCKS | st.text(max_size=40)).map("\n".join))
def test_every_paragraph_is_one_clean_line(text: str) -> None:
    for paragraph in clean_docstring(text):
        assert paragraph == " ".join(paragraph.split())
        assert re.search(r"[.!?][)\]\"']*$", paragraph)
        assert len(paragraph.split()) >= 5
        assert "`" not in paragraph
        paragraph.encode("utf-8")


def test_processes_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_docstring.cache_clear()
    parallel = read_python_docs(["rich", "click"], workers=2)
    assert clean_docstring.cache_info().misses == 0, "the work was not done by the processes"
    calls: list[tuple[int, int]] = []
    alone = read_python_docs(["click", "rich"], workers=1, progress=lambda *counts: calls.append(counts))
    assert parallel.texts == alone.texts
    assert parallel.duplicates == alone.duplicates
    assert calls == sorted(calls)
    assert {total for _, total in calls} == {calls[-1][0]}
    assert len(alone.texts) > 50
    assert list(alone.packages) == ["python", "click", "rich"]


def test_without_processes_the_rest_is_read_here(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(workers: int) -> None:
        raise BrokenProcessPool("no processes on this machine")

    monkeypatch.setattr(python_docs, "_processes", broken)
    monkeypatch.setattr(python_docs, "_CHUNK", 1)
    assert read_python_docs(["madeup_docs"], workers=2) == read_python_docs(["madeup_docs"], workers=1)


def test_an_interrupt_leaves_no_process_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(python_docs, "_CHUNK", 8)
    with pytest.raises(KeyboardInterrupt):
        read_python_docs(["click", "rich"], workers=2, progress=interrupt)
    assert multiprocessing.active_children() == []


def test_nothing_is_imported(package: Path) -> None:
    docs = read_python_docs(["madeup_docs", "python"], workers=1)
    assert any("root number" in document for document in docs.texts)
    assert docs.packages["madeup_docs"] == "unknown"
    assert "madeup_docs" not in sys.modules


def test_missing_packages_are_named(package: Path) -> None:
    docs = read_python_docs(["no_such_package_here", "madeup_docs", "os.path", "-"], workers=1)
    assert docs.missing == ("no_such_package_here", "os.path", "-")
    assert list(docs.packages) == ["python", "madeup_docs"]


def test_documents_follow_package_and_path_and_skip_tests(package: Path) -> None:
    (package / "b.py").write_text(f'"""{long_text("bee")}"""\n')
    (package / "a").mkdir()
    (package / "a" / "deep.py").write_text(f'"""{long_text("deep")}"""\n')
    (package / "tests").mkdir()
    (package / "tests" / "unseen.py").write_text(f'"""{long_text("unseen")}"""\n')
    docs = read_python_docs(["madeup_docs"], workers=1)
    assert [document.split()[1] for document in docs.texts] == ["root", "deep", "bee", "is", "zebra"]


def test_paragraphs_occur_once_and_the_longest_topic_keeps_its_own(package: Path) -> None:
    (package / "twice.py").write_text(
        f'"""{long_text("root")}\n\n{long_text("new")}\n\n{long_text("new")}"""\n'
    )
    docs = read_python_docs(["madeup_docs"], workers=1)
    lines = [line for document in docs.texts for line in document.split("\n")]
    assert len(lines) == len(set(lines))
    assert docs.duplicates == 5 + 5 + 1
    assert f"{SENTENCE}\n{OTHER}" in docs.texts


def test_without_the_language_reference(stdlib: Path) -> None:
    (stdlib / "pydoc_data" / "topics.py").unlink()
    assert [document.split()[1] for document in read_python_docs([], workers=1).texts] == ["zebra"]


@pytest.mark.parametrize(
    "code",
    [
        b'"""' + long_text("bad").encode() + b'"""\ndef broken(:\n',
        b'"""' + long_text("bad").encode() + b' \xff\xfe"""\n',
        b'"""' + long_text("bad").encode() + b' \x00"""\n',
        b'# coding: no-such-coding\n"""' + long_text("bad").encode() + b'"""\n',
    ],
)
def test_what_cannot_be_parsed_is_skipped(package: Path, code: bytes) -> None:
    before = read_python_docs(["madeup_docs"], workers=1)
    (package / "bad.py").write_bytes(code)
    assert read_python_docs(["madeup_docs"], workers=1) == before


def test_every_kind_of_documentation_is_read_without_warnings(package: Path) -> None:
    parts = ["cls", "method", "function", "attribute", "assigned", "added", "nested"]
    texts = [long_text(part, 1) for part in parts]
    code = '''
class A:
    """{0}"""
    def method(self):
        """{1}"""
        return "\\d"
async def function():
    """{2}"""
value = 1
"""{3}"""
_shared_docs["x"] = """{4}"""
add_docstr(value, r"""{5}

{{input}}""".format(input=1))
if value:
    class B:
        """{6}"""
f"""The f-string {{value}} is one of the things which are not to be read."""
'''
    (package / "kinds.py").write_text(code.format(*texts))
    kinds = next(d for d in read_python_docs(["madeup_docs"], workers=1).texts if "cls number" in d)
    assert kinds.split("\n") == texts


def test_docstrings_are_packed_and_leftovers_join_the_last(package: Path) -> None:
    texts = [long_text(f"part{letter}", 4) for letter in "abcde"]
    (package / "many.py").write_text(
        "".join(f'def f{i}():\n    """{text}"""\n' for i, text in enumerate(texts))
    )
    (package / "tiny.py").write_text('"""This is far too short to be one."""\n')
    documents = read_python_docs(["madeup_docs"], workers=1).texts
    many = [document for document in documents if "The part" in document]
    assert ["".join(sorted(set(re.findall("part([a-e])", document)))) for document in many] == ["ab", "cde"]
    assert not any("far too short" in document for document in documents)


def test_the_place_of_a_package_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_from(folder: Path) -> PythonDocs:
        (folder / "placed_docs").mkdir(parents=True)
        for name in ("one", "two"):
            (folder / "placed_docs" / f"{name}.py").write_text(f'"""{long_text(name)}"""\n')
        with monkeypatch.context() as context:
            context.syspath_prepend(str(folder))
            return read_python_docs(["placed_docs"], workers=1)

    assert read_from(tmp_path / "zz") == read_from(tmp_path / "aa" / "deeper")


def test_the_real_language_reference_is_prose() -> None:
    path = Path(ast.__file__).parent / "pydoc_data" / "topics.py"
    if not path.is_file():
        pytest.skip("this interpreter comes without its language reference")
    found = python_docs._read(python_docs._CodeFile("python", "pydoc_data/topics.py", str(path)))
    words = sum(len(paragraph.split()) for paragraphs in found for paragraph in paragraphs)
    assert words > 20_000
