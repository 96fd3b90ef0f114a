"""Tokenizers: found, trained, saved, named by their content, and made to encode many texts fast.

The object that travels is transformers' `PreTrainedTokenizerFast`. What is made or saved here wraps a Rust
pipeline taken as it stands: classes such as `BertTokenizer` rebuild theirs from a vocabulary and a few flags,
and (transformers 5.23) fall back to five tokens without a word when given the wrong argument.
"""

import contextlib
import itertools
import json
import logging
import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from huggingface_hub import constants as hub
from huggingface_hub import get_session, is_offline_mode
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fmlm_cli.errors import UserError
from fmlm_cli.storage import clear_disk_errors, read_json, sha256_of_json, write_json

_BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_ROBERTA = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}  # ids 0 to 4
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_HUB_SECONDS = 4.0  # how long the Hub may take to answer at all before it counts as out of reach

_MIN_FREQUENCY = 2  # a pair seen once is no evidence; BERT's and RoBERTa's trainers ask for two as well
_ALPHABET = 1000  # the commonest characters; the rest would fill a vocabulary with what is met once
_LONGEST_WORD = 100  # WordPiece turns anything longer into [UNK], so nothing can be learned from it

_PIECE = 32_768  # characters; a piece of a long text is at least this long and at most twice
_BATCH = 64 * _PIECE  # characters that go to the Rust threads at a time: bounds the memory of their answers

# A blank to cut before: one alone, between visible characters that no normalizer removes.
_CUT = re.compile(r"(?<=[!-~\w]) (?=[!-~\w])")
# BERT's words before its normalizer; other punctuation is split off later, in Rust.
_WORD = re.compile(r"[^\s!-/:-@\[-`{-~]+|[!-/:-@\[-`{-~]")
_PROBES = (
    "ab cd",
    "One, two (3) 4.5 six - x's a_b! c-d",
    "\u00e9t\u00e9 na\u00efve \u00dcn\u00ef \u65e5\u672c x",
)


# ---------------------------------------------------------------- loading


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Find a tokenizer: a folder, a WordPiece `vocab.txt`, a `tokenizer.json`, or a name on the Hub.

    Only a Hub name may reach for the network, and code from there is never run. Raises `UserError` for
    anything missing, damaged, without a mask or padding token, or not Rust-backed (word ids are needed).
    """
    if not name.strip():
        raise UserError(
            "the tokenizer's name is empty: give a folder, a vocab.txt, a tokenizer.json or a Hub name"
        )
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked(_from_folder(path), name)
    if path.is_file():
        return _checked(
            _from_tokenizer_json(path) if path.suffix == ".json" else _from_vocab_file(path), name
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith((".txt", ".json")):
        raise UserError(
            f"tokenizer '{name}' does not exist: give a folder, a vocab.txt, a tokenizer.json or a Hub name"
        )
    return _checked(_from_hub(name), name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' remarks about their own insides from the user; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _one_line(error: BaseException) -> str:
    """The first line of an exception's text, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" :.")


def _auto(name: str, *, local: bool) -> PreTrainedTokenizerFast:
    """`AutoTokenizer`, quiet."""
    with _quiet():
        return AutoTokenizer.from_pretrained(name, local_files_only=local, trust_remote_code=False)


