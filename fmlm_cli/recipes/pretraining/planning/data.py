"""From the stores that the settings name to one endless stream of rows."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fmlm_cli import storage
from fmlm_cli.config import PretrainSettings, TokenizeSettings
from fmlm_cli.corpus.rows.mixture import Mixture
from fmlm_cli.corpus.rows.order import RowOrder, order_of
from fmlm_cli.corpus.rows.packing import PLANNING, Packing
from fmlm_cli.corpus.rows.reading import Int64s, RowReader
from fmlm_cli.corpus.store.reading import SPLITS, TokenStore
from fmlm_cli.corpus.tokenizer import loading as tokenizers
from fmlm_cli.errors import UserError
from fmlm_cli.events import Emit
from fmlm_cli.recipes.shared.strategy import needs_collocations
from fmlm_cli.recipes.tokenize import make_store


@dataclass(frozen=True)
class NamedStore:
    """A store as the settings name it.

    `weight`: among the data, None by its rows; of a replayed one, its share of all rows.
    """

    path: str
    weight: float | None
    replay: bool = False


@dataclass(frozen=True)
class OpenedStore:
    """A named store that was opened."""

    store: TokenStore
    weight: float | None
    replay: bool


@dataclass(frozen=True)
class RowSource:
    """A store's training rows, their order, and the share that they have of all rows."""

    store: TokenStore
    reader: RowReader
    order: RowOrder
    share: float
    replay: bool


@dataclass(frozen=True)
class RowStream:
    """The rows of all sources, mixed by their shares; `first`: where in it the run begins."""

    sources: tuple[RowSource, ...]
    seed: int
    first: int = 0

    @cached_property
    def mixture(self) -> Mixture:
        """Which source gives the row at a position."""
        return Mixture([source.share for source in self.sources], self.seed)

    @property
    def rows(self) -> int:
        """Rows of all sources but the replayed ones: what a pass over the data sees."""
        return sum(len(source.reader) for source in self.sources if not source.replay)

    @property
    def data_share(self) -> float:
        """Share of the rows that is not replayed."""
        return sum(source.share for source in self.sources if not source.replay)

    @cached_property
    def tokens_per_row(self) -> float:
        """Tokens of a row, padding not counted, on average over the sources."""
        return sum(
            source.share * source.reader.plan.used / len(source.reader.plan) for source in self.sources
        )

    def steps_of_passes(self, passes: float, draws: int) -> int:
        """Steps of `draws` rows that make so many passes over the data; what is replayed comes on top."""
        return max(1, math.ceil(passes * self.rows / self.data_share / draws - 1e-9))

    def steps_of_tokens(self, tokens: float, rows: int) -> int:
        """Steps that forward so many tokens, of `rows` rows each, masked alike or not."""
        return max(1, math.ceil(tokens / (rows * self.tokens_per_row)))

    @property
    def contents(self) -> list[list[Any]]:
        """Fingerprint and share of every source."""
        return [[source.store.fingerprint, source.share] for source in self.sources]

    @property
    def identity(self) -> str:
        """Stands for every row at every position."""
        parts = [
            [
                s.store.identity("train"),
                s.share,
                s.reader.subset,
                s.reader.plan.packing,
                s.reader.sequence_length,
            ]
            for s in self.sources
        ]
        return storage.sha256_of_json([PLANNING, self.seed, parts])

    def at(self, position: Int64s) -> Iterator[tuple[int, Int64s, Int64s]]:
        """The rows at these positions, counted from the run's first, source by source.

        Of each its number, and int64[rows] twice: indices of rows, and how often each was drawn before.
        """
        stream, place = self.mixture.locate(self.first + position)
        for number in np.unique(stream).tolist():
            index, epoch = self.sources[number].order.locate(place[stream == number])
            yield number, index, epoch

    def passes(self, draws: int) -> list[float]:
        """How often the first `draws` rows of the run see each row of every source."""
        before, after = self.mixture.counts(self.first), self.mixture.counts(self.first + draws)
        return [(a - b) / len(s.reader) for b, a, s in zip(before, after, self.sources, strict=True)]


def with_number(text: str) -> tuple[str, float | None]:
    """`PATH:NUMBER` as path and number; a path that exists as it stands has none."""
    head, colon, tail = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, None
    try:
        return head, float(tail)
    except ValueError:
        return text, None


