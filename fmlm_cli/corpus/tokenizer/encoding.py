"""Encoding many texts fast, in bounded memory, with where words begin."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from fmlm_cli.corpus.tokenizer.panics import failures_as_errors
from fmlm_cli.corpus.tokenizer.words import Borders
from fmlm_cli.errors import UserError

if TYPE_CHECKING:  # whoever encodes by a pipeline alone need not wait for it
    from transformers import PreTrainedTokenizerFast

PIECE = 32_768  # characters; a piece of a long text is at least this long and at most twice
_BATCH = 64 * PIECE  # characters that go to the Rust threads at a time: bounds the memory of their answers

# A blank to cut before: one alone, between visible characters that no normalizer removes.
_CUT = re.compile(r"(?<=[!-~\w]) (?=[!-~\w])")
_PROBES = (
    "ab cd",
    "One, two (3) 4.5 six - x's a_b! c-d",
    "\u00e9t\u00e9 na\u00efve \u00dcn\u00ef \u65e5\u672c x",
)


@dataclass(frozen=True)
class Encoded:
    """Texts as tokens, laid end to end.

    `input_ids`: uint32[tokens]. `word_starts`: bool[tokens], whether a token begins a word. `lengths`:
    int64[texts], the tokens of each text.
    """

    input_ids: npt.NDArray[np.uint32]
    word_starts: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int64]

    def each(self) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]]:
        """The ids and word starts of one text after the other: views, not copies."""
        begin = 0
        for end in np.cumsum(self.lengths).tolist():
            yield self.input_ids[begin:end], self.word_starts[begin:end]
            begin = end

    def part(self, begin: int, end: int) -> "Encoded":
        """The texts from one to another (exclusive), without copying."""
        first, last = (int(self.lengths[:place].sum()) for place in (begin, end))
        return Encoded(self.input_ids[first:last], self.word_starts[first:last], self.lengths[begin:end])

    def chosen(self, which: npt.NDArray[np.bool_]) -> "Encoded":
        """The texts for which bool[texts] is true; these themselves where all are."""
        if which.all():
            return self
        tokens = np.repeat(which, self.lengths)
        return Encoded(self.input_ids[tokens], self.word_starts[tokens], self.lengths[which])


def plain_pipeline(tokenizer: "PreTrainedTokenizerFast") -> Tokenizer:
    """A copy of the pipeline that neither cuts nor pads, and does not look for special tokens in texts."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def well_formed(text: str) -> str:
    """The text with "?" for lone surrogates (half characters, as in broken JSON), which Rust cannot take."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", errors="replace").decode("utf-8")
    return text


def pieces_of(text: str, length: int) -> list[str]:
    """Cut a text longer than twice `length` before lone blanks, or anywhere if there is none in reach."""
    places, start = [0], 0
    while len(text) - start > 2 * length:
        blank = _CUT.search(text, start + length, start + 2 * length)
        start = blank.start() if blank else start + 2 * length
        places.append(start)
    return [text[begin:end] for begin, end in itertools.pairwise([*places, len(text)])]


def _cuts_safely(backend: Tokenizer) -> bool:
    """Whether a text cut before a lone blank gives the same words as in one go: tried out on a few."""
    for token in backend.get_added_tokens_decoder().values():
        if not token.special and (token.rstrip or _CUT.search(f"x{token.content}x", 2)):
            return False
    if backend.pre_tokenizer is None:
        return False

    def words(text: str) -> list[str]:
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]

    cuts = ((probe, blank.start()) for probe in _PROBES for blank in _CUT.finditer(probe))
    return all(words(probe) == words(probe[:cut]) + words(probe[cut:]) for probe, cut in cuts)


def _literal(backend: Tokenizer) -> Tokenizer:
    """A copy whose model cannot find special tokens in texts either.

    Unigram, and word-based models without punctuation splitting, know them as ordinary vocabulary: there a
    text's "</s>" would come out as the real one. Byte-pair models reach only what their merges make. One that
    the model does not know leaves a token behind that no text holds: ids of added tokens are counted anew
    when they are read.
    """
    content = json.loads(backend.to_str())
    special = {token["id"] for token in content["added_tokens"] if token["special"]}
    vocabulary = backend.get_vocab(with_added_tokens=False)
    hidden = "\ue000 {}".format  # no text holds a word with a blank and a private character in it
    content["added_tokens"] = [
        token | {"content": hidden(token["id"])} if token["special"] else token
        for token in content["added_tokens"]
        if not token["special"] or token["content"] not in vocabulary
    ]
    content["post_processor"] = None
    model = content["model"]
    special -= {backend.token_to_id(model.get("unk_token") or ""), model.get("unk_id")}
    if model["type"] == "Unigram":
        pieces = enumerate(model["vocab"])
        model["vocab"] = [[hidden(i) if i in special else piece, score] for i, (piece, score) in pieces]
    elif model["type"] in ("WordPiece", "WordLevel"):
        model["vocab"] = {hidden(i) if i in special else token: i for token, i in model["vocab"].items()}
    return Tokenizer.from_str(json.dumps(content))


class Encoder:
    """Encodes many texts, in Rust threads, without special tokens and without any limit of length.

    A text of more than `2 * piece_length` characters is encoded in pieces, cut before a lone blank, which
    gives the same tokens as in one go. Only where no such blank comes for `piece_length` characters is it cut
    anywhere; the token after the cut then begins a word. Tokenizers whose words run across blanks get every
    text whole.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast | str", *, piece_length: int = PIECE) -> None:
        """Of a tokenizer, or of another encoder's `pipeline`."""
        if isinstance(tokenizer, str):
            self._backend = Tokenizer.from_str(tokenizer)
        else:
            self._backend = _literal(plain_pipeline(tokenizer))
        self._piece_length = piece_length
        with failures_as_errors("the tokenizer cannot split a text"):
            self._cuts = _cuts_safely(self._backend)

    @property
    def pipeline(self) -> str:
        """What makes the same encoder in another process, which then need not import transformers: JSON."""
        return self._backend.to_str()

    def __call__(self, texts: Sequence[str]) -> Encoded:
        """Encode each text; an empty one gives no tokens. Half characters (lone surrogates) become "?"."""
        cut = [self._cut(well_formed(text)) for text in texts]
        encoded = joined(list(self._encode(itertools.chain.from_iterable(cut))))
        ends = np.concatenate([[0], np.cumsum(encoded.lengths)])
        of_texts = ends[np.cumsum([0, *map(len, cut)])]
        return Encoded(encoded.input_ids, encoded.word_starts, np.diff(of_texts))

    def _cut(self, text: str) -> list[str]:
        return pieces_of(text, self._piece_length) if self._cuts else [text]

    def _encode(self, pieces: Iterable[str]) -> Iterator[Encoded]:
        """Encode pieces some at a time, in order."""
        batch: list[str] = []
        size = 0
        for piece in pieces:
            batch.append(piece)
            size += len(piece)
            if size >= _BATCH:
                yield self._encode_batch(batch)
                batch, size = [], 0
        yield self._encode_batch(batch)

    def _encode_batch(self, batch: list[str]) -> Encoded:
        """Encode in one call; `encode_batch_fast` would be a third faster, but gives no offsets."""
        encodings = self._encodings(batch)
        counts = np.fromiter(map(len, encodings), np.int64, len(encodings))
        total = int(counts.sum())
        flat = itertools.chain.from_iterable
        ids = np.fromiter(flat(encoding.ids for encoding in encodings), np.uint32, total)
        offsets = np.fromiter(flat(flat(encoding.offsets for encoding in encodings)), np.int64, 2 * total)
        return Encoded(ids, Borders(batch).word_starts(counts, offsets.reshape(total, 2)), counts)

    def _encodings(self, batch: list[str]) -> list[Encoding]:
        try:
            with failures_as_errors("the tokenizer cannot encode a text"):
                return self._backend.encode_batch(batch, add_special_tokens=False)
        except UserError:
            for text in batch:  # which one was it?
                with failures_as_errors(f"the tokenizer cannot encode the text at {text[:40]!r}"):
                    self._backend.encode(text)
            raise


def joined(parts: Sequence[Encoded]) -> Encoded:
    """The texts of all parts, of which there may be none."""
    if len(parts) == 1:
        return parts[0]
    return Encoded(
        np.concatenate([np.empty(0, np.uint32), *(part.input_ids for part in parts)]),
        np.concatenate([np.empty(0, np.bool_), *(part.word_starts for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.lengths for part in parts)]),
    )
