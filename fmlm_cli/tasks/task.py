"""What a labelled set is: a task, its examples, and the splits that belong together."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

import numpy as np
import numpy.typing as npt

from fmlm_cli.errors import UserError
from fmlm_cli.storage import sha256_of_json

_SHOWN = 10  # labels in a message


@dataclass(frozen=True)
class Task:
    """What is to be told of a text or of a pair of texts.

    `labels`: the names of the classes in order of index; none for regression. `metrics`: the measures
    computed, names in `METRICS`; `score`: those of them whose mean is the task's score. `pair`: whether
    examples are two texts. `bounds`: the least and the greatest score that there is, to which predictions are
    clipped.
    """

    name: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    score: tuple[str, ...]
    pair: bool
    bounds: tuple[float, float] | None = None

    @property
    def regression(self) -> bool:
        """Whether scores are predicted, not classes."""
        return not self.labels


@dataclass(frozen=True, eq=False)
class Examples:
    """One split of n examples.

    `first`, `second`: n texts each, as they stand in the file; `second` is None where a task has no pairs.
    `labels`: int64[n] label indices, float64[n] scores, or None where unlabelled. `ids`: what an index column
    says, else running numbers from 0. `source`: a path or a Hub name, for messages. `unknown`: names of
    labels that are none of the task's; their indices follow on those of the task, and no prediction is ever
    right there.
    """

    first: Sequence[str]
    second: Sequence[str] | None
    labels: npt.NDArray[np.int64] | npt.NDArray[np.float64] | None
    ids: Sequence[str]
    source: str
    unknown: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.first)

    @property
    def pairs(self) -> Iterator[tuple[str, str | None]]:
        """The texts of each example; the second is None where a task has no pairs."""
        return zip(self.first, self.second or repeat(None), strict=False)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of texts, labels and ids, wherever they were read."""
        second = None if self.second is None else list(self.second)
        labels = None if self.labels is None else self.labels.tolist()
        content = [list(self.first), second, labels, list(self.ids)]
        return sha256_of_json([*content, list(self.unknown)] if self.unknown else content)

    def label_names(self, task: Task) -> list[str]:
        """The n labels of a task of classes, by name."""
        assert self.labels is not None
        names = (*task.labels, *self.unknown)
        return [names[int(index)] for index in self.labels]


@dataclass(frozen=True)
class TaskData:
    """A task and its splits.

    `dev`: {"dev": ...}, for MNLI {"matched": ..., "mismatched": ...}. `decides`: the name of the one by
    which epochs and points are chosen. `test`: the same as `dev` with "test", for MNLI also the diagnostic
    set "ax"; empty where there is none, labelled or not. `notes`: sentences that a user should read.
    """

    task: Task
    train: Examples
    dev: Mapping[str, Examples]
    decides: str
    test: Mapping[str, Examples]
    notes: tuple[str, ...]


def check_train(task: Task, train: Examples) -> None:
    """Raise `UserError` for a training set with nothing to tell apart."""
    if len(_distinct(train)) < 2:
        what = "scores are the same" if task.regression else "examples have the same label"
        raise UserError(
            f"{train.source}: all {what}, so there is nothing to learn: give another training set"
        )


def assemble(
    task: Task,
    train: Examples,
    dev: Mapping[str, Examples],
    decides: str,
    test: Mapping[str, Examples],
    notes: Sequence[str],
) -> TaskData:
    """Put splits together; labels that only some of them have make a note.

    Rows whose label is none of the task's (`Examples.unknown`) count as wrong: nothing can be learnt of it,
    and without them a score would be of an easier task. Raises `UserError` for a split that has no other
    rows, and for labels of the task's own that only dev or test have.
    """
    if task.regression:
        return TaskData(task, train, dev, decides, test, tuple(notes))
    of_train = set(train.label_names(task))
    labelled = [split for split in (*dev.values(), *test.values()) if split.labels is not None]
    said = [note for split in labelled if (note := _never_learnt(task, of_train, train.source, split))]
    lacking = [
        f"{split.source}: {_listed(sorted(missing, key=task.labels.index))} only in the training set"
        for split in dev.values()
        if (missing := of_train - set(split.label_names(task)))
    ]
    return TaskData(task, train, dev, decides, test, (*notes, *said, *lacking))


def _never_learnt(task: Task, of_train: set[str], source: str, split: Examples) -> str | None:
    """What there is to say of a split's rows whose labels the training set lacks."""
    names = split.label_names(task)
    rows = Counter(name for name in names if name not in of_train)
    if not rows:
        return None
    lacking = f"{split.source}: {_listed([name for name, _ in rows.most_common()])} not in {source}"
    if not set(rows) <= set(split.unknown):
        raise UserError(f"{lacking}: give a training set with all labels")
    if rows.total() == len(names):
        raise UserError(f"{lacking}, nor is any other label there: give splits of the same labels")
    in_mean = ", and in macro-F1 as classes that are never found" if "macro_f1" in task.score else ""
    return f"{lacking}: {rows.total():,} of {len(names):,} rows, which count as wrong{in_mean}"


def _distinct(examples: Examples) -> set[float]:
    """The labels or scores that occur."""
    return set() if examples.labels is None else set(np.unique(examples.labels).tolist())


def _listed(names: Sequence[str]) -> str:
    """Labels, with the verb that goes with them."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return f"label{'s' * (len(names) > 1)} {shown}{more} {'are' if len(names) > 1 else 'is'}"
