"""`fmlm tokenize`: text becomes tokens on disk, once."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from fmlm_cli import storage
from fmlm_cli.config import TokenizeSettings, deciding, differing
from fmlm_cli.corpus.store.collocations import MIN_COUNT, Mined, mine
from fmlm_cli.corpus.store.fit import misfit
from fmlm_cli.corpus.store.reading import STORE, STORE_OF_RUN, TokenStore
from fmlm_cli.corpus.store.writing import (
    StoreWriter,
    TokenDocument,
    add_collocations,
    encode_documents,
)
from fmlm_cli.corpus.text.corpora import Corpora
from fmlm_cli.corpus.text.corpus import TextCorpus
from fmlm_cli.corpus.text.files import ReadOptions
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.corpus.text.splits import HeldOut, assign_splits
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.extending import MIN_COUNT as MIN_WORD_COUNT
from fmlm_cli.corpus.tokenizer.extending import NewToken, extended, frequent_splits, read_words
from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Facts, Note, Progress, counted, ignore, starting_anew
from fmlm_cli.readers.bytes import readable

SAMPLE_BYTES = 100_000_000  # of text that a new tokenizer learns from, at most

HARDLY_KNOWN = "hardly-known"  # the code of the caution about a tokenizer that was made for other text

_WORDS_SHOWN = 12

_TICK = 0.2  # seconds between two reports of progress


def make_store(
    settings: TokenizeSettings,
    *,
    overwrite: bool = False,
    resume: bool = False,
    renew: bool = False,
    emit: Emit = ignore,
) -> Path:
    """Make the token store `settings.out`; its path. With `resume` a finished store of the same is kept.

    `renew`: so it is with this, and a store of anything else is replaced.

    Raises `UserError` for anything wrong with the settings, the text or the tokenizer; then nothing is
    written.
    """
    out = Path(settings.out)
    if not settings.sources:
        return _add_collocations(out, settings, emit, again=overwrite)
    kind, keeps = STORE_OF_RUN if renew else STORE, resume or renew
    storage.check_claim(out, kind, overwrite=overwrite, resume=keeps)
    asked = _Asked.resolve(settings, emit) if keeps and (out / storage.MANIFEST).is_file() else None
    if asked is not None:
        if resume:
            _check_same(out, asked.request)
        if _is_the_same(out, asked.request):
            return _kept(out, settings, emit, outcome="reused" if renew else "nothing to do")
    elif resume:
        emit(starting_anew(out))
    with storage.replaced_folder(out, kind, overwrite=overwrite, resume=keeps) as folder:
        manifest = _make(folder, settings, asked or _Asked.resolve(settings, emit), emit)
    emit(Facts(f"token store {out}", _summary(manifest)))
    if text := misfit(TokenStore.open(out, verify=())):
        emit(Caution(text, HARDLY_KNOWN))
    # The store is complete now: whatever becomes of the collocations, the work on it is not lost.
    return _add_collocations(out, settings, emit) if settings.pmi else out


def _kept(out: Path, settings: TokenizeSettings, emit: Emit, *, outcome: str) -> Path:
    """A finished store, with collocations if they are asked for."""
    if settings.pmi:
        return _add_collocations(out, settings, emit)
    emit(Note(f"{out} is complete and was made from the same text and settings: {outcome}"))
    return out


@dataclass(frozen=True)
class _Asked:
    """What a store is to be made of: text, a tokenizer unless that is learnt, and all that decides it."""

    corpora: Corpora
    loaded: PreTrainedTokenizerFast | None
    request: dict[str, Any]

    @classmethod
    def resolve(cls, settings: TokenizeSettings, emit: Emit) -> "_Asked":
        options = ReadOptions(
            settings.documents,
            settings.text_field,
            settings.on_bad_text,
            settings.max_document_chars,
            settings.on_long_document,
        )
        corpora = Corpora.find(settings.sources, settings.valid, options, emit)
        # Replacing the store would remove it.
        storage.check_outside(Path(settings.out), dict.fromkeys(corpora.paths, "source"))
        loaded = tokenizers.load_tokenizer(settings.tokenizer) if settings.tokenizer is not None else None
        return cls(corpora, loaded, _request(settings, corpora, loaded))


def _make(folder: Path, settings: TokenizeSettings, asked: _Asked, emit: Emit) -> dict[str, Any]:
    """Fill a folder with the store; its manifest."""
    asked.corpora.describe(emit)
    held_out = asked.corpora.held_out()
    if asked.loaded is None:
        tokenizer = _learn(settings, asked.corpora.train, held_out, emit)
    else:
        tokenizer = _extend(settings, asked.loaded, asked.corpora.train, held_out, emit)
    return _write(folder, settings, asked.corpora, held_out, tokenizer, asked.request, emit)


def _request(
    settings: TokenizeSettings, corpora: Corpora, loaded: PreTrainedTokenizerFast | None
) -> dict[str, Any]:
    """Everything that decides the store's contents, as the manifest keeps it."""
    request = deciding(settings)
    words = settings.add_tokens
    with readable(words):
        if words and Path(words).is_file():
            words = storage.sha256_of_file(Path(words))
    request["add_tokens"] = words
    request["sources"] = corpora.train.identity()
    request["valid"] = corpora.validation.identity() if corpora.validation else None
    request["tokenizer"] = tokenizers.fingerprint(loaded) if loaded else None
    return request


