"""A memo of words: each stretch between two places fit to cut at is encoded once, and looked up from then on.

Texts, as the bytes of UTF-8, are split before blanks and, where the tokenizer does so, around punctuation;
Arrow tells which words are different, and each of these is looked up. At a border that is not fit, words are
joined again. Of what has not been met before, words of letters go to the tokenizer's model, and the rest
through the whole of it, many stretches laid end to end (which `Cuts` warrants to be the same). So ids and
word starts are those of every text encoded whole.
"""

import itertools
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers.models import Model

from fmlm_cli.corpus.tokenizer.cuts import Cuts
from fmlm_cli.corpus.tokenizer.literal import Encoded, encode_letters
from fmlm_cli.errors import UserError

_WORDS = 1 << 18  # that are kept: some 40 MB
_TOKENS = 1 << 21  # that are kept: 8 MB
_LONGEST = 40  # characters; longer words hardly come again
# What stands before a text's first word is a blank, where the word is the same as behind one, or else a byte
# that is not in UTF-8: the latter before a text that is not to be cut.
_BLANK, _FIRST, _WHOLE = b" ", b"\xff", b"\xfe"
_SEPARATORS = b" \n"
_STARTS = np.uint32(1 << 31)  # the bit of a token that begins a word, beside its id
_JOINED = 4096  # characters of new words that are encoded as one text
# Where most of a text is new words, the memo costs more than it saves.
_NEW = 0.5
_GRACE = 1 << 18  # bytes to learn from all the same, at first
_RENEWED = 0.1  # new words of a full memo, as a share of the bytes: the texts have changed

_Numbers = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]
_Encode = Callable[[Sequence[str]], tuple[Encoded, _Numbers]]