def _from_folder(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer from a Hugging Face folder; one with a bare vocab.txt or tokenizer.json will do."""
    has = {name: (folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")}
    # Without one of these AutoTokenizer makes a tokenizer of five tokens from the model's config.json alone.
    if not any(has.values()) and not any(folder.glob("*.model")):
        raise UserError(
            f"{folder} holds no tokenizer (no tokenizer.json, vocab.txt or *.model): give another folder"
        )
    if has["tokenizer.json"]:
        _read_backend(folder / "tokenizer.json")  # so that damage is reported with its file
    if not (folder / "tokenizer_config.json").is_file():
        if has["tokenizer.json"]:
            return _from_tokenizer_json(folder / "tokenizer.json")
        if has["vocab.txt"]:
            return _from_vocab_file(folder / "vocab.txt")
    else:
        read_json(folder / "tokenizer_config.json")
    try:
        # As an absolute path, which nothing in the libraries can take for a Hub name and go asking for.
        return _auto(str(folder.resolve()), local=True)
    except Exception as error:  # any library may be behind a tokenizer, and each has its own errors
        raise UserError(
            f"{folder}: no tokenizer could be made of its files ({_one_line(error)}): one with a tokenizer.json is surest"
        ) from error


def _read_backend(path: Path) -> Tokenizer:
    """A Rust pipeline from a tokenizer.json."""
    read_json(path)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises plain Exceptions
        raise UserError(f"{path}: not a tokenizer.json, or a damaged one ({_one_line(error)})") from error


def _from_tokenizer_json(path: Path) -> PreTrainedTokenizerFast:
    """A tokenizer from a tokenizer.json; it does not say what its special tokens are for, so go by names."""
    if path.name == "tokenizer.json" and (path.parent / "tokenizer_config.json").is_file():
        return _from_folder(path.parent)
    backend = _read_backend(path)
    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    roles = {f"{role}_token": t for names in (_BERT, _ROBERTA) for role, t in names.items() if t in special}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Token to id from a vocab.txt; only newlines end a line, as odd characters may be tokens."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file, so not a WordPiece vocabulary") from None
    if lines == [""]:
        raise UserError(f"{path} is empty: a WordPiece vocabulary has one token a line")
    vocabulary: dict[str, int] = {}
    for index, token in enumerate(lines):
        first = vocabulary.setdefault(token, index)
        if first != index:
            raise UserError(
                f"{path}:{index + 1}: '{token}' stands in line {first + 1} already; remove one of the two"
            )
    missing = [token for token in _BERT.values() if token not in vocabulary]
    if missing:
        raise UserError(f"{path}: not a BERT vocabulary, it lacks {', '.join(missing)}: add a line for each")
    return vocabulary


def _from_vocab_file(path: Path) -> PreTrainedTokenizerFast:
    """A BERT tokenizer from a vocab.txt; it lower-cases if no ordinary entry would change by lower-casing."""
    vocabulary = _read_vocabulary(path)
    ordinary = (token for token in vocabulary if not re.fullmatch(r"\[.+\]", token))
    return _wordpiece(vocabulary, lowercase=all(token == token.lower() for token in ordinary))


def _hub_answers() -> bool:
    """Whether the Hub answers one request soon; in a thread, as looking up its address has no time limit."""
    answers: list[int] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            answers.append(get_session().head(hub.ENDPOINT, timeout=_HUB_SECONDS).status_code)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_SECONDS)
    return bool(answers)


def _from_hub(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer by its Hub name; from the local cache where the Hub is out of reach.

    The Hub is asked once first: on its own, huggingface_hub would go on trying for most of a minute.
    """
    offline = is_offline_mode()
    reachable = not offline and _hub_answers()
    try:
        return _auto(name, local=not reachable)
    except Exception as error:  # any library may be behind a tokenizer, and each has its own errors
        if reachable:
            raise UserError(
                f"tokenizer '{name}' could not be had from {hub.ENDPOINT}: {_one_line(error)}"
            ) from error
        why = "HF_HUB_OFFLINE is set" if offline else f"{hub.ENDPOINT} cannot be reached"
        raise UserError(
            f"tokenizer '{name}' is no file or folder, not in the Hub's local cache, and {why}: give a local one"
        ) from error


def _checked(tokenizer: PreTrainedTokenizerFast, name: str) -> PreTrainedTokenizerFast:
    """The same tokenizer, once it is sure that it can serve masked language modelling."""
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"tokenizer '{name}' is not Rust-backed ('fast') and has no word ids: choose one with a tokenizer.json"
        )
    for role in ("mask", "pad"):
        if getattr(tokenizer, f"{role}_token_id") is None:
            raise UserError(
                f"tokenizer '{name}' has no {role} token: choose one made for masked language models"
            )
    if len(tokenizer) <= len(_special_ids(tokenizer)):
        raise UserError(
            f"tokenizer '{name}' holds nothing but special tokens: its vocabulary was not found or is damaged"
        )
    return tokenizer


# ---------------------------------------------------------------- training


def train_tokenizer(
    kind: Literal["wordpiece", "bpe"],
    texts: Iterable[str],
    *,
    vocab_size: int,
    lowercase: bool,
    show_progress: bool = False,
) -> PreTrainedTokenizerFast:
    """Train BERT's WordPiece or RoBERTa's byte-level BPE; the same texts always give the same tokenizer.

    `texts` is read once. Fewer than `vocab_size` tokens come out of few texts. Raises `UserError` if there
    is no text, or if `vocab_size` cannot hold the alphabet.
    """
    train = {"wordpiece": _train_wordpiece, "bpe": _train_bpe}[kind]
    cleaned = (_well_formed(text) for text in texts)
    return train((text for text in cleaned if text.strip()), vocab_size, lowercase, show_progress)


