"""A tokenizer's vocabulary, extended with words of the text: found, read from a file, added, and tried.

A new word is an added token in the sense of the tokenizers library: it is matched in the text before the
model sees it, and as a whole word only. So what it does not match stays as it was, ids and all.
"""

import copy
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Encoding, Regex, decoders
from transformers import PreTrainedTokenizerFast

from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.literal import plain_pipeline, well_formed
from fmlm_cli.corpus.tokenizer.panics import failures_as_errors
from fmlm_cli.corpus.tokenizer.words import decoder_kinds
from fmlm_cli.errors import UserError
from fmlm_cli.readers.lines import lines_of

MIN_COUNT = 5  # a word that the sample holds less often would hardly be learnt
_SHORTEST = 3  # letters of a word that is worth a token
_BLANK = "\u2581"  # SentencePiece's sign for a blank
_BATCH = 50_000  # words encoded at a time: bounds the memory of their encodings
_BESIDE = "a"  # a word that every tokenizer knows, to stand beside another
_LETTER = "q"  # makes another word of a word
# Ways in which a word may be matched, the first that works is taken. In normalized text one token serves all
# of a word's written forms; a blank before the word is swallowed only where it would be left over as a token.
_FLAGS = tuple({"normalized": n, "lstrip": left} for n in (True, False) for left in (False, True))


@dataclass(frozen=True)
class NewToken:
    """A word that becomes a token: what it is split into until then, and how often it was counted."""

    text: str
    pieces: tuple[str, ...]
    count: int

    @property
    def saved(self) -> int:
        """Tokens saved by it where it was counted."""
        return self.count * (len(self.pieces) - 1)


# A word, as the Rust library sees it, has letters, digits and underscores in it, and what these do not name:
_SIMPLE_WORD = re.compile(rf"\w{{{_SHORTEST},}}")


@cache
def _marks() -> frozenset[str]:
    """Marks on letters, such as vowel signs, and joiners between them."""
    marks = (c for c in map(chr, range(0x300, 0x20000)) if unicodedata.category(c).startswith("M"))
    return frozenset(marks) | {"\u200c", "\u200d"}


@cache
def _any_word() -> re.Pattern[str]:
    return re.compile(f"[\\w{''.join(sorted(_marks()))}]{{{_SHORTEST},}}")


def _words(text: str) -> list[str]:
    """The words of a text; where there are no marks, ten times as fast."""
    simple = text.isascii() or _marks().isdisjoint(text)
    return (_SIMPLE_WORD if simple else _any_word()).findall(text)


def frequent_splits(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, number: int) -> list[NewToken]:
    """The `number` words that save most tokens as tokens of their own, the best first, ties by text.

    A word is a run of letters between whatever is none: of "fine-tuning" there are two, of "covid19" or
    "a_word" none. Words are counted in the tokenizer's own normal form, so that for one that lower-cases Word
    and word are one. One that is unknown as a whole saves no token and comes last; left out is what the
    vocabulary holds as a piece of words, for then `extended` cannot add it. `texts` is read once; memory
    grows with the number of different words, so give a bounded sample.
    """
    vocabulary = tokenizer.get_vocab()
    counts = {
        word: count
        for word, count in _count(texts, _normal_form(tokenizer)).items()
        if count >= MIN_COUNT and _is_plain(word) and word not in vocabulary
    }
    splits = _splits_of_new(tokenizer, list(counts))
    candidates = [NewToken(word, pieces, counts[word]) for word, pieces in splits.items()]
    return sorted(candidates, key=lambda token: (-token.saved, token.text))[:number]


def _count(texts: Iterable[str], normal_form: Callable[[str], str]) -> Counter[str]:
    """How often each word occurs in all its written forms together."""
    written: Counter[str] = Counter()
    for text in texts:
        written.update(_words(well_formed(text)))
    counts: Counter[str] = Counter()
    with failures_as_errors("the tokenizer cannot encode a word"):
        for word, count in written.items():
            counts[normal_form(word)] += count
    return counts


def _is_plain(word: str) -> bool:
    """Whether a normal form is one word of letters still; some normalizers put blanks between characters."""
    return _any_word().fullmatch(word) is not None and not any(c.isdigit() or c == "_" for c in word)


