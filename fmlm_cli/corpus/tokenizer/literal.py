"""The tokenizer itself: a pipeline that takes texts as they are, and what it makes of them."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer
from tokenizers.models import Model

from fmlm_cli.corpus.tokenizer.cuts import Letters
from fmlm_cli.corpus.tokenizer.panics import failures_as_errors
from fmlm_cli.corpus.tokenizer.words import Borders
from fmlm_cli.errors import UserError

if TYPE_CHECKING:  # whoever encodes by a pipeline alone need not wait for it
    from transformers import PreTrainedTokenizerFast


Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Encoded:
    """Texts as tokens, laid end to end.

    `input_ids`: uint32[tokens], or of a store's own type. `word_starts`: bool[tokens], whether a token begins
    a word. `lengths`: int64[texts], the tokens of each text.
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


def joined(parts: Sequence[Encoded], counts: Sequence[int] | None = None) -> Encoded:
    """The texts of all parts, if any; `counts`: as texts that are so many of theirs each."""
    if counts is None and len(parts) == 1:
        return parts[0]
    parts = parts or [Encoded(np.empty(0, np.uint32), np.empty(0, np.bool_), np.empty(0, np.int64))]
    ids = np.concatenate([part.input_ids for part in parts])
    starts = np.concatenate([part.word_starts for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    if counts is not None and len(lengths) != len(counts):
        ends = np.concatenate([[0], np.cumsum(lengths)])
        lengths = np.diff(ends[np.cumsum([0, *counts])])
    return Encoded(ids, starts, lengths)


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


def all_well_formed(texts: Sequence[str]) -> Sequence[str]:
    """The texts, each `well_formed`."""
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        return [well_formed(text) for text in texts]
    return texts


def without_special_tokens(backend: Tokenizer) -> Tokenizer:
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


def encode(backend: Tokenizer, texts: Sequence[str]) -> tuple[Encoded, Offsets]:
    """Encode well-formed texts in one call, and the characters that each token stands for: [tokens, 2].

    `encode_batch_fast` would be a third faster, but gives no offsets.
    """
    encodings = _encodings(backend, texts)
    counts = np.fromiter(map(len, encodings), np.int64, len(encodings))
    total = int(counts.sum())
    flat = itertools.chain.from_iterable
    ids = np.fromiter(flat(encoding.ids for encoding in encodings), np.uint32, total)
    places = np.fromiter(flat(flat(encoding.offsets for encoding in encodings)), np.int64, 2 * total)
    offsets = places.reshape(total, 2)
    return Encoded(ids, Borders(texts).word_starts(counts, offsets), counts), offsets


def encode_letters(model: Model, letters: Letters | None, words: Sequence[str]) -> Encoded:
    """Encode words of letters, with a blank before them or none, by a pipeline's model alone.

    What stands before it in the pipeline takes far longer. Each is one word, whatever its tokens. Without
    `letters` there may be none.
    """
    given: list[str] = []
    if letters is not None and words:
        given = "\n".join(words).translate(letters.table).replace(" ", letters.prefix).split("\n")
    with failures_as_errors("the tokenizer cannot encode a word"):
        ids = [[token.id for token in model.tokenize(word)] for word in given]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    flat = np.fromiter(itertools.chain.from_iterable(ids), np.uint32, int(lengths.sum()))
    starts = np.zeros(len(flat), np.bool_)
    starts[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
    return Encoded(flat, starts, lengths)


def _encodings(backend: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    try:
        with failures_as_errors("the tokenizer cannot encode a text"):
            return backend.encode_batch(list(texts), add_special_tokens=False)
    except UserError:
        for text in texts:  # which one was it?
            with failures_as_errors(f"the tokenizer cannot encode the text at {text[:40]!r}"):
                backend.encode(text)
        raise
