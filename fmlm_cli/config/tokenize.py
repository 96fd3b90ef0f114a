"""Settings of text, and of how it becomes tokens."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fmlm_cli.config.section import Count, Free, Section

_VOCAB_SIZE = 8192  # unless it is given


class ReadingSettings(Section):
    """Text, and how it is read."""

    sources: Free[tuple[str, ...]] = Field(
        (),
        description="text: files (also compressed), folders, globs, data sets saved with save_to_disk, "
        "hub:OWNER/NAME[:CONFIG], python-docs, or - for standard input",
    )
    format: Literal["txt", "jsonl", "json", "csv", "tsv", "parquet", "arrow"] | None = Field(
        None, description="what standard input is, or a file whose name does not say it"
    )
    split: Free[str | None] = Field(
        None, description="the split to read of a data set that has several; default: train"
    )
    revision: Free[str | None] = Field(
        None, description="branch, tag or commit of a data set of the Hub; the commit is recorded"
    )
    documents: Literal["auto", "blank-line", "line", "file"] = Field(
        "auto", description="what a document is in .txt and .md files"
    )
    text_field: str = Field(
        "text",
        description="field or column that holds the text, inner ones with dots; several, with commas between "
        "them, are joined by a blank line",
    )
    on_bad_text: Literal["stop", "skip", "replace"] = Field(
        "stop", description="what to do with invalid UTF-8"
    )
    max_document_chars: Count = Field(
        20_000_000, description="characters that a document may have; memory is bounded by it"
    )
    on_long_document: Literal["stop", "cut", "skip"] = Field(
        "stop", description="what to do with a longer document: say where it is, keep its beginning, or none"
    )
    min_chars: Annotated[int, Field(ge=0)] = Field(
        0, description="characters that a document must have; shorter ones are left out"
    )
    max_chars: Count | None = Field(
        None, description="characters that a document may have to be wanted; longer ones are left out"
    )


class TextSettings(ReadingSettings):
    """Text, and how it becomes tokens."""

    valid: Free[tuple[str, ...]] = Field(
        (), description="text of the validation split; what it holds is not trained on"
    )
    valid_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.01, description="without it: share of the documents, chosen by their contents; at least one"
    )
    dedup: Literal["exact", "near"] | None = Field(
        None,
        description="leave out documents that repeat an earlier one: exact, its text | near, also at least "
        "0.8 (Jaccard) of its runs of five words, as estimated from 128 hashes (MinHash)",
    )
    workers: Free[Count | None] = Field(
        None, description="processes that tokenize; default: as many as there are cores to use, 16 at most"
    )
    add_tokens: Free[str | None] = Field(
        None, description="file of words, one a line, that the tokenizer gets as tokens of their own"
    )
    extend_vocab: Count | None = Field(
        None,
        description="number of words that become tokens: those of the text that are frequent and split most",
    )


class TokenizeSettings(TextSettings):
    """`fmlm tokenize`."""

    out: Free[str] = Field(description="the store's folder")
    tokenizer: Free[str | None] = Field(
        None, description="tokenizer to use: folder, vocab.txt, tokenizer.json or Hub name"
    )
    train_tokenizer: Literal["wordpiece", "bpe", "unigram"] | None = Field(
        None, description="learn a tokenizer from the text"
    )
    vocab_size: Annotated[int, Field(ge=8)] = Field(
        _VOCAB_SIZE, description="size of a tokenizer that is learnt"
    )
    lowercase: bool = Field(False, description="lower-case text, with a tokenizer that is learnt")
    strip_accents: bool = Field(
        False, description="drop accents and other marks on letters, with a tokenizer that is learnt"
    )
    normalize: Literal["nfc", "nfkc"] | None = Field(
        None, description="bring text to this Unicode normal form, with a tokenizer that is learnt"
    )
    shard: Free[str | None] = Field(
        None,
        description="I/N: tokenize every N-th document from the I-th on, for `fmlm merge` to join",
    )
    pmi: Free[bool] = Field(
        False, description="find collocations, for masking pmi; without SOURCE: in the store that there is"
    )
    pmi_size: Free[Count | None] = Field(
        None, description="collocations to keep; default: enough for half the words"
    )

    @model_validator(mode="after")
    def _sources_or_store(self) -> "TokenizeSettings":
        if not self.sources and not self.pmi:
            raise ValueError("no text: give SOURCE, files, folders, globs or python-docs")
        if self.pmi_size is not None and not self.pmi:
            raise ValueError("--pmi-size needs --pmi")
        others = self.model_fields_set - {"out", "sources", "pmi", "pmi_size"}
        if not self.sources and any(getattr(self, name) for name in others):
            raise ValueError(
                "without SOURCE, --pmi works on the store that --out names, and takes no other options"
            )
        return self

    @model_validator(mode="after")
    def _shard_of_known(self) -> "TokenizeSettings":
        if self.shard is None:
            return self
        number, _, of = self.shard.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise ValueError(f"--shard {self.shard}: write it as I/N, with I from 1 to N")
        sample = "make a store of a sample with it first, and give its STORE/tokenizer as --tokenizer"
        needs_all = (
            ("--train-tokenizer", self.train_tokenizer, sample),
            ("--extend-vocab", self.extend_vocab, sample),
            ("--pmi", self.pmi, "give it once the store is merged"),
        )
        for flag, given, instead in needs_all:
            if given:
                raise ValueError(
                    f"--shard and {flag} exclude each other: {flag} needs all of the text; {instead}"
                )
        if "-" in (*self.sources, *self.valid):
            raise ValueError("--shard and the standard input exclude each other: give files")
        return self

    @property
    def shard_of(self) -> tuple[int, int]:
        """Which share of the documents, from 1, of how many."""
        number, _, of = (self.shard or "1/1").partition("/")
        return int(number), int(of)

    @model_validator(mode="after")
    def _one_tokenizer(self) -> "TokenizeSettings":
        if not self.sources:
            return self
        if (self.tokenizer is None) == (self.train_tokenizer is None):
            raise ValueError(
                "say which tokenizer: --tokenizer FOLDER|vocab.txt|HUB-NAME, "
                "or --train-tokenizer wordpiece|bpe|unigram"
            )
        of_learnt = (self.vocab_size != _VOCAB_SIZE, self.lowercase, self.strip_accents, self.normalize)
        if self.tokenizer is not None and any(of_learnt):
            raise ValueError(
                "--vocab-size, --lowercase, --strip-accents and --normalize are for --train-tokenizer: a "
                "--tokenizer has its own way with text, without which its ids would mean something else; "
                "drop them"
            )
        if self.train_tokenizer is not None and (self.add_tokens or self.extend_vocab):
            raise ValueError(
                "--add-tokens and --extend-vocab extend a --tokenizer; one that is learnt needs neither"
            )
        return self


class MergeSettings(Section):
    """`fmlm merge`."""

    shards: tuple[str, ...] = Field(description="all shards of a store, in any order", min_length=1)
    out: str = Field(description="the store's folder")
