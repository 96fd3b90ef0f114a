"""Mining collocations, against a slow count of everything and every way to cut an n-gram."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmlm_cli.corpus.store import collocations, word_runs, writing
from fmlm_cli.corpus.store.collocations import (
    Mined,
    count_ngrams,
    mine,
    read_collocations,
    write_collocations,
)
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.store.split import TokenSpans
from fmlm_cli.corpus.store.word_runs import Text
from fmlm_cli.corpus.tokenizer.loading import special_tokens
from fmlm_cli.errors import UserError
from fmlm_cli.events import Progress
from fmlm_cli.keys import StretchHash
from fmlm_cli.masking import RowView, units

MakeStore = Callable[..., Path]
Document = tuple[list[int], list[bool]]
Word = tuple[int, ...]

EVERYTHING = 10**6

# monkeypatch is undone after the last example, and every example sets the same or its own values
_hypothesis = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class MemorySplit:
    """What `mine` needs of a split, from lists."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.lengths = np.array([len(ids) for ids, _ in documents], np.int64)
        self._documents = documents

    def read(self, spans: TokenSpans) -> tuple[np.ndarray, np.ndarray]:
        ids: list[int] = []
        starts: list[bool] = []
        for document, start, length in zip(spans.document, spans.start, spans.length, strict=True):
            assert 0 <= start <= start + length <= self.lengths[document]
            ids += self._documents[document][0][start : start + length]
            starts += self._documents[document][1][start : start + length]
        return np.array(ids, np.int64), np.array(starts, np.bool_)


# ---------------------------------------------------------------- the reference


def runs_of(documents: Iterable[Document], never: frozenset[int]) -> list[list[Word]]:
    """Runs as lists of words, words as tuples of tokens."""
    runs: list[list[Word]] = []
    for ids, starts in documents:
        fresh = True
        for token, start in zip(ids, starts, strict=True):
            if token in never:
                fresh = True
            elif fresh:
                runs.append([(token,)])
                fresh = False
            elif start:
                runs[-1].append((token,))
            else:
                runs[-1][-1] += (token,)
    return runs


def ngrams_of(runs: Sequence[Sequence[Word]], n: int) -> list[tuple[Word, ...]]:
    return [tuple(run[i : i + n]) for run in runs for i in range(len(run) - n + 1)]


def counts_of(runs: Sequence[Sequence[Word]]) -> Counter[tuple[Word, ...]]:
    return Counter(ngram for n in range(1, 6) for ngram in ngrams_of(runs, n))


def least_ratio(ngram: tuple[Word, ...], counts: Counter[tuple[Word, ...]], total: int) -> Fraction:
    """exp(PMI_n), exactly: the least p(whole) / product of p(parts) over all segmentations."""
    ratios = []
    for cuts in itertools.product([False, True], repeat=len(ngram) - 1):
        borders = [0, *(place for place, cut in enumerate(cuts, 1) if cut), len(ngram)]
        parts = [ngram[i:j] for i, j in itertools.pairwise(borders)]
        if len(parts) > 1:
            product = math.prod((Fraction(counts[part], total) for part in parts), start=Fraction(1))
            ratios.append(Fraction(counts[ngram], total) / product)
    return min(ratios)


def candidates_of(
    runs: Sequence[Sequence[Word]], punctuation: np.ndarray, min_count: int
) -> dict[tuple[Word, ...], tuple[int, float]]:
    """Count and PMI of every candidate."""
    counts, total = counts_of(runs), sum(map(len, runs))
    found = {}
    for ngram, count in counts.items():
        if (
            len(ngram) < 2
            or count < min_count
            or any(punctuation[list(end)].all() for end in (ngram[0], ngram[-1]))
        ):
            continue
        ratio = least_ratio(ngram, counts, total)
        if ratio >= 8:
            found[ngram] = (count, math.log(ratio))
    return found


def hash_of(ngram: tuple[Word, ...]) -> int:
    ids = np.array([token for word in ngram for token in word])
    return int(StretchHash(ids)(np.array([0]), np.array([len(ids)]))[0])


def ranks_of(runs: Sequence[Sequence[Word]], hashes: Sequence[int]) -> list[float]:
    """For each word the lowest rank that covers it."""
    rank = {value: place for place, value in enumerate(hashes)}
    lowest = []
    for run in runs:
        covers = [math.inf] * len(run)
        for n in range(2, 6):
            for i in range(len(run) - n + 1):
                found = rank.get(hash_of(tuple(run[i : i + n])), math.inf)
                covers[i : i + n] = [min(found, other) for other in covers[i : i + n]]
        lowest += covers
    return lowest