def _no_texts() -> UserError:
    return UserError("there is no text to train a tokenizer on: check the input files and filters")


def _check_size(vocab_size: int, smallest: int) -> None:
    """Raise where the alphabet and the special tokens alone do not fit."""
    if vocab_size < smallest:
        raise UserError(
            f"a vocabulary of {vocab_size} tokens cannot hold the texts' alphabet: ask for {smallest} or more"
        )


def _added(content: str) -> AddedToken:
    """A special token as BERT and RoBERTa declare it (RoBERTa's mask swallows the blank before it)."""
    return AddedToken(content, special=True, normalized=False, lstrip=content == "<mask>")


def _wordpiece(vocabulary: dict[str, int], *, lowercase: bool) -> PreTrainedTokenizerFast:
    """BERT's pipeline around a vocabulary that has BERT's special tokens."""
    backend = Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD)
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)  # accents go where capitals go
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    # The flags are for those who load the saved folder by BertTokenizer, which believes them alone.
    flags = {"do_lower_case": lowercase, "tokenize_chinese_chars": True, "strip_accents": None}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return _wrapped(backend, _BERT, model_input_names=inputs, **flags)


def _wrapped(backend: Tokenizer, names: dict[str, str], **settings: Any) -> PreTrainedTokenizerFast:
    """A transformers tokenizer around a pipeline; `names` gives the special token for each role."""
    backend.add_special_tokens([_added(token) for token in names.values()])
    roles = {f"{role}_token": _added(token) for role, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles, **settings)


def _train_wordpiece(texts: Iterable[str], size: int, lowercase: bool, show: bool) -> PreTrainedTokenizerFast:
    """WordPiece, made repeatable.

    The library numbers the '##' characters in the order of a hash map, which differs from run to run, and
    settles ties by number (huggingface/tokenizers issue 1794). So words are counted here, and the trainer is
    given all characters as its first "special" tokens, in a fixed order.
    """
    counts = _count_words(texts, lowercase)
    if not counts:
        raise _no_texts()
    known = [*_BERT.values(), *_alphabet(counts)]
    _check_size(size, len(known))
    scratch = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters = [token for token in known if len(token) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=_MIN_FREQUENCY,
        show_progress=show,
        special_tokens=known,
        limit_alphabet=len(letters),
        initial_alphabet=letters,
    )
    scratch.train_from_iterator(_repeated(counts), trainer)
    return _wordpiece(scratch.get_vocab(), lowercase=lowercase)


def _count_words(texts: Iterable[str], lowercase: bool) -> Counter[str]:
    """How often each word occurs, as BERT's normalizer and pre-tokenizer make words."""
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(_WORD.findall(text))
    normalizer, splitter = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for word, count in raw.items():
        for part, _ in splitter.pre_tokenize_str(normalizer.normalize_str(word)):
            if len(part) <= _LONGEST_WORD:
                counts[part] += count
    return counts


def _alphabet(counts: Counter[str]) -> list[str]:
    """The commonest characters in order of code point, then those that continue words, with their '##'."""
    characters: Counter[str] = Counter()
    continuing: set[str] = set()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
        continuing.update(word[1:])
    kept = sorted(sorted(characters, key=lambda c: (-characters[c], c))[:_ALPHABET])
    return [*kept, *(f"##{character}" for character in kept if character in continuing)]