def _different(out: Path, request: dict[str, Any]) -> list[str]:
    """In what a finished store was made from something else."""
    return differing(TokenStore.open(out, verify=()).manifest["request"], request)


def _is_the_same(out: Path, request: dict[str, Any]) -> bool:
    """Whether a finished store was made from this; no damaged one, and none of another version, is."""
    try:
        return not _different(out, request)
    except UserError:
        return False


def _check_same(out: Path, request: dict[str, Any]) -> None:
    """Refuse a finished store that was made from something else."""
    different = _different(out, request)
    if different:
        raise UserError(
            f"{out} was made with another {' and '.join(different)}: choose another --out, or pass "
            "--overwrite to replace it"
        )


def _learn(
    settings: TokenizeSettings, corpus: TextCorpus, held_out: HeldOut, emit: Emit
) -> PreTrainedTokenizerFast:
    """Learn a tokenizer from a bounded sample, and say how large it was."""
    assert settings.train_tokenizer is not None
    read = 0

    def sampled() -> Iterator[str]:
        nonlocal read
        for text in corpus.sample(SAMPLE_BYTES, _fraction(settings), held_out):
            read += len(text.encode("utf-8"))
            yield text

    emit(Progress("learning the tokenizer", 0, 0, ""))
    tokenizer = train_tokenizer(
        settings.train_tokenizer,
        sampled(),
        vocab_size=settings.vocab_size,
        lowercase=settings.lowercase,
        strip_accents=settings.strip_accents,
        normalize=settings.normalize,
    )
    emit(Progress("learning the tokenizer", 1, 1, ""))
    emit(
        Note(
            f"learnt a {settings.train_tokenizer} tokenizer of {len(tokenizer):,} tokens "
            f"from {read / 1e6:,.1f} MB of text"
        )
    )
    return tokenizer


def _extend(
    settings: TokenizeSettings,
    tokenizer: PreTrainedTokenizerFast,
    corpus: TextCorpus,
    held_out: HeldOut,
    emit: Emit,
) -> PreTrainedTokenizerFast:
    """The tokenizer with the words that it is to have as tokens; they are listed."""
    if settings.add_tokens is not None:
        words = read_words(Path(settings.add_tokens), tokenizer)
        tokenizer = _with_words(tokenizer, words, f"tokens from {settings.add_tokens}", emit)
    if settings.extend_vocab is not None:
        emit(Progress("looking for words", 0, 0, ""))
        texts = corpus.sample(SAMPLE_BYTES, _fraction(settings), held_out)
        words = frequent_splits(texts, tokenizer, settings.extend_vocab)
        emit(Progress("looking for words", 1, 1, ""))
        tokenizer = _with_words(tokenizer, words, "words of the text that become tokens", emit)
        if len(words) < settings.extend_vocab:
            emit(Caution(f"only {len(words):,} words of the text are split and occur {MIN_WORD_COUNT} times"))
    return tokenizer


