"""`python -m tests.benchmarks.material FOLDER TEXT...`: what the benches train on, made in a few seconds.

    FOLDER/full     where TEXT says so: a token store of documents of mixed lengths, to fill rows with
    FOLDER/real     where TEXT says so: one of short documents, log-normal lengths, that stand one to a row
    FOLDER/models   configurations, MODEL/config.json

Tokens are drawn from Zipf's law over a vocabulary of BERT's size, for speed does not depend on what they say.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import BertConfig, ModernBertConfig, PreTrainedConfig, PreTrainedTokenizerFast

from fmlm_cli.corpus.store.writing import StoreWriter
from fmlm_cli.corpus.tokenizer.literal import Encoded
from fmlm_cli.corpus.tokenizer.loading import load_tokenizer
from fmlm_cli.model.presets import PRESETS

VOCABULARY = 30_522
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKENS = 2_000_000
LONGEST_REAL = 126  # with [CLS] and [SEP] a row of 128


def make_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of `VOCABULARY` entries; its words are invented."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [*SPECIAL, *(f"w{number}" for number in range(VOCABULARY - len(SPECIAL)))]
    path = folder / "vocab.txt"
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return load_tokenizer(str(path))


def log_normal_lengths(median: float, sigma: float, longest: int, total: int) -> npt.NDArray[np.int64]:
    """Lengths of documents, in tokens, of at least `total` together: real text's are about log-normal."""
    random = np.random.default_rng(1)
    lengths = random.lognormal(np.log(median), sigma, max(64, int(2 * total / median)))
    lengths = np.clip(lengths, 5, longest).astype(np.int64)
    return lengths[: np.searchsorted(np.cumsum(lengths), total) + 1]


def make_store(folder: Path, tokenizer: PreTrainedTokenizerFast, lengths: npt.NDArray[np.int64]) -> None:
    """A token store of documents of these lengths, every hundredth of them for validation."""
    random = np.random.default_rng(2)
    ordinary = len(tokenizer) - len(SPECIAL)
    shares = 1 / (np.arange(ordinary) + 2.7)  # Zipf's law with Mandelbrot's shift
    cumulative = np.cumsum(shares) / shares.sum()
    drawn = np.searchsorted(cumulative, random.random(int(lengths.sum()))).clip(max=ordinary - 1)
    ids = (drawn + len(SPECIAL)).astype(np.uint32)
    begins_word = random.random(len(ids)) < 0.8
    folder.mkdir(parents=True)
    writer, begin = StoreWriter(folder, tokenizer), 0
    for number, length in enumerate(lengths.tolist()):
        part = slice(begin, begin + length)
        split = "validation" if number % 100 == 0 else "train"
        writer.add(split, Encoded(ids[part], begins_word[part], np.array([length])), 0)
        begin += length
    writer.finish({"made": "by a benchmark"}, {"empty_documents": 0, "bad_text_documents": 0})


def _bert(layers: int, width: int, heads: int) -> BertConfig:
    return BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width
    )


def model_configs() -> Mapping[str, PreTrainedConfig]:
    """What is trained, by name: fmlm's BERTs, and two models of other shapes."""
    presets = {
        name: _bert(preset.layers, preset.hidden, preset.heads)
        for name, preset in PRESETS.items()
        if preset.family == "bert"
    }
    return {**presets, "bert-6x384": _bert(6, 384, 12), "modernbert-base": ModernBertConfig()}


def make_models(folder: Path) -> None:
    """Each model's configuration, all values written out."""
    for name, config in model_configs().items():
        (folder / name).mkdir(parents=True)
        config.to_json_file(folder / name / "config.json", use_diff=False)


def main(folder: Path, texts: Sequence[str]) -> None:
    """Make the stores of these texts, and the configurations."""
    tokenizer = make_tokenizer(folder / "tokenizer")
    if "full" in texts:
        make_store(folder / "full", tokenizer, log_normal_lengths(150, 1.0, 4000, TOKENS))
    if "real" in texts:
        make_store(folder / "real", tokenizer, log_normal_lengths(40, 0.7, LONGEST_REAL, TOKENS // 4))
    make_models(folder / "models")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