def merged_lengths(available: Counter[int]) -> list[int]:
    """The order in which lengths take turns: always the one that is furthest behind (Sainte-Lague)."""
    share = {2: 0.5, 3: 0.25, 4: 0.125, 5: 0.125}
    taken: Counter[int] = Counter()
    order = []
    for _ in range(sum(available.values())):
        open_lengths = [n for n in share if taken[n] < available[n]]
        order.append(max(open_lengths, key=lambda n: share[n] / (2 * taken[n] + 1)))
        taken[order[-1]] += 1
    return order


# ---------------------------------------------------------------- small corpora


@pytest.fixture(scope="module")
def kit(wordpiece_tokenizer: Any) -> Any:
    """A tokenizer, what mining asks of it, and a small alphabet: whole words, continuations, punctuation,
    unknown.
    """
    vocabulary = wordpiece_tokenizer.get_vocab()
    backend = wordpiece_tokenizer.backend_tokenizer
    marks = [token for token in (".", ",", "-") if token in vocabulary][:2]
    plain = sorted(t for t in vocabulary if t.isalpha())[:7]
    rest = sorted(t for t in vocabulary if t.startswith("##"))[:2]
    alphabet = [vocabulary[token] for token in (*plain, *rest, *marks)] + [wordpiece_tokenizer.unk_token_id]
    return SimpleNamespace(
        tokenizer=wordpiece_tokenizer,
        never=special_tokens(wordpiece_tokenizer).never_masked,
        punctuation=collocations.punctuation_tokens(backend),
        continues={vocabulary[token] for token in vocabulary if token.startswith("##")},
        vocabulary=vocabulary,
        alphabet=alphabet,
    )


def document(kit: Any, ids: Sequence[int]) -> Document:
    return list(ids), [token not in kit.continues for token in ids]


@st.composite
def corpora(draw: st.DrawFn) -> list[list[int]]:
    """Documents as places in an alphabet of 10 to 12, made of phrases that come again and again."""
    phrases = draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), min_size=2, max_size=5))
    text = st.lists(st.sampled_from(phrases), max_size=12)
    documents = draw(st.lists(text, min_size=1, max_size=6))
    return [[place for phrase in chosen for place in phrase] for chosen in documents]


def documents_of(kit: Any, corpus: list[list[int]]) -> list[Document]:
    return [document(kit, [kit.alphabet[-1 - place] for place in places]) for places in corpus]


def run_mine(kit: Any, documents: Sequence[Document], **options: Any) -> Mined:
    return mine(MemorySplit(documents), kit.tokenizer, kit.never, **options)  # type: ignore[arg-type]


def check(mined: Mined, runs: Sequence[Sequence[Word]], kit: Any, min_count: int) -> None:
    """Everything that was mined without a limit of size is what the reference finds."""
    wanted = candidates_of(runs, kit.punctuation, min_count)
    by_hash = {hash_of(ngram): ngram for ngram in wanted}
    assert len(by_hash) == len(wanted)
    assert sorted(mined.hashes.tolist()) == sorted(by_hash)
    ngrams = [by_hash[value] for value in mined.hashes.tolist()]
    assert mined.words.tolist() == [len(ngram) for ngram in ngrams]
    assert mined.counts.tolist() == [wanted[ngram][0] for ngram in ngrams]
    np.testing.assert_allclose(mined.pmi, [wanted[ngram][1] for ngram in ngrams], rtol=1e-5)
    decode = kit.tokenizer.backend_tokenizer.decode
    tokens = [[token for word in ngram for token in word] for ngram in ngrams]
    assert mined.texts == [decode(ids, skip_special_tokens=False).strip() for ids in tokens]
    assert mined.total_words == sum(map(len, runs))
    assert mined.undercount == 0
    for n in range(2, 6):
        assert (np.diff(mined.pmi[mined.words == n]) <= 0).all()
    assert mined.words.tolist() == merged_lengths(Counter(mined.words.tolist()))
    kinds = [(column.dtype.name) for column in (mined.hashes, mined.words, mined.counts, mined.pmi)]
    assert kinds == ["uint64", "uint8", "int64", "float32"]


