"""A data set of the Hugging Face Hub, streamed as it stood at one commit."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from fmlm_cli import hub
from fmlm_cli.corpus.text.documents import Found, ReadOptions, documents_of, found_in_columns
from fmlm_cli.corpus.text.source import ReadStats, Source
from fmlm_cli.errors import UserError, shortened
from fmlm_cli.events import counted, data_size
from fmlm_cli.readers.columnar import reached

HUB = "hub:"
_TRAIN = "train"
_ROWS = 512  # in a batch
_SHOWN = 300  # characters of what a library says


@dataclass(frozen=True)
class HubSet(Source):
    """The rows of a split. `shards`: in how many pieces the Hub has it; `only`: the one that is meant."""

    repository: str
    config: str | None
    commit: str
    shards: int
    bytes_on_hub: int
    options: ReadOptions
    only: int | None = None

    @classmethod
    def find(cls, name: str, options: ReadOptions) -> "HubSet":
        """What `hub:OWNER/NAME[:CONFIG]` stands for. Raises `UserError`, without a network at once."""
        repository, _, config = name.removeprefix(HUB).partition(":")
        try:
            validate_repo_id(repository)
        except HFValidationError:
            raise UserError(
                f"{name}: not a name that the Hub could have; write hub:OWNER/NAME[:CONFIG]"
            ) from None
        if why := hub.out_of_reach():
            raise UserError(f"{name} cannot be read: {why}; give files, or try again with a network")
        commit, size = _asked_for(name, repository, options.revision)
        found = cls(repository, config or None, commit, 1, size, options)
        return replace(found, shards=found._stream().num_shards)

    @property
    def name(self) -> str:
        """As a user writes it."""
        return f"{HUB}{self.repository}" + (f":{self.config}" if self.config else "")

    @property
    def split(self) -> str:
        """The one that is read."""
        return self.options.split or _TRAIN

    @property
    def size(self) -> int:
        """Bytes of all its files on the Hub, or the even share of a piece; for want of better."""
        return self.bytes_on_hub if self.only is None else self.bytes_on_hub // self.shards

    @property
    def parts(self) -> "list[HubSet]":
        """The pieces in which the Hub has it: files, mostly."""
        if self.only is not None:
            return [self]
        return [replace(self, only=piece) for piece in range(self.shards)]

    def documents(self, stats: ReadStats) -> Iterator[str]:
        """The texts of the rows. Raises `UserError` (row, remedy), also where the network fails meanwhile."""
        before = stats.disk_bytes
        for part in self.parts:
            yield from documents_of(part._found(stats), self.options, stats, part._place)
        stats.disk_bytes = before + self.size

    def identity(self) -> list[dict[str, Any]]:
        """Its name, and the commit, which stands for the contents."""
        piece = {} if self.only is None else {"piece": [self.only, self.shards]}
        named = {"name": self.name, "split": self.split, "commit": self.commit}
        return [named | piece]

    def describe(self) -> list[str]:
        """What is read, and as of when."""
        pieces = counted(self.shards, "piece")
        return [
            f"streaming {self.name}, split {self.split}, commit {self.commit[:12]}: {pieces} of a data set "
            f"of {data_size(self.bytes_on_hub)}"
        ]

    def _stream(self) -> Any:
        stream = _streamed(self.repository, self.config, self.commit, self.split)
        return stream if self.only is None else stream.shard(self.shards, self.only)

    def _found(self, stats: ReadStats) -> Iterator[Found]:
        """Of one piece. How far its file has been read nobody says: the bytes of rows stand in for it."""
        batches = iter(self._stream().with_format("arrow").iter(_ROWS))
        row, end = 1, stats.disk_bytes + self.size
        while (batch := self._next(batches)) is not None:
            columns = self.options.fields.of_schema(batch.schema, self.name)
            arrays = [reached(batch, column).combine_chunks() for column in columns]
            yield from found_in_columns(arrays, row, self.options)
            row += len(batch)
            stats.disk_bytes = min(stats.disk_bytes + sum(array.nbytes for array in arrays), end)
        stats.disk_bytes = end

    def _next(self, batches: Iterator[pa.Table]) -> pa.Table | None:
        try:
            with hub.quiet():
                return next(batches, None)
        except Exception as error:  # datasets, its readers and the network raise kinds of their own
            raise UserError(
                f"{self.name}: reading failed ({_said(error)}); see to the network, then start again"
            ) from error

    def _place(self, row: int) -> str:
        piece = (
            f", piece {self.only + 1} of {self.shards}" if self.only is not None and self.shards > 1 else ""
        )
        return f"{self.name}{piece}, row {row}"


def _asked_for(name: str, repository: str, revision: str | None) -> tuple[str, int]:
    """The commit of a revision, and the bytes of its files."""
    try:
        with hub.quiet():
            info = HfApi().dataset_info(repository, revision=revision, files_metadata=True)
    except Exception as error:  # huggingface_hub and the network raise kinds of their own
        refused = hub.refusal(error, repository, revision, "data set")
        raise refused or UserError(f"{name} could not be had from the Hub: {_said(error)}") from error
    return str(info.sha), sum(file.size or 0 for file in info.siblings or ())


@functools.lru_cache(maxsize=8)
def _streamed(repository: str, config: str | None, commit: str, split: str) -> Any:
    """The data set as an iterable that loads as it goes."""
    import datasets  # noqa: PLC0415, half a second that nobody else is to wait for

    try:
        with hub.quiet():
            return datasets.load_dataset(repository, config, split=split, revision=commit, streaming=True)
    except Exception as error:  # of the name of a configuration or split, or of the network
        raise UserError(
            f"{HUB}{repository} cannot be streamed: {_said(error)}; see to its configuration "
            "(hub:OWNER/NAME:CONFIG) and to --split"
        ) from error


def _said(error: Exception) -> str:
    """What a library says, in one line."""
    return shortened(str(error) or type(error).__name__, _SHOWN).rstrip(".")
