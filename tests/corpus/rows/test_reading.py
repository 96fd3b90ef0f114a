"""Rows against rows put together token by token, and the order they come in."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from fmlm_cli.corpus.rows.packing import Packing
from fmlm_cli.corpus.rows.reading import RowReader, Rows
from fmlm_cli.corpus.store.reading import SPLITS, TokenStore
from fmlm_cli.errors import UserError

PACKINGS: tuple[Packing, ...] = ("documents", "concat", "none")
KINDS = ("wordpiece", "bpe", "bare", "wide", "unseparated")

_TEXTS = [
    "a",
    "The 日本 of 日, it is 本.",  # characters that WordPiece does not know
    "unknown [MASK] and [SEP] </s> in a text",
    "Unhappiness.",
    *(" ".join(["to be or not to be, that is the question"] * size) for size in (1, 2, 3, 5, 8)),
    *("the cat understands " * size for size in range(1, 9)),
    *("of" for _ in range(4)),
]


def framed(tokenizer: PreTrainedTokenizerFast, kind: str) -> PreTrainedTokenizerFast:
    """WordPiece with other special tokens around a text: none, an uneven number, or none anywhere."""
    if kind in ("wordpiece", "bpe"):
        return tokenizer
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    template = "[CLS] [MASK] $A [SEP]" if kind == "wide" else "$A"
    ids = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]", "[MASK]")]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    if kind != "unseparated":
        roles |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


@pytest.fixture(scope="module", params=KINDS)
def mixed(
    request: pytest.FixtureRequest, make_store: Any, tmp_path_factory: pytest.TempPathFactory
) -> TokenStore:
    """A store of documents of very different lengths, with unknown tokens."""
    name = "bpe" if request.param == "bpe" else "wordpiece"
    tokenizer = framed(request.getfixturevalue(f"{name}_tokenizer"), request.param)
    folder: Path = tmp_path_factory.mktemp("mixed") / "store"
    return TokenStore.open(make_store(folder, _TEXTS, _TEXTS[2:6], tokenizer))


Token = tuple[int, bool]  # id, whether it begins a word


class Reference:
    """Builds rows of lists of (id, position, segment, word start, maskable)."""

    def __init__(self, store: TokenStore, split: str, length: int) -> None:
        tokenizer = store.tokenizer
        ids = tokenizer("the")["input_ids"]
        inner = len(tokenizer("the", add_special_tokens=False)["input_ids"])
        before = next(i for i in range(len(ids)) if ids[i : i + inner] == self.text_ids(tokenizer, "the"))
        self.prefix, self.suffix = ids[:before], ids[before + inner :]
        self.separator = tokenizer.sep_token_id
        self.pad = tokenizer.pad_token_id
        self.special = set(tokenizer.all_special_ids)
        self.unmasked = self.special | {tokenizer.convert_tokens_to_ids(t) for t in ("[CLS]", "[SEP]")}
        self.length = length
        self.room = length - len(self.prefix) - len(self.suffix)
        self.documents: list[list[Token]] = [
            [(int(t), bool(w)) for t, w in zip(ids, words, strict=True)]
            for ids, words in store.split(split).documents()
        ]

    @staticmethod
    def text_ids(tokenizer: Any, text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def frame(self, tokens: list[Token]) -> list[Token]:
        """Special tokens around text; a part of a document that begins within a word begins one here."""
        text = [(t, w or (place == 0 and t != self.separator)) for place, (t, w) in enumerate(tokens)]
        return [*((t, False) for t in self.prefix), *text, *((t, False) for t in self.suffix)]

    def row(self, parts: list[list[Token]]) -> list[tuple[int, int, int, bool, bool]]:
        """Parts that are framed already, side by side, and padding."""
        row = [
            (token, position, segment, word, token not in self.unmasked)
            for segment, part in enumerate(parts, start=1)
            for position, (token, word) in enumerate(part)
        ]
        assert len(row) <= self.length
        return row + [(self.pad, 0, 0, False, False)] * (self.length - len(row))

    def rows(self, packing: Packing, reader: RowReader) -> list[Any]:
        if packing == "concat":
            text: list[Token] = []
            for document in self.documents:
                text += document
                if self.separator is not None:
                    text.append((self.separator, False))
            if self.separator is not None and not reader.plan.closed[-1]:
                text.pop()  # whether a separator ends the very last document is left open
            cuts = range(0, len(text), self.room)
            return [self.row([self.frame(text[cut : cut + self.room])]) for cut in cuts]
        pieces = {
            (number, cut): self.frame(document[cut : cut + self.room])
            for number, document in enumerate(self.documents)
            for cut in range(0, len(document), self.room)
        }
        if packing == "none":
            return [self.row([piece]) for piece in pieces.values()]
        plan, first = reader.plan, reader.plan.first  # who stands with whom: see test_packing
        keys = list(zip(plan.document.tolist(), plan.start.tolist(), strict=True))
        assert sorted(keys) == sorted(pieces)
        rows = [keys[first[number] : first[number + 1]] for number in range(len(first) - 1)]
        return [self.row([pieces[key] for key in row]) for row in rows]


def as_tuples(rows: Rows) -> list[Any]:
    arrays = (rows.input_ids, rows.position_ids, rows.segments, rows.word_starts, rows.maskable)
    assert [array.dtype for array in arrays] == [np.int64] * 3 + [np.bool_] * 2
    assert len({array.shape for array in arrays}) == 1
    return [list(zip(*(array[r].tolist() for array in arrays), strict=True)) for r in range(len(arrays[0]))]


def reader_of(
    store: TokenStore, packing: Packing, length: int, *, split: str = "train", max_rows: int | None = None
) -> RowReader:
    return RowReader(store, split, packing=packing, sequence_length=length, max_rows=max_rows)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("length", [4, 5, 9, 16, 33, 200])
@pytest.mark.parametrize("packing", PACKINGS)
def test_rows_are_what_building_them_by_hand_gives(
    mixed: TokenStore, packing: Packing, length: int, split: str
) -> None:
    reader = reader_of(mixed, packing, length, split=split)
    wanted = Reference(mixed, split, length).rows(packing, reader)
    rows = reader.read(np.arange(len(reader)))
    assert as_tuples(rows) == wanted
    assert rows.numbers.tolist() == list(range(len(reader)))
    assert rows.row_ids.dtype == np.int64
    assert len(set(rows.row_ids.tolist())) == len(reader)
    assert reader.sequence_length == length


@pytest.mark.parametrize("packing", PACKINGS)
def test_no_special_token_is_ever_maskable_and_every_other_token_is(
    mixed: TokenStore, packing: Packing
) -> None:
    reader = reader_of(mixed, packing, 16)
    rows = reader.read(np.arange(len(reader)))
    special = np.isin(rows.input_ids, [*range(5)])  # both kinds number them so
    assert not rows.maskable[special].any()
    assert rows.maskable[~special].all()
    assert not rows.maskable[rows.segments == 0].any()
    whole = sum(int((ids >= 5).sum()) for ids, _ in mixed.split("train").documents())
    assert rows.maskable.sum() == whole


@cache
def opened(folder: Path) -> TokenStore:
    return TokenStore.open(folder)


@cache
def tiny_reader(folder: Path, packing: Packing, length: int, max_rows: int | None = None) -> RowReader:
    return reader_of(opened(folder), packing, length, max_rows=max_rows)


def same_rows(one: Rows, two: Rows) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in vars(one))


@settings(max_examples=30)
@given(
    seeds=st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)), packing=st.sampled_from(PACKINGS)
)
def test_a_subset_is_drawn_by_its_seed(tiny_store: Path, seeds: tuple[int, int], packing: Packing) -> None:
    store, kept = opened(tiny_store), 40
    readers = [
        RowReader(store, "train", packing=packing, sequence_length=16, max_rows=kept, subset_seed=seed)
        for seed in seeds
    ]
    numbers = [set(reader.read(np.arange(kept)).numbers.tolist()) for reader in readers]
    assert {len(own) for own in numbers} == {kept}
    assert (numbers[0] == numbers[1]) == (seeds[0] == seeds[1]) == (readers[0].subset == readers[1].subset)
    # As many in common as two samples of the rows have, within five standard errors.
    rows = len(readers[0].plan)
    assert rows > 4 * kept
    shared = len(numbers[0] & numbers[1]) if seeds[0] != seeds[1] else kept**2 / rows
    assert abs(shared - kept**2 / rows) < 5 * kept / np.sqrt(rows)


def test_no_seed_decides_where_no_row_is_left_out(tiny_store: Path) -> None:
    store = opened(tiny_store)
    whole = [
        RowReader(store, "validation", packing="none", sequence_length=16, max_rows=rows, subset_seed=seed)
        for rows, seed in ((None, 0), (100_000, 1))
    ]
    assert not whole[1].is_subset and whole[0].subset == whole[1].subset == (len(whole[0]), None)
    every = np.arange(len(whole[0]))
    assert same_rows(whole[0].read(every), whole[1].read(every))


@settings(max_examples=60)
@given(data=st.data(), packing=st.sampled_from(PACKINGS), length=st.sampled_from([8, 64, 128]))
def test_a_row_does_not_depend_on_its_company(
    tiny_store: Path, data: st.DataObject, packing: Packing, length: int
) -> None:
    reader = tiny_reader(tiny_store, packing, length)
    index = data.draw(st.lists(st.integers(0, len(reader) - 1), max_size=12))
    together = reader.read(np.array(index, np.int64))
    assert together.input_ids.shape == (len(index), length)
    for place, number in enumerate(index):
        alone = reader.read(np.array([number]))
        here = Rows(**{name: array[place : place + 1] for name, array in vars(together).items()})
        assert same_rows(alone, here)
        assert alone.numbers.tolist() == [number]


@settings(max_examples=40)
@given(data=st.data(), packing=st.sampled_from(PACKINGS))
def test_fewer_rows_are_a_fixed_choice_of_them(
    tiny_store: Path, data: st.DataObject, packing: Packing
) -> None:
    whole = tiny_reader(tiny_store, packing, 64)
    many = data.draw(st.integers(1, len(whole) + 5))
    few = tiny_reader(tiny_store, packing, 64, many)
    assert len(few) == min(many, len(whole))
    found = few.read(np.arange(len(few)))
    assert len(set(found.numbers.tolist())) == len(few)
    assert len(set(found.row_ids.tolist())) == len(few)
    assert same_rows(found, whole.read(found.numbers))
    one = data.draw(st.integers(0, len(few) - 1))
    assert same_rows(few.read(np.array([one])), whole.read(found.numbers[[one]]))
    fewer = tiny_reader(tiny_store, packing, 64, data.draw(st.integers(1, many)))
    if len(few) < len(whole):  # otherwise they stand in their natural order
        assert fewer.read(np.arange(len(fewer))).numbers.tolist() == found.numbers[: len(fewer)].tolist()
    else:
        assert found.numbers.tolist() == list(range(len(whole)))


def test_a_choice_of_rows_comes_from_everywhere(tiny_store: Path) -> None:
    whole, few = (tiny_reader(tiny_store, "none", 64, many) for many in (None, 60))
    thirds = np.bincount(few.read(np.arange(60)).numbers * 3 // len(whole), minlength=3)
    assert thirds.min() >= 8  # of 20 expected: odds of one in a thousand


@pytest.mark.parametrize("packing", PACKINGS)
def test_rows_of_different_splits_have_different_identities(tiny_store: Path, packing: Packing) -> None:
    identities = []
    for split in SPLITS:
        reader = reader_of(opened(tiny_store), packing, 32, split=split)
        identities += reader.read(np.arange(len(reader))).row_ids.tolist()
    assert len(set(identities)) == len(identities)


def test_identities_stay_where_the_store_moves(make_store: Any, documents: list[str], tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        store = TokenStore.open(make_store(tmp_path / name, documents[:20]))
        found.append(reader_of(store, "documents", 32).read(np.arange(5)))
    assert same_rows(*found)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_row_without_room_for_text_is_refused(mixed: TokenStore, packing: Packing) -> None:
    size = reader_of(mixed, packing, 32).frame.size
    for length in range(1, size + 1):
        with pytest.raises(UserError, match=f"sequence_length {length} leaves no room"):
            reader_of(mixed, packing, length)
    assert len(reader_of(mixed, packing, size + 1)) >= sum(
        len(ids) for ids, _ in mixed.split("train").documents()
    )
