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
    """
    from fmlm_cli.recipes.tokenize import make_store

    make_store(settings, overwrite=overwrite, resume=resume, emit=emit)
