"""Text becomes the documents of a store."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from fmlm_cli.config import TokenizeSettings
from fmlm_cli.corpus.store.writing import (
    StoreWriter,
    TokenDocument,
    encode_documents,
)
from fmlm_cli.corpus.text.corpus import TextCorpus
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.corpus.text.splits import HeldOut, assign_splits
from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Progress, counted
from fmlm_cli.recipes.tokenize.asked import Asked, validation_share

_TICK = 0.2  # seconds between two reports of progress


def write(
    folder: Path,
    settings: TokenizeSettings,
    asked: Asked,
    held_out: HeldOut,
    tokenizer: PreTrainedTokenizerFast,
    emit: Emit,
) -> dict[str, Any]:
    """Tokenize everything into `folder`; the manifest."""
    writer = StoreWriter(folder, tokenizer)
    encoder = Encoder(tokenizer)
    stats = ReadStats()
    documents = assign_splits(
        _encoded(asked.corpora.train, encoder, stats, "tokenizing", emit), validation_share(settings)
    )
    if asked.corpora.validation:
        validation = _encoded(asked.corpora.validation, encoder, stats, "tokenizing validation", emit)
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
        "under_min_documents": stats.under_min,
        "over_max_documents": stats.over_max,
        "held_out_documents": held,
    }
    return writer.finish(asked.request, facts)


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
            for number, what in (
                (stats.bad_text, "not valid UTF-8"),
                (stats.long, "too long"),
                (stats.under_min, "with fewer characters than --min-chars"),
                (stats.over_max, "with more characters than --max-chars"),
            )
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