def _with_words(
    tokenizer: PreTrainedTokenizerFast, words: list[NewToken], title: str, emit: Emit
) -> PreTrainedTokenizerFast:
    more, left_out = extended(tokenizer, [token.text for token in words])
    added = [token for token in words if token.text not in set(left_out)]
    rows = {
        token.text: " ".join(token.pieces) + (f", {token.count:,} times" if token.count else "")
        for token in added[:_WORDS_SHOWN]
    }
    saved = sum(token.saved for token in added)
    rows["in all"] = f"{len(added):,} new tokens" + (
        f", which save about {saved:,} tokens of the text looked at" if saved else ""
    )
    if left_out:
        dots = ", ..." if len(left_out) > 5 else ""
        rows["left out"] = (
            f"{len(left_out):,}, tokens already or not to be kept whole: {', '.join(left_out[:5])}{dots}"
        )
    emit(Facts(title, rows))
    return more


def _write(
    folder: Path,
    settings: TokenizeSettings,
    corpora: Corpora,
    held_out: HeldOut,
    tokenizer: PreTrainedTokenizerFast,
    request: dict[str, Any],
    emit: Emit,
) -> dict[str, Any]:
    """Tokenize everything into `folder`; the manifest."""
    writer = StoreWriter(folder, tokenizer)
    encoder = Encoder(tokenizer)
    stats = ReadStats()
    documents = assign_splits(
        _encoded(corpora.train, encoder, stats, "tokenizing", emit), _fraction(settings)
    )
    if corpora.validation:
        validation = _encoded(corpora.validation, encoder, stats, "tokenizing validation", emit)
        documents = itertools.chain(documents, (("validation", document) for document in validation))
    empty = held = 0
    for split, document in documents:
        if split == "train" and document.content in held_out:
            held += 1
        elif len(document.input_ids):
            writer.add(split, document)
        else:
            empty += 1
    _check_not_empty(writer, settings, stats, held)
    facts = {
        "empty_documents": stats.empty + empty,
        "bad_text_documents": stats.bad_text,
        "long_documents": stats.long,
        "held_out_documents": held,
    }
    return writer.finish(request, facts)


def _fraction(settings: TokenizeSettings) -> float:
    """The share of the text that becomes the validation split."""
    return 0.0 if settings.valid else settings.valid_fraction


def _encoded(
    corpus: TextCorpus, encoder: Encoder, stats: ReadStats, task: str, emit: Emit
) -> Iterator[TokenDocument]:
    """Tokenize a corpus, telling how far it has come."""
    total, begin, last = corpus.size, time.perf_counter(), 0.0
    done_before, text_before = stats.disk_bytes, stats.text_bytes
    tokens = 0
    for documents, document in enumerate(encode_documents(corpus.documents(stats), encoder), start=1):
        yield document
        tokens += len(document.input_ids)
        now = time.perf_counter()
        if now - last > _TICK:
            last, seconds = now, now - begin
            details = {
                "documents": f"{documents:,}",
                "MB/s": f"{(stats.text_bytes - text_before) / 1e6 / seconds:,.1f}",
                "tokens/s": f"{tokens / seconds:,.0f}",
            }
            emit(Progress(task, stats.disk_bytes - done_before, total, "bytes", details))
    emit(Progress(task, total, total, "bytes"))


def _check_not_empty(writer: StoreWriter, settings: TokenizeSettings, stats: ReadStats, held: int) -> None:
    named = ", ".join(settings.sources)
    train, validation = writer.splits["train"].documents, writer.splits["validation"].documents
    if held and not train:
        raise UserError(
            f"all {counted(held, 'document')} of {named} are validation text (--valid) too: name other text"
        )
    if not train and (settings.valid or not validation):
        skipped = [
            f"left out: {counted(number, 'document')}, {what}"
            for number, what in ((stats.bad_text, "not valid UTF-8"), (stats.long, "too long"))
            if number
        ]
        why = f" ({', '.join(skipped)})" if skipped else ""
        raise UserError(f"no text in {named}{why}: give sources that hold some")
    if not train:
        raise UserError(
            f"{named} holds a single document, which became the validation split: give more text, "
            f"--documents line, --valid SOURCE, or --valid-fraction 0"
        )
    if settings.valid and not validation:
        raise UserError(f"no text in {', '.join(settings.valid)} (--valid): give a source that holds some")


