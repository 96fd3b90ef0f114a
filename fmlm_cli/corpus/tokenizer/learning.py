"""Learning a tokenizer from text: WordPiece, byte-level BPE or Unigram, the same on every run."""

import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from fmlm_cli.corpus.tokenizer.cuts import PIECE, pieces_of
from fmlm_cli.corpus.tokenizer.literal import well_formed
from fmlm_cli.corpus.tokenizer.pipelines import (
    BERT,
    LONGEST_WORD,
    ROBERTA,
    Spelling,
    added_token,
    unigram_tokenizer,
    wordpiece_tokenizer,
    wrap,
)
from fmlm_cli.errors import UserError

_MIN_FREQUENCY = 2  # a pair seen once is no evidence; BERT's and RoBERTa's trainers ask for two as well
_ALPHABET = 1000  # the commonest characters; the rest would fill a vocabulary with what is met once
# BERT's words before its normalizer; other punctuation is split off later, in Rust.
_WORD = re.compile(r"[^\s!-/:-@\[-`{-~]+|[!-/:-@\[-`{-~]")


def train_tokenizer(
    kind: Literal["wordpiece", "bpe", "unigram"],
    texts: Iterable[str],
    *,
    vocab_size: int,
    lowercase: bool,
    strip_accents: bool = False,
    normalize: Literal["nfc", "nfkc"] | None = None,
) -> PreTrainedTokenizerFast:
    """Train BERT's WordPiece, RoBERTa's byte-level BPE or XLM-R's Unigram; the same texts give the same one.

    What text is made of before it is split (`lowercase`, `strip_accents`, `normalize`) is the same in all:
    see `Spelling`. `texts` is read once. Fewer than `vocab_size` tokens come out of few texts. Raises
    `UserError` if there is no text, if `vocab_size` cannot hold the alphabet, or for Unigram without the
    package sentencepiece.
    """
    train = {"wordpiece": _train_wordpiece, "bpe": _train_bpe, "unigram": _train_unigram}[kind]
    cleaned = (well_formed(text) for text in texts)
    spelling = Spelling(lowercase, strip_accents, normalize)
    return train((text for text in cleaned if text.strip()), vocab_size, spelling)


def _no_texts() -> UserError:
    return UserError(
        "there is no text to learn a tokenizer from (validation text is left out): give more text, or set "
        "--valid-fraction 0"
    )


def _check_size(vocab_size: int, smallest: int) -> None:
    """Raise where the alphabet and the special tokens alone do not fit."""
    if vocab_size < smallest:
        raise UserError(
            f"a vocabulary of {vocab_size} tokens cannot hold the texts' alphabet: ask for {smallest} or more"
        )


def _train_wordpiece(texts: Iterable[str], size: int, spelling: Spelling) -> PreTrainedTokenizerFast:
    """WordPiece, made repeatable.

    The library numbers the '##' characters in the order of a hash map, which differs from run to run, and
    settles ties by number (huggingface/tokenizers issue 1794). So words are counted here, and the trainer is
    given all characters as its first "special" tokens, in a fixed order.
    """
    counts = _count_words(texts, spelling)
    if not counts:
        raise _no_texts()
    first_tokens = [*BERT.values(), *_alphabet(counts)]
    _check_size(size, len(first_tokens))
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters = [token for token in first_tokens if len(token) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=_MIN_FREQUENCY,
        show_progress=False,
        special_tokens=first_tokens,
        limit_alphabet=len(letters),
        initial_alphabet=letters,
    )
    scratch.train_from_iterator(_repeated(counts), trainer)
    return wordpiece_tokenizer(scratch.get_vocab(), spelling)


def _count_words(texts: Iterable[str], spelling: Spelling) -> Counter[str]:
    """How often each word occurs, as BERT's normalizer and pre-tokenizer make words."""
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(_WORD.findall(text))
    normalizer, splitter = spelling.normalizer(as_bert=True), pre_tokenizers.BertPreTokenizer()
    assert normalizer is not None
    counts: Counter[str] = Counter()
    for word, count in raw.items():
        for part, _ in splitter.pre_tokenize_str(normalizer.normalize_str(word)):
            if len(part) <= LONGEST_WORD:
                counts[part] += count
    return counts