@_hypothesis
@given(
    corpus=corpora(),
    min_count=st.integers(1, 3),
    chunk=st.sampled_from([1, 2, 5, 17, 1000]),
    batch=st.sampled_from([1, 3, 1000]),
)
def test_all_candidates_are_found_whatever_the_chunks(
    kit: Any, monkeypatch: pytest.MonkeyPatch, corpus: list[list[int]], min_count: int, chunk: int, batch: int
) -> None:
    monkeypatch.setattr(collocations, "MIN_COUNT", min_count)
    monkeypatch.setattr(word_runs, "_CHUNK", chunk)
    monkeypatch.setattr(collocations, "_BATCH", batch)
    documents = documents_of(kit, corpus)
    check(run_mine(kit, documents, size=EVERYTHING), runs_of(documents, kit.never), kit, min_count)


@_hypothesis
@given(corpus=corpora(), chunk=st.integers(1, 60))
def test_chunks_leave_no_trace(
    kit: Any, monkeypatch: pytest.MonkeyPatch, corpus: list[list[int]], chunk: int
) -> None:
    monkeypatch.setattr(collocations, "MIN_COUNT", 2)
    documents = documents_of(kit, corpus)
    whole = run_mine(kit, documents)
    monkeypatch.setattr(word_runs, "_CHUNK", chunk)
    cut = run_mine(kit, documents)
    monkeypatch.undo()
    for name in ("hashes", "words", "counts", "pmi"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))
    assert (cut.texts, cut.total_words, cut.covered) == (whole.texts, whole.total_words, whole.covered)


@_hypothesis
@given(corpus=corpora(), chunk=st.integers(1, 30), capacity=st.integers(1, 20))
def test_the_bound_bounds(
    kit: Any, monkeypatch: pytest.MonkeyPatch, corpus: list[list[int]], chunk: int, capacity: int
) -> None:
    monkeypatch.setattr(collocations, "MIN_COUNT", 3)
    monkeypatch.setattr(word_runs, "_CHUNK", chunk)
    documents = documents_of(kit, corpus)
    runs = runs_of(documents, kit.never)
    counts = counts_of(runs)
    text = Text(MemorySplit(documents), kit.never, len(kit.punctuation))  # type: ignore[arg-type]
    tables = count_ngrams(text, capacity)
    mined = run_mine(kit, documents, size=EVERYTHING, capacity=capacity)
    assert mined.undercount == max(table.undercount for table in tables)
    assert mined.total_words == sum(map(len, runs))
    for n, table in enumerate(tables, 1):
        assert len(table.entries) <= capacity
        stored = dict(zip(table.entries["hash"].tolist(), table.entries["count"].tolist(), strict=True))
        for ngram in filter(lambda ngram: len(ngram) == n, counts):
            if (count := stored.pop(hash_of(ngram), None)) is None:
                assert counts[ngram] < 3 or counts[ngram] <= table.undercount
            else:
                assert counts[ngram] - table.undercount <= count <= counts[ngram]
        assert not stored
    true = {hash_of(ngram): count for ngram, count in counts.items()}
    for value, count, score in zip(mined.hashes.tolist(), mined.counts.tolist(), mined.pmi, strict=True):
        assert true[value] - mined.undercount <= count <= true[value]
        # No part is taken for rarer than the whole, so no cut in two is worth more than this.
        assert score <= math.log(mined.total_words / count) + 1e-5


def test_what_is_frequent_survives_the_pressure(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_runs, "_CHUNK", 200)
    plain = [number for token, number in sorted(kit.vocabulary.items()) if token.isalpha()][:20]
    rng = np.random.default_rng(1)
    noise = rng.choice(plain[2:], (150, 10)).tolist()
    documents = [document(kit, [*line[:5], plain[0], plain[1], *line[5:]]) for line in noise]
    mined = run_mine(kit, documents, capacity=100)
    assert 0 < mined.undercount < 100
    pair = hash_of(((plain[0],), (plain[1],)))
    assert mined.hashes[0] == pair
    assert 150 - mined.undercount <= mined.counts[0] <= 150
    assert run_mine(kit, documents).undercount == 0


