"""Writing a token store: documents in, Arrow files out, in bounded memory."""

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from fmlm_cli import __version__, storage
from fmlm_cli.corpus.store import reading as store
from fmlm_cli.corpus.store.collocations import Mined, write_collocations
from fmlm_cli.corpus.store.columns import lists
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.corpus.tokenizer.literal import Encoded, joined

_BATCH_TOKENS = 1 << 21  # tokens gathered before they are written as one record batch
_FILE_BYTES = 512 << 20


@dataclass
class SplitWriter:
    """Writes one split's Arrow files. `documents`, `tokens`, `words`, `text_bytes` count what was added.

    Where a record batch or a file ends is decided by the documents, and not by how they were added.
    """

    folder: Path
    dtype: np.dtype[Any]
    documents: int = 0
    tokens: int = 0
    words: int = 0
    text_bytes: int = 0
    _pending: list[Encoded] = field(default_factory=list)
    _pending_tokens: int = 0
    _paths: list[Path] = field(default_factory=list)
    _sink: Any = None
    _stream: Any = None

    @property
    def schema(self) -> pa.Schema:
        """Columns of a split."""
        ids = pa.list_(pa.from_numpy_dtype(self.dtype))
        return pa.schema({"input_ids": ids, "word_starts": pa.list_(pa.bool_())})

    def add(self, documents: Encoded, text_bytes: int) -> None:
        """Append documents, the bytes of whose text are these in all."""
        self.documents += len(documents.lengths)
        self.tokens += len(documents.input_ids)
        self.words += int(np.count_nonzero(documents.word_starts))
        self.text_bytes += text_bytes
        ends, begin = np.cumsum(documents.lengths), 0
        while begin < len(ends):
            before = int(ends[begin - 1]) if begin else 0
            full = int(np.searchsorted(ends, before + _BATCH_TOKENS - self._pending_tokens))
            end = min(full + 1, len(ends))
            self._pending.append(documents.part(begin, end))
            self._pending_tokens += int(ends[end - 1]) - before
            if full < len(ends):
                self._flush()
            begin = end

    def _flush(self) -> None:
        if self._stream is None or self._sink.tell() >= _FILE_BYTES:
            self._next_file()
        gathered = joined(self._pending)
        ids = gathered.input_ids.astype(self.dtype, copy=False)
        columns = [lists(ids, gathered.lengths), lists(gathered.word_starts, gathered.lengths)]
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

    def add(self, split: str, documents: Encoded, text_bytes: int) -> None:
        """Append documents to a split, the bytes of whose text are these in all."""
        self.splits[split].add(documents, text_bytes)
        if split == "train":
            counts = np.bincount(documents.input_ids, minlength=len(self._counts))
            self._counts += counts.astype(np.uint64)

    def _save_tokenizer(self) -> dict[str, Any]:
        """Write the tokenizer, and see that what is read back is the same; its entry in the manifest."""
        folder = self._folder / store.TOKENIZER
        tokenizers.save_tokenizer(self._tokenizer, folder)
        known = tokenizers.probe(self._tokenizer)
        remedy = "saving has changed it, so no store can be made with it; give it as a tokenizer.json"
        tokenizers.check_probe(
            tokenizers.load_tokenizer(str(folder)), known, "the tokenizer, saved and loaded,", remedy
        )
        return {
            "fingerprint": tokenizers.fingerprint(self._tokenizer),
            "vocabulary": len(self._tokenizer),
            "probe": known,
        }

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
        tokenizer = self._save_tokenizer()
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
