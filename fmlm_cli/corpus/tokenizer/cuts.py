"""Where a text can be cut so that its parts, encoded one by one, give the tokens of the whole.

A place is fit before a lone blank, or before one or two line feeds, between characters that stay what and
where they are: no normalizer removes them, turns an edge of them into a blank, or joins them to the blank
(grapheme by grapheme, as SentencePiece's table of characters does). Unicode tells which can be; each
tokenizer is then tried on the separators, and on every character when it is first met.
"""

import itertools
import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from fmlm_cli.corpus.tokenizer.panics import failures_as_errors
from fmlm_cli.corpus.tokenizer.words import is_follower, is_linker, may_follow_linker

PIECE = 32_768  # characters; a piece of a long text is at least this long and at most twice
SEPARATORS = (" ", "\n", "\n\n")

# Letters that Unicode's clusters join to whatever follows, blanks too (Grapheme_Cluster_Break=Prepend).
_PREPENDED = frozenset(
    "\u0d4e\U000111c2\U000111c3\U000113d1\U0001193f\U00011941\U00011a3a\U00011d46\U00011f02"
) | frozenset(map(chr, range(0x11A84, 0x11A8A)))
_SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))  # join an emoji before them
_FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")

# What a tokenizer is tried on: letters of many scripts and cases, digits, punctuation, signs.
_TRIED = (
    "aZ\u00e9\u00df1\u00b2\u65e5\u3042\u30a2\ud55c\u0e01\u05d0\u0639\u044f\u03a9\u0915\u20ac\u2192\u2581\u3002"
    "\u2019\u201c\u2014\u2026\U0001f600_-'\",.()[]{}`/\\|@#$%^&*+=<>~!?:;"
)
# Steps of a pipeline that look at one character, one cluster, or one stretch between blanks at a time.
_NORMALIZERS = {"BertNormalizer", "ByteLevel", "Lowercase", "Nmt", "Precompiled", "Strip", "StripAccents"}
_NORMALIZERS |= set(_FORMS)
_SPLITTERS = {"BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Split"}
_SPLITTERS |= {"Whitespace", "WhitespaceSplit"}
# Of these, those to which a word of letters is one piece, and those that part letters from punctuation.
_LEAVE_LETTERS = _SPLITTERS - {"Split"}
_PART_PUNCTUATION = {"BertPreTokenizer", "ByteLevel"}
_ENDINGS = ("b", "s", "t", "re", "ve", "m", "ll", "d", "bs")  # GPT-2's contractions among them
_BLANKS = r"(?: |\u2581|\\s|\[[ \\nrt]+\])(?:\+|\{\d+,\d*\})?"
_RUN_OF_BLANKS = re.compile(rf"{_BLANKS}(?:\|{_BLANKS})*")
_LEFT_OUT_AT_FIRST = re.compile(r"(?:(?![\x0b\x1c-\x1f\x85])\s)*[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_UNFIT, _FIT, _LOOK_ON = range(3)  # an edge of a text, by the character there: the last, where others decide
_FIRST, _LAST = itemgetter(slice(0, 1)), itemgetter(slice(-1, None))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


@cache
def may_end(character: str) -> bool:
    """Whether a text may be cut behind a character, by what Unicode says."""
    last = [unicodedata.normalize(form, character)[-1] for form in _FORMS]
    return character not in _PREPENDED and all(unicodedata.category(c)[0] in "LNPSM" for c in last)


@cache
def may_begin(character: str) -> bool:
    """Whether a blank before a character stays by itself, by what Unicode says."""
    first = [unicodedata.normalize(form, character)[0] for form in _FORMS]
    return character not in _SKIN_TONES and not any(
        is_follower(c) or unicodedata.category(c)[0] not in "LNPS" for c in first
    )


def lone_blank(text: str, place: int) -> bool:
    """Whether there is a blank at this place, and a fit one by what Unicode says."""
    return (
        0 < place < len(text) - 1
        and text[place] == " "
        and may_end(text[place - 1])
        and not _is_mark(text[place - 1])
        and may_begin(text[place + 1])
    )


def pieces_of(text: str, length: int, fit: Callable[[str, int], bool] = lone_blank) -> list[str]:
    """Cut a text longer than twice `length` before fit blanks, or anywhere if there is none in reach."""
    places, start = [0], 0
    while len(text) - start > 2 * length:
        end = start + 2 * length
        place = text.find(" ", start + length, end)
        while place >= 0 and not fit(text, place):
            place = text.find(" ", place + 1, end)
        start = place if place >= 0 else end
        places.append(start)
    return [text[begin:end] for begin, end in itertools.pairwise([*places, len(text)])]


@dataclass(frozen=True)
class Letters:
    """What a tokenizer's model is given of a word of ASCII letters: all of it as one piece.

    `prefix`: what the blank before it becomes. `table`: what each letter becomes, for `str.translate`.
    """

    prefix: str
    table: Mapping[int, str]


class Cuts:
    """Where one tokenizer lets texts be cut; `separators`: before which of `SEPARATORS`.

    `first_as_others`: whether a text's first word is the same without a blank before it as with one.
    `letters`: None where words of ASCII letters are like any others. `marks`: ASCII punctuation between which
    and an ASCII letter before or behind it texts can be cut, where something that is printed in ASCII, a line
    feed or nothing follows the two; what begins there is the same as at a text's beginning.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        self._ends = _Kinds(self._kind_of_end)
        self._begins = _Kinds(self._kind_of_beginning)
        self._unfit: set[str] = set()
        pipeline = json.loads(backend.to_str())
        self._has_table = any(step["type"] == "Precompiled" for step in _steps(pipeline["normalizer"]))
        self.separators = self._fit_separators(pipeline)
        rights = [text for right in filter(may_begin, _TRIED) for text in (right, f"{right}a")]
        self.first_as_others = (
            bool(self.separators) and self._has_no_added_tokens() and self._begins_alike(rights)
        )
        self.letters = self._what_becomes_of_letters(pipeline)
        self.marks = "".join(filter(self._is_mark_to_cut_at, self._marks_that_part(pipeline)))

    def _fit_separators(self, pipeline: Mapping[str, Any]) -> tuple[str, ...]:
        """Those before which texts can be cut; what is odd beside one becomes unfit."""
        if not _works_piecemeal(pipeline):
            return ()
        fit = [s for s in SEPARATORS if self._keeps_added_tokens(s) and self._separates(s)]
        # Two line feeds are of use only beside one, and lines only beside words.
        return tuple(itertools.takewhile(lambda separator: separator in fit, SEPARATORS))

    def leaves_whole(self, text: str) -> bool:
        """Whether a text is better not cut: where its offsets are wrong, they are as wrong in the whole.

        SentencePiece's table of characters counts none for those that it leaves out at a text's beginning.
        """
        return self._has_table and _LEFT_OUT_AT_FIRST.match(text) is not None

    def before(self, text: str, place: int) -> bool:
        """Whether the text can be cut before a blank at this place."""
        return self.begins(text[place + 1 : place + 2]) and bool(
            self.end([text[max(0, place - 32) : place]])[0]
        )

    def end(self, parts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether a text can be cut at the end of each of these parts of it: bool[parts]."""
        kinds = np.fromiter(map(self._ends.__getitem__, map(_LAST, parts)), np.uint8, len(parts))
        fit = kinds == _FIT
        for number in np.flatnonzero(kinds == _LOOK_ON).tolist():
            fit[number] = self._ends_behind_followers(parts[number])
        return fit

    def begin(self, parts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether a text can be cut before the blank before each part, or before its own line feeds."""
        kinds = np.fromiter(map(self._begins.__getitem__, map(_FIRST, parts)), np.uint8, len(parts))
        fit = kinds == _FIT
        for number in np.flatnonzero(kinds == _LOOK_ON).tolist():
            fit[number] = self._begins_behind_lines(parts[number])
        return fit

    def begins(self, part: str) -> bool:
        """The same of one part."""
        kind = self._begins[part[:1]]
        return kind == _FIT or (kind == _LOOK_ON and self._begins_behind_lines(part))

    def _begins_behind_lines(self, text: str) -> bool:
        behind = text[2:3] if text[1:2] == "\n" and "\n\n" in self.separators else text[1:2]
        return behind != "\n" and self._begins[behind] == _FIT

    def _ends_behind_followers(self, text: str) -> bool:
        """Whether the character that all the last ones belong to is there, and fit, as they are."""
        bare = len(text) - 1
        while bare >= 0 and (is_follower(text[bare]) or (bare and is_linker(text[bare - 1]))):
            bare -= 1
        kinds = [self._ends[character] for character in text[max(bare, 0) :]]
        return bare >= 0 and _UNFIT not in kinds

    def _kind_of_end(self, character: str) -> int:
        if not character or character in self._unfit or not may_end(character):
            return _UNFIT
        if not self._agrees(_trials_of_end(character), self.separators):
            return _UNFIT
        return _LOOK_ON if is_follower(character) or may_follow_linker(character) else _FIT

    def _kind_of_beginning(self, character: str) -> int:
        if character == "\n" and "\n" in self.separators:
            return _LOOK_ON
        if not character or character in self._unfit or not may_begin(character):
            return _UNFIT
        fit = self._agrees(_trials_of_beginning(character), self.separators)
        if fit and self.first_as_others:
            fit = self._begins_alike([character, f"{character}b"])
        return _FIT if fit else _UNFIT

    def _what_becomes_of_letters(self, pipeline: Mapping[str, Any]) -> Letters | None:
        if not (self.separators and self._has_no_added_tokens()):
            return None
        letters = string.ascii_letters
        if not _leaves_alone(pipeline, letters, _LEAVE_LETTERS):
            return None
        before, found = self._words("a"), [self._words(f"a {letter}") for letter in letters]
        prefix = found[0][-1][:-1]
        table = {ord(letter): words[-1][-1:] for letter, words in zip(letters, found, strict=True)}
        expected = [[*before, prefix + table[ord(letter)]] for letter in letters]
        if found != expected or self._words(f"a {letters}") != [*before, prefix + letters.translate(table)]:
            return None
        return Letters(prefix, table)

    def _marks_that_part(self, pipeline: Mapping[str, Any]) -> str:
        """ASCII punctuation that a pipeline parts from letters, by what kind it is."""
        splitters = _steps(pipeline["pre_tokenizer"])
        parts = self.letters is not None and len(splitters) == 1
        parts = parts and _leaves_alone(pipeline, string.printable, _PART_PUNCTUATION)
        parts = parts and splitters[0].get("use_regex", True) and not splitters[0].get("add_prefix_space")
        return string.punctuation if parts else ""

    def _is_mark_to_cut_at(self, mark: str) -> bool:
        behind = [(left, right) for left in (mark, f"a{mark}", f"a {mark}") for right in _ENDINGS]
        return self._agrees([("a", mark), *(("a", f"{mark}{right}") for right in _ENDINGS), *behind], [""])

    def _has_no_added_tokens(self) -> bool:
        return all(token.special for token in self._backend.get_added_tokens_decoder().values())

    def _begins_alike(self, texts: Sequence[str]) -> bool:
        """Whether texts have the same words after a blank as without."""
        return all(self._words(text) == self._words(f" {text}") for text in texts)

    def _words(self, text: str) -> list[str]:
        backend = self._backend
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]

    def _ids(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def _agrees(self, halves: Iterable[tuple[str, str]], separators: Sequence[str]) -> bool:
        """Whether the words of each two halves are those of the whole, with each separator between."""
        views: list[Callable[[str], list[Any]]] = [cache(self._words)]
        if not self._has_no_added_tokens():
            views.append(cache(self._ids))
        return all(
            view(left + separator + right) == view(left) + view(separator + right)
            for left, right in halves
            for separator in separators
            for view in views
        )

    def _all_agree(self, halves: Sequence[tuple[str, str]], separator: str) -> bool:
        """Whether the words of all halves are those of one text, which is faster found out."""
        texts = [separator + text for text in itertools.chain.from_iterable(halves)]
        views: list[Callable[[str], list[Any]]] = [self._words]
        views += [] if self._has_no_added_tokens() else [self._ids]
        return all(
            view("".join(texts)) == list(itertools.chain.from_iterable(map(cache(view), texts)))
            for view in views
        )

    def _separates(self, separator: str) -> bool:
        tried = [character for character in _TRIED if character not in self._unfit]
        pairs = list(itertools.product(filter(may_end, tried), filter(may_begin, tried)))
        halves = [(f"a{a}", f"{b}a") for a, b in pairs]
        failed: list[tuple[str, str]] = []
        if not self._all_agree(halves, separator):
            failed = [p for p, two in zip(pairs, halves, strict=True) if not self._agrees([two], [separator])]
        odd = set(self._unfit)
        while failed:  # the character that fails most often is to blame
            ((worst, _),) = Counter(itertools.chain.from_iterable(failed)).most_common(1)
            odd.add(worst)
            failed = [pair for pair in failed if worst not in pair]
        others = [("x's a_b", "'s naive"), ("1 2,", "3.5 - x")]
        if odd & set("aZ1.") or not self._agrees(others, [separator]):
            return False
        self._unfit = odd
        return True

    def _keeps_added_tokens(self, separator: str) -> bool:
        """Whether no token that is looked for in texts reaches or looks over a place where they are cut."""
        reaches_over = re.compile(f"[^{separator[0]}]{separator}(?!{separator[0]})")
        for token in self._backend.get_added_tokens_decoder().values():
            contents = {token.content}
            if token.normalized and self._backend.normalizer:
                contents.add(self._backend.normalizer.normalize_str(token.content))
            reaches = any(map(reaches_over.search, contents))
            looks = token.single_word and any(content.startswith(separator[0]) for content in contents)
            if not token.special and (token.rstrip or reaches or looks):
                return False
        return True


def _works_piecemeal(pipeline: Mapping[str, Any]) -> bool:
    """Whether nothing in a pipeline, as its JSON has it, looks at more than what lies between two blanks."""
    splitters = _steps(pipeline["pre_tokenizer"])
    return (
        bool(splitters)
        and all(step["type"] in _SPLITTERS for step in splitters)
        and all(map(_normalizes_piecemeal, _steps(pipeline["normalizer"])))
        and not pipeline["model"].get("dropout")
    )


def _leaves_alone(pipeline: Mapping[str, Any], characters: str, splitters: set[str]) -> bool:
    """Whether no step replaces some of these characters, and all splitters are among these."""
    patterns = [step["pattern"] for step in _steps(pipeline["normalizer"]) if step["type"] == "Replace"]
    return not any(set(pattern.get("String", "")) & set(characters) for pattern in patterns) and all(
        step["type"] in splitters for step in _steps(pipeline["pre_tokenizer"])
    )


def _steps(step: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    inner = step.get("normalizers") or step.get("pretokenizers")
    return [step] if inner is None else list(itertools.chain.from_iterable(map(_steps, inner)))


def _normalizes_piecemeal(step: Mapping[str, Any]) -> bool:
    if step["type"] != "Replace":
        return step["type"] in _NORMALIZERS
    if "Regex" in step["pattern"]:
        return _RUN_OF_BLANKS.fullmatch(step["pattern"]["Regex"]) is not None
    pattern, content = step["pattern"]["String"], step["content"]
    if len(pattern) == 1:
        return True  # each character is tried
    blanks = {" ", "\u2581"}
    edges = {content[:1], content[-1:]}
    return set(pattern) <= blanks or not (any(map(str.isspace, pattern)) or edges & {*blanks, ""})


class _Kinds(dict[str, int]):
    """What characters are at an edge of a text: found out when first asked for."""

    def __init__(self, find_out: Callable[[str], int]) -> None:
        super().__init__()
        self._find_out = find_out

    def __missing__(self, character: str) -> int:
        with failures_as_errors("the tokenizer cannot split a text"):
            kind = self[character] = self._find_out(character)
        return kind


def _trials_of_end(character: str) -> list[tuple[str, str]]:
    """Halves of texts, with a separator between to come, that show what a character does before it."""
    lefts = [f"a{character}", f"a{character}{character}"]
    lefts += [] if _is_mark(character) else [f"a {character}", f"a {character} {character}"]
    return list(itertools.product(lefts, ("b", ".", *([f"{character}b"] if may_begin(character) else ()))))


def _trials_of_beginning(character: str) -> list[tuple[str, str]]:
    return list(
        itertools.product(
            ("a", ".", *([f"a{character}"] if may_end(character) else ())),
            (f"{character}b", f"{character} b", f"{character} {character} b"),
        )
    )
