"""Shards: all that was encoded for a store, or every n-th document of it, in a folder of its own.

    SHARD/
      shard.json     sealed: what was asked for, and which shard it is
      tokenizer/     the tokenizer, as Hugging Face saves it
      journal.jsonl  a sealed line for each finished part, in order; the last one says what was read in all
      parts/         see `parts`

The work on a store is its only shard until it is complete. Of a journal counts what is whole: a line that was
cut off, and whatever no line names, has never been.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from fmlm_cli import storage
from fmlm_cli.corpus.store.making.parts import Columns, damage_of, damaged, read_columns, read_tokens
from fmlm_cli.corpus.store.reading import SHARD, TOKENIZER
from fmlm_cli.corpus.tokenizer.literal import Encoded, joined
from fmlm_cli.errors import UserError

FORMAT = 1
PARTS = "parts"
_JOURNAL = "journal.jsonl"

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a shard is made of. `number`: from 1, of `of`. `request`: all that decides the store's contents.

    `sources`: identities of the parts of each corpus. `texts`: what the user has called the text, and that
    for validation. `learnt`: whether the tokenizer
    depends on the text. `replaces`: whether a store that is there was to be replaced.
    """

    request: Mapping[str, Any]
    sources: Mapping[str, Sequence[Any]]
    texts: tuple[str, str] = ("", "")
    number: int = 1
    of: int = 1
    learnt: bool = False
    replaces: bool = False

    def as_json(self) -> dict[str, Any]:
        """For `Plan(**value)`."""
        return {**vars(self), "texts": list(self.texts)}


@dataclass
class Shard:
    """A shard, complete or not. `entries`: of its finished parts. `read`: counters, once all was read."""

    PLAN: ClassVar[str] = "shard.json"
    root: Path
    plan: Plan
    entries: list[Entry] = field(default_factory=list)
    read: Mapping[str, int] | None = None

    @classmethod
    def begin(cls, root: Path, plan: Plan) -> "Shard":
        """One without parts; its tokenizer is there already."""
        (root / PARTS).mkdir()
        shard = cls(root, plan)
        shard.keep(0)
        shard.write_plan()
        return shard

    @classmethod
    def open(cls, root: Path) -> "Shard":
        """Raises `UserError` for a folder that is none, or a damaged one."""
        path = root / cls.PLAN
        if storage.kind_of(root) != SHARD.name or not path.is_file():
            if not root.exists():
                raise UserError(f"no such shard: {root} does not exist; check the name")
            raise UserError(f"{root} is no shard of a token store: make one with `fmlm tokenize --shard I/N`")
        content = storage.read_sealed(path)
        if content.pop("format") != FORMAT:
            raise UserError(f"{root} was made by another fmlm: tokenize the text again, or update fmlm")
        shard = cls(root, Plan(**{**content, "texts": tuple(content["texts"])}))
        for line in _whole_lines(root / _JOURNAL):
            if "read" in line:
                shard.read = line["read"]
            else:
                shard.entries.append(line)
        return shard

    def write_plan(self) -> None:
        """Say anew what it is made of."""
        storage.write_sealed(self.root / self.PLAN, {"format": FORMAT, **self.plan.as_json()})

    @property
    def documents(self) -> int:
        """Documents that are encoded."""
        return sum(entry["part"]["documents"] for entry in self.entries)

    def add(self, entry: Entry) -> None:
        """Note that a part is finished."""
        self.entries.append(entry)
        self._note(entry)

    def finish(self, read: Mapping[str, int]) -> None:
        """Note that all was read; with these counters."""
        self.read = read
        self._note({"read": read})

    def _note(self, line: Mapping[str, Any]) -> None:
        with (self.root / _JOURNAL).open("a", encoding="utf-8") as file:
            file.write(_sealed(line))

    def keep(self, number: int) -> None:
        """Keep the first parts, and nothing that came later or is half-written."""
        if number < len(self.entries):
            self.read = None
        del self.entries[number:]
        lines = [*self.entries, *([{"read": self.read}] if self.read else [])]
        journal, text = self.root / _JOURNAL, "".join(map(_sealed, lines))
        if not journal.is_file() or journal.read_bytes() != text.encode():  # the disk may be full
            storage.write_text(journal, text)
        names = {entry["part"]["name"] for entry in self.entries}
        for path in (self.root / PARTS).iterdir():
            if path.name not in names:
                path.unlink()

    def undamaged(self) -> int:
        """How many parts, from the first on, are as they were written."""
        with ThreadPoolExecutor() as threads:
            found = threads.map(
                damage_of, map(self._path, self.entries), [entry["part"] for entry in self.entries]
            )
            return sum(1 for _ in itertools.takewhile(lambda damage: damage is None, found))

    def check(self) -> None:
        """Raises `UserError` for a part that is not as it was written."""
        whole = self.undamaged()
        if whole < len(self.entries):
            entry = self.entries[whole]
            raise damaged(self._path(entry), damage_of(self._path(entry), entry["part"]) or "")

    def columns(self, corpus: str) -> Columns:
        """What is decided by, of the documents of a corpus."""
        return Columns.joined([read_columns(path) for path in self._paths(corpus)])

    def tokens(self, corpus: str) -> "Documents":
        """The documents of a corpus."""
        return Documents(some for path in self._paths(corpus) for some in read_tokens(path))

    def _paths(self, corpus: str) -> list[Path]:
        return [self._path(entry) for entry in self.entries if entry["place"]["corpus"] == corpus]

    def _path(self, entry: Entry) -> Path:
        return self.root / PARTS / str(entry["part"]["name"])

    @property
    def tokenizer(self) -> Path:
        """The folder of its tokenizer."""
        return self.root / TOKENIZER


