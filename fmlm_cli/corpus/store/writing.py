"""Writing a token store: documents in, Arrow files out, in bounded memory."""

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from fmlm_cli import __version__, storage
from fmlm_cli.corpus.store import reading as store
from fmlm_cli.corpus.store.collocations import Mined, write_collocations
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.corpus.tokenizer.encoding import Encoder

_BATCH_TOKENS = 1 << 21  # tokens gathered before they are written as one record batch
_FILE_BYTES = 512 << 20
_ENCODE_CHARACTERS = 1 << 20  # characters handed to the tokenizer's threads at once
_ENCODE_DOCUMENTS = 4096


@dataclass(frozen=True)
class TokenDocument:
    """One tokenized document: ids, word starts (both [tokens]), its text's hash and size in UTF-8 bytes."""

    input_ids: npt.NDArray[np.uint32]
    word_starts: npt.NDArray[np.bool_]
    content: int
    text_bytes: int


def encode_documents(texts: Iterable[str], encoder: Encoder) -> Iterator[TokenDocument]:
    """Tokenize a stream of texts, a megabyte at a time."""
    for chunk in _chunks(texts):
        encoded = encoder(chunk)
        for text, (ids, words) in zip(chunk, encoded.each(), strict=True):
            yield TokenDocument(ids, words, storage.content_hash(text), len(text.encode("utf-8")))


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if characters >= _ENCODE_CHARACTERS or len(chunk) >= _ENCODE_DOCUMENTS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