def _alphabet(counts: Counter[str]) -> list[str]:
    """The commonest characters in order of code point, then those that continue words, with their '##'."""
    commonest = _commonest(counts)
    continuing = set(itertools.chain.from_iterable(word[1:] for word in counts))
    return [*commonest, *(f"##{character}" for character in commonest if character in continuing)]


def _commonest(counts: Counter[str]) -> list[str]:
    """The commonest characters in order of code point."""
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    return sorted(sorted(characters, key=lambda c: (-characters[c], c))[:_ALPHABET])


def _repeated(counts: Counter[str]) -> Iterator[str]:
    """Every word as often as it was counted, blanks between, in strings of about a piece's length."""
    words = (itertools.repeat(f"{word} ", count) for word, count in sorted(counts.items()))
    stream = itertools.chain.from_iterable(words)
    while batch := "".join(itertools.islice(stream, PIECE // 8)):
        yield batch


def _train_bpe(texts: Iterable[str], size: int, spelling: Spelling) -> PreTrainedTokenizerFast:
    """Byte-level BPE; the library's trainer is repeatable here, as the alphabet is the 256 bytes in order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _check_size(size, len(ROBERTA) + len(alphabet))
    backend = Tokenizer(models.BPE())
    if normalizer := spelling.normalizer(as_bert=False):
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=_MIN_FREQUENCY,
        show_progress=False,
        special_tokens=[added_token(token) for token in ROBERTA.values()],
        initial_alphabet=alphabet,
    )
    pieces = (piece for text in texts for piece in pieces_of(text, PIECE))
    first = next(pieces, None)
    if first is None:
        raise _no_texts()
    backend.train_from_iterator(itertools.chain([first], pieces), trainer)
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    names = ROBERTA | {"bos": "<s>", "eos": "</s>"}
    return wrap(backend, names, add_prefix_space=False, model_input_names=["input_ids", "attention_mask"])


def _train_unigram(texts: Iterable[str], size: int, spelling: Spelling) -> PreTrainedTokenizerFast:
    """Unigram by SentencePiece, of words that are counted here.

    On one thread it is repeatable, which the tokenizers library's trainer is not: it goes through hash maps,
    in another order on every run, and adds up logarithms in that order.
    """
    normalizer = spelling.normalizer(as_bert=False)
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(text.split())
    counts: Counter[str] = Counter()
    for word, count in raw.items():
        for part in (normalizer.normalize_str(word) if normalizer else word).split():
            counts[part] += count
    if not counts:
        raise _no_texts()
    alphabet = _commonest(counts)
    known = {*alphabet} - {"\0"}  # which ends a string there
    learnable = {word: count for word, count in counts.items() if known.issuperset(word)}
    _check_size(size, len(ROBERTA) + len(alphabet) + 1)
    return unigram_tokenizer(_pieces(learnable, size), spelling)


def _pieces(counts: Mapping[str, int], size: int) -> list[tuple[str, float]]:
    """Pieces and the logarithms of their probabilities, with RoBERTa's special tokens first."""
    try:
        import sentencepiece  # noqa: PLC0415  (an extra)
    except ImportError:
        raise UserError(
            "--train-tokenizer unigram needs the package sentencepiece: pip install 'fmlm[sentencepiece]'"
        ) from None
    special: dict[str, Any] = {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f"{word}\t{count}" for word, count in sorted(counts.items())),
        input_format="tsv",
        model_writer=model,
        model_type="unigram",
        vocab_size=size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",  # they are as the pipeline will have them
        max_sentence_length=1 << 30,
        num_threads=1,
        minloglevel=3,
        user_defined_symbols=[ROBERTA["mask"]],
        **special,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(len(ROBERTA), trained.get_piece_size())
    first = [(token, 0.0) for token in ROBERTA.values()]
    return [*first, *((trained.id_to_piece(i), trained.get_score(i)) for i in ids)]