def _normal_form(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], str]:
    """What a tokenizer makes of a word before it splits it, without a sign for the blank before it."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    if normalizer is None:
        return str.strip
    return lambda word: str(normalizer.normalize_str(word)).replace(_BLANK, " ").strip()


def _splits(
    tokenizer: PreTrainedTokenizerFast, words: Sequence[str]
) -> Iterator[tuple[list[int], tuple[str, ...]]]:
    """The ids and tokens that each word is split into where it stands after a blank."""
    backend = plain_pipeline(tokenizer)
    before = len(backend.encode(_BESIDE, add_special_tokens=False))
    remaining = iter(words)
    while batch := [f"{_BESIDE} {word}" for word in islice(remaining, _BATCH)]:
        with failures_as_errors("the tokenizer cannot encode a word"):
            encodings = backend.encode_batch(batch, add_special_tokens=False)
        for encoding in encodings:
            yield _tail(encoding, before)


def _tail(encoding: Encoding, before: int) -> tuple[list[int], tuple[str, ...]]:
    return encoding.ids[before:], tuple(encoding.tokens[before:])


def _splits_of_new(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The words that are no token yet, and what they are split into; one unknown token will not do."""
    unknown = [tokenizer.unk_token_id]
    splits = zip(words, _splits(tokenizer, words), strict=True)
    return {word: pieces for word, (ids, pieces) in splits if len(ids) > 1 or ids == unknown}


def read_words(path: Path, tokenizer: PreTrainedTokenizerFast) -> list[NewToken]:
    """The words of a UTF-8 file, one a line, in the tokenizer's normal form, each with `count` 0.

    Blank lines do not count. Words that are one token already are among them; `extended` leaves them out.
    Raises `UserError`, with the line, for what is no list of words.
    """
    if not path.exists():
        raise UserError(f"no such file of words: {path}; give a text file with one word a line")
    if not path.is_file():
        raise UserError(f"{path} is no file: give a text file with one word a line")
    normal_form = _normal_form(tokenizer)
    lines: dict[str, int] = {}
    for number, line in lines_of(path):
        written = line.strip()
        if not written:
            continue
        if len(written.split()) > 1:
            raise UserError(
                f"{path}:{number}: '{written}' holds a blank, and a token is one word: write one a line"
            )
        with failures_as_errors(f"{path}:{number}: the tokenizer cannot encode {written!r}"):
            word = normal_form(written)
        if not word:
            raise UserError(f"{path}:{number}: the tokenizer leaves nothing of {written!r}: remove the line")
        first = lines.setdefault(word, number)
        if first != number:
            same = "" if word == written else f", to the tokenizer as '{word}'"
            raise UserError(
                f"{path}:{number}: '{written}' stands in line {first} already{same}; remove one of the two"
            )
    if not lines:
        raise UserError(f"{path} holds no words: write one a line")
    splits = zip(lines, _splits(tokenizer, list(lines)), strict=True)
    return [NewToken(word, pieces, 0) for word, (_, pieces) in splits]


def extended(
    tokenizer: PreTrainedTokenizerFast, words: Sequence[str]
) -> tuple[PreTrainedTokenizerFast, list[str]]:
    """A copy of a tokenizer with these words as tokens, with ids from its end on; and the words left out.

    Words are brought to the tokenizer's normal form, and those that are the same then become one token. Each
    is tried: between blanks it has to come out as its one id, a word of its own, and where it is a part of
    another word, as well as around it, everything as before. Left out is what fails, such as a word that is a
    token already.

    What cannot be had: tokenizers that mark blanks inside tokens lose the blanks and line ends before a new
    word (RoBERTa's do at their mask, too), those of SentencePiece's kind that put a blank before every
    stretch of text (XLM-R's) do so before the comma in "word," as well, and decoding puts a blank before a
    new word wherever it stands.

    Raises `UserError` for a tokenizer with gaps between its ids.
    """
    normal_form = _normal_form(tokenizer)
    vocabulary = tokenizer.get_vocab()
    # The Rust library numbers new tokens by how many there are: after a gap they would take ids in use.
    if max(vocabulary.values()) >= len(tokenizer):
        raise UserError(
            "the tokenizer's ids have gaps, so it cannot be given new tokens: choose another tokenizer"
        )
    forms = {word: normal_form(word) for word in words}
    present = {form for word, form in forms.items() if {word, form} & vocabulary.keys()}
    missing = list(
        _splits_of_new(tokenizer, [form for form in dict.fromkeys(forms.values()) if form not in present])
    )
    trial = _Trial(tokenizer)
    best, fitting = copy.deepcopy(tokenizer), list[str]()
    for flags in _FLAGS:
        if len(fitting) < len(missing):
            candidate, fitting_now = _with_fitting(tokenizer, missing, flags, trial)
            if len(fitting_now) > len(fitting):
                best, fitting = candidate, fitting_now
    _put_blanks(best, fitting)
    return best, [word for word, form in forms.items() if form not in set(fitting)]


