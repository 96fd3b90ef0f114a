"""Which documents are validation text and not to be trained on, by their contents alone."""

import math
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fmlm_cli.storage import content_hash


class Hashed(Protocol):
    """A document, in whatever form, that knows the hash of its text (`storage.content_hash`)."""

    @property
    def content(self) -> int:
        """The 64-bit hash."""
        ...


D = TypeVar("D", bound=Hashed)


class HeldOut:
    """The documents of validation text, by content: training text that holds the same is left out.

    Asked with a hash, `content in held_out`; 8 bytes are kept of each.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._hashes = np.unique(np.fromiter(map(content_hash, texts), np.uint64))

    def __contains__(self, content: int) -> bool:
        wanted = np.uint64(content)
        place = int(np.searchsorted(self._hashes, wanted))
        return place < len(self._hashes) and bool(self._hashes[place] == wanted)


def in_validation(content: int, fraction: float) -> bool:
    """Whether a document of this content hash belongs to a validation split of this size."""
    return content < fraction * 2.0**64


def assign_splits(documents: Iterable[D], fraction: float) -> Iterator[tuple[str, D]]:
    """Send a share of the documents, chosen by content hash, to validation: at least one if fraction > 0.

    As long as none has been chosen, the document with the smallest hash so far is held back (with its
    duplicates): it becomes the validation split if no other document does. One document is held at a time,
    so this works on a stream of any length.
    """
    held: list[D] = []
    has_validation = fraction == 0
    for document in documents:
        if in_validation(document.content, fraction):
            has_validation = True
            yield "validation", document
        elif has_validation or (held and document.content > held[0].content):
            yield "train", document
        elif held and document.content == held[0].content:
            held.append(document)
        else:
            yield from (("train", earlier) for earlier in held)
            held = [document]
        if has_validation:
            yield from (("train", earlier) for earlier in held)
            held = []
    yield from (("validation", earlier) for earlier in held)


def validation_of(contents: npt.NDArray[np.uint64], fraction: float) -> npt.NDArray[np.bool_]:
    """Which documents of these hashes `assign_splits` sends to validation, all of them seen at once."""
    if fraction == 0:
        return np.zeros(len(contents), np.bool_)
    chosen = contents < np.uint64(math.ceil(fraction * 2.0**64))  # as whole numbers: exact
    return chosen if chosen.any() else contents == contents.min(initial=np.uint64(2**64 - 1))


def first_of_each(contents: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which documents of these hashes are the first of theirs."""
    first = np.zeros(len(contents), np.bool_)
    first[np.unique(contents, return_index=True)[1]] = True
    return first