def test_chunks_are_no_larger_than_they_should_be(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_runs, "_CHUNK", 10)
    word, unknown = kit.vocabulary["a"], kit.tokenizer.unk_token_id
    ids = [word] * 3 + [unknown] * 100 + [word] * 100 + [unknown] * 7 + [word] * 3 + [unknown] * 7
    text = Text(MemorySplit([document(kit, ids)]), kit.never, len(kit.punctuation))  # type: ignore[arg-type]
    chunks = list(text.chunks(collocations.LONGEST))
    assert max(len(words.ids) for _, words, _ in chunks) == 10
    assert sum(own for _, _, own in chunks) == 106


# ---------------------------------------------------------------- whole stores


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_store_is_mined(request: pytest.FixtureRequest, kit: Any, kind: str) -> None:
    store = TokenStore.open(
        request.getfixturevalue("tiny_store" if kind == "wordpiece" else "tiny_bpe_store")
    )
    split = store.split("train")
    mined = mine(split, store.tokenizer, store.special.never_masked, size=EVERYTHING)
    documents = [(ids.tolist(), starts.tolist()) for ids, starts in split.documents()]
    runs = runs_of(documents, store.special.never_masked)
    punctuation = collocations.punctuation_tokens(store.tokenizer.backend_tokenizer)
    check(
        mined,
        runs,
        SimpleNamespace(tokenizer=store.tokenizer, punctuation=punctuation),
        collocations.MIN_COUNT,
    )
    assert set(mined.words.tolist()) >= {2, 3, 4}


