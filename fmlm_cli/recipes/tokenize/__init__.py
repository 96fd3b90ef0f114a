"""`fmlm tokenize`, `fmlm merge`: what is asked for; the tokenizer; encoding; assembly; collocations; run."""

from fmlm_cli.recipes.tokenize.merging import merge
from fmlm_cli.recipes.tokenize.run import HARDLY_KNOWN, make_store

__all__ = ["HARDLY_KNOWN", "make_store", "merge"]
