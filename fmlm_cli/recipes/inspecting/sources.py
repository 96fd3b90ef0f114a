"""What text there is, before it is tokenized: what would be read, how it begins, how much it comes to."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmlm_cli.config import InspectSettings, ReadingSettings
from fmlm_cli.corpus.store.reading import token_dtype
from fmlm_cli.corpus.store.survey import Lengths
from fmlm_cli.corpus.text.corpora import Corpora
from fmlm_cli.corpus.text.corpus import TextCorpus
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
from fmlm_cli.corpus.tokenizer.loading import load_tokenizer
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit, Facts, NextStep, Progress, data_size, duration, ignore
from fmlm_cli.recipes.inspecting.words import histogram, in_one_line
from fmlm_cli.recipes.tokenize.asked import read_options

_SAMPLE_BYTES = 8_000_000  # of text: a few seconds of tokenizing
_LEARNT = 8_192  # tokens of the vocabulary that stands in where no tokenizer is given
_SHOWN_CHARACTERS = 300
_SOURCES_NAMED = 5  # in a command to be copied


@dataclass(frozen=True)
class Estimate:
    """What all of the text comes to. `seconds`: of tokenizing by one process; `bytes`: of the store."""

    documents: int
    text_bytes: int
    tokens: int
    tokens_per_word: float
    bytes: int
    seconds: float
    tokenizer: str


@dataclass(frozen=True)
class SourcesReport:
    """Text that was found. `sampled` documents were read, all there are if `whole`; lengths in characters."""

    files: int
    bytes: int
    passed_over: list[str]
    sampled: int
    whole: bool
    empty: int
    lengths: Lengths | None
    documents: list[str]
    estimate: Estimate


def inspect_sources(settings: InspectSettings, emit: Emit = ignore) -> SourcesReport:
    """Tell what text the sources hold, of which a sample is read. Raises `UserError` for bad text."""
    corpus = Corpora.find(settings.sources, (), read_options(settings), emit)
    corpus.describe(emit)
    stats = ReadStats()
    emit(Progress("reading a sample", 0, 0, ""))
    begun = time.perf_counter()
    texts = list(corpus.train.beginnings(_SAMPLE_BYTES, stats))
    reading = time.perf_counter() - begun
    emit(Progress("reading a sample", 1, 1, ""))
    if not texts:
        raise UserError(f"no text in {', '.join(settings.sources)}: name sources that hold some")
    estimate = _estimate(settings, corpus.train, texts, stats, reading, emit)
    report = SourcesReport(
        files=len(corpus.train.paths),
        bytes=corpus.train.size,
        passed_over=list(corpus.train.passed_over),
        sampled=stats.documents,
        whole=stats.disk_bytes >= corpus.train.size,
        empty=stats.empty,
        lengths=Lengths.of(np.fromiter(map(len, texts), np.int64, len(texts))),
        documents=[texts[i] for i in _spread(len(texts), settings.shown)],
        estimate=estimate,
    )
    _tell(report, emit)
    if "-" not in settings.sources:  # it has been read
        emit(NextStep("turn it into a token store", _tokenizing(settings)))
    return report


def _tokenizing(settings: InspectSettings) -> str:
    """The command that tokenizes this text, read as it was here."""
    tokenizer = (
        ["--train-tokenizer", "wordpiece"]
        if settings.tokenizer is None
        else ["--tokenizer", settings.tokenizer]
    )
    sources = settings.sources if len(settings.sources) <= _SOURCES_NAMED else ("SOURCE...",)
    words = ["fmlm", "tokenize", *sources, *tokenizer]
    for name in ReadingSettings.model_fields:
        value = getattr(settings, name)
        if name != "sources" and value != InspectSettings.model_fields[name].default:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--out", "store"])


def _spread(number: int, wanted: int) -> list[int]:
    """At most so many indices below `number` at even distances, the first among them."""
    return [i * number // wanted for i in range(wanted)] if number > wanted else [*range(number)]


def _estimate(
    settings: InspectSettings,
    corpus: TextCorpus,
    texts: Sequence[str],
    stats: ReadStats,
    reading: float,
    emit: Emit,
) -> Estimate:
    """Tokenize the sample, and scale by the bytes on the disk that it was read from."""
    emit(Progress("tokenizing the sample", 0, 0, ""))
    if settings.tokenizer is not None:
        tokenizer, name = load_tokenizer(settings.tokenizer), settings.tokenizer
    else:
        tokenizer = train_tokenizer("wordpiece", texts, vocab_size=_LEARNT, lowercase=False)
        name = f"one of {len(tokenizer):,} tokens, learnt from the sample"
    encode = Encoder(tokenizer)
    encode(texts[:1])
    begun = time.perf_counter()
    encoded = encode(texts)
    seconds = time.perf_counter() - begun + reading
    emit(Progress("tokenizing the sample", 1, 1, ""))
    tokens, words = len(encoded.input_ids), int(np.count_nonzero(encoded.word_starts))
    scale = max(corpus.size / max(stats.disk_bytes, 1), 1.0)
    all_tokens = round(tokens * scale)
    return Estimate(
        documents=round(stats.documents * scale),
        text_bytes=round(stats.text_bytes * scale),
        tokens=all_tokens,
        tokens_per_word=tokens / max(words, 1),
        bytes=round(all_tokens * (token_dtype(len(tokenizer)).itemsize + 1 / 8)),
        seconds=seconds * scale,
        tokenizer=name,
    )


def _tell(report: SourcesReport, emit: Emit) -> None:
    for number, text in enumerate(report.documents, start=1):
        size = f"{len(text):,} characters"
        emit(
            Facts(
                f"document {number} of {len(report.documents)} shown",
                {size: in_one_line(text, _SHOWN_CHARACTERS)},
            )
        )
    whole = "all" if report.whole else "the first"
    if report.lengths:
        emit(Facts(f"characters in a document, of {whole} {report.sampled:,}", histogram(report.lengths)))
    estimate, about = report.estimate, "" if report.whole else "about "
    rows = {
        "documents": f"{about}{estimate.documents:,}",
        "text": f"{about}{data_size(estimate.text_bytes)}",
        "tokens": f"{about}{estimate.tokens:,}, {estimate.tokens_per_word:.2f} a word",
        "store": f"about {data_size(estimate.bytes)} on the disk, and as much again while it is made",
        "time": f"about {duration(estimate.seconds)} for one process",
        "tokenizer": estimate.tokenizer,
    }
    emit(Facts("what it comes to" + ("" if report.whole else ", by a sample of its beginnings"), rows))
