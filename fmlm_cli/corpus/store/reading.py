"""The token store: what a corpus becomes on disk, once.

    STORE/
      manifest.json          counts, hashes, the tokenizer's fingerprint, what was asked for
      token_counts.npy       uint64[vocabulary]: how often each id occurs in the training split
      collocations-HASH.arrow  if asked for: words that belong together in the training split (PMI-masking)
      tokenizer/             the tokenizer, as Hugging Face saves it
      dataset_dict.json      makes the folder readable with `datasets.load_from_disk(STORE)`
      train/, validation/    Arrow stream files, one record a document:
        input_ids: list<uint8 | uint16 | uint32>   without special tokens
        word_starts: list<bool>                    bit-packed by Arrow; True where a word begins

Reading is zero-copy: a file is mapped into memory once and seen as one array of tokens and one array of bits.
Where in it each document lies is worked out when the store is opened, so that any token of any document is
one index away.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from fmlm_cli import keys, storage
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.errors import UserError, one_line

FORMAT = 3
SPLITS = ("train", "validation")
TOKEN_COUNTS = "token_counts.npy"
TOKENIZER = "tokenizer"
_HOLDS = (
    *(storage.MANIFEST, TOKEN_COUNTS, TOKENIZER, "dataset_dict.json", "collocations-*.arrow"),
    *SPLITS,
)
STORE = storage.Kind("token store", "tokenize", _HOLDS)
STORE_OF_RUN = storage.Kind("token store of a run", "continue", _HOLDS)
SHARD = storage.Kind(
    "shard of a token store", "tokenize", ("shard.json", "journal.jsonl", "parts", "spool", TOKENIZER)
)


def token_dtype(vocabulary: int) -> np.dtype[Any]:
    """The smallest unsigned integer type that holds ids below `vocabulary`."""
    return np.min_scalar_type(max(vocabulary - 1, 0))


@dataclass(frozen=True)
class TokenSpans:
    """Stretches: `length[i]` tokens of document `document[i]` from token `start[i]` on. int64[n] each."""

    document: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]

    @cached_property
    def _before(self) -> npt.NDArray[np.int64]:
        """Tokens of all spans before each."""
        return np.cumsum(self.length) - self.length

    @cached_property
    def total(self) -> int:
        """Tokens of all spans."""
        return int(self.length.sum())

    @cached_property
    def within(self) -> npt.NDArray[np.int64]:
        """For every token of every span in turn, its offset within its span. int64[total]"""
        return self.spread(np.zeros_like(self.length))

    def spread(self, first: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """For every token of every span in turn, its offset in its span plus that's `first`. int64[total]"""
        every = np.repeat(first - self._before, self.length)
        every += np.arange(self.total)
        return every