class _Index(dict[bytes, int]):
    """Words and their rows. A word that is not there gets the next row, and a place in `new`."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[bytes] = []

    def __missing__(self, word: bytes) -> int:
        row = self[word] = len(self)
        self.new.append(word)
        return row

    def forget_new(self) -> None:
        for word in self.new:
            del self[word]
        self.new = []

    def keep(self, kept: Sequence[bytes]) -> None:
        """Of the new words keep these alone, in this order."""
        first = len(self) - len(self.new)
        if len(kept) < len(self.new):
            self.forget_new()
            self.update(zip(kept, itertools.count(first), strict=False))
        self.new = []


@dataclass
class _Column:
    """An array that grows at its end."""

    values: npt.NDArray
    size: int = 0

    def append(self, more: npt.NDArray) -> None:
        end = self.size + len(more)
        if end > len(self.values):
            grown = np.empty(max(end, 2 * len(self.values)), self.values.dtype)
            grown[: self.size] = self.values[: self.size]
            self.values = grown
        self.values[self.size : end] = more
        self.size = end


class _Rows:
    """The tokens of each row (a word, or words joined), and whether a text can be cut before and after it."""

    def __init__(self) -> None:
        self.tokens = _Column(np.empty(1 << 16, np.uint32))
        self.begin = _Column(np.empty(1 << 14, np.int64))
        self.count = _Column(np.empty(1 << 14, np.int64))
        self.begins = _Column(np.empty(1 << 14, np.bool_))
        self.ends = _Column(np.empty(1 << 14, np.bool_))

    def __len__(self) -> int:
        return self.count.size

    def append(self, tokens: npt.NDArray[np.uint32], begin: _Numbers, count: _Numbers) -> None:
        self.begin.append(begin + self.tokens.size)
        self.count.append(count)
        self.tokens.append(tokens)

    def shorten(self, rows: int, tokens: int) -> None:
        for column in (self.begin, self.count, self.begins, self.ends):
            column.size = min(column.size, rows)
        self.tokens.size = tokens

    def judge(self, begins: _Flags, ends: _Flags) -> None:
        """Say of the words of the next rows whether a text can be cut before and after them."""
        self.begins.append(begins)
        self.ends.append(ends)

    @property
    def judged(self) -> tuple[_Flags, _Flags]:
        """What was said of the next rows."""
        begins, ends = (column.values[len(self) : column.size].copy() for column in (self.begins, self.ends))
        return begins, ends

    def arrange(self, order: _Numbers) -> None:
        """Put what was said of the next rows in this order."""
        for column in (self.begins, self.ends):
            column.values[len(self) : column.size] = column.values[order]

    def gather(self, rows: _Numbers) -> tuple[npt.NDArray[np.uint32], _Numbers]:
        """The tokens of these rows, end to end, and the count of each."""
        count = self.count.values[rows]
        end = np.cumsum(count)
        places = np.repeat(self.begin.values[rows] - (end - count), count)
        places += np.arange(len(places))
        return self.tokens.values[places], count


@dataclass(frozen=True)
class _Split:
    """Texts in words, and these in stretches, which are single words but where a border is not fit.

    `size`: bytes of all. `rows`: of each word. `first_of_text`: each text's first word. `borders`: the first
    word of each stretch, and one beyond the last. `several`: which stretches are of several words;
    `numbers`: of each of these, a place in `joined`, which are all different ones.
    """

    size: int
    rows: _Numbers
    first_of_text: _Numbers
    borders: _Numbers
    several: _Numbers
    numbers: _Numbers
    joined: list[bytes]


class WordMemo:
    """Encodes texts by looking their words up; `encode` is the tokenizer itself, `model` its model."""

    def __init__(self, cuts: Cuts, encode: _Encode, model: Model) -> None:
        self._cuts = cuts
        self._encode = encode
        self._model = model
        # Of each byte: 1 for a letter, 2 for a mark, so that a letter beside a mark has 3 with it.
        self._sides = np.zeros(256, np.uint8)
        self._sides[list(string.ascii_letters.encode())] = 1
        self._sides[list(cuts.marks.encode())] = 2
        # Anything else may join the mark before it, or be removed from between it and such.
        self._may_follow = np.zeros(256, np.bool_)
        self._may_follow[[*range(ord(" "), 0x7F), ord("\n"), *_FIRST, *_WHOLE]] = True
        self._by_lines = "\n" in cuts.separators
        self._by_double_lines = "\n\n" in cuts.separators
        self._seen = self._spent = self._skip = self._refused = 0
        self._forget()

    def _forget(self) -> None:
        self._index = _Index()
        self._rows = _Rows()
        self._since_full = self._new_since_full = 0

    def __call__(self, texts: Sequence[str]) -> Encoded | None:
        """Encode well-formed texts; None: the tokenizer itself would be quicker, or has something to say."""
        self._seen += sum(map(len, texts))
        if self._skip:
            self._skip -= 1
            return None
        self._index.forget_new()  # those of a call that came to nothing
        self._rows.shorten(len(self._index), self._rows.tokens.size)
        try:
            split = self._split(texts)
        except UserError:
            return None
        new = sum(map(len, self._index.new)) + sum(map(len, split.joined))
        if not self._pays(new, split.size):
            return None
        try:
            encoded = self._look_up(split)
        except UserError:
            return None
        self._renew(new, split.size)
        return encoded

    def _pays(self, new: int, size: int) -> bool:
        if new > _NEW * size:
            if self._spent + new > _GRACE + self._seen // 32:
                self._skip = 1 << self._refused
                self._refused = min(self._refused + 1, 5)
                return False
            self._spent += new
        self._refused = 0
        return True

    def _is_full(self) -> bool:
        return len(self._rows) >= _WORDS or self._rows.tokens.size >= _TOKENS

    def _renew(self, new: int, size: int) -> None:
        """Start anew where texts are no longer like those that filled the memo."""
        if not self._is_full():
            return
        self._since_full += size
        self._new_since_full += new
        if self._since_full > 4 * _GRACE:
            if self._new_since_full > _RENEWED * self._since_full:
                self._forget()
            self._since_full = self._new_since_full = 0

    def _split(self, texts: Sequence[str]) -> _Split:
        text, first_of_text, begins = self._laid_out(texts)
        bounds = np.append(begins, len(text)).astype(np.int32)
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(text)]
        words = pa.Array.from_buffers(pa.binary(), len(begins), buffers).dictionary_encode()
        different = words.dictionary.to_pylist()
        row_of = np.fromiter(map(self._index.__getitem__, different), np.int64, len(different))
        rows = row_of[np.from_dlpack(words.indices)]
        self._rows.judge(*self._judged(self._index.new))
        fit = np.ones(len(rows) + 1, np.bool_)
        fit[1:-1] = self._rows.ends.values[rows[:-1]] & self._rows.begins.values[rows[1:]]
        fit[first_of_text] = True
        borders = np.flatnonzero(fit)
        several = np.flatnonzero(np.diff(borders) > 1)
        pairs = zip(bounds[borders[several]].tolist(), bounds[borders[several + 1]].tolist(), strict=True)
        joined: dict[bytes, int] = {}
        numbers = [joined.setdefault(text[begin:end], len(joined)) for begin, end in pairs]
        return _Split(
            len(text), rows, first_of_text, borders, several, np.array(numbers, np.int64), list(joined)
        )

    def _laid_out(self, texts: Sequence[str]) -> tuple[bytes, _Numbers, _Numbers]:
        """Texts end to end, each with what stands before it; each one's first word; where words begin."""
        marked = [self._mark(text) + text.encode() for text in texts]
        lengths = np.fromiter(map(len, marked), np.int64, len(marked))
        first_bytes = np.cumsum(lengths) - lengths
        text = b"".join(marked)
        begins_word = self._separators(np.frombuffer(text, np.uint8))
        for number in (number for number, one in enumerate(marked) if one[:1] == _WHOLE):
            begins_word[first_bytes[number] :][: lengths[number]] = False
        begins_word[first_bytes] = True
        begins = np.flatnonzero(begins_word)
        return text, np.searchsorted(begins, first_bytes), begins

    def _mark(self, text: str) -> bytes:
        """What stands before a text."""
        if self._cuts.leaves_whole(text):
            return _WHOLE
        begins_as_others = self._cuts.first_as_others and self._cuts.begins(text)
        return _BLANK if begins_as_others and text[0] not in self._cuts.separators else _FIRST

    def _separators(self, text: npt.NDArray[np.uint8]) -> _Flags:
        """Which bytes are a blank, a line feed, or the first of two, as far as texts are cut there."""
        found = text == ord(" ")
        if self._by_lines:
            feeds = np.flatnonzero(text == ord("\n"))
            if self._by_double_lines:
                follows = np.diff(feeds, prepend=-2) == 1
                numbers = np.arange(len(feeds))
                feeds = feeds[(numbers - np.maximum.accumulate(np.where(follows, 0, numbers))) % 2 == 0]
            found[feeds] = True
        if self._cuts.marks:
            sides = self._sides[text]
            beside = sides[1:] + sides[:-1] == 3
            beside[:-1] &= self._may_follow[text[2:]]
            found[1:] |= beside
        return found

    def _judged(self, stretches: Sequence[bytes]) -> tuple[_Flags, _Flags]:
        """Whether a text can be cut before and after each of these."""
        texts = [_text_of(stretch).removeprefix(" ") for stretch in stretches]
        return self._cuts.begin(texts) | ~_begin_with_separators(stretches), self._cuts.end(texts)

    def _look_up(self, split: _Split) -> Encoded:
        """Encode what is new, keep of that what is short, and gather the tokens of all stretches."""
        known, new = len(self._rows), self._index.new
        kept = self._to_keep(new)
        order = np.argsort(~kept, kind="stable")  # what is kept stands first
        row_of_new = np.empty(len(new), np.int64)
        row_of_new[order] = np.arange(known, known + len(new))
        rows = split.rows[split.borders[:-1]]
        is_new = rows >= known
        rows[is_new] = row_of_new[rows[is_new] - known]
        rows[split.several] = known + len(new) + split.numbers
        self._rows.arrange(known + order)
        words = [new[number] for number in order.tolist()]
        bound = int(np.count_nonzero(kept))
        begins, ends = self._rows.judged
        self._learn(words[:bound], begins[:bound], ends[:bound])
        tokens = self._rows.tokens.size
        judged = zip((begins[bound:], ends[bound:]), self._judged(split.joined), strict=True)
        self._learn([*words[bound:], *split.joined], *map(np.concatenate, judged))
        gathered, counts = self._rows.gather(rows)
        self._rows.shorten(known + bound, tokens)
        self._index.keep(words[:bound])
        lengths = np.add.reduceat(counts, np.searchsorted(split.borders, split.first_of_text))
        return Encoded(gathered & ~_STARTS, gathered >= _STARTS, lengths)

    def _to_keep(self, new: Sequence[bytes]) -> _Flags:
        room = 0 if self._is_full() else _WORDS - len(self._rows)
        short = np.fromiter(
            (len(word.decode(errors="replace")) <= _LONGEST + 1 for word in new), np.bool_, len(new)
        )
        return short & (np.cumsum(short) <= room)

    def _learn(self, stretches: Sequence[bytes], begins: _Flags, ends: _Flags) -> None:
        """Put the tokens of stretches into the next rows; none for what only ever follows other words.

        `begins`, `ends`: as `_judged`.
        """
        texts = list(map(_text_of, stretches))
        of_letters = self._are_of_letters(stretches)
        together = begins & ends & _begin_with_separators(stretches) & ~of_letters

        def chosen(which: _Flags) -> list[str]:
            return [texts[number] for number in np.flatnonzero(which).tolist()]

        tokens, lengths, failed = self._encode_together(chosen(together))
        places = np.flatnonzero(together)
        together[places[failed]] = False
        apart = begins & ~together & ~of_letters
        encoded, _ = self._encode(chosen(apart))
        learnt = encode_letters(self._model, self._cuts.letters, chosen(of_letters))
        count = np.zeros(len(stretches), np.int64)
        count[places], count[apart], count[of_letters] = lengths, encoded.lengths, learnt.lengths
        kinds = np.select([together, apart, of_letters], [0, 1, 2], 3)
        order = np.argsort(kinds, kind="stable")
        begin = np.empty(len(stretches), np.int64)
        begin[order] = np.cumsum(count[order]) - count[order]
        self._rows.append(np.concatenate([tokens, _marked(encoded), _marked(learnt)]), begin, count)

    def _are_of_letters(self, stretches: Sequence[bytes]) -> _Flags:
        """Which are words of ASCII letters alone, of which it is known what the model is given."""
        if self._cuts.letters is None:
            return np.zeros(len(stretches), np.bool_)
        are = (stretch.removeprefix(_BLANK).isalpha() for stretch in stretches)
        return np.fromiter(are, np.bool_, len(stretches))

    def _encode_together(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], _Numbers, _Flags]:
        """Encode stretches side by side: tokens, the count of each, and which are to be encoded apart.

        These are where a token stands for no character, or for some of two stretches.
        """
        if not texts:
            return np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0, np.bool_)
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        begins = np.concatenate([[0], ends[:-1]])
        first = np.flatnonzero(np.diff(begins // _JOINED, prepend=-1))
        bounds = [*first.tolist(), len(texts)]
        encoded, offsets = self._encode(["".join(texts[a:b]) for a, b in itertools.pairwise(bounds)])
        places = offsets + np.repeat(begins[first], encoded.lengths)[:, None]
        stretch = np.minimum(np.searchsorted(ends, places[:, 0], side="right"), len(texts) - 1)
        odd = (places[:, 1] <= places[:, 0]) | (places[:, 1] > ends[stretch])
        odd[1:] |= stretch[1:] < stretch[:-1]
        of_text = np.repeat(np.arange(len(first)), encoded.lengths)
        failed_text = np.zeros(len(first), np.bool_)
        failed_text[of_text[odd]] = True
        failed = np.repeat(failed_text, np.diff(bounds))
        sound = ~failed_text[of_text]
        count = np.bincount(stretch[sound], minlength=len(texts))
        return _marked(encoded)[sound], count, failed


def _begin_with_separators(stretches: Sequence[bytes]) -> _Flags:
    """Which of these have a blank or line feed at first: the rest is the same at a text's beginning."""
    return np.fromiter((stretch[0] in _SEPARATORS for stretch in stretches), np.bool_, len(stretches))


def _text_of(stretch: bytes) -> str:
    """The text of a stretch, with the blank before it where it has one."""
    return (stretch[1:] if stretch[0] >= _WHOLE[0] else stretch).decode()


def _marked(encoded: Encoded) -> npt.NDArray[np.uint32]:
    """Ids, with a bit for those that begin words."""
    return encoded.input_ids | (encoded.word_starts * _STARTS)
