"""Labelled texts as tokens: each text, or pair of texts, is a sequence of its own, of its own length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from fmlm_cli import hub, storage
from fmlm_cli.corpus.tokenizer.loading import fingerprint
from fmlm_cli.corpus.tokenizer.panics import failures_as_errors
from fmlm_cli.errors import UserError
from fmlm_cli.storage.arrays import read_arrays, write_arrays

Int64s = npt.NDArray[np.int64]

_AT_ONCE = 2000  # texts given to the tokenizer in one call


@dataclass(frozen=True)
class Sequences:
    """Token sequences, one after the other.

    `tokens`: int32[total], special tokens included. `types`: uint8[total], which of two texts a token belongs
    to, or None where the tokenizer does not say. `offsets`: int64[sequences + 1]. `cut`: sequences that were
    longer than allowed.
    """

    tokens: npt.NDArray[np.int32]
    types: npt.NDArray[np.uint8] | None
    offsets: Int64s
    cut: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Int64s:
        """Tokens in each sequence."""
        return np.diff(self.offsets)

    def padded(self, index: Int64s, pad: int, multiple: int = 1) -> tuple[Int64s, Int64s | None, Int64s]:
        """Some sequences as rectangles [len(index), longest]: token ids, types, and 1 where there is a token.

        The longest is rounded up to a multiple of `multiple`.
        """
        lengths = self.lengths[index]
        width = -(-int(lengths.max(initial=0)) // multiple) * multiple
        present = np.arange(width) < lengths[:, None]
        at = np.repeat(self.offsets[index], lengths) + (
            np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        )
        ids = np.full(present.shape, pad, np.int64)
        ids[present] = self.tokens[at]
        types = None
        if self.types is not None:
            types = np.zeros(present.shape, np.int64)
            types[present] = self.types[at]
        return ids, types, present.astype(np.int64)


def encode(
    tokenizer: PreTrainedTokenizerFast, first: Sequence[str], second: Sequence[str] | None, max_length: int
) -> Sequences:
    """Texts, or pairs of them, as the tokenizer frames them; where too long, the longer is cut first."""
    ids: list[npt.NDArray[np.int32]] = []
    types: list[npt.NDArray[np.uint8]] = []
    cut = 0
    with_types = "token_type_ids" in tokenizer.model_input_names
    for begin in range(0, len(first), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        pairs = None if second is None else list(second[part])
        encoded, shortened = _encode(tokenizer, list(first[part]), pairs, max_length)
        cut += shortened
        for token_ids, token_types in encoded:
            ids.append(np.asarray(token_ids, np.int32))
            types.append(np.asarray(token_types, np.uint8))
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    return Sequences(np.concatenate(ids), np.concatenate(types) if with_types else None, offsets, cut)


def _encode(
    tokenizer: PreTrainedTokenizerFast, first: list[str], second: list[str] | None, max_length: int
) -> tuple[Iterator[tuple[list[int], list[int]]], int]:
    """Ids and types of each sequence, and how many had to be cut."""
    failures = failures_as_errors("the tokenizer cannot encode one of the texts")
    with (
        failures,
        hub.quiet(),
    ):  # the tokenizer would warn of every text beyond the model's length: they are counted
        encoded = tokenizer(first, second, return_token_type_ids=True, return_attention_mask=False)
        ids, types = encoded["input_ids"], encoded["token_type_ids"]
        too_long = [i for i, row in enumerate(ids) if len(row) > max_length]
        if too_long:
            shortened = tokenizer(
                [first[i] for i in too_long],
                None if second is None else [second[i] for i in too_long],
                truncation=True,
                max_length=max_length,
                return_token_type_ids=True,
                return_attention_mask=False,
            )
            for place, i in enumerate(too_long):
                ids[i], types[i] = shortened["input_ids"][place], shortened["token_type_ids"][place]
    return zip(ids, types, strict=True), len(too_long)


def encode_once(
    cache: Path,
    tokenizer: PreTrainedTokenizerFast,
    first: Sequence[str],
    second: Sequence[str] | None,
    max_length: int,
    content: str,
) -> Sequences:
    """The same, kept in the folder `cache` and found there again; `content` is a hash of the texts.

    A file that is damaged is made anew.
    """
    facts = [content, fingerprint(tokenizer), tokenizer.model_input_names, max_length]
    path = cache / f"{storage.sha256_of_json(facts)[:24]}.safetensors"
    try:
        saved = read_arrays(path)
        return Sequences(saved["tokens"], saved.get("types"), saved["offsets"], int(saved["cut"][0]))
    except UserError:
        pass
    sequences = encode(tokenizer, first, second, max_length)
    arrays: dict[str, npt.NDArray[Any]] = {"tokens": sequences.tokens, "offsets": sequences.offsets}
    arrays["cut"] = np.array([sequences.cut])
    if sequences.types is not None:
        arrays["types"] = sequences.types
    with storage.clear_disk_errors(path):
        cache.mkdir(parents=True, exist_ok=True)
        write_arrays(path, arrays)
    return sequences
