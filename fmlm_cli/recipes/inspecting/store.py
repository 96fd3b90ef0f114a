"""What a token store holds."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmlm_cli import keys, storage
from fmlm_cli.config import InspectSettings
from fmlm_cli.corpus.store.fit import misfit
from fmlm_cli.corpus.store.reading import SPLITS, STORE, STORE_OF_RUN, TOKEN_COUNTS, TokenStore
from fmlm_cli.corpus.store.survey import (
    Lengths,
    TokenCount,
    WordedDocument,
    least_frequent,
    most_frequent,
    never_used,
    repeated_documents,
    worded,
)
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Facts, Grid, NextStep, Note, Progress, data_size, ignore
from fmlm_cli.recipes.inspecting.words import histogram

_TOKENS_LISTED = 12  # most frequent ones, and as many of the rarest
_TOKENS_SHOWN = 60  # of a document


@dataclass(frozen=True)
class SplitReport:
    """One split. `repeated`: documents that hold the tokens of an earlier one."""

    documents: int
    words: int
    tokens: int
    text_bytes: int
    repeated: int
    lengths: Lengths | None


@dataclass(frozen=True)
class StoreReport:
    """A store. `unknown`: share of unknown tokens in train; `verified`: all files were hashed."""

    path: str
    fingerprint: str
    made_by: str
    bytes: int
    vocabulary: int
    never_used: int
    unknown: float
    tokens_per_word: float
    verified: bool
    splits: dict[str, SplitReport]
    most_frequent: list[TokenCount]
    least_frequent: list[TokenCount]
    documents: list[WordedDocument]


def is_store(path: str) -> bool:
    """Whether a folder is a token store, whole or not, and no text that happens to lie beside a manifest."""
    folder = Path(path)
    looks_like_one = all((folder / name).is_file() for name in (storage.MANIFEST, TOKEN_COUNTS))
    return looks_like_one or storage.kind_of(folder) in (STORE.name, STORE_OF_RUN.name)


def inspect_store(settings: InspectSettings, emit: Emit = ignore) -> StoreReport:
    """Tell what a store holds. Raises `UserError` for one that is damaged."""
    [root] = settings.sources
    store = TokenStore.open(root, verify=())
    if settings.verify:
        emit(Progress("checking the hashes of all files", 0, 0, ""))
        store.verify(SPLITS, afresh=True)
        store.verified_collocations()
        emit(Progress("checking the hashes of all files", 1, 1, ""))
    name = settings.split or "train"
    if name not in SPLITS:
        raise UserError(f"--split {name}: a token store has the splits {' and '.join(SPLITS)}")
    report = _report(store, name, settings, emit)
    _tell(store, name, report, emit)
    return report


def _report(store: TokenStore, name: str, settings: InspectSettings, emit: Emit) -> StoreReport:
    splits = {}
    for split_name in SPLITS:
        split, entry = store.split(split_name), store.manifest["splits"][split_name]
        counts = {key: int(entry[key]) for key in ("documents", "words", "tokens", "text_bytes")}
        repeated = repeated_documents(split, emit)
        splits[split_name] = SplitReport(
            **counts, repeated=repeated, lengths=Lengths.of(split.lengths.astype(np.int64))
        )
    train = splits["train"]
    facts = store.manifest["facts"]
    return StoreReport(
        path=str(store.root),
        fingerprint=store.fingerprint,
        made_by=f"fmlm {store.manifest['fmlm']}",
        bytes=sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file()),
        vocabulary=store.vocabulary,
        never_used=never_used(store),
        unknown=int(facts["unknown_tokens"]) / max(train.tokens, 1),
        tokens_per_word=train.tokens / max(train.words, 1),
        verified=settings.verify,
        splits=splits,
        most_frequent=most_frequent(store, _TOKENS_LISTED),
        least_frequent=least_frequent(store, _TOKENS_LISTED),
        documents=_some_documents(store, name, settings),
    )


def _some_documents(store: TokenStore, name: str, settings: InspectSettings) -> list[WordedDocument]:
    """A few documents of a split, which the seed chooses."""
    split = store.split(name)
    number = min(settings.shown, len(split))
    key = keys.derive(settings.seed, keys.Stream.SHOWN_DOCUMENTS)
    chosen = keys.permute(np.arange(number), len(split), key).tolist() if number else []
    return [worded(store, split, document, _TOKENS_SHOWN) for document in sorted(chosen)]


def _tell(store: TokenStore, name: str, report: StoreReport, emit: Emit) -> None:
    emit(Facts(f"token store {report.path}", _summary(report)))
    emit(
        Grid(
            "splits",
            ("", "documents", "words", "tokens", "text", "repeated documents"),
            [
                (
                    *(split_name, f"{split.documents:,}", f"{split.words:,}", f"{split.tokens:,}"),
                    *(data_size(split.text_bytes), f"{split.repeated:,}"),
                )
                for split_name, split in report.splits.items()
            ],
        )
    )
    if lengths := report.splits[name].lengths:
        emit(Facts(f"tokens in a document of {name}: {_quantiles(lengths)}", histogram(lengths)))
    pairs = zip(report.most_frequent, report.least_frequent, strict=True)
    emit(
        Grid(
            "tokens of the training split",
            ("most frequent", "times", "least frequent", "times"),
            [(*_counted(frequent), *_counted(rare)) for frequent, rare in pairs],
        )
    )
    for document in report.documents:
        emit(Facts(f"document {document.number:,} of {name}", _worded(document)))
    if text := misfit(store):
        emit(Caution(text))
    emit(_on_repeats(report))
    words = ["fmlm", "masks", report.path, "--masking", "fully-explored"]
    emit(NextStep("see what a masking strategy does to it", shlex.join(words)))


def _counted(token: TokenCount) -> tuple[str, str]:
    """A token and how often it occurs. Bytes that are no whole character look alike, but for their ids."""
    whole = "\ufffd" not in token.text
    return repr(token.text) if whole else f"{token.text!r} (id {token.id:,})", f"{token.count:,}"


def _summary(report: StoreReport) -> dict[str, str]:
    checked = "all files have the contents that were written" if report.verified else "not hashed (--verify)"
    return {
        "made by": report.made_by,
        "on the disk": data_size(report.bytes),
        "vocabulary": f"{report.vocabulary:,}, of which {report.never_used:,} never occur in train",
        "unknown tokens": f"{report.unknown:.2%} of train",
        "tokens per word": f"{report.tokens_per_word:.2f}",
        "fingerprint": report.fingerprint[:16],
        "files": checked,
    }


def _quantiles(lengths: Lengths) -> str:
    return (
        f"half have {lengths.median:,} or fewer, 95 % {lengths.ninety_fifth_percentile:,} or fewer, "
        f"the longest {lengths.longest:,}"
    )


def _worded(document: WordedDocument) -> dict[str, str]:
    """A document with a bar before each word, and a dot between the tokens of one."""
    words = ("·".join(word).strip() for word in document.words)
    shown = sum(map(len, document.words))
    more = f" ... ({document.tokens - shown:,} more tokens)" if document.tokens > shown else ""
    # With a blank before each bar, at which a terminal breaks lines.
    return {f"{document.tokens:,} tokens": f"|{' |'.join(words)}|{more}"}


def _on_repeats(report: StoreReport) -> Note:
    repeated = sum(split.repeated for split in report.splits.values())
    if not repeated:
        return Note("no document repeats another word for word")
    total = sum(split.documents for split in report.splits.values())
    return Note(
        f"{repeated / total:.1%} of the documents repeat an earlier one of their split word for word: "
        "`fmlm tokenize --dedup exact` leaves them out"
    )