class Documents:
    """Encoded documents, taken so many at a time from what holds them as it comes."""

    def __init__(self, some: Iterator[Encoded]) -> None:
        self._some = some
        self._left = joined([])

    def take(self, number: int) -> Encoded:
        """The next documents; there have to be so many."""
        parts: list[Encoded] = []
        while number:
            if not len(self._left.lengths):
                self._left = next(self._some)
            end = min(number, len(self._left.lengths))
            parts.append(self._left.part(0, end))
            self._left = self._left.part(end, len(self._left.lengths))
            number -= end
        return joined(parts)


def _sealed(line: Mapping[str, Any]) -> str:
    return json.dumps({**line, "sealed": storage.sha256_of_json(line)}) + "\n"


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal up to the first that is not as it was written."""
    if not path.is_file():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            seal = line.pop("sealed")
        except (ValueError, KeyError, AttributeError, TypeError):
            return
        if seal != storage.sha256_of_json(line):
            return
        yield line


def check_together(shards: Sequence[Shard]) -> list[Shard]:
    """The shards of one store in order. Raises `UserError` where they are not all there, or of several."""
    first = shards[0]
    by_number: dict[int, Shard] = {}
    for shard in shards:
        plan = shard.plan
        different = [
            name
            for name in {**first.plan.request, **plan.request}
            if first.plan.request.get(name) != plan.request.get(name)
        ]
        if plan.of != first.plan.of:
            different.append(f"numbers of shards ({plan.of}, not {first.plan.of})")
        if different:
            raise UserError(
                f"{shard.root} was made with other {' and '.join(different)} than {first.root}: "
                "tokenize its share of the text again"
            )
        if plan.number in by_number:
            raise UserError(
                f"{shard.root} and {by_number[plan.number].root} are both shard {plan.number}/{plan.of}: "
                "name one of them"
            )
        by_number[plan.number] = shard
    missing = [str(number) for number in range(1, first.plan.of + 1) if number not in by_number]
    if missing:
        raise UserError(
            f"shard {', '.join(missing)} of {first.plan.of} is missing: make it with `fmlm tokenize --shard "
            f"{missing[0]}/{first.plan.of}`, and name all of them"
        )
    return [by_number[number] for number in sorted(by_number)]
