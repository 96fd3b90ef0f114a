"""Whether a tokenizer knows the text that it made a store of."""

from tokenizers import Tokenizer

from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.corpus.tokenizer.words import fragment_tokens

UNKNOWN_SHARE = 0.05  # of unknown tokens, from which on a tokenizer does not seem to suit the text
# Of tokens that are a single letter or less. Of the text of twenty languages, tokenizers of 8,000 tokens that
# were learnt from it have 41 % at most (byte-level BPE, Hindi); bert-base-uncased on Hindi has 69 %, GPT-2's
# on Russian 85 %.
FRAGMENT_SHARE = 0.5


def misfit(store: TokenStore, backend: Tokenizer | None = None) -> str | None:
    """A sentence, with the figures of the training split, where the tokenizer hardly knows the text.

    `backend`: of the store's tokenizer, which is loaded where it is not at hand.
    """
    counts = store.token_counts.astype(float)
    tokens = max(counts.sum(), 1)
    parts, letters = (
        counts[table].sum() / tokens
        for table in fragment_tokens(backend or store.tokenizer.backend_tokenizer)
    )
    split, unknown = store.manifest["splits"]["train"], store.manifest["facts"]["unknown_tokens"] / tokens
    if unknown <= UNKNOWN_SHARE and parts + letters <= FRAGMENT_SHARE:
        return None
    per_word = split["tokens"] / max(split["words"], 1)
    return (
        f"the tokenizer hardly knows the text of {store.name}: {per_word:.1f} tokens a word, {parts:.0%} of "
        f"the tokens parts of characters, {letters:.0%} single letters, {unknown:.0%} unknown and never "
        "predicted; one that was made for such text would serve better"
    )