def _with_fitting(
    tokenizer: PreTrainedTokenizerFast, words: list[str], flags: Mapping[str, bool], trial: "_Trial"
) -> tuple[PreTrainedTokenizerFast, list[str]]:
    """The tokenizer with those of the words that can be added in this way, and these words."""
    while True:
        candidate = copy.deepcopy(tokenizer)
        candidate.add_tokens([AddedToken(word, single_word=True, **flags) for word in words])
        fitting = trial.fitting(candidate, words)
        if len(fitting) == len(words):
            return candidate, fitting
        words = fitting  # ids move up, so what is left is tried again


class _Trial:
    """Compares a tokenizer with new words to the one that it was made of."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._encode = Encoder(tokenizer)
        self._first_id = len(tokenizer)
        beside = self._encode([_BESIDE, f"{_BESIDE} {_BESIDE}"])
        (self._before, starts), (whole, all_starts) = beside.each()
        self._after = whole[len(self._before) :]
        self._starts = (starts, all_starts[len(starts) :])

    def fitting(self, candidate: PreTrainedTokenizerFast, words: Sequence[str]) -> list[str]:
        """Those of the words that came out as they should; `words` in the order in which they were added."""
        encode, added = Encoder(candidate), set(words)
        alone = encode([f"{_BESIDE} {word} {_BESIDE}" for word in words]).each()
        longer = [[w for w in (word + _LETTER, _LETTER + word) if w not in added] for word in words]
        texts = [f"{_BESIDE} {word} {_BESIDE}" for neighbours in longer for word in neighbours]
        pairs = zip(encode(texts).each(), self._encode(texts).each(), strict=True)
        unchanged = (all(map(np.array_equal, found, expected)) for found, expected in pairs)
        fitting = []
        for number, (word, neighbours, (ids, starts)) in enumerate(zip(words, longer, alone, strict=True)):
            # min(), as all() would stop at the first that is not.
            untouched = min([next(unchanged) for _ in neighbours], default=True)
            if untouched and self._is_one(number, ids, starts):
                fitting.append(word)
        return fitting

    def _is_one(self, number: int, ids: Any, starts: Any) -> bool:
        """Whether the word added as this number is one token and one word, between others as they were."""
        expected = np.concatenate([self._before, [self._first_id + number], self._after])
        beginning = np.concatenate([self._starts[0], [True], self._starts[1]])
        return np.array_equal(ids, expected) and np.array_equal(starts, beginning)


def _put_blanks(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> None:
    """Have decoding put a blank before new words, where a decoder takes blanks from inside tokens alone.

    A byte-level decoder also takes a letter such as the e with an accent for a byte; a token with a blank in
    it, which no byte-level token has, it leaves as it is.
    """
    backend = tokenizer.backend_tokenizer
    kinds = decoder_kinds(json.loads(backend.to_str()).get("decoder"))
    mark = next((sign for kind, sign in (("ByteLevel", " "), ("Metaspace", _BLANK)) if kind in kinds), None)
    if words and mark is not None:
        before_word = Regex(f"^(?=(?:{'|'.join(map(re.escape, words))})$)")  # before a token that is one
        backend.decoder = decoders.Sequence([decoders.Replace(before_word, mark), backend.decoder])


def pieces_of_new(
    tokenizer: PreTrainedTokenizerFast, before: int, base: PreTrainedTokenizerFast
) -> dict[int, list[int]]:
    """For each id of an extended tokenizer from `before` on: the ids that `base` splits the word into."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    words = {number: added[number].content for number in range(before, len(tokenizer)) if number in added}
    return {number: ids for number, (ids, _) in zip(words, _splits(base, list(words.values())), strict=True)}