class Split:
    """One split of a store, mapped into memory. `lengths`: int64[documents], in tokens.

    `has_word_starts`: whether it says where words begin; one that was made by other hands may not.
    """

    has_word_starts = True

    def __init__(self, folder: Path, files: list[str], dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._bytes: list[npt.NDArray[np.uint8]] = []
        try:
            located = [self._locate(folder / name) for name in files]
        except (pa.ArrowException, KeyError) as error:  # of files whose hashes were not to be checked
            raise UserError(
                f"damaged store: a file of {folder} is no Arrow stream of tokens ({one_line(error)}); "
                "tokenize the corpus again (--overwrite)"
            ) from error
        columns = [
            np.concatenate(parts) if parts else np.empty(0, np.int64) for parts in zip(*located, strict=True)
        ]
        self.lengths, self._token_index, self._bit_index = columns or [np.empty(0, np.int64)] * 3
        sizes = [len(part[0]) for part in located]
        self._file = np.repeat(np.arange(len(sizes)), sizes)

    def __len__(self) -> int:
        return len(self.lengths)

    def _locate(
        self, path: Path
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Map one Arrow file; its documents' lengths, first tokens and first bits, from the file's start."""
        buffer = pa.memory_map(str(path)).read_buffer()
        self._bytes.append(np.frombuffer(buffer, np.uint8))
        lengths, tokens, starts = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for batch in pa.ipc.open_stream(buffer):
            ids = batch.column("input_ids")
            offsets = ids.offsets.to_numpy().astype(np.int64)
            lengths.append(np.diff(offsets))
            at = ids.values.buffers()[1].address - buffer.address if len(ids.values) else 0
            tokens.append(at // self._dtype.itemsize + ids.values.offset + offsets[:-1])
            self.has_word_starts &= "word_starts" in batch.schema.names
            if self.has_word_starts:
                words = batch.column("word_starts")
                bits_at = words.values.buffers()[1].address - buffer.address if len(words.values) else 0
                starts.append(bits_at * 8 + words.values.offset + words.offsets.to_numpy()[:-1])
            else:
                starts.append(np.zeros(len(ids), np.int64))
        return np.concatenate(lengths), np.concatenate(tokens), np.concatenate(starts)

    def read(self, spans: TokenSpans) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Token ids, int64[total], and word starts, bool[total] (without any, all False), of the spans."""
        ids = np.empty(spans.total, np.int64)
        words = np.zeros(spans.total, np.bool_)
        tokens = spans.spread(self._token_index[spans.document] + spans.start)
        bits = spans.spread(self._bit_index[spans.document] + spans.start)
        files = self._file[spans.document] if len(self._bytes) > 1 else np.zeros(1, np.int64)
        for number in np.unique(files) if len(files) > 1 else files:  # of up to 512 MB: a batch touches few
            in_file = slice(None) if len(self._bytes) == 1 else np.repeat(files == number, spans.length)
            raw = self._bytes[number]
            tokens_of_file = raw[: raw.size // self._dtype.itemsize * self._dtype.itemsize].view(self._dtype)
            ids[in_file] = tokens_of_file[tokens[in_file]]
            if self.has_word_starts:
                words[in_file] = (raw[bits[in_file] >> 3] >> (bits[in_file] & 7).astype(np.uint8)) & 1
        return ids, words

    def documents(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
        """Every document's ids and word starts, in order."""
        for number, length in enumerate(self.lengths):
            yield self.read(TokenSpans(np.array([number]), np.array([0]), np.array([length])))


class TokenStore:
    """A complete, checked store on disk."""

    def __init__(self, root: Path, manifest: Mapping[str, Any]) -> None:
        self.root = root
        self.manifest = manifest

    @classmethod
    def open(cls, root: str | Path, *, verify: Sequence[str] = SPLITS) -> "TokenStore":
        """Open a store. Sizes are always checked; of the splits named in `verify` every file's hash too.

        Raises `UserError` for a missing folder, one that is no store, and a damaged store.
        """
        root = Path(root)
        store = cls(root, read_manifest(root))
        store._check_sizes()
        store.verify(verify)
        return store

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.resolve().name

    @property
    def fingerprint(self) -> str:
        """Hex hash of all tokens and of the tokenizer: equal for equal contents, wherever they lie."""
        return str(self.manifest["fingerprint"])

    @property
    def vocabulary(self) -> int:
        """Number of ids of the tokenizer, special and added ones included."""
        return int(self.manifest["tokenizer"]["vocabulary"])

    def identity(self, split: str) -> int:
        """A 64-bit integer that stands for this split in the identity of its rows.

        It depends on this split's tokens alone: the same validation text has the same evaluation masks in
        whatever store.
        """
        hashes = [file["sha256"] for file in self.manifest["splits"][split]["files"]]
        content = storage.sha256_of_json([self.manifest["tokenizer"]["fingerprint"], hashes])
        return int(keys.derive(int(content[:16], 16), SPLITS.index(split)))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer saved inside, checked against the manifest's fingerprint."""
        tokenizer = tokenizers.load_tokenizer(str(self.root / TOKENIZER))
        if tokenizers.fingerprint(tokenizer) != self.manifest["tokenizer"]["fingerprint"]:
            raise UserError(
                f"{self.root / TOKENIZER} is not the tokenizer that made this store: "
                "tokenize the corpus again"
            )
        return tokenizer

    @cached_property
    def special(self) -> tokenizers.SpecialTokens:
        """The tokenizer's special tokens."""
        return tokenizers.special_tokens(self.tokenizer)

    @cached_property
    def token_counts(self) -> npt.NDArray[np.uint64]:
        """How often each id occurs in the training split. uint64[vocabulary]."""
        return np.asarray(np.load(self.root / TOKEN_COUNTS, allow_pickle=False))

    def verified_collocations(self) -> Path | None:
        """The file of the training split's collocations; None if they were not asked for.

        Checked here, when it is needed, for nothing else depends on it. Raises `UserError` if it is damaged.
        """
        entry = self.manifest.get("collocations")
        if entry is None:
            return None
        path = self.root / entry["name"]
        if not path.is_file() or storage.sha256_of_file(path) != entry["sha256"]:
            raise UserError(
                f"{path} is missing or damaged: make it again with `fmlm tokenize --pmi --out {self.root} "
                "--overwrite`"
            )
        return path

    def has(self, split: str) -> bool:
        """Whether the split holds any document."""
        return bool(self.manifest["splits"][split]["documents"])

    def split(self, name: str) -> Split:
        """Map a split into memory."""
        files = [file["name"] for file in self.manifest["splits"][name]["files"]]
        return Split(self.root / name, files, np.dtype(self.manifest["dtype"]))

    def _files(self, splits: Sequence[str]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        yield self.root / TOKEN_COUNTS, self.manifest["token_counts"]
        for split in splits:
            for file in self.manifest["splits"][split]["files"]:
                yield self.root / split / file["name"], file

    def _check_sizes(self) -> None:
        for path, expected in self._files(SPLITS):
            size = path.stat().st_size if path.is_file() else None
            if size != expected["bytes"]:
                damage = (
                    "is missing" if size is None else f"has {size:,} bytes instead of {expected['bytes']:,}"
                )
                raise UserError(f"damaged store: {path} {damage}; tokenize the corpus again (--overwrite)")

    def verify(self, splits: Sequence[str]) -> None:
        """Compare the hashes of these splits' files. Raises `UserError` for one that has changed."""
        paths, expected = zip(*self._files(splits), strict=True)
        with ThreadPoolExecutor() as pool:
            for path, recorded, sha256 in zip(
                paths, expected, pool.map(storage.sha256_of_file, paths), strict=True
            ):
                if recorded["sha256"] != sha256:
                    raise UserError(
                        f"damaged store: the contents of {path} have changed since it was written; "
                        "tokenize the corpus again (--overwrite)"
                    )


def read_manifest(root: Path) -> Mapping[str, Any]:
    """A store's manifest, checked to be whole and of a format that this version reads."""
    if storage.kind_of(root) == SHARD.name:
        raise UserError(
            f"{root} is a shard of a token store: join all of its shards with `fmlm merge SHARD... --out "
            "STORE`"
        )
    if not root.exists():
        if storage.kind_of(storage.unfinished(root)):
            raise UserError(f"{root} is not finished: go on with `fmlm tokenize ... --out {root} --resume`")
        raise UserError(
            f"no such store: {root} does not exist; make it with `fmlm tokenize SOURCE --out {root}`"
        )
    path = root / storage.MANIFEST
    if not path.is_file():
        raise UserError(
            f"{root} is not a token store (no {storage.MANIFEST}): make one with `fmlm tokenize SOURCE --out "
            "STORE`"
        )
    manifest = storage.read_json(path)
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise UserError(f"{path} is not the manifest of a token store")
    if manifest["format"] != FORMAT:
        raise UserError(
            f"{root} has store format {manifest['format']}, this fmlm reads {FORMAT}: "
            "tokenize the corpus again, or update fmlm"
        )
    plain = storage.unsealed(manifest)
    if plain is None:
        raise UserError(
            f"damaged store: {path} has changed since it was written; tokenize the corpus again (--overwrite)"
        )
    return plain
