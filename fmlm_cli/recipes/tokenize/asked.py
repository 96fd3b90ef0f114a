"""What a store is to be made of, and whether a finished one was made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from fmlm_cli import storage
from fmlm_cli.config import ReadingSettings, TokenizeSettings, deciding, differing
from fmlm_cli.corpus.store.making.near_duplicates import check_available
from fmlm_cli.corpus.store.making.shards import Plan, Shard
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.text.corpora import Corpora
from fmlm_cli.corpus.text.corpus import TextCorpus
from fmlm_cli.corpus.text.documents import ReadOptions
from fmlm_cli.corpus.text.fields import TextFields
from fmlm_cli.corpus.text.spool import is_stream, spooled
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit
from fmlm_cli.readers.bytes import readable


@dataclass(frozen=True)
class Asked:
    """What a store is to be made of: text, a tokenizer unless that is learnt, and all that decides it."""

    corpora: Corpora
    loaded: PreTrainedTokenizerFast | None
    plan: Plan

    @classmethod
    def resolve(
        cls, settings: TokenizeSettings, spool: Path, emit: Emit, *, replaces: bool = False
    ) -> "Asked":
        """Find the text, which is read for its hashes, and load the tokenizer. Raises `UserError`.

        `spool`: a folder for what can be read only once.
        """
        if settings.dedup == "near":
            check_available()
        files = _taken_in(settings, spool, emit)
        sources, valid = (
            [files.get(name, name) for name in names] for names in (settings.sources, settings.valid)
        )
        corpora = Corpora.find(sources, valid, read_options(settings), emit)
        # Replacing the store would remove it.
        storage.check_outside(Path(settings.out), dict.fromkeys(corpora.paths, "source"))
        loaded = tokenizers.load_tokenizer(settings.tokenizer) if settings.tokenizer is not None else None
        identities = {"train": _identities(corpora.train)}
        if corpora.validation is not None:
            identities["validation"] = _identities(corpora.validation)
        number, of = settings.shard_of
        plan = Plan(
            request=_request(settings, identities, loaded),
            sources=identities,
            texts=(", ".join(settings.sources), ", ".join(settings.valid)),
            number=number,
            of=of,
            learnt=loaded is None or settings.extend_vocab is not None,
            replaces=replaces,
        )
        return cls(corpora, loaded, plan)


def _taken_in(settings: TokenizeSettings, spool: Path, emit: Emit) -> dict[str, str]:
    """By name, the files that standard input and pipes have become."""
    streams = [name for name in (*settings.sources, *settings.valid) if is_stream(name)]
    if streams and settings.shard:
        raise UserError(
            f"--shard and {streams[0]}, which can be read only once, exclude each other: give files"
        )
    if streams:
        spool.mkdir(exist_ok=True)
    return spooled(streams, spool, settings.format, emit)


def _identities(corpus: TextCorpus) -> list[list[dict[str, Any]]]:
    return [part.identity() for part in corpus.parts]


def _request(
    settings: TokenizeSettings,
    sources: Mapping[str, list[list[dict[str, Any]]]],
    loaded: PreTrainedTokenizerFast | None,
) -> dict[str, Any]:
    """Everything that decides the store's contents, as the manifest keeps it."""
    request = deciding(settings)
    words = settings.add_tokens
    with readable(words):
        if words and Path(words).is_file():
            words = storage.sha256_of_file(Path(words))
    request["add_tokens"] = words
    request["sources"] = list(chain.from_iterable(sources["train"]))
    request["valid"] = list(chain.from_iterable(sources["validation"])) if "validation" in sources else None
    request["tokenizer"] = tokenizers.fingerprint(loaded) if loaded else None
    return request


def is_finished(out: Path) -> bool:
    """Whether there is a finished store or shard."""
    return (out / storage.MANIFEST).is_file() or (out / Shard.PLAN).is_file()


def _different(out: Path, plan: Plan) -> list[str]:
    """In what a finished store or shard was made from something else."""
    if (out / Shard.PLAN).is_file():
        made = Shard.open(out).plan
        return [
            *differing(made.request, plan.request),
            *(["shard"] if (made.number, made.of) != (plan.number, plan.of) else []),
        ]
    return differing(TokenStore.open(out, verify=()).manifest["request"], plan.request)


def is_the_same(out: Path, plan: Plan) -> bool:
    """Whether a finished store was made from this; no damaged one, and none of another version, is."""
    try:
        if (out / Shard.PLAN).is_file():
            Shard.open(out).check()
        return not _different(out, plan)
    except UserError:
        return False


def check_same(out: Path, plan: Plan) -> None:
    """Refuse a finished store that was made from something else."""
    different = _different(out, plan)
    if different:
        raise UserError(
            f"{out} was made with other {' and '.join(different)}: choose another --out, or pass "
            "--overwrite to replace it"
        )


def read_options(settings: ReadingSettings) -> ReadOptions:
    """How to find and read text, of all that there is to set."""
    return ReadOptions(
        documents=settings.documents,
        fields=TextFields.parse(settings.text_field),
        on_bad_text=settings.on_bad_text,
        most_characters=settings.max_document_chars,
        on_long=settings.on_long_document,
        min_characters=settings.min_chars,
        max_characters=settings.max_chars,
        split=settings.split,
        revision=settings.revision,
        format=settings.format,
    )


def validation_share(settings: TokenizeSettings) -> float:
    """The share of the text that becomes the validation split."""
    return 0.0 if settings.valid else settings.valid_fraction