def test_two_files_are_one_split(
    make_store: MakeStore, documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = TokenStore.open(make_store(tmp_path / "one", documents))
    monkeypatch.setattr(writing, "_BATCH_TOKENS", 2000)
    monkeypatch.setattr(writing, "_FILE_BYTES", 9000)
    many = TokenStore.open(make_store(tmp_path / "many", documents))
    monkeypatch.setattr(word_runs, "_CHUNK", 777)
    assert len(many.manifest["splits"]["train"]["files"]) > 2
    found = [mine(s.split("train"), s.tokenizer, s.special.never_masked, size=300) for s in (one, many)]
    assert found[0].texts == found[1].texts
    np.testing.assert_array_equal(found[0].hashes, found[1].hashes)
    np.testing.assert_array_equal(found[0].counts, found[1].counts)


def test_every_prefix_holds_the_mix(kit: Any) -> None:
    rng = np.random.default_rng(2)
    plain = [number for token, number in sorted(kit.vocabulary.items()) if token.isalpha()]
    phrases = rng.choice(plain, (40, 7))
    documents = [document(kit, phrases[rng.permutation(40)].ravel().tolist()) for _ in range(12)]
    mined = run_mine(kit, documents, size=EVERYTHING)
    counts = {n: np.cumsum(mined.words == n) for n in range(2, 6)}
    until = min(np.searchsorted(counts[n], counts[n][-1]) for n in counts)  # there the first length runs out
    assert until > 100
    prefix = np.arange(1, until + 1)
    for n, share in ((2, 0.5), (3, 0.25), (4, 0.125), (5, 0.125)):
        assert np.abs(counts[n][:until] - share * prefix).max() <= 1
    assert mined.words.tolist() == merged_lengths(Counter(mined.words.tolist()))
    some = run_mine(kit, documents, size=50)
    np.testing.assert_array_equal(some.hashes, mined.hashes[:50])
    assert some.texts == mined.texts[:50]


def test_a_split_without_documents_has_none(
    make_store: MakeStore, documents: list[str], tmp_path: Path
) -> None:
    store = TokenStore.open(make_store(tmp_path / "store", documents[:2]))
    for split in ("validation", "train"):
        mined = mine(store.split(split), store.tokenizer, store.special.never_masked)
        assert (len(mined.hashes), mined.texts, mined.covered) == (0, [], 0.0)
    assert mined.total_words > 0


def test_progress_is_told(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TokenStore.open(tiny_store)
    monkeypatch.setattr(word_runs, "_CHUNK", 5000)
    events: list[Any] = []
    mine(store.split("train"), store.tokenizer, store.special.never_masked, emit=events.append)
    assert {(type(event), event.task, event.unit) for event in events} == {
        (Progress, "mining collocations", "tokens")
    }
    done = [event.done for event in events]
    assert done == sorted(done)
    assert done[-1] == events[-1].total == 5 * store.manifest["splits"]["train"]["tokens"]
    assert len(done) > 10


# ---------------------------------------------------------------- rules


def told(kit: Any, lines: Sequence[str], **options: Any) -> set[str]:
    """The texts of the collocations of these lines of tokens, each a document."""
    documents = [document(kit, [kit.vocabulary[token] for token in line.split()]) for line in lines]
    return set(run_mine(kit, documents, size=EVERYTHING, **options).texts)


def noise(kit: Any, number: int = 400) -> list[str]:
    """Documents of one word, different from those of the rules, which make those rare."""
    return ["u"] * number


def test_punctuation_stands_inside_or_not_at_all(kit: Any) -> None:
    assert "." in kit.vocabulary
    found = told(kit, [*["a . b"] * 10, *noise(kit)])
    assert found == {"a. b"}


def test_a_word_with_letters_and_a_mark_is_no_punctuation(kit: Any) -> None:
    continuation = next(
        token for token in sorted(kit.vocabulary) if token.startswith("##") and token[2:].isalpha()
    )
    found = told(kit, [*[f"a . {continuation} b"] * 10, *noise(kit)])
    assert len(found) == 3  # a .x | .x b | a .x b


def test_nothing_crosses_an_unknown_token_or_a_document(kit: Any) -> None:
    unknown = kit.tokenizer.unk_token
    assert told(kit, [*[f"a {unknown} b"] * 20, *noise(kit)]) == set()
    assert told(kit, [*["a", "b"] * 20, *noise(kit)]) == set()
    assert told(kit, [*["a b"] * 20, *noise(kit)]) == {"a b"}


def test_ten_times_and_three_bits_are_enough(kit: Any) -> None:
    assert told(kit, [*["a b"] * 9, *noise(kit)]) == set()
    assert told(kit, [*["a b"] * 10, *noise(kit)]) == {"a b"}
    assert told(kit, [*["a b"] * 10, *noise(kit, 60)]) == {"a b"}  # 10 / 80 against (10 / 80)^2: 3 bits
    assert told(kit, [*["a b"] * 10, *noise(kit, 59)]) == set()
    # 10 / 88 against 10 / 88 * 11 / 88: 3 bits too, which float64 makes a little less
    assert told(kit, [*["a b"] * 10, "b", *noise(kit, 67)]) == {"a b"}


def test_a_fixed_expression_needs_all_its_words(kit: Any) -> None:
    """The PMI of "a b c" is that of its weakest cut: if c follows "a b" by chance, "a b" alone is a
    collocation.
    """
    found = told(kit, [*["a b c"] * 12, *["a b"] * 30, *["c"] * 300, *noise(kit, 100)])
    assert found == {"a b"}


def test_words_longer_than_a_chunk_are_whole(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    continuation = next(token for token in sorted(kit.vocabulary) if token.startswith("##"))
    long = " ".join(["a", *[continuation] * 40])
    lines = [*[f"{long} b c"] * 10, *noise(kit)]
    whole = told(kit, lines)
    monkeypatch.setattr(word_runs, "_CHUNK", 7)
    assert told(kit, lines) == whole
    assert len(whole) == 3


# ---------------------------------------------------------------- size


@_hypothesis
@given(corpus=corpora(), largest=st.sampled_from([1, 3, EVERYTHING]))
def test_half_of_the_words_decides_the_size(
    kit: Any, monkeypatch: pytest.MonkeyPatch, corpus: list[list[int]], largest: int
) -> None:
    monkeypatch.setattr(collocations, "MIN_COUNT", 2)
    documents = documents_of(kit, corpus)
    everything = run_mine(kit, documents, size=EVERYTHING)
    lowest = ranks_of(runs_of(documents, kit.never), everything.hashes.tolist())

    def covered(size: int) -> Fraction:
        return Fraction(sum(rank < size for rank in lowest), max(len(lowest), 1))

    monkeypatch.setattr(collocations, "LARGEST", largest)
    mined = run_mine(kit, documents)
    enough = (size for size in range(1, len(everything.hashes) + 1) if covered(size) >= Fraction(1, 2))
    size = min(next(enough, len(everything.hashes)), largest)
    np.testing.assert_array_equal(mined.hashes, everything.hashes[:size])
    for taken in (0, 2, size):
        assert run_mine(kit, documents, size=taken).covered == pytest.approx(float(covered(taken)))
    assert mined.covered == pytest.approx(float(covered(size)))


def test_a_sample_stands_for_the_text(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TokenStore.open(tiny_store)
    split = store.split("train")
    whole = mine(split, store.tokenizer, store.special.never_masked, size=400)
    monkeypatch.setattr(collocations, "_SAMPLE", 4000)
    monkeypatch.setattr(collocations, "_STRETCH", 200)
    assert int(split.lengths.sum()) > 4000
    sampled = mine(split, store.tokenizer, store.special.never_masked, size=400)
    np.testing.assert_array_equal(sampled.hashes, whole.hashes)
    assert sampled.covered != whole.covered
    assert sampled.covered == pytest.approx(whole.covered, abs=0.05)


def test_the_sample_is_taken_from_everywhere(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collocations, "_SAMPLE", 400)
    monkeypatch.setattr(collocations, "_STRETCH", 20)
    phrases = document(kit, [kit.vocabulary["a"], kit.vocabulary["b"]] * 1000)
    rest = document(kit, [kit.vocabulary["u"]] * 2000)
    assert run_mine(kit, [phrases, *[rest] * 9], size=1).covered == pytest.approx(0.1, abs=0.05)
    assert run_mine(kit, [*[rest] * 9, phrases], size=1).covered == pytest.approx(0.1, abs=0.05)


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def mined(tiny_store: Path) -> Mined:
    store = TokenStore.open(tiny_store)
    return mine(store.split("train"), store.tokenizer, store.special.never_masked, size=200)


def test_what_was_written_is_read_back(mined: Mined, tmp_path: Path) -> None:
    path = tmp_path / "collocations.arrow"
    write_collocations(path, mined)
    hashes = read_collocations(path)
    assert hashes.dtype == np.uint64
    np.testing.assert_array_equal(hashes, np.sort(mined.hashes))
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    wanted = {"hash": mined.hashes, "words": mined.words, "count": mined.counts, "pmi": mined.pmi}
    assert table.column_names == [*wanted, "text"]
    for name, column in wanted.items():
        np.testing.assert_array_equal(table.column(name).to_numpy(), column)
    assert table.column("text").to_pylist() == mined.texts
    assert [path.name for path in tmp_path.iterdir()] == ["collocations.arrow"]


def test_none_are_written_and_read_too(tiny_store: Path, tmp_path: Path) -> None:
    store = TokenStore.open(tiny_store)
    write_collocations(
        tmp_path / "none", mine(store.split("train"), store.tokenizer, store.special.never_masked, size=0)
    )
    assert len(read_collocations(tmp_path / "none")) == 0


def test_damaged_files_are_refused(mined: Mined, tmp_path: Path) -> None:
    path = tmp_path / "collocations.arrow"
    write_collocations(path, mined)
    content = path.read_bytes()
    other = pa.BufferOutputStream()
    with pa.ipc.new_file(other, pa.schema({"hash": pa.string()})) as writer:
        writer.write_table(pa.table({"hash": ["no number"]}))
    without = pa.BufferOutputStream()
    with pa.ipc.new_file(without, pa.schema({"words": pa.uint8()})):
        pass
    others = [other.getvalue().to_pybytes(), without.getvalue().to_pybytes(), b"", b"ARROW1", b"x" * 5000]
    for damaged in (content[:-1], content[: len(content) // 2], content[100:], *others):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"collocations\.arrow"):
            read_collocations(path)
    with pytest.raises(UserError, match="no such file"):
        read_collocations(tmp_path / "missing")
    with pytest.raises(UserError, match="no such file"):
        read_collocations(tmp_path)


def test_masking_finds_what_was_mined(tiny_store: Path, mined: Mined) -> None:
    assert (collocations.SHORTEST, collocations.LONGEST) == (units.SHORTEST, units.LONGEST)
    store = TokenStore.open(tiny_store)
    ids, starts = next(store.split("train").documents())
    kind = units.Collocations(np.sort(mined.hashes))
    view = RowView(np.ones((1, len(ids)), np.bool_), starts[None], np.zeros(1, np.int64), ids[None])
    found = kind(view, np.zeros(1, np.uint64))[0]
    assert found.sum() < starts.sum()
    begin = np.flatnonzero(found)
    words = np.add.reduceat(starts.astype(int), begin)
    hashes = StretchHash(ids)(begin, np.append(begin[1:], len(ids)))
    assert set(words.tolist()) <= {1, 2, 3, 4, 5}
    np.testing.assert_array_equal(np.isin(hashes, mined.hashes), words > 1)
