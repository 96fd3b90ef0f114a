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
      cache/                 what can be made again, of large stores: hashes that were checked, plans of rows

Reading is zero-copy: see `split`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from fmlm_cli import keys, storage
from fmlm_cli.corpus.store.split import Split
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.corpus.tokenizer.words import token_texts
from fmlm_cli.errors import UserError

FORMAT = 3
SPLITS = ("train", "validation")
TOKEN_COUNTS = "token_counts.npy"
TOKENIZER = "tokenizer"
_HOLDS = (
    *(storage.MANIFEST, TOKEN_COUNTS, TOKENIZER, "dataset_dict.json", "collocations-*.arrow", storage.CACHE),
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

    def contents(self, split: str) -> list[str]:
        """The hashes of a split's files."""
        return [file["sha256"] for file in self.manifest["splits"][split]["files"]]

    def identity(self, split: str) -> int:
        """A 64-bit integer that stands for this split in the identity of its rows.

        It depends on this split's tokens alone: the same validation text has the same evaluation masks in
        whatever store.
        """
        content = storage.sha256_of_json([self.manifest["tokenizer"]["fingerprint"], self.contents(split)])
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
        if known := self.manifest["tokenizer"].get("probe"):
            remedy = "put its files back, or tokenize again with these versions of the libraries"
            tokenizers.check_probe(tokenizer, known, str(self.root / TOKENIZER), remedy)
        return tokenizer

    @cached_property
    def special(self) -> tokenizers.SpecialTokens:
        """The tokenizer's special tokens."""
        return tokenizers.special_tokens(self.tokenizer)

    @cached_property
    def token_texts(self) -> list[str]:
        """The text that each id stands for, with the blank before it where it holds one. [vocabulary]"""
        return token_texts(self.tokenizer.backend_tokenizer)

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

    @cached_property
    def cache(self) -> storage.Cache:
        """What is made of the store and can be made again; and hashes of its files."""
        return storage.Cache(storage.cache_of(self.root, self.fingerprint))

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

    def verify(self, splits: Sequence[str], *, afresh: bool = False) -> None:
        """Compare the hashes of these splits' files. Raises `UserError` for one that has changed.

        Of a large store a file is hashed again only where the system says that it was written to since the
        last time, or `afresh`.
        """
        paths, expected = zip(*self._files(splits), strict=True)
        for path, recorded, sha256 in zip(
            paths, expected, self.cache.hashes.of(paths, afresh=afresh), strict=True
        ):
            if recorded["sha256"] != sha256:
                raise UserError(
                    f"damaged store: the contents of {path} have changed since it was written; "
                    "tokenize the corpus again (--overwrite)"
                )

    def is_known_whole(self, split: str) -> bool:
        """Whether a split's files are remembered to have the hashes that they should."""
        paths, expected = zip(*self._files([split]), strict=True)
        return self.cache.hashes.known(paths) == [recorded["sha256"] for recorded in expected]


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
        raise UserError(_no_store(root))
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


def _no_store(root: Path) -> str:
    """What to say of a file, or of a folder without a manifest."""
    make = "make one with `fmlm tokenize SOURCE --out STORE`"
    if root.is_file():
        return f"{root} is a file, not a token store: {make}"
    kind = storage.kind_of(root)
    if kind in (STORE.name, STORE_OF_RUN.name):
        return f"damaged store: {root / storage.MANIFEST} is missing; tokenize the corpus again (--overwrite)"
    if kind is not None:
        return f"{root} is a {kind}, not a token store: {make}"
    return f"{root} is not a token store (no {storage.MANIFEST}): {make}"
