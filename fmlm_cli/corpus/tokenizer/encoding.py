"""Encoding many texts fast, in bounded memory, with where words begin."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from fmlm_cli.corpus.tokenizer import literal
from fmlm_cli.corpus.tokenizer.cuts import PIECE, Cuts, pieces_of
from fmlm_cli.corpus.tokenizer.literal import Encoded
from fmlm_cli.corpus.tokenizer.memo import WordMemo
from fmlm_cli.corpus.tokenizer.panics import failures_as_errors

if TYPE_CHECKING:  # whoever encodes by a pipeline alone need not wait for it
    from transformers import PreTrainedTokenizerFast

_BATCH = 64 * PIECE  # characters that go to the Rust threads at a time: bounds the memory of their answers


class Encoder:
    """Encodes many texts without special tokens and without any limit of length.

    Words that were met before are looked up (see `WordMemo`); the rest is the tokenizer's, in Rust threads.
    A text of more than `2 * piece_length` characters is encoded in pieces, cut before a lone blank, which
    gives the same tokens as in one go. Only where no such blank comes for `piece_length` characters is it cut
    anywhere; the token after the cut then begins a word. Tokenizers whose words run across blanks get every
    text whole.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerFast | str", *, piece_length: int = PIECE, memo: bool = True
    ) -> None:
        """Of a tokenizer, or of another encoder's `pipeline`. Without a `memo` every text is encoded anew."""
        if isinstance(tokenizer, str):
            self._backend = Tokenizer.from_str(tokenizer)
        else:
            self._backend = _backend_of(tokenizer)
        self._piece_length = piece_length
        with failures_as_errors("the tokenizer cannot split a text"):
            self._cuts = Cuts(self._backend)
        self._memo: WordMemo | None = None
        if memo and self._cuts.separators:
            self._memo = WordMemo(self._cuts, self._encode_anew, self._backend.model)

    @property
    def pipeline(self) -> str:
        """What makes the same encoder in another process, which then need not import transformers: JSON."""
        return self._backend.to_str()

    def __call__(self, texts: Sequence[str]) -> Encoded:
        """Encode each text; an empty one gives no tokens. Half characters (lone surrogates) become "?"."""
        cut = [self._cut(text) for text in literal.all_well_formed(texts)]
        pieces = itertools.chain.from_iterable(cut)
        return literal.joined(list(self._encode(pieces)), list(map(len, cut)))

    def _cut(self, text: str) -> list[str]:
        if len(text) <= 2 * self._piece_length or not self._cuts.separators:
            return [text]
        return pieces_of(text, self._piece_length, self._cuts.before)

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
        if batch:
            yield self._encode_batch(batch)

    def _encode_batch(self, batch: Sequence[str]) -> Encoded:
        encoded = self._memo(batch) if self._memo else None
        return self._encode_anew(batch)[0] if encoded is None else encoded

    def _encode_anew(self, batch: Sequence[str]) -> tuple[Encoded, literal.Offsets]:
        return literal.encode(self._backend, batch)


def pipeline_of(tokenizer: "PreTrainedTokenizerFast") -> str:
    """The `pipeline` of a tokenizer's encoder, which itself takes longer to make."""
    return _backend_of(tokenizer).to_str()


def _backend_of(tokenizer: "PreTrainedTokenizerFast") -> Tokenizer:
    return literal.without_special_tokens(literal.plain_pipeline(tokenizer))
