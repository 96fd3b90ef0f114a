"""Text becomes the finished parts of a shard, from wherever an earlier call has come to."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from typing import Any

from fmlm_cli.corpus.store.making.parts import PART_CHARACTERS, PartMaker
from fmlm_cli.corpus.store.making.shards import PARTS, Shard
from fmlm_cli.corpus.store.making.workers import Job, made_parts, most_workers
from fmlm_cli.corpus.text.corpora import Corpora
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.events import Emit, Progress

_TICK = 0.2  # seconds between two reports of progress


@dataclass(frozen=True)
class Place:
    """Where reading has come to. The journal has it of the end of each part.

    `corpus`, `source`: which, and which of its parts. `read`: documents of that one. `before`: counters when
    it was begun, of all that was read. `number`: documents of the corpus before it.
    """

    corpus: str = "train"
    source: int = 0
    read: int = 0
    before: Mapping[str, int] | None = None
    number: int = 0


def encode(
    shard: Shard, corpora: Corpora, pipeline: str, dtype: str, workers: int | None, emit: Emit
) -> None:
    """Encode what the shard lacks of its documents; it is complete then.

    `pipeline`: the encoder's. `dtype`: of ids, by its name. What is finished stays, whatever ends this.
    """
    maker = PartMaker(shard.root / PARTS, pipeline, dtype, shard.plan.request["dedup"] == "near")
    reading = _Reading(shard, corpora, emit)
    with closing(made_parts(maker, reading.jobs(), workers or most_workers())) as made:
        for place, entry in made:
            shard.add({"part": entry, "place": vars(place)})
    shard.finish(asdict(reading.total))


class _Reading:
    """Reads documents, and cuts them into jobs, from the end of a shard's last part on."""

    def __init__(self, shard: Shard, corpora: Corpora, emit: Emit) -> None:
        self._plan, self._emit = shard.plan, emit
        self._corpora = {"train": corpora.train}
        if corpora.validation is not None:
            self._corpora["validation"] = corpora.validation
        self._parts = len(shard.entries)
        self._first = _place_of(shard.entries[-1]) if shard.entries else Place()
        self._at = self._first  # of what is being read, how far its counters tell
        self._stats = ReadStats()
        self._size = sum(corpus.size for corpus in self._corpora.values())
        self._begin, self._last, self._read_before = perf_counter(), 0.0, self.total.text_bytes

    @property
    def total(self) -> ReadStats:
        """Counters of all that has been read."""
        before = self._at.before or vars(ReadStats())
        return ReadStats(**{name: before[name] + value for name, value in vars(self._stats).items()})

    def jobs(self) -> Iterator[Job[Place]]:
        """The documents that are this shard's."""
        corpora = list(self._corpora)
        for corpus in corpora[corpora.index(self._first.corpus) :]:
            texts: list[str] = []
            characters = 0
            for text in self._own(corpus):
                texts.append(text)
                characters += len(text)
                if characters >= PART_CHARACTERS:
                    yield self._job(texts)
                    texts, characters = [], 0
            if texts:
                yield self._job(texts)
        self._emit(Progress("tokenizing", self._size, self._size, "bytes"))

    def _job(self, texts: list[str]) -> Job[Place]:
        self._parts += 1
        place = replace(self._at, read=self._stats.documents)
        return Job(f"part-{self._parts - 1:06d}.arrow", texts, place)

    def _own(self, corpus: str) -> Iterator[str]:
        """This shard's documents of a corpus."""
        here = self._first if corpus == self._first.corpus else Place(corpus)
        of, rest = self._plan.of, self._plan.number - 1
        number, skip = here.number, here.read
        for source, part in list(enumerate(self._corpora[corpus].parts))[here.source :]:
            before = asdict(self.total) if here.before is None or source > here.source else here.before
            stats = ReadStats()
            self._at, self._stats = Place(corpus, source, 0, before, number), stats
            for text in part.documents(stats):
                read = stats.documents
                if read > skip and (number + read - 1) % of == rest:
                    yield text
                if perf_counter() - self._last > _TICK:
                    self.tell()
            number, skip = number + stats.documents, 0

    def tell(self) -> None:
        """Tell how far it has come."""
        self._last, total = perf_counter(), self.total
        speed = (total.text_bytes - self._read_before) / 1e6 / max(self._last - self._begin, 1e-9)
        details = {"documents": f"{total.documents:,}", "MB/s": f"{speed:,.1f}"}
        self._emit(Progress("tokenizing", total.disk_bytes, self._size, "bytes", details))


def _place_of(entry: Mapping[str, Any]) -> Place:
    return Place(**entry["place"])
