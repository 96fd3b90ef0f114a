"""What tests share: generated English-like text, two small tokenizers, and token stores made of them.

Heavy libraries are imported where they are used, so that tests without them start at once.
"""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

from tests.environment import settle

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_TEXT = (
    "the of and to a in is that it was for on are as with his they at be this from have or by one had not "
    "but "
    "what all were when we there can an your which their said if do will each about how up out them then she "
    "many some so these would other into has more her two like him see time could no make than first been "
    "its "
    "who now people my made over did down only way find use may water long little very after words called "
    "just "
    "where most know walking walked running runner quickly slowly reading writer writing unhappy happiness "
    "children station mountain river yellow evening morning library kitchen window teacher question answer "
    "travelling traveller gardener garden seventeen beautiful understand understanding remember remembered"
)


def pytest_configure(config: pytest.Config) -> None:
    """Before any module of tests is imported, and with it what reads the environment."""
    caches = tempfile.mkdtemp(prefix="fmlm-tests-")
    atexit.register(shutil.rmtree, caches, ignore_errors=True)
    settle(os.environ, caches, gpu=config.getoption("markexpr") == "gpu")
    _hear_signals()


def _hear_signals() -> None:
    """Hear what whoever started the tests has had them ignore: a shell Ctrl-C of what is in the background,
    nohup a closing terminal.
    """
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where none is seen."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU (pytest -m gpu)")


SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"

MakeStore = Callable[..., Path]

# Time limits would measure whatever else the machine does. Examples are the same in every run of the suite, so
# that a failure is of the change that is tested; `make test-slow` looks for new ones (profile "explore").
settings.register_profile("explore", deadline=None, print_blob=True)
settings.register_profile("fmlm", deadline=None, derandomize=True)
settings.load_profile("fmlm")


def generate_documents(count: int = 300, *, seed: int = 7) -> list[str]:
    """English-like documents of 5 to 400 words: Zipf frequencies, and every word has favourite followers."""
    rng = np.random.default_rng(seed)
    vocabulary = _TEXT.split()
    size = len(vocabulary)
    frequency = 1 / np.arange(1, size + 1)
    followers = rng.choice(size, (size, 3), p=frequency / frequency.sum())
    lengths = np.clip(rng.lognormal(3.6, 1.0, count), 5, 400).astype(int)
    documents = []
    for length in lengths:
        free = rng.choice(size, length, p=frequency / frequency.sum())
        favourite, follows = rng.integers(0, 3, length), rng.random(length) < 0.7
        words, word = [], int(free[0])
        for place in range(length):
            word = int(followers[word, favourite[place]]) if follows[place] else int(free[place])
            words.append(vocabulary[word])
        sentences = [words[begin : begin + 9] for begin in range(0, length, 9)]
        documents.append(" ".join(" ".join(sentence).capitalize() + "." for sentence in sentences))
    return documents


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """300 generated documents."""
    return generate_documents()


@pytest.fixture(scope="session")
def wordpiece_tokenizer(documents: list[str]) -> "PreTrainedTokenizerFast":
    """BERT's kind, lower-casing, some hundred tokens, small enough that words fall into several."""
    from fmlm_cli.corpus.tokenizer.learning import train_tokenizer

    return train_tokenizer("wordpiece", documents, vocab_size=160, lowercase=True)


@pytest.fixture(scope="session")
def bpe_tokenizer(documents: list[str]) -> "PreTrainedTokenizerFast":
    """RoBERTa's kind, 400 tokens."""
    from fmlm_cli.corpus.tokenizer.learning import train_tokenizer

    return train_tokenizer("bpe", documents, vocab_size=400, lowercase=False)


@pytest.fixture(scope="session")
def wordpiece_folder(
    wordpiece_tokenizer: "PreTrainedTokenizerFast", tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The WordPiece tokenizer, saved."""
    from fmlm_cli.corpus.tokenizer.loading import save_tokenizer

    folder = tmp_path_factory.mktemp("wordpiece") / "tokenizer"
    save_tokenizer(wordpiece_tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def small_encoder(
    wordpiece_tokenizer: "PreTrainedTokenizerFast", tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A small random masked LM of BERT's kind, 64 positions, in a Hugging Face folder. Not to be written to."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from fmlm_cli.corpus.tokenizer.loading import save_tokenizer
    from fmlm_cli.hub import quiet

    folder = tmp_path_factory.mktemp("checkpoints") / "encoder"
    config = BertConfig(
        vocab_size=len(wordpiece_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForMaskedLM(config).save_pretrained(folder)
    save_tokenizer(wordpiece_tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def make_store(wordpiece_tokenizer: "PreTrainedTokenizerFast") -> MakeStore:
    """`make_store(folder, train, validation=(), tokenizer=wordpiece)`: write these texts as a store."""
    from fmlm_cli.corpus.store.writing import StoreWriter
    from fmlm_cli.corpus.tokenizer.encoding import Encoder

    def make(
        folder: Path, train: Iterable[str], validation: Iterable[str] = (), tokenizer: Any = None
    ) -> Path:
        tokenizer = tokenizer or wordpiece_tokenizer
        folder.mkdir(parents=True)
        writer = StoreWriter(folder, tokenizer)
        for split, texts in (("train", list(train)), ("validation", list(validation))):
            writer.add(split, Encoder(tokenizer)(texts), sum(len(text.encode()) for text in texts))
        writer.finish({"made": "by a test"}, {"empty_documents": 0, "bad_text_documents": 0})
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_store(make_store: MakeStore, documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 270 training and 30 validation documents, WordPiece. Not to be written to."""
    return make_store(tmp_path_factory.mktemp("stores") / "tiny", documents[30:], documents[:30])


@pytest.fixture(scope="session")
def tiny_bpe_store(
    make_store: MakeStore,
    documents: list[str],
    bpe_tokenizer: "PreTrainedTokenizerFast",
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The same with byte-level BPE, whose ids need two bytes. Not to be written to."""
    folder = tmp_path_factory.mktemp("stores") / "tiny-bpe"
    return make_store(folder, documents[30:], documents[:30], bpe_tokenizer)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The corpora and vocabularies beside the checkout; skips where they are not."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    return SHARED


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What stands in a circle stays in memory: Python does not look for any."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
