"""Parts: text that has been encoded, before it is decided what becomes of each document.

A part is one Arrow stream of the documents of some megabytes of text, a record each:

    input_ids: list<uint8 | uint16 | uint32>, word_starts: list<bool>   as in a store
    content: uint64       the hash of its text
    text_bytes: int64     in UTF-8
    signature: fixed_size_list<uint32>   where near-duplicates are looked for

Whatever makes one is picklable and imports no transformers, so that any process can. How text is cut into
parts is nowhere to be seen in the store that is made of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fmlm_cli import storage
from fmlm_cli.corpus.store.columns import array, column, lists
from fmlm_cli.corpus.store.making.near_duplicates import HASHES, signatures
from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.literal import Encoded
from fmlm_cli.errors import UserError, one_line

PART_CHARACTERS = 2 << 20  # of text in a part; it ends with the document that reaches them
_BATCH_CHARACTERS = 1 << 20  # handed to the tokenizer at once
_BATCH_DOCUMENTS = 4096


@dataclass(frozen=True)
class PartMaker:
    """Makes parts, in whatever process.

    `pipeline`: of an `Encoder`. `dtype`: of ids, by its name. `signed`: whether to look for near-duplicates.
    """

    folder: Path
    pipeline: str
    dtype: str
    signed: bool = False

    def start(self) -> Callable[[str, Sequence[str]], dict[str, Any]]:
        """A function that writes a part of this name and of these texts; its entry in the journal.

        That raises `UserError` for a text that cannot be encoded, and for a disk that takes no more.
        """
        encoder = Encoder(self.pipeline)

        def make(name: str, texts: Sequence[str]) -> dict[str, Any]:
            path = self.folder / name
            with storage.clear_disk_errors(path):
                tokens = self._write(path, texts, encoder)
            entry = {"name": name, "documents": len(texts), "tokens": tokens}
            return {**entry, "bytes": path.stat().st_size, "sha256": storage.sha256_of_file(path)}

        return make

    def _write(self, path: Path, texts: Sequence[str], encoder: Encoder) -> int:
        """Write the file; the number of tokens."""
        tokens, schema = 0, None
        with pa.OSFile(str(path), "wb") as sink:
            stream = None
            for some in _batches(texts):
                batch = self._batch(some, encoder(some))
                if stream is None:
                    stream = pa.ipc.new_stream(sink, schema := batch.schema)
                stream.write_batch(batch)
                tokens += len(batch.column("input_ids").values)
            assert stream is not None and schema is not None, "a part without documents"
            stream.close()
        return tokens

    def _batch(self, texts: Sequence[str], encoded: Encoded) -> pa.RecordBatch:
        columns: dict[str, pa.Array] = {
            "input_ids": lists(encoded.input_ids.astype(self.dtype), encoded.lengths),
            "word_starts": lists(encoded.word_starts, encoded.lengths),
            "content": column(np.fromiter(map(storage.content_hash, texts), np.uint64, len(texts))),
            "text_bytes": column(np.fromiter((len(text.encode()) for text in texts), np.int64, len(texts))),
        }
        if self.signed:
            signature = column(signatures(encoded).ravel())
            columns["signature"] = pa.FixedSizeListArray.from_arrays(signature, HASHES)
        return pa.record_batch(columns)


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    begin = characters = 0
    for end, text in enumerate(texts, start=1):
        characters += len(text)
        if characters >= _BATCH_CHARACTERS or end - begin >= _BATCH_DOCUMENTS or end == len(texts):
            yield texts[begin:end]
            begin, characters = end, 0


@dataclass(frozen=True)
class Columns:
    """What is decided by, of each of a number of documents in order.

    `content`: uint64[n]. `tokens`, `text_bytes`: int64[n]. `signature`: uint32[n, width]; width 0 where
    there are none.
    """

    content: npt.NDArray[np.uint64]
    tokens: npt.NDArray[np.int64]
    text_bytes: npt.NDArray[np.int64]
    signature: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.content)

    @classmethod
    def joined(cls, several: Sequence["Columns"]) -> "Columns":
        """One after the other."""
        if not several:
            none = np.empty(0, np.int64)
            return cls(none.astype(np.uint64), none, none, np.empty((0, 0), np.uint32))
        return cls(
            np.concatenate([one.content for one in several]),
            np.concatenate([one.tokens for one in several]),
            np.concatenate([one.text_bytes for one in several]),
            np.concatenate([one.signature for one in several]),
        )

    @classmethod
    def in_turn(cls, several: Sequence["Columns"]) -> "Columns":
        """One document of each, again and again: document k is the k // n-th of the k mod n-th."""
        if len(several) == 1:
            return several[0]
        numbers = [np.arange(len(one)) * len(several) + i for i, one in enumerate(several)]
        order = np.argsort(np.concatenate(numbers))
        whole = cls.joined([one for one in several if len(one)])
        return cls(whole.content[order], whole.tokens[order], whole.text_bytes[order], whole.signature[order])


def read_columns(path: Path) -> Columns:
    """Of a part. Raises `UserError` for a damaged file."""
    columns = []
    for batch in _record_batches(path):
        signature = np.empty((len(batch), 0), np.uint32)
        if "signature" in batch.schema.names:
            signature = array(batch.column("signature").values).reshape(len(batch), -1)
        lengths = np.diff(array(batch.column("input_ids").offsets)).astype(np.int64)
        content, text_bytes = (array(batch.column(name)) for name in ("content", "text_bytes"))
        columns.append(Columns(content, lengths, text_bytes, signature))
    return Columns.joined(columns)


def read_tokens(path: Path) -> Iterator[Encoded]:
    """The documents of a part, some at a time. Raises `UserError` for a damaged file."""
    for batch in _record_batches(path):
        ids, words = batch.column("input_ids"), batch.column("word_starts")
        lengths = np.diff(array(ids.offsets)).astype(np.int64)
        yield Encoded(array(ids.values), array(words.values), lengths)


def _record_batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pa.memory_map(str(path)) as file:
            yield from pa.ipc.open_stream(file)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, one_line(error)) from error


def damaged(path: Path, how: str) -> UserError:
    """An error for a part that is not as it was written."""
    return UserError(f"{path} is damaged ({how}): tokenize again with --resume, which makes it anew")


def damage_of(path: Path, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a part, in words; None if it is as its entry in the journal says."""
    if not path.is_file():
        return "it is missing"
    if path.stat().st_size != entry["bytes"] or storage.sha256_of_file(path) != entry["sha256"]:
        return "it has changed since it was written"
    return None
