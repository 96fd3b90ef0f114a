"""`fmlm tokenize`."""

from typing import Annotated

import typer

from fmlm_cli.cli.flags import Flag
from fmlm_cli.cli.options import Overwrite, with_options
from fmlm_cli.config import TokenizeSettings
from fmlm_cli.events import Emit

KeepFinished = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on where an earlier call stopped, and keep a finished store of the same text and settings.",
    ),
]


@with_options(
    TokenizeSettings,
    Flag("--out", "out", metavar="STORE"),
    Flag("SOURCE...", "sources"),
    Flag("--tokenizer", "tokenizer", metavar="FOLDER|vocab.txt|HUB-NAME"),
    Flag("--train-tokenizer", "train_tokenizer"),
    Flag("--vocab-size", "vocab_size"),
    Flag("--lowercase", "lowercase"),
    Flag("--strip-accents", "strip_accents"),
    Flag("--normalize", "normalize"),
    Flag("--format", "format"),
    Flag("--split", "split"),
    Flag("--revision", "revision"),
    Flag("--documents", "documents"),
    Flag("--text-field", "text_field"),
    Flag("--on-bad-text", "on_bad_text"),
    Flag("--max-document-chars", "max_document_chars", metavar="N"),
    Flag("--on-long-document", "on_long_document"),
    Flag("--min-chars", "min_chars", metavar="N"),
    Flag("--max-chars", "max_chars", metavar="N"),
    Flag("--valid", "valid", metavar="SOURCE"),
    Flag("--valid-fraction", "valid_fraction"),
    Flag("--dedup", "dedup"),
    Flag("--workers", "workers", metavar="N"),
    Flag("--shard", "shard", metavar="I/N"),
    Flag("--add-tokens", "add_tokens", metavar="FILE"),
    Flag("--extend-vocab", "extend_vocab", metavar="N"),
    Flag("--pmi", "pmi"),
    Flag("--pmi-size", "pmi_size"),
    assignable=False,  # each of its settings has a flag
    by_one=True,
    needs=("SOURCE...|--pmi", "--tokenizer|--train-tokenizer"),
)
def command(
    settings: TokenizeSettings, emit: Emit, overwrite: Overwrite = False, resume: KeepFinished = False
) -> None:
    """Turn text into a token store.

    Example: fmlm tokenize corpus/*.txt.gz --tokenizer bert-base-uncased --out store

    - A store appears when it is complete and not before. Until then what is done lies in .STORE.unfinished,
    in parts of some megabytes of text: whatever ends the work, --resume goes on after the last finished part,
    also after a file with bad text was mended.

    - It is Arrow, which datasets.load_from_disk(STORE) reads, with hashes, which are checked when it is used:
    of a large one, those of files that were written to since. While it is put together its tokens lie on the
    disk twice.

    - Folders are read with all below them, links followed; what lies there and is no text is listed, and of a
    file and the same compressed the file is read. UTF-16 and binary files are named and refused.

    - The store is the same bytes whatever the number of workers, and of shards that `fmlm merge` has joined.

    - Equal documents are never on both sides of the split; what --valid names, and documents with the same
    content, are left out of training and counted.

    - A tokenizer is learnt from 100 MB of the text at most. unigram, and SentencePiece models, need pip
    install 'fmlm[sentencepiece]'; --dedup near needs pip install 'fmlm[near]' and 2 KB of memory a document.

    - --lowercase keeps accents and vowel signs: --strip-accents is a choice of its own.

    - --pmi finds collocations: two to five words that occur together ten times at least, and eight times as
    often as any way to compose them would by chance.
    """
    from fmlm_cli.recipes.tokenize import make_store

    make_store(settings, overwrite=overwrite, resume=resume, emit=emit)
