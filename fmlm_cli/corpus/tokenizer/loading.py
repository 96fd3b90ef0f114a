"""Tokenizers: found, trained, saved, named by their content, and made to encode many texts fast.

The object that travels is transformers' `PreTrainedTokenizerFast`. What is made or saved here wraps a Rust
pipeline taken as it stands: classes such as `BertTokenizer` rebuild theirs from a vocabulary and a few flags,
and (transformers 5.23) fall back to five tokens without a word when given the wrong argument.
"""

import hashlib
import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from fmlm_cli import hub
from fmlm_cli.corpus.tokenizer.literal import plain_pipeline
from fmlm_cli.corpus.tokenizer.panics import failures_as_errors
from fmlm_cli.corpus.tokenizer.pipelines import BERT, ROBERTA, Spelling, wordpiece_tokenizer
from fmlm_cli.errors import UserError, one_line
from fmlm_cli.storage import clear_disk_errors, read_json, sha256_of_json, write_json

# By model type, the class that `AutoTokenizer` takes. It knows more of them, but brings torch with it.
_CLASSES = {
    "bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "modernbert": "TokenizersBackend",
}
_PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")  # two names of the pipeline just as it stands
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_FINGERPRINTS: dict[Any, str] = {}  # that were worked out, by hashes: one takes longer than loading
# A fingerprint is of the pipeline; what its files are made into, and what stands around a text, shows in ids.
_PROBED = (
    "The quick brown FOX doesn't jump, over 13 lazy dogs!",
    "  two  blanks,\ta tab\nand lines\n\nof (some) [brackets] - 3.14% + $5 ``quoted'' ",
    "na\u00efve caf\u00e9, cafe\u0301, \u00dcber STRASSE stra\u00dfe \u0130stanbul \u1ec7",
    "\u0447\u0442\u043e \u0419\u043e\u0433\u0430 \u03ac\u03bb\u03c6\u03b1 \u03a3\u03c3\u03c2",
    "\u0643\u0650\u062a\u064e\u0627\u0628 \u05e9\u05b8\u05dc \u0939\u093f\u0928\u094d\u0926\u0940",
    "\u65e5\u672c\u8a9e\u3002\u3072\u3089 \u30ab\u30ca \ud55c\uad6d\uc5b4",
    "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0e20\u0e32\u0e29\u0e32\uff21\uff11\ufb01",
    "\U0001f600 \u2600\ufe0f \u201cquotes\u201d \u2014 \u20ac5 \u00bd x\u00b2 a\u200bb",
)


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
    if path.suffix == ".model" and path.is_file():
        raise UserError(
            f"{name} is a SentencePiece model alone: give the folder with its tokenizer_config.json"
        )
    if path.is_file():
        return _checked(
            _from_tokenizer_json(path) if path.suffix == ".json" else _from_vocab_file(path), name
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith((".txt", ".json")):
        raise UserError(
            f"tokenizer '{name}' does not exist: give a folder, a vocab.txt, a tokenizer.json or a Hub name"
        )
    return _checked(_from_folder(hub.locate(name, weights=False).folder), name)


def _from_folder(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer from a Hugging Face folder; one with a bare vocab.txt or tokenizer.json will do."""
    has = {name: (folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")}
    # Without one of these AutoTokenizer makes a tokenizer of five tokens from the model's config.json alone.
    if not any(has.values()) and not any(folder.glob("*.model")):
        raise UserError(
            f"{folder} holds no tokenizer (no tokenizer.json, vocab.txt or *.model): give another folder"
        )
    if not any(has.values()):
        _check_reads_sentencepiece(folder)
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
        with failures_as_errors(f"{folder}: no tokenizer could be made of its files"), hub.quiet():
            return _class_for(folder).from_pretrained(
                str(folder.resolve()), local_files_only=True, trust_remote_code=False
            )
    except (UserError, PermissionError):
        raise
    except Exception as error:  # any library may be behind a tokenizer, and each has its own errors
        raise UserError(
            f"{folder}: no tokenizer could be made of its files ({one_line(error)}): "
            "one with a tokenizer.json is surest"
        ) from error


def _check_reads_sentencepiece(folder: Path) -> None:
    """Raise where transformers cannot read a SentencePiece model: it would ask for tiktoken instead."""
    try:
        for package in ("sentencepiece", "google.protobuf"):
            importlib.import_module(package)
    except ImportError:
        raise UserError(
            f"{folder} holds a SentencePiece model, and to read it takes the packages sentencepiece and "
            "protobuf: pip install 'fmlm[sentencepiece]'"
        ) from None


def _class_for(folder: Path) -> Any:
    """What reads a folder's tokenizer: the class that `AutoTokenizer` takes, or it itself where in doubt."""
    settings, config = read_json(folder / "tokenizer_config.json"), folder / "config.json"
    model = read_json(config) if config.is_file() else {}
    family = model.get("model_type")
    class_name = settings.get("tokenizer_class") or model.get("tokenizer_class")
    if "auto_map" not in settings and (family is None or family in _CLASSES):
        if class_name in _PLAIN:
            return PreTrainedTokenizerFast
        for usual in (_CLASSES[family],) if family else _CLASSES.values():
            if class_name in (usual, f"{usual}Fast") or (class_name is None and family):
                return getattr(transformers, usual)
    return transformers.AutoTokenizer


def _read_backend(path: Path) -> Tokenizer:
    """A Rust pipeline from a tokenizer.json."""
    read_json(path)
    with failures_as_errors(f"{path}: not a tokenizer.json, or a damaged one"):
        return Tokenizer.from_file(str(path))


def _from_tokenizer_json(path: Path) -> PreTrainedTokenizerFast:
    """A tokenizer from a tokenizer.json; it does not say what its special tokens are for, so go by names."""
    if path.name == "tokenizer.json" and (path.parent / "tokenizer_config.json").is_file():
        return _from_folder(path.parent)
    backend = _read_backend(path)
    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    roles = {f"{role}_token": t for names in (BERT, ROBERTA) for role, t in names.items() if t in special}
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
    missing = [token for token in BERT.values() if token not in vocabulary]
    if missing:
        raise UserError(f"{path}: not a BERT vocabulary, it lacks {', '.join(missing)}: add a line for each")
    return vocabulary


def _from_vocab_file(path: Path) -> PreTrainedTokenizerFast:
    """A BERT tokenizer from a vocab.txt; it lower-cases if no ordinary entry would change by lower-casing.

    Accents then go as well, as in the published models.
    """
    vocabulary = _read_vocabulary(path)
    ordinary = (token for token in vocabulary if not re.fullmatch(r"\[.+\]", token))
    lowercase = all(token == token.lower() for token in ordinary)
    return wordpiece_tokenizer(vocabulary, Spelling(lowercase, strip_accents=None))


def _checked(tokenizer: PreTrainedTokenizerFast, name: str) -> PreTrainedTokenizerFast:
    """The same tokenizer, once it is sure that it can serve masked language modelling."""
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"tokenizer '{name}' is not Rust-backed ('fast') and has no word ids: "
            "choose one with a tokenizer.json"
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


def extends(tokenizer: PreTrainedTokenizerFast, fingerprint_of_other: str, vocabulary_of_other: int) -> bool:
    """Whether a tokenizer is another one, or that one and more tokens, with ids from its end on."""
    return fingerprint_of_other == fingerprint(tokenizer) or fingerprint_of_other == fingerprint(
        tokenizer, below=vocabulary_of_other
    )


def fingerprint(tokenizer: PreTrainedTokenizerFast, *, below: int | None = None) -> str:
    """Hex SHA-256 of what decides the ids; limits, padding, names and paths do not count.

    `below`: as if there were no added tokens, but for special ones, with ids from this on.
    """
    written = tokenizer.backend_tokenizer.to_str()
    roles = {role: getattr(tokenizer, f"{role}_token") for role in _ROLES}
    special = {role: str(token) for role, token in roles.items() if token is not None}
    key = (hashlib.sha256(written.encode()).digest(), tuple(special.items()), below)
    if key not in _FINGERPRINTS:
        _FINGERPRINTS[key] = _fingerprint(json.loads(written), special, below)
    return _FINGERPRINTS[key]


def _fingerprint(backend: dict[str, Any], special: dict[str, str], below: int | None) -> str:
    """The same of a pipeline, as its JSON has it, and special tokens by their roles."""
    content = {
        part: _lean(backend[part]) for part in ("normalizer", "pre_tokenizer", "model", "post_processor")
    }
    # An Encoder never matches special tokens in texts, so of those only the names and ids matter.
    flags = ("id", "content", "special", "single_word", "lstrip", "rstrip", "normalized")
    content["added_tokens"] = [
        {flag: token[flag] for flag in (flags[:3] if token["special"] else flags)}
        for token in sorted(backend["added_tokens"], key=lambda token: token["id"])
        if below is None or token["id"] < below or token["special"]
    ]
    content["special_tokens"] = special
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
    with hub.quiet(), clear_disk_errors(folder):
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
    name = str(tokenizer.name_or_path or "given")
    _checked(tokenizer, name)
    with failures_as_errors(f"tokenizer '{name}' cannot encode the letter a"):
        encoding = plain_pipeline(tokenizer).encode("a", add_special_tokens=True)
    marks = encoding.special_tokens_mask
    inside = [place for place, mark in enumerate(marks) if not mark]
    if not inside:
        raise UserError(f"tokenizer '{name}' makes nothing of the letter a: choose another tokenizer")
    separator = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    return SpecialTokens(
        prefix=tuple(encoding.ids[: inside[0]]),
        suffix=tuple(encoding.ids[inside[-1] + 1 :]),
        separator=separator,
        pad=tokenizer.pad_token_id,
        mask=tokenizer.mask_token_id,
        never_masked=_special_ids(tokenizer),
    )


def probe(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Texts of several scripts, with the mask token in one, and the ids of each, special tokens with them."""
    texts = [*_PROBED, f"one {tokenizer.mask_token} two"]
    return {"texts": texts, "ids": _ids(tokenizer, texts)}


def _ids(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    with failures_as_errors("the tokenizer cannot encode a text"):
        return [tokenizer(text)["input_ids"] for text in texts]


def check_probe(
    tokenizer: PreTrainedTokenizerFast, expected: Mapping[str, Any], name: str, remedy: str
) -> None:
    """Raise a `UserError` that names the first text of a probe of which a tokenizer makes other ids."""
    texts: list[str] = expected["texts"]
    for text, ids, found in zip(texts, expected["ids"], _ids(tokenizer, texts), strict=True):
        if ids != found:
            at = next(i for i in range(len(ids) + 1) if ids[: i + 1] != found[: i + 1])
            tokens = [tokenizer.convert_ids_to_tokens(some[at : at + 1]) for some in (found, ids)]
            made, wanted = (repr(token[0]) if token else "nothing more" for token in tokens)
            raise UserError(
                f"{name} makes other ids of {text!r} than it did: token {at + 1} is {made} and was {wanted}: "
                f"{remedy}"
            )