def _repeated(counts: Counter[str]) -> Iterator[str]:
    """Every word as often as it was counted, blanks between, in strings of about a piece's length."""
    words = (itertools.repeat(f"{word} ", count) for word, count in sorted(counts.items()))
    stream = itertools.chain.from_iterable(words)
    while batch := "".join(itertools.islice(stream, _PIECE // 8)):
        yield batch


def _train_bpe(texts: Iterable[str], size: int, lowercase: bool, show: bool) -> PreTrainedTokenizerFast:
    """Byte-level BPE; the library's trainer is repeatable here, as the alphabet is the 256 bytes in order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _check_size(size, len(_ROBERTA) + len(alphabet))
    backend = Tokenizer(models.BPE())
    if lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=_MIN_FREQUENCY,
        show_progress=show,
        special_tokens=[_added(token) for token in _ROBERTA.values()],
        initial_alphabet=alphabet,
    )
    pieces = (piece for text in texts for piece in _pieces(text, _PIECE))
    first = next(pieces, None)
    if first is None:
        raise _no_texts()
    backend.train_from_iterator(itertools.chain([first], pieces), trainer)
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    names = _ROBERTA | {"bos": "<s>", "eos": "</s>"}
    return _wrapped(backend, names, add_prefix_space=False, model_input_names=["input_ids", "attention_mask"])


# ---------------------------------------------------------------- what it is


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Hex SHA-256 of what decides the ids; limits, padding, names and paths do not count."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    content = {
        part: _lean(backend[part]) for part in ("normalizer", "pre_tokenizer", "model", "post_processor")
    }
    # An Encoder never matches special tokens in texts, so of those only the names and ids matter.
    flags = ("id", "content", "special", "single_word", "lstrip", "rstrip", "normalized")
    content["added_tokens"] = [
        {flag: token[flag] for flag in (flags[:3] if token["special"] else flags)}
        for token in sorted(backend["added_tokens"], key=lambda token: token["id"])
    ]
    roles = {role: getattr(tokenizer, f"{role}_token") for role in _ROLES}
    content["special_tokens"] = {role: str(token) for role, token in roles.items() if token is not None}
    return sha256_of_json(content)


def _lean(value: Any) -> Any:
    """Without settings that are null or empty: library versions differ in which of these they write."""
    if isinstance(value, dict):
        return {key: _lean(item) for key, item in value.items() if item is not None and item != ""}
    return [_lean(item) for item in value] if isinstance(value, list) else value


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a Hugging Face tokenizer folder that `AutoTokenizer` reads back as it was, beside any model.

    Raises `UserError` if the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"cannot save a tokenizer in {folder}: it is a file, not a folder")
    with _quiet(), clear_disk_errors(folder):
        tokenizer.save_pretrained(folder)
        path = folder / "tokenizer_config.json"
        settings = read_json(path)
        for private in ("is_local", "local_files_only", "backend"):
            settings.pop(private, None)
        # By this name, which old and new transformers know, the pipeline is read just as it stands.
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        settings["model_input_names"] = list(tokenizer.model_input_names)
        write_json(path, settings)


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of special tokens: around a sequence, between two, for padding and masking; and all of them."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    separator: int | None
    pad: int
    mask: int
    never_masked: frozenset[int]


def _special_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Every id that stands for no text of its own, the unknown token's with them."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return frozenset(tokenizer.all_special_ids) | {number for number, token in added.items() if token.special}


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> SpecialTokens:
    """The special tokens by use; the ends are what the tokenizer's own template puts around one sequence.

    Raises `UserError` without a mask or padding token.
    """
    _checked(tokenizer, str(tokenizer.name_or_path or "given"))
    encoding = _plain(tokenizer).encode("a", add_special_tokens=True)
    marks = encoding.special_tokens_mask
    inside = [place for place, mark in enumerate(marks) if not mark]
    assert inside, "the letter a is no text to this tokenizer"
    separator = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    return SpecialTokens(
        prefix=tuple(encoding.ids[: inside[0]]),
        suffix=tuple(encoding.ids[inside[-1] + 1 :]),
        separator=separator,
        pad=tokenizer.pad_token_id,
        mask=tokenizer.mask_token_id,
        never_masked=_special_ids(tokenizer),
    )


# ---------------------------------------------------------------- encoding


@dataclass(frozen=True)
class Encoded:
    """Texts as tokens; for each text two arrays of one length: ids, and whether a token begins a word."""

    input_ids: list[npt.NDArray[np.uint32]]
    word_starts: list[npt.NDArray[np.bool_]]


_Tokens = tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]


def _plain(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A copy of the pipeline that neither cuts nor pads, and does not look for special tokens in texts."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def _well_formed(text: str) -> str:
    """The text with "?" for lone surrogates (half characters, as in broken JSON), which Rust cannot take."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", errors="replace").decode("utf-8")
    return text


def _pieces(text: str, length: int) -> list[str]:
    """Cut a text longer than twice `length` before lone blanks, or anywhere if there is none in reach."""
    places, start = [0], 0
    while len(text) - start > 2 * length:
        found = _CUT.search(text, start + length, start + 2 * length)
        start = found.start() if found else start + 2 * length
        places.append(start)
    return [text[begin:end] for begin, end in itertools.pairwise([*places, len(text)])]


def _cuts_safely(backend: Tokenizer) -> bool:
    """Whether a text cut before a lone blank gives the same words as in one go: tried out on a few."""
    for token in backend.get_added_tokens_decoder().values():
        if not token.special and (token.rstrip or _CUT.search(f"x{token.content}x", 2)):
            return False
    if backend.pre_tokenizer is None:
        return False

    def words(text: str) -> list[str]:
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]

    cuts = ((probe, found.start()) for probe in _PROBES for found in _CUT.finditer(probe))
    return all(words(probe) == words(probe[:cut]) + words(probe[cut:]) for probe, cut in cuts)