def name_stores(settings: PretrainSettings) -> tuple[NamedStore, ...]:
    """The stores that the settings name, replayed ones last. `UserError` for weights that cannot be."""
    named = [with_number(text) for text in settings.data.stores]
    if settings.text.sources and named:
        raise UserError("data.stores and text.sources exclude each other: give stores or text")
    if not settings.text.sources and not named:
        raise UserError("no data: give --data STORE, a folder made by `fmlm tokenize`")
    weights = [weight for _, weight in named]
    if None in weights and any(weight is not None for weight in weights):
        raise UserError(f"{named[weights.index(None)][0]} has no weight, and others have: write PATH:WEIGHT")
    for path, weight in named:
        if weight is not None and not 0 < weight < float("inf"):
            raise UserError(f"{path}: the weight of a store must be above 0, not {weight:g}")
    places = [Path(path).resolve() for path, _ in named]
    for (path, _), place in zip(named, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"--data {path} is given twice: give it once, as STORE:WEIGHT to weigh more")
    replay = [with_number(text) for text in settings.data.replay]
    for path, share in replay:
        if share is None or not 0 < share < 1:
            raise UserError(f"--replay {path}: write STORE:SHARE, with a share of all rows between 0 and 1")
    if sum(share or 0 for _, share in replay) >= 1:
        raise UserError("the shares of --replay come to 1 or more: nothing would be left of the data")
    data = [NamedStore(path, weight) for path, weight in named]
    return (*data, *(NamedStore(path, share, replay=True) for path, share in replay))


def check_text(settings: PretrainSettings, *, from_scratch: bool) -> None:
    """Refuse text, or what goes with it, where a store has to be given."""
    text = settings.text
    if (text.add_tokens or text.extend_vocab) and not text.sources:
        raise UserError(
            "new tokens need text to be tokenized with them: give the text as --data, or make the store with "
            "`fmlm tokenize --add-tokens` or `--extend-vocab`"
        )
    if text.sources and from_scratch:
        raise UserError("pre-training from scratch takes a store: make it with `fmlm tokenize`")


def open_store(named: NamedStore) -> OpenedStore:
    """The store, its hashes not yet checked. `UserError` where it does not exist or is damaged."""
    return OpenedStore(TokenStore.open(named.path, verify=()), named.weight, named.replay)


def check_together(opened: Sequence[OpenedStore]) -> None:
    """Refuse stores whose ids are not among the first one's."""
    for second in opened[1:]:
        check_same_tokens(opened[0].store, second.store)


def check_same_tokens(store: TokenStore, other: TokenStore) -> None:
    """Refuse a second store whose ids are not among the first one's."""
    theirs = other.manifest["tokenizer"]
    if not tokenizers.extends(store.tokenizer, theirs["fingerprint"], theirs["vocabulary"]):
        raise UserError(
            f"{other.root} was made with another tokenizer than {store.root}: tokenize its text with "
            f"`--tokenizer {store.root / 'tokenizer'}`"
        )


def store_of_text(settings: PretrainSettings) -> Path:
    """Where the text's store lies: beside the run."""
    assert settings.out is not None
    run = Path(settings.out) if Path(settings.out).name not in ("", "..") else Path(settings.out).resolve()
    return run.with_name(f"{run.name}.store")


def make_store_of_text(settings: PretrainSettings, tokenizer: Path, emit: Emit) -> Path:
    """Tokenize the text into a store; its folder. One that is there serves if nothing has changed."""
    request = TokenizeSettings(
        **settings.text.model_dump(),
        out=str(store_of_text(settings)),
        tokenizer=str(tokenizer),
        pmi=needs_collocations(settings.masking.strategy),
    )

    # Of all its stores alike the run tells itself where they do not fit the tokenizer.
    return make_store(request, renew=True, tell_misfit=False, emit=emit)


def verify_stores(opened: Sequence[OpenedStore]) -> None:
    """Check the hashes of all stores."""
    for opened_store in opened:
        opened_store.store.verify(SPLITS)


def make_stream(
    opened: Sequence[OpenedStore], settings: PretrainSettings, packing: Packing, sequence_length: int
) -> RowStream:
    """The stream of rows; of data without weights every row comes equally often."""
    readers = [
        RowReader(
            opened_store.store,
            "train",
            packing=packing,
            sequence_length=sequence_length,
            max_rows=None if opened_store.replay else settings.data.max_rows,
            subset_seed=settings.data.subset_seed,
        )
        for opened_store in opened
    ]
    replayed = sum(opened_store.weight or 0 for opened_store in opened if opened_store.replay)
    weights = [
        opened_store.weight or len(reader) for opened_store, reader in zip(opened, readers, strict=True)
    ]
    data = sum(
        weight for opened_store, weight in zip(opened, weights, strict=True) if not opened_store.replay
    )
    sources = [
        RowSource(
            opened_store.store,
            reader,
            order_of(reader, settings.seed),
            weight if opened_store.replay else weight / data * (1 - replayed),
            opened_store.replay,
        )
        for opened_store, reader, weight in zip(opened, readers, weights, strict=True)
    ]
    return RowStream(tuple(sources), settings.seed)