def _add_collocations(root: Path, settings: TokenizeSettings, emit: Emit, *, again: bool = False) -> Path:
    """Mine a complete store's training split, and put the result beside it; `again`: also if it has one."""
    store = TokenStore.open(root, verify=("train",))
    mined_before = store.manifest.get("collocations")
    if mined_before and mined_before["asked"] == settings.pmi_size and not again:
        emit(Note(f"{root} has its collocations: nothing to do"))
        return root
    split = store.split("train")
    if not split.has_word_starts:
        raise UserError(
            f"{root} does not say where words begin: tokenize the text again with `fmlm tokenize`"
        )
    with storage.work_in(root):
        mined = mine(split, store.tokenizer, store.special.never_masked, size=settings.pmi_size, emit=emit)
        if not len(mined.hashes):
            raise UserError(
                f"no collocations in {root}: no two words occur together {MIN_COUNT} times and more often "
                f"than by chance; the text is too short for --pmi, and the store is complete without"
            )
        add_collocations(store, mined, asked=settings.pmi_size)
    _say_what_was_mined(root, mined, emit)
    return root


def _say_what_was_mined(out: Path, mined: Mined, emit: Emit) -> None:
    rows = {}
    for length in np.unique(mined.words).tolist():
        of_length = np.flatnonzero(mined.words == length)
        examples = [
            mined.texts[i]
            for i in of_length[np.linspace(0, len(of_length) - 1, min(5, len(of_length))).astype(int)]
        ]
        rows[f"{length} words"] = f"{len(of_length):,}, from the best to the last: {' | '.join(examples)}"
    rows["cover"] = f"{mined.covered:.0%} of the words"
    if mined.undercount:
        rows["counts"] = f"may be low by {mined.undercount:,} at most"
    rows["use"] = f"fmlm masks {out} --masking fully-explored-pmi"
    emit(Facts(f"{len(mined.hashes):,} collocations", rows))


def _unknown_share(manifest: dict[str, Any]) -> float:
    """Share of the training tokens that the tokenizer did not know."""
    return float(manifest["facts"]["unknown_tokens"] / max(manifest["splits"]["train"]["tokens"], 1))


def _summary(manifest: dict[str, Any]) -> dict[str, str]:
    """The summary table's rows."""
    rows = {}
    for name, split in manifest["splits"].items():
        if split["documents"]:
            rows[name] = (
                f"{split['documents']:,} documents, {split['words']:,} words, {split['tokens']:,} tokens"
            )
        else:
            rows[name] = "none"
    train = manifest["splits"]["train"]
    facts = manifest["facts"]
    rows["text"] = f"{sum(s['text_bytes'] for s in manifest['splits'].values()) / 1e6:,.1f} MB"
    rows["tokens per word"] = f"{train['tokens'] / max(train['words'], 1):.2f}"
    rows["vocabulary"] = f"{manifest['tokenizer']['vocabulary']:,} ({manifest['dtype']})"
    rows["unknown tokens"] = f"{_unknown_share(manifest):.2%}"
    rows["left out"] = f"{facts['empty_documents']:,} empty documents"
    if facts["held_out_documents"]:
        held = counted(facts["held_out_documents"], "document")
        rows["held out"] = f"{held} of the training text left out: the validation text holds the same"
    if facts["bad_text_documents"]:
        word = "repaired" if manifest["request"]["on_bad_text"] == "replace" else "left out"
        rows["invalid UTF-8"] = f"{facts['bad_text_documents']:,} documents {word}"
    if facts["long_documents"]:
        word = "cut" if manifest["request"]["on_long_document"] == "cut" else "left out"
        rows["too long"] = f"{counted(facts['long_documents'], 'document')} {word}"
    rows["fingerprint"] = manifest["fingerprint"][:16]
    return rows
