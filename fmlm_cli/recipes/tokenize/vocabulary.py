"""The tokenizer of a store: learnt from its text, or one with more tokens."""

from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from fmlm_cli.config import TokenizeSettings
from fmlm_cli.corpus.text.corpora import Corpora
from fmlm_cli.corpus.tokenizer.extending import MIN_COUNT as MIN_WORD_COUNT
from fmlm_cli.corpus.tokenizer.extending import NewToken, extended, frequent_splits, read_words
from fmlm_cli.corpus.tokenizer.learning import train_tokenizer
from fmlm_cli.events import Caution, Emit, Facts, Note, Progress
from fmlm_cli.recipes.tokenize.asked import validation_share

SAMPLE_BYTES = 100_000_000  # of text that a new tokenizer learns from, at most

_WORDS_SHOWN = 12


def learn(settings: TokenizeSettings, corpora: Corpora, emit: Emit) -> PreTrainedTokenizerFast:
    """Learn a tokenizer from a bounded sample, and say how large it was."""
    assert settings.train_tokenizer is not None
    read = 0
    held_out = corpora.held_out()

    def sampled() -> Iterator[str]:
        nonlocal read
        for text in corpora.train.sample(SAMPLE_BYTES, validation_share(settings), held_out):
            read += len(text.encode("utf-8"))
            yield text

    emit(Progress("learning the tokenizer", 0, 0, ""))
    tokenizer = train_tokenizer(
        settings.train_tokenizer,
        sampled(),
        vocab_size=settings.vocab_size,
        lowercase=settings.lowercase,
        strip_accents=settings.strip_accents,
        normalize=settings.normalize,
    )
    emit(Progress("learning the tokenizer", 1, 1, ""))
    emit(
        Note(
            f"learnt a {settings.train_tokenizer} tokenizer of {len(tokenizer):,} tokens "
            f"from {read / 1e6:,.1f} MB of text"
        )
    )
    if len(tokenizer) < settings.vocab_size:
        emit(
            Caution(
                f"the text gives {len(tokenizer):,} tokens, fewer than the {settings.vocab_size:,} of "
                "--vocab-size"
            )
        )
    return tokenizer


def extend(
    settings: TokenizeSettings, tokenizer: PreTrainedTokenizerFast, corpora: Corpora, emit: Emit
) -> PreTrainedTokenizerFast:
    """The tokenizer with the words that it is to have as tokens; they are listed."""
    if settings.add_tokens is not None:
        words = read_words(Path(settings.add_tokens), tokenizer)
        tokenizer = _with_words(tokenizer, words, f"tokens from {settings.add_tokens}", emit)
    if settings.extend_vocab is not None:
        emit(Progress("looking for words", 0, 0, ""))
        texts = corpora.train.sample(SAMPLE_BYTES, validation_share(settings), corpora.held_out())
        words = frequent_splits(texts, tokenizer, settings.extend_vocab)
        emit(Progress("looking for words", 1, 1, ""))
        tokenizer = _with_words(tokenizer, words, "words of the text that become tokens", emit)
        if len(words) < settings.extend_vocab:
            emit(Caution(f"only {len(words):,} words of the text are split and occur {MIN_WORD_COUNT} times"))
    return tokenizer


def _with_words(
    tokenizer: PreTrainedTokenizerFast, words: list[NewToken], title: str, emit: Emit
) -> PreTrainedTokenizerFast:
    more, left_out = extended(tokenizer, [token.text for token in words])
    added = [token for token in words if token.text not in set(left_out)]
    rows = {
        token.text: " ".join(token.pieces) + (f", {token.count:,} times" if token.count else "")
        for token in added[:_WORDS_SHOWN]
    }
    saved = sum(token.saved for token in added)
    rows["in all"] = f"{len(added):,} new tokens" + (
        f", which save about {saved:,} tokens of the text looked at" if saved else ""
    )
    if left_out:
        dots = ", ..." if len(left_out) > 5 else ""
        rows["left out"] = (
            f"{len(left_out):,}, tokens already or not to be kept whole: {', '.join(left_out[:5])}{dots}"
        )
    emit(Facts(title, rows))
    return more
