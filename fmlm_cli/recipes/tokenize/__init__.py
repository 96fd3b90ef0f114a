"""`fmlm tokenize`: what is asked for; the tokenizer; the documents; collocations; run."""

from fmlm_cli.recipes.tokenize.run import HARDLY_KNOWN, make_store

__all__ = ["HARDLY_KNOWN", "make_store"]
