"""`fmlm tokenize`."""

from typing import Annotated

import typer

from fmlm_cli.cli.running import (
    AddTokens,
    Debug,
    DocumentsOption,
    ExtendVocab,
    OnBadText,
    Overwrite,
    Resume,
    TextField,
    command,
)
from fmlm_cli.config import TokenizeSettings, build, choices


def tokenize(
    out: Annotated[
        str, typer.Option("--out", metavar="STORE", help="The store's folder.", show_default=False)
    ],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE...",
            help=".txt or .jsonl files (also .gz), folders, globs, or python-docs.",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|vocab.txt|HUB-NAME", help="Use this tokenizer.", show_default=False),
    ] = None,
    train_tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(choices(TokenizeSettings, "train_tokenizer")),
            help="Learn a tokenizer from the text.",
            show_default=False,
        ),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(help="Size of a learnt tokenizer. Default: 8192.", show_default=False)
    ] = None,
    lowercase: Annotated[
        bool, typer.Option("--lowercase", help="Lower-case text, with a learnt tokenizer.")
    ] = False,
    documents: DocumentsOption = None,
    text_field: TextField = None,
    on_bad_text: OnBadText = None,
    valid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="Text of the validation split (may be repeated).", show_default=False
        ),
    ] = None,
    valid_fraction: Annotated[
        float | None,
        typer.Option(help="Else: share of the documents that becomes it. Default: 0.01.", show_default=False),
    ] = None,
    add_tokens: AddTokens = None,
    extend_vocab: ExtendVocab = None,
    pmi: Annotated[
        bool,
        typer.Option(
            "--pmi", help="Also find collocations, for masking pmi; without SOURCE: of the store there is."
        ),
    ] = False,
    pmi_size: Annotated[
        int | None,
        typer.Option(help="Collocations to keep. Default: enough for half the words.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    debug: Debug = False,
) -> None:
    """Turn text into a token store.

    Example: fmlm tokenize corpus/*.txt.gz --tokenizer bert-base-uncased --out store
    """
    with command(debug) as emit:
        given = {
            "sources": sources,
            "out": out,
            "tokenizer": tokenizer,
            "train_tokenizer": train_tokenizer,
            "vocab_size": vocab_size,
            "lowercase": lowercase,
            "documents": documents,
            "text_field": text_field,
            "on_bad_text": on_bad_text,
            "valid": valid,
            "valid_fraction": valid_fraction,
            "add_tokens": add_tokens,
            "extend_vocab": extend_vocab,
            "pmi": pmi,
            "pmi_size": pmi_size,
        }
        settings = build(
            TokenizeSettings, {name: value for name, value in given.items() if value is not None}
        )
        from fmlm_cli.recipes import tokenize

        tokenize.make_store(settings, overwrite=overwrite, resume=resume, emit=emit)