def _literal(backend: Tokenizer) -> Tokenizer:
    """A copy whose model cannot find special tokens in texts either.

    Unigram, and word-based models without punctuation splitting, know them as ordinary vocabulary: there a text's
    "</s>" would come out as the real one. Byte-pair models reach only what their merges make.
    """
    content = json.loads(backend.to_str())
    special = {token["id"] for token in content["added_tokens"] if token["special"]}
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["special"]]
    content["post_processor"] = None
    model = content["model"]
    special -= {backend.token_to_id(model.get("unk_token") or ""), model.get("unk_id")}
    hidden = "\ue000 {}".format  # no text holds a word with a blank and a private character in it
    if model["type"] == "Unigram":
        pieces = enumerate(model["vocab"])
        model["vocab"] = [[hidden(i) if i in special else piece, score] for i, (piece, score) in pieces]
    elif model["type"] in ("WordPiece", "WordLevel"):
        model["vocab"] = {hidden(i) if i in special else token: i for token, i in model["vocab"].items()}
    return Tokenizer.from_str(json.dumps(content))


class Encoder:
    """Encodes many texts, in Rust threads, without special tokens and without any limit of length.

    A text of more than `2 * piece_length` characters is encoded in pieces, cut before a lone blank, which
    gives the same tokens as in one go. Only where no such blank comes for `piece_length` characters is it cut
    anywhere; the token after the cut then begins a word. Tokenizers whose words run across blanks get every
    text whole.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, piece_length: int = _PIECE) -> None:
        self._backend = _literal(_plain(tokenizer))
        self._piece_length = piece_length
        self._cuts = _cuts_safely(self._backend)

    def __call__(self, texts: Sequence[str]) -> Encoded:
        """Encode each text; an empty one gives empty arrays. Half characters (lone surrogates) become "?"."""
        cut = [self._cut(_well_formed(text)) for text in texts]
        tokens = self._encode(itertools.chain.from_iterable(cut))
        whole = [_joined(list(itertools.islice(tokens, len(pieces)))) for pieces in cut]
        return Encoded([ids for ids, _ in whole], [starts for _, starts in whole])

    def _cut(self, text: str) -> list[str]:
        return _pieces(text, self._piece_length) if self._cuts else [text]

    def _encode(self, pieces: Iterable[str]) -> Iterator[_Tokens]:
        """Encode pieces some at a time, in order."""
        batch: list[str] = []
        size = 0
        for piece in pieces:
            batch.append(piece)
            size += len(piece)
            if size >= _BATCH:
                yield from self._encode_batch(batch)
                batch, size = [], 0
        yield from self._encode_batch(batch)

    def _encode_batch(self, batch: list[str]) -> Iterator[_Tokens]:
        """Encode in one call; `encode_batch_fast` would be a third faster, but gives no word ids."""
        for encoding in self._backend.encode_batch(batch, add_special_tokens=False):
            ids = np.array(encoding.ids, dtype=np.uint32)
            words = np.array(encoding.word_ids, dtype=np.float64)  # None becomes NaN, which differs from all
            starts = np.ones(len(ids), dtype=np.bool_)
            starts[1:] = words[1:] != words[:-1]
            yield ids, starts


def _joined(pieces: list[_Tokens]) -> _Tokens:
    """One text's tokens from its pieces'."""
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate([ids for ids, _ in pieces]), np.concatenate([starts for _, starts in pieces])
