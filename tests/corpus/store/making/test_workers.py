"""Processes that make parts: what they load, in which order their work comes, how they fail."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlm_cli.corpus.store.making import parts
from fmlm_cli.corpus.store.making.parts import PartMaker, read_columns, read_tokens
from fmlm_cli.corpus.store.making.shards import Documents
from fmlm_cli.corpus.store.making.workers import Job, made_parts
from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.literal import joined
from fmlm_cli.errors import UserError
from fmlm_cli.storage import content_hash, sha256_of_file
from tests.environment import python_path


@pytest.fixture
def maker(tmp_path: Path, wordpiece_tokenizer: Any) -> PartMaker:
    return PartMaker(tmp_path, Encoder(wordpiece_tokenizer).pipeline, "uint16", signed=True)


def test_a_worker_loads_no_heavy_library() -> None:
    code = (
        "import sys, fmlm_cli.corpus.store.making.workers; "
        "print(*(n for n in ('transformers', 'torch', 'datasets', 'datasketch') if n in sys.modules))"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={"PYTHONPATH": python_path()}
    )
    assert done.stdout.strip() == ""


@settings(max_examples=25)
@given(
    st.lists(st.text("the cat ran,é日 ", max_size=30), min_size=1, max_size=12),
    st.integers(1, 40),
    st.integers(1, 5),
)
def test_what_a_part_holds(
    tmp_path_factory: pytest.TempPathFactory,
    wordpiece_tokenizer: Any,
    texts: list[str],
    characters: int,
    many: int,
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_BATCH_CHARACTERS", characters)
        patch.setattr(parts, "_BATCH_DOCUMENTS", many)
        make = PartMaker(folder, Encoder(wordpiece_tokenizer).pipeline, "uint16").start()
        entry = make("part", texts)
    columns, tokens = read_columns(folder / "part"), joined(list(read_tokens(folder / "part")))
    wanted = [wordpiece_tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert [ids.tolist() for ids, _ in tokens.each()] == wanted
    assert columns.content.tolist() == [content_hash(text) for text in texts]
    assert columns.text_bytes.tolist() == [len(text.encode()) for text in texts]
    assert columns.tokens.tolist() == [len(ids) for ids in wanted]
    assert columns.signature.shape == (len(texts), 0)
    path = folder / "part"
    assert entry == {
        "name": "part",
        "documents": len(texts),
        "tokens": sum(map(len, wanted)),
        "bytes": path.stat().st_size,
        "sha256": sha256_of_file(path),
    }
    documents, taken = Documents(read_tokens(folder / "part")), []
    while len(taken) < len(texts):
        some = documents.take(min(many, len(texts) - len(taken)))
        taken += [ids.tolist() for ids, _ in some.each()]
    assert taken == wanted


def jobs(number: int, then: BaseException | None = None) -> Iterator[Job[int]]:
    for i in range(number):
        yield Job(f"part-{i}", [f"text {i} " * (1000 if i % 3 == 0 else 1)], i)
    if then is not None:
        raise then


def test_the_order_is_that_of_the_jobs_and_the_bytes_are_the_same(maker: PartMaker, tmp_path: Path) -> None:
    alone = [(ticket, entry["sha256"]) for ticket, entry in made_parts(maker, jobs(12), 1)]
    assert [ticket for ticket, _ in alone] == list(range(12))
    by_two = [(ticket, entry["sha256"]) for ticket, entry in made_parts(maker, jobs(12), 2)]
    assert by_two == alone
    assert read_columns(tmp_path / "part-0").signature.shape == (1, 128)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_came_before_bad_text_is_finished(maker: PartMaker, workers: int) -> None:
    made = []
    with pytest.raises(UserError, match="bad text"):
        made.extend(ticket for ticket, _ in made_parts(maker, jobs(5, UserError("bad text")), workers))
    assert made == list(range(5))


def test_errors_of_workers_are_told_as_they_are(maker: PartMaker, tmp_path: Path) -> None:
    (tmp_path / "part-3").mkdir()
    with pytest.raises(Exception, match="part-3") as caught:
        list(made_parts(maker, jobs(8), 2))
    assert isinstance(caught.value, OSError)


def test_a_script_without_a_guard_is_told_so_and_does_not_hang(tmp_path: Path) -> None:
    """Each worker would run the script anew, and ends; what it was to be given is larger than a pipe."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from fmlm_cli.corpus.store.making.parts import PartMaker\n"
        "from fmlm_cli.corpus.store.making.workers import Job, made_parts\n"
        f"maker = PartMaker(Path({str(tmp_path)!r}), ' ' * 1_000_000, 'uint16')\n"
        "list(made_parts(maker, (Job(f'part-{i}', ['text'], i) for i in range(2)), 2))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", str(script)],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": python_path()},
        timeout=120,
    )
    assert done.returncode == 1
    assert "UserError: a worker process" in done.stderr
    assert 'under `if __name__ == "__main__":`' in done.stderr
    assert list(tmp_path.iterdir()) == [script]


def test_a_damaged_part_is_named(maker: PartMaker, tmp_path: Path) -> None:
    list(made_parts(maker, jobs(1), 1))
    for content in (b"", b"no Arrow at all", (tmp_path / "part-0").read_bytes()[:500]):
        (tmp_path / "part-0").write_bytes(content)
        with pytest.raises(UserError, match=r"part-0 is damaged .*--resume"):
            read_columns(tmp_path / "part-0")