@dataclass
class SplitWriter:
    """Writes one split's Arrow files. `documents`, `tokens`, `words`, `text_bytes` count what was added."""

    folder: Path
    dtype: np.dtype[Any]
    documents: int = 0
    tokens: int = 0
    words: int = 0
    text_bytes: int = 0
    _pending: list[TokenDocument] = field(default_factory=list)
    _pending_tokens: int = 0
    _paths: list[Path] = field(default_factory=list)
    _sink: Any = None
    _stream: Any = None

    @property
    def schema(self) -> pa.Schema:
        """Columns of a split."""
        ids = pa.list_(pa.from_numpy_dtype(self.dtype))
        return pa.schema({"input_ids": ids, "word_starts": pa.list_(pa.bool_())})

    def add(self, document: TokenDocument) -> None:
        """Append one document."""
        self._pending.append(document)
        self._pending_tokens += len(document.input_ids)
        self.documents += 1
        self.tokens += len(document.input_ids)
        self.words += int(np.count_nonzero(document.word_starts))
        self.text_bytes += document.text_bytes
        if self._pending_tokens >= _BATCH_TOKENS:
            self._flush()

    def _flush(self) -> None:
        if self._stream is None or self._sink.tell() >= _FILE_BYTES:
            self._next_file()
        lengths = [len(document.input_ids) for document in self._pending]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        ids = np.concatenate([np.empty(0, np.uint32), *(document.input_ids for document in self._pending)])
        words = np.concatenate([np.empty(0, np.bool_), *(document.word_starts for document in self._pending)])
        columns = [
            pa.ListArray.from_arrays(offsets, pa.array(ids.astype(self.dtype))),
            pa.ListArray.from_arrays(offsets, pa.array(words)),
        ]
        self._stream.write_batch(pa.record_batch(columns, schema=self.schema))
        self._pending, self._pending_tokens = [], 0

    def _next_file(self) -> None:
        self._close_file()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._paths.append(self.folder / f"part-{len(self._paths):05d}.arrow")
        self._sink = pa.OSFile(str(self._paths[-1]), "wb")
        self._stream = pa.ipc.new_stream(self._sink, self.schema)

    def _close_file(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._sink.close()
            self._stream = None

    def close(self) -> dict[str, Any]:
        """Finish the files, write what `datasets` needs to read them; the split's entry in the manifest."""
        self._flush()
        self._close_file()
        names = [f"data-{number:05d}-of-{len(self._paths):05d}.arrow" for number in range(len(self._paths))]
        for path, name in zip(self._paths, names, strict=True):
            path.rename(self.folder / name)
        files = [_describe(self.folder / name) for name in names]
        self._write_dataset_files(files)
        counts = {"documents": self.documents, "tokens": self.tokens, "words": self.words}
        return {**counts, "text_bytes": self.text_bytes, "files": files}

    def _write_dataset_files(self, files: Sequence[Mapping[str, Any]]) -> None:
        (self.folder / "dataset_info.json").write_text(json.dumps(_dataset_info(self.dtype)))
        state: dict[str, Any] = {
            "_data_files": [{"filename": file["name"]} for file in files],
            "_fingerprint": storage.sha256_of_json([file["sha256"] for file in files])[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": self.folder.name,
        }
        storage.write_json(self.folder / "state.json", state)


def _dataset_info(ids: np.dtype[Any]) -> dict[str, Any]:
    """A split's columns as the `DatasetInfo` of `datasets` writes them, which is slow to import."""
    values = {"input_ids": ids.name, "word_starts": "bool"}
    features = {
        name: {"feature": {"dtype": dtype, "_type": "Value"}, "_type": "List"}
        for name, dtype in values.items()
    }
    return {"description": "", "citation": "", "homepage": "", "license": "", "features": features}


def _describe(path: Path) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": storage.sha256_of_file(path)}


class StoreWriter:
    """Fills a folder with a token store; `finish` completes it."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        self._folder = folder
        self._tokenizer = tokenizer
        dtype = store.token_dtype(len(tokenizer))
        self.splits = {name: SplitWriter(folder / name, dtype) for name in store.SPLITS}
        self._counts = np.zeros(len(tokenizer), np.uint64)

    def add(self, split: str, document: TokenDocument) -> None:
        """Append a document to a split."""
        self.splits[split].add(document)
        if split == "train":
            ids, counts = np.unique(document.input_ids, return_counts=True)
            self._counts[ids] += counts.astype(np.uint64)

    def finish(self, request: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write everything that is still open, the tokenizer and the manifest, which is returned.

        `request`: what was asked for, compared when the same store is asked for again. `facts`: what else
        is worth knowing, such as documents that were skipped.
        """
        splits = {name: writer.close() for name, writer in self.splits.items()}
        storage.write_json(self._folder / "dataset_dict.json", {"splits": list(splits)})
        content_of_counts = io.BytesIO()  # numpy's own writing to a file does not say when the disk is full
        np.save(content_of_counts, self._counts, allow_pickle=False)
        (self._folder / store.TOKEN_COUNTS).write_bytes(content_of_counts.getvalue())
        tokenizers.save_tokenizer(self._tokenizer, self._folder / store.TOKENIZER)
        tokenizer = {
            "fingerprint": tokenizers.fingerprint(self._tokenizer),
            "vocabulary": len(self._tokenizer),
        }
        unknown_id = self._tokenizer.unk_token_id
        unknown = 0 if unknown_id is None else int(self._counts[unknown_id])
        content = [
            tokenizer["fingerprint"],
            {name: [file["sha256"] for file in s["files"]] for name, s in splits.items()},
        ]
        manifest = {
            "format": store.FORMAT,
            "fmlm": __version__,
            "fingerprint": storage.sha256_of_json(content),
            "tokenizer": tokenizer,
            "dtype": self.splits["train"].dtype.name,
            "splits": splits,
            "token_counts": _describe(self._folder / store.TOKEN_COUNTS),
            "request": dict(request),
            "facts": {**facts, "unknown_tokens": unknown},
        }
        storage.write_sealed(self._folder / storage.MANIFEST, manifest)
        return manifest


def add_collocations(token_store: store.TokenStore, mined: Mined, *, asked: int | None) -> None:
    """Put collocations into a complete store, in place of older ones; `asked`: how many were asked for.

    Their file has a name of its own, so that until the manifest names it the store is what it was.
    """
    with storage.clear_disk_errors(token_store.root):
        temporary = token_store.root / f".collocations.{os.getpid()}.partial"
        try:
            write_collocations(temporary, mined)
            content = storage.sha256_of_file(temporary)
            path = temporary.replace(token_store.root / f"collocations-{content[:16]}.arrow")
        finally:
            temporary.unlink(missing_ok=True)
        facts = {"kept": len(mined.hashes), "covered": mined.covered, "undercount": mined.undercount}
        manifest = {**token_store.manifest, "collocations": {**_describe(path), "asked": asked, **facts}}
        storage.write_sealed(token_store.root / storage.MANIFEST, manifest)
        for superseded in token_store.root.glob("collocations-*.arrow"):
            if superseded != path:
                superseded.unlink()
